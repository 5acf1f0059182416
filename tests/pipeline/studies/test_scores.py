"""Scores, published figures and curves of studies, each against plain code."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.studies.classical import QUADRANTS, predict_out_of_fold, quadrants_of
from mvemo.pipeline.studies.comparison import Compared, score
from mvemo.pipeline.studies.extra_tables import confusion_table, smoothed, stable_from
from mvemo.pipeline.studies.predictors import FoldPredictions, RowPredictor, StudyRow
from mvemo.pipeline.studies.study import Study
from mvemo.pipeline.studies.study_file import published


def made(classes, labels, n_groups):
    clips = (
        Clip(str(i), f"{i}.wav", (classes[label],), f"g{i % n_groups}")
        for i, label in enumerate(labels)
    )
    return Manifest("made", "multiclass", classes, tuple(clips), Path())


def compared(manifest, outputs, folds):
    """The row of given predictions of each run."""
    study = Study(manifest, None, Path())
    runs = tuple(map(FoldPredictions, outputs))
    results = score(manifest, outputs, folds)
    row = StudyRow("", {})
    return Compared(row, RowPredictor(study, None, row), runs, results)


def test_published_figures_are_those_of_the_paper():
    j22 = published()["J22"]
    table_2, table_3, table_4 = (j22[f"table_{i}"] for i in (2, 3, 4))
    assert list(table_2["crnn"].values()) == [0.7683, 0.8106, 0.8692, 0.8825]
    # J22 3.2: at 10 s the improved CNN is 6.56 points above the CNN.
    assert table_2["crnn"]["10"] - table_2["cnn"]["10"] == pytest.approx(0.0656)
    # 3.4: the CNN falls by 11.57 points from training to test.
    assert table_3["cnn"]["training"] - table_3["cnn"]["test"] == pytest.approx(0.1157)
    # 3.5: happiness rises by 7.45 points; each true class sums to one.
    happy = table_4["crnn"]["happy"]["happy"] - table_4["cnn"]["happy"]["happy"]
    assert happy == pytest.approx(0.0745)
    sums = [sum(shares.values()) for net in table_4.values() for shares in net.values()]
    assert sums == pytest.approx([1.0] * 8)
    # 3.6: the RNN is 3.25 above [14].
    assert j22["figure_8"]["rnn"] - j22["figure_8"]["classical"] == pytest.approx(0.0325)


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    p = rng.dirichlet(np.ones(3), 90) + 0.3 * np.eye(3)[labels]
    p /= p.sum(axis=1, keepdims=True)
    folds = np.arange(90) % 3
    q = p.copy()
    p[4] = np.nan
    mask = np.arange(90) != 4
    manifest = made(("a", "b", "c"), labels, 30)
    found = compared(manifest, [p], [folds]).values()
    y_true, y_pred = labels[mask], p[mask].argmax(axis=1)
    of_fold = [folds[mask] == fold for fold in range(3)]
    each = [accuracy_score(y_true[rows], y_pred[rows]) for rows in of_fold]
    assert found["score"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found["sd"] == pytest.approx(np.std(each, ddof=1), abs=1e-12)
    f1 = f1_score(y_true, y_pred, average="macro")
    assert found["F1"] == pytest.approx(f1, abs=1e-12)
    areas = [roc_auc_score(y_true[r], p[mask][r], multi_class="ovr") for r in of_fold]
    assert found["AUC"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["low"] < found["score"] < found["high"]
    assert found["clips"] == 89
    # Of two runs the clips count that both predicted; the deviation is over runs.
    twice = compared(manifest, [q, np.roll(p, 1, axis=1)], [folds, (folds + 1) % 3]).values()
    rolled = np.mean([accuracy_score(y_true[r], (y_pred[r] + 1) % 3) for r in of_fold])
    assert twice["score"] == pytest.approx((found["score"] + rolled) / 2, abs=1e-12)
    assert twice["sd"] == pytest.approx(np.std([found["score"], rolled], ddof=1), abs=1e-12)
    assert twice["clips"] == 89


@pytest.mark.parametrize(
    ("labels", "folds", "share"),
    # Fold 0 sees only class 1 elsewhere, and the other way round: never right.
    [([0, 0, 1, 1], [0, 0, 1, 1], 0.0), ([0, 0, 1, 0], [0, 1, 0, 1], 0.75)],
)
def test_the_baseline_is_of_the_other_folds(labels, folds, share):
    row = compared(made(("a", "b"), labels, 4), [np.full((4, 2), 0.5)], [np.array(folds)])
    assert row.values()["baseline"] == share


def test_the_quadrants_of_the_four_classes():
    signs = quadrants_of(["angry", "Happy", "calm", "sad"])
    assert signs.tolist() == [list(QUADRANTS[n]) for n in ("anger", "happy", "relaxation", "sad")]
    assert len({tuple(row) for row in signs.tolist()}) == 4
    assert quadrants_of(["angry", "happy", "calm"]) is None
    assert quadrants_of(["angry", "happy", "calm", "fear"]) is None


def test_scalers_and_models_never_see_the_fold_they_predict():
    rng = np.random.default_rng(1)
    rows, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    folds = np.arange(40) % 4
    seen = []

    def spy(*given):
        seen.append(given)
        return np.tile([1.0, 0.0], (len(given[2]), 1))

    rows[7] = np.nan
    out = predict_out_of_fold(spy, rows, labels, 2, folds, 0)
    finite = np.arange(40) != 7
    assert np.isnan(out[7]).all()
    assert (out[finite] == [1, 0]).all()
    for fold, (train, classes, test, _) in enumerate(seen):
        kept, tested = ((folds != fold) & finite, (folds == fold) & finite)
        mean, sd = rows[kept].mean(axis=0), rows[kept].std(axis=0)
        np.testing.assert_allclose(train, (rows[kept] - mean) / sd, atol=1e-12)
        assert classes.tolist() == labels[kept].tolist()
        np.testing.assert_allclose(test, (rows[tested] - mean) / sd, atol=1e-12)


def test_confusion_has_the_papers_shares_in_the_order_of_the_classes():
    manifest = made(("calm", "happy", "sad", "angry"), [0, 0, 1, 2, 3], 5)
    results = score(manifest, [np.eye(4)[[0, 1, 1, 2, 3]]], [np.arange(5) % 2])
    table = confusion_table("crnn", results, printed=True)
    first = [cell.value for cell in table.rows[0]]
    assert first[:6] == ["calm", 2, 0.5, 0.5, 0.0, 0.0]
    # J22's quiet row: as quiet, happy, sad, anger.
    assert first[6:] == [0.8793, 0.0295, 0.0278, 0.0634]
    other = confusion_table("crnn", results, printed=False)
    assert not any(column.published for column in other.columns)


def test_a_curve_is_smoothed_by_the_mean_of_what_came_before_and_is_stable_near_its_end():
    assert stable_from([10, 20, 30, 40], [4.0, 2.0, 1.02, 1.0]) == 30
    assert stable_from([10, 20, 30, 40], [4.0, 1.0, 2.0, 1.0]) == 40
    assert stable_from([10], [1.0]) == 10
    for count in (2, 9):
        assert smoothed([4.0, 2.0, 6.0, 0.0], count) == pytest.approx([4.0, 3.0, 4.0, 3.0])
    assert smoothed([]) == []

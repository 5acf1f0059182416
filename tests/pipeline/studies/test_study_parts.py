"""Scores, tables, published figures and pieces of the studies, each against plain code."""

from dataclasses import replace

import numpy as np
import pytest
from study_samples import make_set, tiny_options

from mvemo.extract.nets import build_net
from mvemo.fuse.tasks.registry import task_of
from mvemo.manifests import folds_of, read_manifest, write_folds
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies import predictors
from mvemo.pipeline.studies.class_tables import confusion_table
from mvemo.pipeline.studies.classical import QUADRANTS, predict_out_of_fold, quadrants_of
from mvemo.pipeline.studies.iterations import smoothed, stable_from
from mvemo.pipeline.studies.predictors import NetPredictor, predict
from mvemo.pipeline.studies.result import Column, Table, cell_text
from mvemo.pipeline.studies.runner import grid_row
from mvemo.pipeline.studies.scores import Labels, baseline_score, score
from mvemo.pipeline.studies.study import open_study
from mvemo.pipeline.studies.study_file import built_in, published


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
    for net in table_4.values():
        for shares in net.values():
            assert sum(shares.values()) == pytest.approx(1.0)
    # 3.6: the RNN is 3.25 above [14].
    assert j22["figure_8"]["rnn"] - j22["figure_8"]["classical"] == pytest.approx(0.0325)


def test_chosen_rates_are_those_of_the_paper_profile(tmp_path):
    study = open_study(make_set(tmp_path), load_settings("paper"), work=tmp_path)
    file = built_in()["optimizers"]
    for net, chosen in (("music1d", "Adam"), ("music2d", "SGD"), ("c3d", "SGD"), ("i3d", "Adam")):
        row = grid_row(study, file, {"net": net, "optimizer": chosen}, {})
        (plan,), own = row.plans, study.settings.nets[net]
        assert (plan.train.lr, plan.train.momentum) == (own.train.lr, own.train.momentum)


def test_a_table_puts_published_columns_behind_a_bar():
    table = Table(
        "t",
        "A title",
        (Column("net"), Column("acc", "percent"), Column("J22", "percent", published=True)),
        (("cnn", 0.5, 0.6919), ("crnn", float("nan"), None)),
    )
    lines = table.text().splitlines()
    assert lines[0] == "A title"
    bar = lines[1].index("| published, other data")
    assert lines[2][bar] == lines[4][bar] == "|"
    assert lines[4].split() == ["cnn", "50.00", "|", "69.19"]
    assert lines[5].split() == ["crnn", "-", "|", "-"]
    assert table.csv().splitlines() == [
        'net,acc,"J22 (published, other data)"',
        "cnn,0.5,0.6919",
        "crnn,,",
    ]
    assert table.record()["rows"] == [["cnn", 0.5, 0.6919], ["crnn", None, None]]


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [(0.12345, "percent", "12.35"), (23000, "number", "23,000"), (0.98, "number", "0.980"),
     ("a", "text", "a"), (None, "percent", "-")],
)  # fmt: skip
def test_cells_as_text(cell, kind, text):
    assert cell_text(cell, kind) == text


def test_a_table_for_a_paper_has_intervals_in_cells_and_the_best_strong():
    names = ("accuracy", "sd", "low", "high")
    columns = (
        Column("net"),
        *(Column(n, "percent") for n in names),
        Column("J22", "percent", True),
    )
    rows = (("a", 0.5, 0.1, 0.4, 0.6, 0.9), ("b", 0.75, 0.1, 0.7, 0.8, None), ("c", *[None] * 5))
    paper = Table("t", "Title", columns, rows).for_paper()
    titles = ["net", "accuracy", "sd", "J22 (published, other data)"]
    assert [head.title for head in paper.head] == titles
    assert [(row[1].text, row[1].below, row[1].strong) for row in paper.rows] == [
        ("50.00", "40.00 to 60.00", False),
        ("75.00", "70.00 to 80.00", True),
        ("-", "", False),
    ]


def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    p = rng.dirichlet(np.ones(3), 90) + 0.3 * np.eye(3)[labels]
    p /= p.sum(axis=1, keepdims=True)
    folds = np.arange(90) % 3
    groups = [f"g{i % 30}" for i in range(90)]
    p[4] = np.nan
    mask = np.arange(90) != 4
    of_clips = Labels(task_of("multiclass"), ("a", "b", "c"), labels, tuple(groups))
    scores = score(of_clips, [p], [folds])
    y_pred = p[mask].argmax(axis=1)
    y_true = labels[mask]
    of_fold = [folds[mask] == fold for fold in range(3)]
    each = [accuracy_score(y_true[rows], y_pred[rows]) for rows in of_fold]
    assert scores.primary == pytest.approx(np.mean(each), abs=1e-12)
    assert scores.sd == pytest.approx(np.std(each, ddof=1), abs=1e-12)
    f1 = f1_score(y_true, y_pred, average="macro")
    assert scores.others["F1"] == pytest.approx(f1, abs=1e-12)
    areas = [roc_auc_score(y_true[r], p[mask][r], multi_class="ovr") for r in of_fold]
    assert scores.others["AUC"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert scores.low < scores.primary < scores.high
    assert scores.n_clips == 89


def test_the_baseline_is_of_the_other_folds():
    def majority(labels, folds):
        groups = tuple(map(str, range(len(labels))))
        of_clips = Labels(task_of("multiclass"), ("a", "b"), np.array(labels), groups)
        return baseline_score(of_clips, np.array(folds))

    # Fold 0 sees only class 1 elsewhere, and the other way round: never right.
    assert majority([0, 0, 1, 1], [0, 0, 1, 1]) == 0.0
    assert majority([0, 0, 1, 0], [0, 1, 0, 1]) == 0.75


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

    def spy(train, classes, test, seed):
        seen.append((train, classes, test))
        return np.tile([1.0, 0.0], (len(test), 1))

    rows[7] = np.nan
    out = predict_out_of_fold(spy, rows, labels, folds, 0, 2)
    assert np.isnan(out[7]).all()
    assert (out[np.arange(40) != 7] == [1, 0]).all()
    for fold, (train, classes, test) in enumerate(seen):
        kept = (folds != fold) & (np.arange(40) != 7)
        mean, sd = rows[kept].mean(axis=0), rows[kept].std(axis=0)
        np.testing.assert_allclose(train, (rows[kept] - mean) / sd, atol=1e-12)
        assert classes.tolist() == labels[kept].tolist()
        tested = (folds == fold) & (np.arange(40) != 7)
        np.testing.assert_allclose(test, (rows[tested] - mean) / sd, atol=1e-12)


def test_confusion_has_the_papers_shares_in_the_order_of_the_classes():
    labels = np.array([0, 0, 1, 2, 3])
    p = np.eye(4)[[0, 1, 1, 2, 3]]
    classes = ["calm", "happy", "sad", "angry"]
    table = confusion_table("crnn", classes, labels, [p], printed=True)
    assert table.rows[0][:6] == ("calm", 2, 0.5, 0.5, 0.0, 0.0)
    # J22's quiet row: as quiet, happy, sad, anger.
    assert table.rows[0][6:] == (0.8793, 0.0295, 0.0278, 0.0634)
    other = confusion_table("crnn", classes, labels, [p], printed=False)
    assert not any(column.published for column in other.columns)


def test_where_a_curve_is_stable():
    assert stable_from([10, 20, 30, 40], [4.0, 2.0, 1.02, 1.0]) == 30
    assert stable_from([10, 20, 30, 40], [4.0, 1.0, 2.0, 1.0]) == 40
    assert stable_from([10], [1.0]) == 10


def test_a_smoothed_curve_is_the_mean_of_what_came_before():
    values = [4.0, 2.0, 6.0, 0.0]
    assert smoothed(values, 2) == pytest.approx([4.0, 3.0, 4.0, 3.0])
    assert smoothed(values, 9) == pytest.approx([4.0, 3.0, 4.0, 3.0])
    assert smoothed([]) == []


def test_permuted_labels_keep_counts_and_groups(tmp_path):
    path = make_set(tmp_path / "set")
    settings = load_settings("paper", tiny_options()[1::2])
    plain = open_study(path, settings, work=tmp_path)
    mixed = open_study(path, settings, work=tmp_path, permute_labels=True)
    assert mixed.manifest.groups == plain.manifest.groups
    assert sorted(mixed.manifest.labels) == sorted(plain.manifest.labels)
    assert (mixed.manifest.labels != plain.manifest.labels).any()


def test_clips_that_cannot_be_read_are_told(tmp_path):
    path = make_set(tmp_path / "set", clips_per_class=2)
    (tmp_path / "set" / "sad1.wav").write_bytes(b"no sound")
    study = open_study(path, load_settings("paper", tiny_options()[1::2]), work=tmp_path)
    media = study.media(descriptors=["mel"])
    assert media.described.tolist() == [True] * 3 + [False] + [True] * 4
    (note,) = media.left_out(media.described)
    assert note.startswith("1 of 8 clips could not be used and are in no score; the first, sad1: ")
    assert np.isnan(media.statistics(["mel"])).all(axis=1).tolist() == (~media.described).tolist()
    assert media.left_out(np.ones(8, dtype=bool)) == ()


def test_predictions_are_those_of_the_net(tmp_path):
    import torch

    path = make_set(tmp_path / "set", clips_per_class=2)
    study = open_study(path, load_settings("paper", tiny_options()[1::2]), work=tmp_path)
    media = study.media([study.plan("rnn")])
    torch.manual_seed(0)
    plan = study.plan("rnn")
    net = build_net("rnn", 4, width=plan.width, **plan.options)
    rows = np.array([5, 0, 3])
    got = predict(net, media.batches(net), rows, study.settings, "softmax")
    with torch.no_grad():
        expected = net.eval()(net.prepare(media.batches(net).load(rows.tolist()))).softmax(1)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


def test_nets_of_a_study_are_tested_on_all_views_of_a_clip(tmp_path, monkeypatch):
    path = make_set(tmp_path / "set", clips_per_class=2)
    windows = ["nets.rnn.options={n_frames=8}", "nets.rnn.views=2", "nets.rnn.patience=0"]
    options = [*tiny_options()[1::2], *windows]
    study = open_study(path, load_settings("paper", options), work=tmp_path)
    media = study.media([study.plan("rnn")])
    read = []
    monkeypatch.setattr(
        predictors,
        "predict",
        lambda net, batches, rows, *_: read.append(batches) or np.zeros((1, 4)),
    )
    plan = study.plan("rnn")
    NetPredictor(study, media, plan, study.manifest, only_first=True)(0, study.folds())
    assert read[0].load_views([0])[1] == [2]


def test_folds_of_a_file_leave_the_manifest_as_it_is(tmp_path):
    path = make_set(tmp_path)
    manifest = read_manifest(path)
    folds = folds_of(manifest, 3, 5)
    write_folds(folds, tmp_path / "folds.csv")
    study = open_study(
        path, load_settings("demo"), work=tmp_path, runs=2, fold_file=tmp_path / "folds.csv"
    )
    assert study.manifest.digest == manifest.digest
    assert study.settings.extract.folds == 3
    for run in range(2):
        assert study.folds(run).tolist() == folds.assignment.tolist()
    # Without the clips that cannot be read, the others stay in their folds.
    part = replace(study, manifest=replace(manifest, clips=manifest.clips[5:]))
    assert part.folds().tolist() == folds.assignment[5:].tolist()

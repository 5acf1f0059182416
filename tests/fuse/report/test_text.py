"""The terminal's table: figures, warnings, width, and text from outside."""

import dataclasses

import numpy as np
import pytest
from fuse_samples import MULTICLASS, NASTY, empty_results, make_results, nasty_results

from mvemo.fuse.report.summary import best, compare_fusion, hardest_clips
from mvemo.fuse.report.text import format_table


@pytest.fixture(scope="module")
def results():
    return make_results()


def row(text, name):
    lines = [line for line in text.splitlines() if line.startswith(name + " ")]
    assert len(lines) == 1
    return lines[0].split()


def test_a_row_has_the_models_figures(results):
    text = format_table(results)
    for model in results.models:
        cells = row(text, model.name)
        folds = 100 * model.per_fold["accuracy"]
        assert cells[1:4] == [f"{v:.1f}" for v in (folds.min(), folds.mean(), folds.max())]
        assert cells[4:6] == [
            f"{model.scores['f1_macro']:.3f}",
            f"{model.scores['roc_auc_macro_ovr']:.3f}",
        ]
    assert row(text, "majority")[2:5] == ["16.7"] * 3
    assert "6-fold cross-validation of 9 models on 96 clips in 48 groups" in text
    assert "protocol" in text
    assert all(len(line) <= 79 for line in text.splitlines())


def test_published_column_only_where_the_classes_are_the_papers(results):
    text = format_table(results)
    assert row(text, "integrated")[-1] == "88.6"
    assert "* published, other data" in text
    other = make_results(classes=("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Calm"))
    assert "published" not in format_table(other)
    assert "published" not in format_table(dataclasses.replace(results, permuted=True))


def test_no_warning_without_cause(results):
    assert not any(line.startswith("!") for line in format_table(results).splitlines())


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"synthetic": True}, "SYNTHETIC DATA"),
        ({"leaky": True}, "OPTIMISTIC"),
        ({"protocol": "shared"}, "OPTIMISTIC"),
        ({"permuted": True}, "PERMUTED LABELS"),
    ],
)
def test_a_warning_comes_first(results, changes, title):
    text = format_table(dataclasses.replace(results, **changes))
    assert text.startswith(f"! {title}")


def test_missing_and_failures_are_counted(results):
    text = format_table(results)
    assert row(text, "c3d")[6] == "90/96"
    assert row(text, "music1d")[6] == "96/96"
    assert "Clips without a feature: c3d 6 of 96." in text
    assert "3 failures of 2 clips" in text
    whole = make_results(missing=0, failures=())
    assert "Clips without" not in format_table(whole)
    assert "failure" not in format_table(whole)


def test_nothing_predicted():
    text = format_table(empty_results())
    assert row(text, "c3d")[1:6] == ["n/a"] * 5


def test_control_characters_do_not_reach_the_terminal(results):
    hostile = dataclasses.replace(results, name="a\x1b[2Jb\r\nc")
    text = format_table(hostile)
    assert "\x1b" not in text
    assert "\r" not in text
    assert NASTY in format_table(nasty_results()).replace("\n", " ")


def with_accuracies(results, **accuracies):
    models = {m.name: m for m in results.models}
    return dataclasses.replace(
        results,
        models=tuple(
            dataclasses.replace(
                models[name.replace("_", "+")], per_fold={"accuracy": np.array(values)}
            )
            for name, values in accuracies.items()
        ),
    )


def test_comparison_states_the_difference_and_claims_nothing(results):
    higher = with_accuracies(results, i3d=[0.5, 0.6], c3d=[0.1, 0.1], i3d_music2d=[0.6, 0.55])
    text = compare_fusion(higher)
    assert "i3d+music2d (57.5 %), is 2.5 points higher than the best single feature, i3d" in text
    assert "higher in 1 of 2 folds" in text
    assert "significance was not tested" in text
    lower = with_accuracies(results, i3d=[0.5, 0.6], i3d_music2d=[0.4, 0.5])
    assert "10.0 points lower than" in compare_fusion(lower)
    same = with_accuracies(results, i3d=[0.5, 0.6], i3d_music2d=[0.6, 0.5])
    assert "the same to a tenth of a point as" in compare_fusion(same)
    assert compare_fusion(with_accuracies(results, i3d=[0.5], c3d=[0.6])) == ""


def test_comparison_says_when_the_clips_differ(results):
    assert "different clips" in compare_fusion(results)
    assert "different clips" not in compare_fusion(make_results(missing=0))


def test_of_equally_good_models_the_simplest_is_best(results):
    equal = with_accuracies(results, integrated=[0.6, 0.6], i3d_music2d=[0.6, 0.6], i3d=[0.6, 0.6])
    assert best(equal).name == "i3d"
    assert best(equal, ()) is None


def test_hardest_clips_by_hand():
    made = make_results(24, 2, missing=0)
    probabilities = np.eye(6)[made.y_true] * 0.5 + 0.5 / 6
    wrong = probabilities.copy()
    wrong[3] = np.eye(6)[(made.y_true[3] + 1) % 6]
    wrong[5] = np.eye(6)[(made.y_true[5] + 2) % 6]
    missing = wrong.copy()
    missing[3] = np.nan
    models = tuple(
        dataclasses.replace(m, outputs=p, y_pred=MULTICLASS.decide(p))
        for m, p in zip(made.models[:3], (wrong, missing, probabilities), strict=True)
    )
    found = hardest_clips(dataclasses.replace(made, models=models))
    assert [c.clip_id for c in found] == [made.clip_ids[5], made.clip_ids[3]]
    assert [(c.wrong, c.predicted) for c in found] == [(2, 3), (1, 2)]
    assert found[0].taken_for == made.classes[(made.y_true[5] + 2) % 6]
    assert found[0].group == made.groups[5]
    assert found[1].mean_probability == pytest.approx((0.5 + 0.5 / 6) / 2, abs=1e-12)
    assert models[1].y_pred[3] == -1
    assert len(hardest_clips(dataclasses.replace(made, models=models), limit=1)) == 1

"""The terminal's table: figures, warnings, width, and text from outside."""

from dataclasses import replace

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, make_results, nasty_results, primary

from mvemo.fuse.report.report_files import metrics_dict
from mvemo.fuse.report.terminal import format_table


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


def test_the_table_of_tags_and_of_values(outputs):
    text = format_table(outputs)
    assert max(map(len, text.splitlines())) <= 79
    assert "SYNTHETIC DATA" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    for model in (*outputs.models, outputs.baseline):
        if model.name != "integrated":
            assert f"{np.nanmean(primary(model)):.3f}" in lines[model.name]
    # Of two features it is the pair, which has a row.
    assert "integrated" not in lines
    assert "c3d+music1d has all features: it is integrated, too." in " ".join(text.split())
    assert "89/90" in lines["c3d"]
    assert "Tested clips without a feature: c3d 1 of 90." in text
    assert set(metrics_dict(outputs)["models"]) - {"integrated"} <= set(lines)


def test_published_column_only_where_the_classes_are_the_papers(results):
    text = format_table(results)
    assert row(text, "integrated")[-1] == "88.6"
    assert "* published, other data" in text
    other = make_results(classes=("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Calm"))
    assert "published" not in format_table(other)
    assert "published" not in format_table(replace(results, permuted=True))


def test_no_warning_without_cause(results):
    assert not any(line.startswith("!") for line in format_table(results).splitlines())


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"synthetic": True}, "SYNTHETIC DATA"),
        (
            {"predicted_by": "music-video"},
            "PREDICTED LABELS: The labels are predictions of music-vide",
        ),
        ({"leaky": True}, "OPTIMISTIC"),
        ({"protocol": "shared"}, "OPTIMISTIC"),
        ({"permuted": True}, "PERMUTED LABELS"),
    ],
)
def test_a_warning_comes_first(results, changes, title):
    text = format_table(replace(results, **changes))
    assert text.startswith(f"! {title}")


def test_missing_and_failures_are_counted(results):
    text = format_table(results)
    assert row(text, "c3d")[6] == "90/96"
    assert row(text, "music1d")[6] == "96/96"
    assert "Tested clips without a feature: c3d 6 of 96." in text
    assert "3 failures of 2 clips" in text
    whole = make_results(missing=0, failures=())
    assert "Clips without" not in format_table(whole)
    assert "failure" not in format_table(whole)


def test_nothing_predicted(outputs):
    assert outputs.baseline.name in format_table(replace(outputs, models=()))
    text = format_table(empty_results())
    assert row(text, "c3d")[1:6] == ["n/a"] * 5


def test_control_characters_do_not_reach_the_terminal(results):
    hostile = replace(results, name="a\x1b[2Jb\r\nc")
    text = format_table(hostile)
    assert "\x1b" not in text
    assert "\r" not in text
    assert NASTY in format_table(nasty_results()).replace("\n", " ")

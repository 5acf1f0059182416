"""Sentences and the terminal's table: figures, warnings, verdict, width, text from outside."""

from dataclasses import replace

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, make_results, nasty_results, primary

from mvemo.fuse.crossval.comparisons import compare_results, with_uncertainty
from mvemo.fuse.report.findings import small_nets
from mvemo.fuse.report.report_files import metrics_dict
from mvemo.fuse.report.summary import (
    banners,
    best_comparison,
    compare_best,
    format_table,
    opening,
    row_notes,
    scaling_notes,
    scoring_note,
)
from mvemo.fuse.results import Choice, best_model


def test_difference_interval_and_p_are_of_one_comparison(uncertain):
    text = compare_best(uncertain)
    top = best_model(uncertain, [m for m in uncertain.models if len(m.features) > 1])
    (c,) = [c for c in uncertain.comparisons if c.model == top.name]
    low, high = c.interval
    assert f"The best fusion, {c.model} (" in text
    assert f"its best single feature, {c.reference} (" in text
    assert f"is {100 * c.mean:.1f} points better than" in text
    assert f"95 % interval of the difference {100 * low:+.1f} to {100 * high:+.1f}" in text
    assert low < c.mean < high
    assert f"p {c.p:.3f}" in text.replace("p < 0.001", f"p {c.p:.3f}")
    assert "significant at 5 %" in text
    assert "was not tested" not in text
    assert text in opening(uncertain)[0]


def test_a_difference_is_of_the_clips_that_both_predicted(uncertain):
    """C3D has 90 of 96 clips: means of all clips are not what is compared."""
    c3d = [m for m in uncertain.models if m.name in ("c3d", "music1d", "c3d+music1d")]
    few = with_uncertainty(replace(uncertain, models=tuple(c3d)), n_resamples=50)
    (c,) = few.comparisons
    fusion, single = (next(m for m in c3d if m.name == n) for n in (c.model, c.reference))
    both = fusion.valid & single.valid
    gain = (fusion.y_pred == few.y_true) * 1.0 - (single.y_pred == few.y_true)
    expected = np.mean([gain[both & (few.folds == f)].mean() for f in range(few.k)])
    assert c.mean == pytest.approx(expected)
    assert c.n_clips == both.sum() == 90
    assert (c.reference == "c3d") or "on the 90 clips that both predicted" in compare_best(few)
    whole = with_uncertainty(make_results(missing=0), n_resamples=0)
    assert "that both predicted" not in compare_best(whole)


def test_single_rows_that_a_reader_must_know_something_of_are_told(uncertain):
    assert not row_notes(replace(uncertain, protocol="frozen"))
    single, fused = uncertain.models[0], uncertain.models[-1]
    models = (
        replace(single, name="i3d-outputs", by_net=True),
        replace(fused, name="integrated-stacked"),
    )
    start = "Trained from random weights, but the papers start from pretrained weights: i3d"
    provenance = {**uncertain.provenance, "stage_one": {"notes": [start]}}
    made = replace(uncertain, models=models, provenance=provenance)
    by_net, stacked, random = row_notes(made)
    assert by_net.startswith("i3d-outputs: predicted by the last layer")
    # Its second layer rests on nets that saw the clips that it is fitted on.
    assert stacked.startswith("integrated-stacked: ")
    assert "whose nets did" in stacked
    assert random == start
    assert all(note in scoring_note(made) for note in row_notes(made))
    # Frozen nets saw no clip.
    assert len(row_notes(replace(made, protocol="frozen"))) == 2


def test_verdicts_in_words(uncertain):
    (c, *_) = uncertain.comparisons
    for p, words in ((0.01, "significant at 5 %"), (0.2, "not significant at 5 %")):
        changed = replace(c, p_holm=p)
        made = replace(uncertain, models=_pair(uncertain, c), comparisons=(changed,))
        assert f": {words}" in compare_best(made)
        # Where the test and the interval differ, the sentence says so.
        leaves_out = c.interval[0] > 0 or c.interval[1] < 0
        assert ("although the interval" in compare_best(made)) == (leaves_out != (p < 0.05))
    one_fold = replace(c, t=np.nan, p=np.nan, p_holm=np.nan)
    for ends, words in (((0.01, 0.2), "leaves out"), ((-0.1, 0.2), "includes")):
        changed = replace(one_fold, interval=ends)
        made = replace(uncertain, models=_pair(uncertain, c), comparisons=(changed,))
        assert f"the interval {words} 0" in compare_best(made)
    made = replace(uncertain, models=_pair(uncertain, c), comparisons=())
    assert compare_best(made) == ""


def _pair(results, c):
    return tuple(m for m in results.models if m.name in (c.model, c.reference))


def test_of_others_models_the_two_best_are_compared(uncertain):
    nameless = tuple(replace(m, features=(), modalities=()) for m in uncertain.models[:3])
    made = replace(uncertain, models=nameless)
    made = replace(made, comparisons=tuple(compare_results([made])))
    assert len(made.comparisons) == 3
    c = best_comparison(made)
    order = sorted(made.models, key=lambda m: -made.primary_mean(m))
    assert (c.model, c.reference) == (order[0].name, order[1].name)
    assert "The best model, " in compare_best(made)
    assert "the next, " in compare_best(made)


def test_a_difference_that_rounds_to_nothing_is_not_called_better(uncertain):
    (c, *_) = uncertain.comparisons
    level = replace(c, mean=0.0, interval=(-0.02, 0.02), p=1.0, p_holm=1.0)
    pair = replace(uncertain, models=_pair(uncertain, c), comparisons=(level,))
    text = compare_best(pair)
    assert ", is as good as its best single feature," in text
    assert "points better" not in text


def test_the_verdict_is_on_the_model_of_the_choice(results):
    other = next(m for m in results.models if m is not best_model(results) and len(m.features) == 2)
    choice = Choice(other.name, (other.name,) * 2, best_model(results))
    chosen = replace(results, choice=choice)
    found, how, _ = opening(chosen)
    assert found[0].startswith(f"Use {other.name}. Expect")
    assert f"the recommended model, {other.name}, has" in " ".join(how)
    assert f"The highest score is that of {best_model(results).name}, " in " ".join(how)


def test_a_baseline_inside_the_interval_is_said(results):
    model = best_model(results)
    for low, expected in ((0.01, True), (0.9, False)):
        changed = replace(model, intervals={"accuracy": (low, 1.0)})
        _, how, _ = opening(replace(results, models=(changed,)))
        assert ("the model may not be better" in " ".join(how)) == expected


def test_narrow_nets_are_named_on_top(results):
    assert small_nets(results) == []
    features = {"i3d": [{"width": 0.0625}] * 2, "c3d": [{"width": 1.0}], "lld": [{"width": None}]}
    small = replace(results, provenance={**results.provenance, "features": features})
    (banner,) = banners(small)
    assert banner.title == "SMALL NETS"
    assert banner.text.startswith("i3d (width 0.0625 of 1) is narrower than the published nets")
    # Its outputs are of the same net, and name it no second time.
    again = {**features, "i3d-outputs": [{"width": 0.0625}]}
    twice = replace(results, provenance={"features": again})
    assert small_nets(twice) == ["i3d (width 0.0625 of 1)"]
    alone = {"i3d-outputs": [{"width": 0.0625}]}
    assert small_nets(replace(results, provenance={"features": alone})) == [
        "i3d-outputs (width 0.0625 of 1)"
    ]


def test_unusual_scaling_is_told(results):
    assert scaling_notes(results) == []
    within = {"clips": 9, "of_clips": 12, "groups": 3, "of_groups": 4, "min_clips": 2}
    outliers = {"layer0": ("477", "767"), "layer1": (), "layer2": tuple("abcde")}
    made = replace(results, outliers=outliers, provenance={"within_groups": within})
    first, second = scaling_notes(made)
    assert "9 of 12 clips, in the 3 of 4 groups that have 2 clips or more" in first
    assert second == (
        "Outliers (not used for scaling): layer0: 477, 767; layer2: a, b, c and 2 more."
    )


# --- terminal


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
    assert "c3d+music1d has all features, so it is also integrated." in " ".join(text.split())
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


def test_a_warning_comes_first(results):
    assert format_table(replace(results, leaky=True)).startswith("! OPTIMISTIC: Clips were scored")
    assert not any(line.startswith("!") for line in format_table(results).splitlines())


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

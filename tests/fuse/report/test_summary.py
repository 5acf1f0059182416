"""Sentences and the terminal's table: figures, warnings, verdict, width, text from outside."""

from dataclasses import replace

import numpy as np
from fuse_samples import NASTY, empty_results, make_results, nasty_results

from mvemo.fuse.crossval.comparisons import with_uncertainty
from mvemo.fuse.report.findings import banners, small_nets
from mvemo.fuse.report.summary import (
    compare_best,
    opening,
    row_notes,
    scaling_notes,
    scoring_note,
)
from mvemo.fuse.report.terminal import format_table
from mvemo.fuse.results import Choice, best_model


def test_a_difference_is_of_the_clips_that_both_predicted(uncertain):
    c3d = tuple(m for m in uncertain.models if m.name in ("c3d", "music1d", "c3d+music1d"))
    few = with_uncertainty(replace(uncertain, models=c3d), n_resamples=50)
    (c,) = few.comparisons
    assert c.n_clips == 90
    assert (c.reference == "c3d") or "on the 90 clips that both predicted" in compare_best(few)
    whole = with_uncertainty(make_results(missing=0), n_resamples=0)
    assert "that both predicted" not in compare_best(whole)


def test_notes_on_rows(uncertain):
    assert not row_notes(replace(uncertain, protocol="frozen"))
    models = (
        replace(uncertain.models[0], name="i3d-outputs", by_net=True),
        replace(uncertain.models[-1], name="integrated-stacked"),
    )
    start = "Trained from random weights, but the papers start from pretrained weights: i3d"
    made = replace(uncertain, models=models, provenance={"stage_one": {"notes": [start]}})
    by_net, stacked, random = row_notes(made)
    assert by_net.startswith("i3d-outputs: predicted by the last layer")
    # Its second layer rests on nets that saw the clips that it is fitted on.
    assert stacked.startswith("integrated-stacked: ")
    assert random == start
    assert all(note in scoring_note(made) for note in row_notes(made))
    # Frozen nets saw no clip.
    assert len(row_notes(replace(made, protocol="frozen"))) == 2


def test_verdicts_in_words(uncertain):
    c = uncertain.comparisons[0]
    pair = tuple(m for m in uncertain.models if m.name in (c.model, c.reference))

    def text(**changes):
        return compare_best(replace(uncertain, models=pair, comparisons=(replace(c, **changes),)))

    for p, words in ((0.01, "significant at 5 %"), (0.2, "not significant at 5 %")):
        assert f": {words}" in text(p_holm=p)
    # The test decides, whatever the interval is.
    one_fold = {"t": np.nan, "p": 0.3, "p_holm": 0.3, "interval": (0.01, 0.2)}
    assert "whole groups: p 0.300" in text(**one_fold)
    assert ": not significant at 5 %" in text(**one_fold)
    # A difference that rounds to nothing is not called better.
    level = text(mean=0.0, interval=(-0.02, 0.02), p=1.0, p_holm=1.0)
    assert ", is as good as its best single feature," in level
    assert "points better" not in level
    assert compare_best(replace(uncertain, models=pair, comparisons=())) == ""


def test_the_verdict_is_on_the_model_of_the_choice(results):
    other = next(m for m in results.models if m is not best_model(results) and len(m.features) == 2)
    choice = Choice(other.name, (other.name,) * 2, best_model(results))
    found, how, _ = opening(replace(results, choice=choice))
    assert found[0].startswith(f"Use {other.name}. Expect")
    assert f"the recommended model, {other.name}, has" in " ".join(how)
    assert f"The highest score is that of {best_model(results).name}, " in " ".join(how)


def test_a_baseline_inside_the_interval_is_said(results):
    for low, doubtful in ((0.01, True), (0.9, False)):
        changed = replace(best_model(results), intervals={"accuracy": (low, 1.0)})
        _, how, _ = opening(replace(results, models=(changed,)))
        assert ("the model may not be better" in " ".join(how)) == doubtful


def test_narrow_nets_are_named_on_top(results):
    assert small_nets(results) == []
    # The outputs of a net are listed only without its embedding.
    features = {"i3d": [{"width": 0.0625}] * 2, "c3d": [{"width": 1.0}], "lld": [{"width": None}]}
    features |= {f"{net}-outputs": [{"width": 0.0625}] for net in ("i3d", "music1d")}
    (banner,) = banners(replace(results, provenance={"features": features}))
    assert banner.title == "SMALL NETS"
    listed = "i3d (width 0.0625 of 1), music1d-outputs (width 0.0625 of 1)"
    assert banner.text.startswith(f"{listed} are narrower than the published nets")


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
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return line.split()


def test_missing_features_and_failures_are_counted(results):
    text = format_table(results)
    assert all(len(line) <= 79 for line in text.splitlines())
    assert not any(line.startswith("!") for line in text.splitlines())
    assert format_table(replace(results, leaky=True)).startswith("! OPTIMISTIC: Clips were scored")
    assert (row(text, "c3d")[7], row(text, "music1d")[7]) == ("90/96", "96/96")
    assert "Tested clips without a feature: c3d 6 of 96." in text
    assert "3 failures of 2 clips" in text
    whole = format_table(make_results(missing=0, failures=()))
    assert "Tested clips without" not in whole
    assert "failure" not in whole


def test_published_column_only_where_the_classes_are_the_papers(results):
    text = format_table(results)
    assert row(text, "integrated")[-1] == "88.6"
    assert "* published, other data" in text
    other = make_results(classes=("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Calm"))
    assert "published" not in format_table(other)
    assert row(format_table(empty_results()), "c3d")[1:6] == ["n/a"] * 5


def test_control_characters_do_not_reach_the_terminal(results):
    text = format_table(replace(results, name="a\x1b[2Jb\r\nc"))
    assert "\x1b" not in text
    assert "\r" not in text
    assert NASTY in format_table(nasty_results()).replace("\n", " ")

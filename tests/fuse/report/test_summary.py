"""Sentences: the best model, and one paired difference with its own interval and test."""

import dataclasses

import numpy as np
import pytest
from fuse_samples import make_results

from mvemo.fuse.crossval.comparisons import compare_results
from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.report.summary import (
    best_comparison,
    compare_best,
    opening,
    row_notes,
    scoring_note,
)
from mvemo.fuse.results import best_model


@pytest.fixture(scope="module")
def results():
    """Nine models; six clips without C3D."""
    return with_uncertainty(make_results(), n_resamples=200)


def test_difference_interval_and_p_are_of_one_comparison(results):
    text = compare_best(results)
    top = best_model(results, [m for m in results.models if len(m.features) > 1])
    (c,) = [c for c in results.comparisons if c.model == top.name]
    low, high = c.interval
    assert f"The best fusion, {c.model} (" in text
    assert f"the best single feature in it, {c.reference} (" in text
    assert f"is {100 * c.mean:.1f} points better than" in text
    assert f"95 % interval of the difference {100 * low:+.1f} to {100 * high:+.1f}" in text
    assert low < c.mean < high
    assert f"p {c.p:.3f}" in text.replace("p < 0.001", f"p {c.p:.3f}")
    assert "significant at 5 %" in text
    assert "was not tested" not in text
    assert text in opening(results)[0]


def test_a_difference_is_of_the_clips_that_both_predicted(results):
    """C3D has 90 of 96 clips: means of all clips are not what is compared."""
    c3d = [m for m in results.models if m.name in ("c3d", "music1d", "c3d+music1d")]
    few = with_uncertainty(dataclasses.replace(results, models=tuple(c3d)), n_resamples=50)
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


def test_single_rows_that_a_reader_must_know_something_of_are_told(results):
    assert not row_notes(dataclasses.replace(results, protocol="frozen"))
    single, fused = results.models[0], results.models[-1]
    models = (
        dataclasses.replace(single, name="i3d-outputs", by_net=True),
        dataclasses.replace(fused, name="integrated-stacked"),
    )
    start = "Trained from random weights, where the papers start from pretrained ones: i3d"
    provenance = {**results.provenance, "stage_one": {"notes": [start]}}
    made = dataclasses.replace(results, models=models, provenance=provenance)
    by_net, stacked, random = row_notes(made)
    assert by_net.startswith("i3d-outputs: what a net predicts itself")
    # Its second layer rests on nets that saw the clips that it is fitted on.
    assert stacked.startswith("integrated-stacked: ")
    assert "whose nets did" in stacked
    assert random == start
    assert all(note in scoring_note(made) for note in row_notes(made))
    # Frozen nets saw no clip.
    assert len(row_notes(dataclasses.replace(made, protocol="frozen"))) == 2


def test_verdicts_in_words(results):
    (c, *_) = results.comparisons
    for p, words in ((0.01, "significant at 5 %"), (0.2, "not significant at 5 %")):
        changed = dataclasses.replace(c, p_holm=p)
        made = dataclasses.replace(results, models=_pair(results, c), comparisons=(changed,))
        assert f": {words}" in compare_best(made)
        # Where the test and the interval differ, the sentence says so.
        leaves_out = c.interval[0] > 0 or c.interval[1] < 0
        assert ("although the interval" in compare_best(made)) == (leaves_out != (p < 0.05))
    one_fold = dataclasses.replace(c, t=np.nan, p=np.nan, p_holm=np.nan)
    for ends, words in (((0.01, 0.2), "leaves out no"), ((-0.1, 0.2), "includes no")):
        changed = dataclasses.replace(one_fold, interval=ends)
        made = dataclasses.replace(results, models=_pair(results, c), comparisons=(changed,))
        assert f"the interval {words} difference" in compare_best(made)
    made = dataclasses.replace(results, models=_pair(results, c), comparisons=())
    assert compare_best(made) == ""


def _pair(results, c):
    return tuple(m for m in results.models if m.name in (c.model, c.reference))


def test_of_others_models_the_two_best_are_compared(results):
    nameless = tuple(dataclasses.replace(m, features=(), modalities=()) for m in results.models[:3])
    made = dataclasses.replace(results, models=nameless)
    made = dataclasses.replace(made, comparisons=tuple(compare_results([made])))
    assert len(made.comparisons) == 3
    c = best_comparison(made)
    order = sorted(made.models, key=lambda m: -made.primary_mean(m))
    assert (c.model, c.reference) == (order[0].name, order[1].name)
    assert "The best model, " in compare_best(made)
    assert "the next, " in compare_best(made)


def test_of_equally_good_models_the_simplest_is_best(results):
    per_fold = {"accuracy": np.array([0.6, 0.6])}
    names = ("integrated", "i3d+music2d", "i3d")
    equal = tuple(
        dataclasses.replace(next(m for m in results.models if m.name == name), per_fold=per_fold)
        for name in names
    )
    assert best_model(dataclasses.replace(results, models=equal)).name == "i3d"
    assert best_model(results, ()) is None


def test_a_difference_that_rounds_to_nothing_is_not_called_better(results):
    (c, *_) = results.comparisons
    level = dataclasses.replace(c, mean=0.0, interval=(-0.02, 0.02), p=1.0, p_holm=1.0)
    pair = dataclasses.replace(results, models=_pair(results, c), comparisons=(level,))
    text = compare_best(pair)
    assert ", is as good as the best single feature in it," in text
    assert "points better" not in text

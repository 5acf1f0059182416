"""Sentences on what fails: by task, by clip, in stage one."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import make_results, one_model
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, evaluate
from mvemo.fuse.report.findings import coverage_facts, coverage_sentence, coverage_table, findings
from mvemo.fuse.results import best_model


@pytest.fixture(scope="module")
def results():
    return replace(make_results(48, 2, missing=4), curves={})


def text_of(results):
    return " ".join(findings(results, results.models[0]))


def with_predicted(results, predicted, stated):
    """One model that states a probability for the predicted classes."""
    proba = np.full((len(predicted), 6), (1 - stated) / 5)
    proba[np.arange(len(predicted)), predicted] = stated
    return one_model(results, proba)


def test_the_class_that_is_missed_and_the_commonest_mistake(results):
    y = results.y_true
    predicted = np.where(y == 1, 4, y)
    predicted[np.flatnonzero(y == 1)[0]] = 1
    text, n = text_of(with_predicted(results, predicted, 0.9)), int((y == 1).sum())
    assert f"net misses Fear most often: recall {1 / n:.2f} (1 of {n} clips)" in text
    assert f"predict Sad for Fear: {n - 1} of {n} clips; there are {n - 1} mistakes in all." in text
    text = text_of(with_predicted(results, y, 0.9))
    assert "net finds every class equally often: recall 1.00. No clip is predicted as" in text


@pytest.mark.parametrize(
    ("stated", "words"),
    [(0.95, "overconfident"), (0.4, "underconfident"), (0.75, "calibrated")],
)
def test_confidence_in_words(results, stated, words):
    y = results.y_true
    # Three of four clips are right.
    predicted = np.where(np.arange(len(y)) % 4 == 0, (y + 1) % 6, y)
    text = text_of(with_predicted(results, predicted, stated))
    assert f"{words}: on average it states {100 * stated:.0f} % and is correct in 75 %" in text


def test_clips_without_a_prediction_and_failures_are_told(results):
    text = " ".join(findings(results, best_model(results)))
    assert "models could not predict every clip" in text
    assert "(c3d: 4 clips)" in text
    assert "2 clips failed in stage one (" in text
    # Shuffled labels have no class that fails.
    shuffled = replace(results, permuted=True)
    assert "misses" not in " ".join(findings(shuffled, best_model(shuffled)))


# --- coverage


@pytest.fixture(scope="module", params=["multiclass", "multilabel", "regression"])
def covered(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("coverage") / "f.h5"
    if request.param == "multiclass":
        frozen_cache(path, make_table(120, 3), names=("music1d", "c3d"))
    else:
        output_cache(path, output_table(request.param, n=120))
    settings = EvaluationSettings(head=HeadSettings(C=0.1), n_resamples=50)
    with open_cache(path) as cache:
        return evaluate(cache, settings)


def test_all_at_once_is_told_next_to_each_output(covered):
    facts = coverage_facts(covered)
    sentence, table = coverage_sentence(covered, facts), coverage_table(covered, facts)
    other = facts["optional"]["share"]
    shares = [one["optional"]["share"] for one in facts["per_output"].values()]
    if covered.task.name == "regression":
        once = facts["all_at_once"]
        assert once < facts["share"] < 1
        assert once <= other <= min(shares)
        assert f"{100 * once:.1f} % of the clips" in sentence
        assert [row[0].text for row in table.foot] == ["all", "all at once"]
    else:
        assert facts["all_at_once"] is None
        assert min(shares) <= other or covered.task.name == "multilabel"
        assert f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %" in sentence
    # Few groups are warned of.
    facts = {**facts, "groups": 19}
    assert "come from only 19 groups: below 20" in coverage_sentence(covered, facts)
    assert "come from only" not in coverage_sentence(covered, {**facts, "groups": 20})

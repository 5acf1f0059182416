"""Sentences on what fails: by task, by clip, in stage one."""

from dataclasses import replace

import numpy as np
import pytest
from fuse_samples import make_results, one_model
from output_samples import TAGS, output_table

from mvemo.fuse.report.findings import findings
from mvemo.fuse.results import best_model
from mvemo.fuse.tasks import task_of


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


def test_tags_and_targets_say_which_is_worst():
    base = make_results(60, 2, missing=0)
    labels = output_table("multilabel", n=60).labels
    proba = np.where(labels == 1, 0.8, 0.2)
    proba[:, 1] = np.linspace(0.2, 0.8, 60)
    task = task_of("multilabel")
    text = text_of(one_model(base, proba, y_true=labels, classes=TAGS, task=task))
    assert "net ranks dark worst (AUC 0." in text
    # Yes and no count alike.
    right = np.mean((proba >= 0.5) == (labels == 1))
    stated = np.maximum(proba, 1 - proba).mean()
    assert f"it states {100 * stated:.0f} % and is correct in {100 * right:.0f} %" in text
    labels, names = output_table("regression", n=60).labels, ("arousal", "valence")
    task = task_of("regression")
    text = text_of(one_model(base, labels * [1, 0.5], y_true=labels, classes=names, task=task))
    assert "net predicts valence worst (R2 0." in text
    assert "100 % (arousal), 50 % (valence) of the labels'." in text


def test_clips_without_a_prediction_and_failures_are_told(results):
    text = " ".join(findings(results, best_model(results)))
    assert "models could not predict every clip" in text
    assert "(c3d: 4 clips)" in text
    assert "2 clips failed in stage one (" in text
    # Shuffled labels have no class that fails.
    shuffled = replace(results, permuted=True)
    assert "misses" not in " ".join(findings(shuffled, best_model(shuffled)))

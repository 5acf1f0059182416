"""Every figure of a report in every resample, and the 95 % intervals made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.calibration import calibration_terms
from mvemo.fuse.metrics.multiclass import majority_hits, mean_held
from mvemo.fuse.outputs import OutputResults
from mvemo.fuse.results import Results
from mvemo.fuse.statistics.bootstrap import (
    bootstrap_multiclass,
    bootstrap_multilabel,
    bootstrap_regression,
)
from mvemo.fuse.statistics.resamples import Resamples
from mvemo.fuse.tasks.primary_metric import headline_resamples
from mvemo.fuse.tasks.scores import Plane, plane_of

F64 = NDArray[np.float64]


def resampled_scores(results: Results | OutputResults, resamples: Resamples) -> dict[str, F64]:
    """Score name to float64 (models, resamples), all in the same resamples of groups.

    Of tags and dimensions the baseline is the last of the models; of classes ``majority``
    has its accuracy alone. Scores of the c-th class or tag end in ``:c``, those of a
    dimension in ``_NAME``; ``headline`` is the task's.

    Parameters
    ----------
    results
        One evaluation, without its repeats.
    resamples
        Of the clips' groups.
    """
    if isinstance(results, Results):
        return _of_classes(results, resamples)
    models = (*results.models, results.baseline)
    predictions = np.stack([m.predictions for m in models])
    if results.task == "multilabel":
        decisions = np.stack([m.decisions for m in models if m.decisions is not None])
        labels = results.labels.astype(np.int64)
        found = bootstrap_multilabel(labels, predictions, decisions, resamples)
        found["headline"] = headline_resamples(
            results.task, labels, predictions, results.folds, results.k, resamples
        )
        return found | _calibration(labels, predictions, resamples)
    return _of_values(results, predictions, resamples)


def _of_classes(results: Results, resamples: Resamples) -> dict[str, F64]:
    probabilities = np.stack([m.probabilities for m in results.models])
    # Of one fold the mean over folds is the pooled score.
    folds = results.folds if results.k > 1 else None
    found = bootstrap_multiclass(results.labels, probabilities, resamples, folds)
    found["headline"] = headline_resamples(
        results.task, results.labels, probabilities, results.folds, results.k, resamples
    )
    hits = majority_hits(results.labels, results.folds, results.k)
    found["majority"] = resamples.shares(hits[None] == 1, np.isfinite(hits)[None])
    return found | _calibration(results.labels, probabilities, resamples)


def _of_values(results: OutputResults, predictions: F64, resamples: Resamples) -> dict[str, F64]:
    values = results.labels.astype(np.float64)
    found = {}
    for name, of in bootstrap_regression(values, predictions, resamples).items():
        # A dimension without variance has no R2; the others still have.
        found[f"{name}_macro"] = mean_held(of, axis=1)
        found.update({f"{name}_{c}": of[:, i] for i, c in enumerate(results.classes)})
    found["headline"] = found["r2_macro"]
    if results.quadrant_centre is not None:
        plane = plane_of(results.classes, values, results.quadrant_centre)
        if plane is not None:
            found["quadrant_accuracy"] = _quadrants(plane, values, predictions, resamples)
    return found


def _calibration(
    labels: NDArray[np.int64], predictions: F64, resamples: Resamples
) -> dict[str, F64]:
    """``ece``, ``brier`` and ``log_loss`` of probabilities of classes or tags."""
    found: dict[str, list[F64]] = {"ece": [], "brier": [], "log_loss": []}
    for said in predictions:
        brier, loss, gaps, weight = calibration_terms(labels, said)
        sums = resamples.sums(np.column_stack([brier, loss, weight, gaps]))
        n = np.where(sums[:, 2] > 0, sums[:, 2], np.nan)
        found["brier"].append(sums[:, 0] / n)
        found["log_loss"].append(sums[:, 1] / n)
        found["ece"].append(np.abs(sums[:, 3:]).sum(axis=1) / n)
    return {name: np.array(of) for name, of in found.items()}


def difference(scores: Mapping[str, F64], model: int, other: int) -> F64:
    """float64 (resamples,): headline of a model minus that of another, in the same resamples."""
    result: F64 = scores["headline"][model] - scores["headline"][other]
    return result


def _quadrants(plane: Plane, labels: F64, predictions: F64, resamples: Resamples) -> F64:
    """float64 (models, resamples): accuracy of quadrants."""
    true = plane.quadrants(labels)
    said = np.stack([plane.quadrants(p) for p in predictions])
    return resamples.shares(said == true, said >= 0)

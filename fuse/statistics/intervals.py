"""The draws of every figure of a report, and the 95 % intervals made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.calibration import calibration_terms
from mvemo.fuse.metrics.multiclass import majority_hits, mean_held
from mvemo.fuse.outputs import OutputResults
from mvemo.fuse.results import Results
from mvemo.fuse.statistics.bootstrap import (
    Counts,
    bootstrap_multilabel,
    bootstrap_regression,
    bootstrap_scores,
)
from mvemo.fuse.tasks.primary_metric import headline_draws
from mvemo.fuse.tasks.scores import Plane, plane_of

F64 = NDArray[np.float64]


def draws_of(results: Results | OutputResults, counts: Counts) -> dict[str, F64]:
    """Score name to float64 (models, draws), all on the same draws of groups.

    Of tags and dimensions the baseline is the last of the models; of classes ``majority``
    has its accuracy alone. Scores of the c-th class or tag end in ``:c``, those of a
    dimension in ``_NAME``; ``headline`` is the task's.

    Parameters
    ----------
    results
        One evaluation, without its repeats.
    counts
        Of `bootstrap_counts`.
    """
    if isinstance(results, Results):
        return _of_classes(results, counts)
    models = (*results.models, results.baseline)
    predictions = np.stack([m.predictions for m in models])
    if results.task == "multilabel":
        decisions = np.stack([m.decisions for m in models if m.decisions is not None])
        labels = results.labels.astype(np.int64)
        found = dict(bootstrap_multilabel(labels, predictions, decisions, counts).draws)
        found["headline"] = headline_draws(
            results.task, labels, predictions, results.folds, results.k, counts
        )
        return found | _calibration(labels, predictions, counts)
    return _of_values(results, predictions, counts)


def _of_classes(results: Results, counts: Counts) -> dict[str, F64]:
    probabilities = np.stack([m.probabilities for m in results.models])
    # Of one fold the mean over folds is the pooled score.
    folds = results.folds if results.k > 1 else None
    found = dict(
        bootstrap_scores(results.labels, probabilities, (), counts=counts, folds=folds).draws
    )
    found["headline"] = headline_draws(
        results.task, results.labels, probabilities, results.folds, results.k, counts
    )
    hits = majority_hits(results.labels, results.folds, results.k)
    found["majority"] = counts.shares(hits[None] == 1, np.isfinite(hits)[None])
    return found | _calibration(results.labels, probabilities, counts)


def _of_values(results: OutputResults, predictions: F64, counts: Counts) -> dict[str, F64]:
    values = results.labels.astype(np.float64)
    found = {}
    for name, of in bootstrap_regression(values, predictions, counts).items():
        # A dimension without variance has no R2; the others still have.
        found[f"{name}_macro"] = mean_held(of, axis=1)
        found.update({f"{name}_{c}": of[:, i] for i, c in enumerate(results.classes)})
    found["headline"] = found["r2_macro"]
    if results.quadrant_centre is not None:
        plane = plane_of(results.classes, values, results.quadrant_centre)
        if plane is not None:
            found["quadrant_accuracy"] = _quadrants(plane, values, predictions, counts)
    return found


def _calibration(labels: NDArray[np.int64], predictions: F64, counts: Counts) -> dict[str, F64]:
    """``ece``, ``brier`` and ``log_loss`` of probabilities of classes or tags."""
    found: dict[str, list[F64]] = {"ece": [], "brier": [], "log_loss": []}
    for said in predictions:
        brier, loss, gaps, weight = calibration_terms(labels, said)
        sums = counts.sums(np.column_stack([brier, loss, weight, gaps]))
        n = np.where(sums[:, 2] > 0, sums[:, 2], np.nan)
        found["brier"].append(sums[:, 0] / n)
        found["log_loss"].append(sums[:, 1] / n)
        found["ece"].append(np.abs(sums[:, 3:]).sum(axis=1) / n)
    return {name: np.array(of) for name, of in found.items()}


def difference(draws: Mapping[str, F64], model: int, other: int) -> F64:
    """float64 (draws,): headline of a model minus that of another, on the same draws."""
    result: F64 = draws["headline"][model] - draws["headline"][other]
    return result


def _quadrants(plane: Plane, labels: F64, predictions: F64, counts: Counts) -> F64:
    """float64 (models, draws): accuracy of quadrants."""
    true = plane.quadrants(labels)
    said = np.stack([plane.quadrants(p) for p in predictions])
    return counts.shares(said == true, said >= 0)

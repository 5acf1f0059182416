"""Scores to expect from the predictors of a final model, and the thresholds of their sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mvemo.fuse.bootstrap import resample_groups, score_interval
from mvemo.fuse.conformal import GRID, cross_conformal, limits
from mvemo.fuse.final.formats import quadrant_of
from mvemo.fuse.final.model import INTERVAL_SHARE, Predictor
from mvemo.fuse.metrics import calibration
from mvemo.fuse.numeric import Labels, Link, mean_finite
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Outcome, Task
from mvemo.fuse.tasks.regression import Plane, Regression
from mvemo.manifests.array_types import F64

# Groups are data sets, which are scored separately, if there are at most 12 and each has 20 clips.
MOST_SETS, LEAST_OF_SET = 12, 20


def predictor_of(results: Results, model: ModelResult, bases: tuple[str, ...] = ()) -> Predictor:
    """Return the predictor of an evaluated model, with its expected scores and calibration."""
    task, valid = results.task, model.valid
    y_true, outputs = results.y_true[valid], model.outputs[valid]
    temperature = 1.0
    if task.exclusive:
        temperature = calibration.fit_temperature(calibration.log_probabilities(outputs), y_true)
        outputs = calibration.apply_temperature(outputs, temperature)
    groups = [results.groups[i] for i in np.flatnonzero(valid)]
    found = Outcome(y_true, outputs, model.y_pred[valid], results.folds[valid], results.k)
    by_group = per_group(task, found, groups, results.classes)
    if by_group:
        # There are too few data sets for quantiles over sets, so clips are used instead.
        groups = [f"{i}" for i in range(len(groups))]
    sets = cross_conformal(y_true, outputs, found.folds, groups, task.link, INTERVAL_SHARE)
    interval = model.intervals.get("primary")
    expected = {
        "metric": task.primary_metric,
        "mean": finite_or_none(results.primary_mean(model)),
        "interval": None if interval is None else [finite_or_none(end) for end in interval],
        "scores": {name: finite_or_none(value) for name, value in model.scores.items()},
        "per_output": {
            output: {name: finite_or_none(values[i]) for name, values in model.per_output.items()}
            for i, output in enumerate(results.classes)
        },
        "coverage": {
            "asked": INTERVAL_SHARE,
            "share": finite_or_none(float(np.nanmean(sets.covered))),
            "size": None if task.link == "identity" else float(sets.size.mean()),
        },
        "per_group": by_group,
    }
    if isinstance(task, Regression) and task.plane is not None:
        expected["plane"] = _plane(task.plane, y_true, outputs)
        for name, scores in by_group.items():
            rows = np.array([results.groups[i] == name for i in np.flatnonzero(valid)])
            # This data set is left out, as new music would be: heads and errors are from others.
            plane = _plane(task.plane, y_true[~rows], outputs[~rows])
            scores |= _quadrant_calibration(task.plane, plane, y_true[rows], outputs[rows])
    predictor = Predictor(
        model.name, model.features, model.modalities, expected, temperature, bases
    )
    return with_limits(predictor, y_true, outputs, groups, task.link)


def _plane(plane: Plane, y_true: F64, outputs: F64) -> dict[str, Any]:
    """Return the JSON values that `quadrant_of` reads; errors are those of out-of-fold outputs."""
    at = [plane.valence, plane.arousal]
    errors = (y_true - outputs)[:, at]
    covariance = (errors.T @ errors / len(errors)).tolist()
    return {"at": at, "centre": plane.centre, "covariance": covariance}


def _quadrant_calibration(
    plane: Plane, stated: Mapping[str, Any], y_true: F64, outputs: F64
) -> dict[str, Any]:
    """Return confidence, ECE and ECE by chance of quadrants; skip clips on the plane's centre."""
    rows = (y_true[:, stated["at"]] != plane.centre).all(axis=1)
    right = plane.quadrants(y_true[rows]) == plane.quadrants(outputs[rows])
    confidence = np.array([quadrant_of(values, **stated)[1] for values in outputs[rows]])
    found = calibration.reliability(right[:, None].astype(np.int64), confidence[:, None])
    return {
        "confidence": finite_or_none(float(mean_finite(confidence, axis=0))),
        "quadrant_ece": [finite_or_none(found.ece), finite_or_none(found.ece_by_chance)],
    }


def per_group(
    task: Task, found: Outcome, groups: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the out-of-fold scores of each group, if groups are data sets.

    Each has ``n`` clips and, with their 95 % intervals over clips, the primary metric,
    ``quadrant_accuracy`` and ``r TARGET``: lists of the value and both ends.
    """
    names, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if not 1 < len(names) <= MOST_SETS or counts.min() < LEAST_OF_SET:
        return {}
    scores = {"primary": task.primary_metric, "quadrant_accuracy": "quadrant_accuracy"}
    scores |= {f"pearson_r:{i}": f"r {target}" for i, target in enumerate(classes)}
    sets: dict[str, Any] = {}
    for i, (name, n) in enumerate(zip(names.tolist(), counts.tolist(), strict=True)):
        rows, resamples = codes == i, resample_groups(range(n))
        parts = found.y_true[rows], found.outputs[None, rows], found.y_pred[None, rows]
        drawn = task.resample(Outcome(*parts, np.zeros(n, int), 1), resamples)
        sets[name] = {"n": n}
        for key, score in scores.items():
            if key in drawn:
                values, kind = drawn[key][0], score if key == "primary" else key
                ends = score_interval(kind, values, resamples)
                sets[name][score] = [finite_or_none(x) for x in (values[0], *ends)]
    return sets


def with_limits(
    predictor: Predictor, y_true: Labels, outputs: F64, groups: Sequence[str], link: Link
) -> Predictor:
    """Return the predictor with the thresholds of its sets, from out-of-fold outputs."""
    usual, optional = (limits(y_true, outputs, groups, link, GRID, o) for o in (False, True))
    # Thresholds are rounded up to keep the file small: to 6 digits, or to single precision.
    rounded = np.nextafter(optional.astype(np.float32), np.float32(np.inf))
    return replace(
        predictor,
        nonconformity=tuple(
            tuple(float(f"{x * (1 + 1e-5):.6g}") for x in row) for row in usual.tolist()
        ),
        optional=tuple(map(tuple, rounded.tolist())),
        limit_groups=len(set(groups)),
    )


def finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

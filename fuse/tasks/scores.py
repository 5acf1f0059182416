"""Scores and intervals of predicted tags (F8) and dimensions (F9), over folds and pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.calibration import tag_brier_score, tag_log_loss, tag_reliability
from mvemo.fuse.metrics.multiclass import confusion_matrix, mean_of_held
from mvemo.fuse.metrics.multilabel import NAMES, decide, multilabel_scores
from mvemo.fuse.metrics.regression import QUADRANTS, quadrant_accuracy, quadrants, regression_scores
from mvemo.fuse.models import Model
from mvemo.fuse.outputs import OutputResult
from mvemo.fuse.tasks.primary_metric import headline_per_fold

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

REGRESSION_NAMES = ("r2", "rmse", "ccc")
# Neutral points of the usual rating scales, by the largest value that a scale can hold.
_SCALES = ((1.0, 0.5), (5.0, 3.0), (7.0, 4.0), (9.0, 5.0))


@dataclass(frozen=True)
class Plane:
    """Which dimensions span the valence-arousal plane, and where it is neutral."""

    valence: int
    arousal: int
    centre: tuple[float, float]

    def quadrants(self, values: F64) -> Ints:
        """int64 (clips,): of values (clips, dimensions); -1 where they are NaN."""
        return quadrants(values[:, self.valence], values[:, self.arousal], self.centre)


def plane_of(
    classes: Sequence[str], labels: F64, centre: tuple[float, float] | None = None
) -> Plane | None:
    """The plane, where valence and arousal are among the dimensions; else None.

    Parameters
    ----------
    classes
        Names of the dimensions.
    labels
        float64 (clips, dimensions). Where `centre` is not given, it is that of the rating
        scale that they fit: 0 where any is negative, else the middle of [0, 1], [1, 5],
        [1, 7] or [1, 9]; None where they fit none.
    centre
        Valence and arousal of the neutral point.
    """
    lower = [name.lower() for name in classes]
    if "valence" not in lower or "arousal" not in lower:
        return None
    v, a = lower.index("valence"), lower.index("arousal")
    if centre is None:
        both = labels[:, [v, a]]
        low, high = float(both.min()), float(both.max())
        fits = [middle for top, middle in _SCALES if high <= top and (low >= 1.0 or top == 1.0)]
        if low < 0:
            fits = [0.0]
        if not fits:
            return None
        centre = (fits[0], fits[0])
    return Plane(v, a, centre)


def score_tags(
    model: Model,
    labels: Ints,
    probabilities: F64,
    thresholds: F64,
    folds: Ints,
    k: int,
    by_clip: F64 | None = None,
) -> OutputResult:
    """Score tags; `thresholds` float64 (folds, tags), all else as in `OutputResult`.

    `by_clip`, float64 (clips, tags), says where clips have thresholds of their own.
    """
    if by_clip is None:
        by_clip = thresholds[folds]
    held = multilabel_scores(labels, probabilities, by_clip)
    there = np.isfinite(probabilities).all(axis=1)
    per_fold = {name: np.full((k, labels.shape[1]), np.nan) for name in NAMES}
    for fold in range(k):
        rows = there & (folds == fold)
        if rows.any():
            scores = multilabel_scores(labels[rows], probabilities[rows], by_clip[rows])
            for name in NAMES:
                per_fold[name][fold] = getattr(scores, name)
    return OutputResult(
        name=model.name,
        modalities=model.modalities,
        features=model.features,
        predictions=probabilities,
        thresholds=thresholds,
        decisions=decide(probabilities, by_clip),
        headline_per_fold=headline_per_fold("multilabel", labels, probabilities, folds, k),
        per_fold=per_fold,
        pooled={name: getattr(held, name) for name in NAMES},
        macro=held.macro,
        micro=held.micro,
        calibration={
            "ece": tag_reliability(labels, probabilities).ece,
            "brier": tag_brier_score(labels, probabilities),
            "log_loss": tag_log_loss(labels, probabilities),
        },
    )


def score_values(
    model: Model, labels: F64, predictions: F64, folds: Ints, k: int, plane: Plane | None
) -> OutputResult:
    """Score dimensions, and quadrants where there is a plane."""
    held = regression_scores(labels, predictions)
    there = np.isfinite(predictions).all(axis=1)
    per_fold = {name: np.full((k, labels.shape[1]), np.nan) for name in REGRESSION_NAMES}
    for fold in range(k):
        rows = there & (folds == fold)
        if rows.any():
            scores = regression_scores(labels[rows], predictions[rows])
            for name in REGRESSION_NAMES:
                per_fold[name][fold] = getattr(scores, name)
    result = OutputResult(
        name=model.name,
        modalities=model.modalities,
        features=model.features,
        predictions=predictions,
        thresholds=None,
        decisions=None,
        headline_per_fold=headline_per_fold("regression", labels, predictions, folds, k),
        per_fold=per_fold,
        pooled={name: getattr(held, name) for name in REGRESSION_NAMES},
        macro={name: mean_of_held(getattr(held, name)) for name in REGRESSION_NAMES},
        micro={},
    )
    if plane is None:
        return result
    true, said = plane.quadrants(labels), plane.quadrants(predictions)
    rows = said >= 0
    return replace(
        result,
        quadrant_accuracy=quadrant_accuracy(true, said),
        quadrant_per_fold=np.array(
            [quadrant_accuracy(true[folds == f], said[folds == f]) for f in range(k)]
        ),
        quadrant_confusion=confusion_matrix(true[rows], said[rows], len(QUADRANTS)),
    )

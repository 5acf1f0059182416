"""Kernel expert: a head that is not linear, over all features, among the evaluated models.

It is chosen only if it wins inside the training folds (`mvemo.fuse.crossval.out_of_fold`). It is
not saved, so new clips are predicted by another model. The scores s of classes become probabilities
max(s, FLOOR)**slope, divided by their sum; the slope is fitted on inner scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import leave_each_out
from mvemo.fuse.heads.fitting import MIN_DIFFERENT, Fit, HeadFitter, balance
from mvemo.fuse.heads.kernel import MOST_CLIPS, fit_kernel
from mvemo.fuse.metrics.calibration import fit_temperature
from mvemo.fuse.models import KERNEL, Model, modalities_of
from mvemo.fuse.numeric import F64, MIN_PROBABILITY, Labels, Link, softmax
from mvemo.fuse.scaling import unit_rows

# Smallest score of a class, below which scores are noise. Chosen by the log loss on EmoMV.
FLOOR = 0.05


def kernel_expert(prepared: Preparation, settings: EvaluationSettings) -> KernelExpert | None:
    """Return the expert over all features of the models; None if it is not to be made.

    Raise `BadFeatures` if ``models`` names it although it cannot be made.
    """
    named = settings.models is not None and KERNEL in settings.models
    if not named and (settings.models is not None or not settings.kernel):
        return None
    features, n = prepared.features, len(prepared.clips.y_true)
    reasons = {
        "it needs at least one other model": not prepared.models,
        f"it needs at most {MOST_CLIPS:,} clips, got {n:,}": n > MOST_CLIPS,
        "it needs all features in memory (fuse.memory)": features.streamed,
    }
    why_not = next((reason for reason, applies in reasons.items() if applies), None)
    if why_not and named:
        raise BadFeatures(f"{features.cache.path}: {KERNEL}: {why_not}: leave it out")
    if why_not:
        return None
    everything = max(prepared.models, key=lambda model: len(model.features)).features
    names = dict.fromkeys((*everything, *prepared.names))
    return KernelExpert(Model(KERNEL, tuple(names), modalities_of(prepared.models)))


@dataclass(frozen=True)
class KernelExpert:
    """Kernel ridge regression over all features, for clips that have all of them."""

    model: Model

    def predict_fold(self, oof: OutOfFold, fitter: HeadFitter, fold: int) -> None:
        """Fit one fold's expert, and write its predictions to `oof`, also the inner ones.

        Columns and targets are scaled on the training clips. Inner predictions use the slope that
        was fitted on the other inner folds.
        """
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        oof.inner[fold][key] = oof.blank()
        columns, valid = fitter.standardised(Fit(self.model, fold, ~tested, fitter.settings.C))
        train, predict = valid & ~tested, valid & tested
        labels, link = clips.y_true[train], clips.link
        different = np.unique(labels) if link == "softmax" else labels
        if len(different) < MIN_DIFFERENT:
            return
        target = clips.target.T.astype(np.float64)[train]
        mean, scale = np.zeros(1), np.ones(1)
        if link == "identity":
            mean, deviation = labels.mean(axis=0), labels.std(axis=0)
            scale = np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1e-30), deviation, 1.0)
            target = (labels - mean) / scale
        unit, folds = unit_rows(columns), oof.inner_folds[fold][train]
        weights = None
        if fitter.settings.class_weight == "balanced":
            weights = balance(np.ones((1, len(target)), np.float32), target.T.astype(np.float32))[0]
        head, scores = fit_kernel(unit[train], target, folds, weights)
        inner = np.full_like(scores, np.nan)
        for others, rows in leave_each_out(folds):
            if others.any() and rows.any():
                slope = _slope(link, scores[others], labels[others])
                inner[rows] = _outputs(link, scores[rows], slope) * scale + mean
        oof.inner[fold][key][train] = inner
        outputs = _outputs(link, head.scores(unit[predict]), _slope(link, scores, labels))
        oof.outputs[key][predict] = outputs * scale + mean


def _slope(link: Link, scores: F64, labels: Labels) -> float:
    """Return the exponent of the scores with the lowest log loss; 1 if they are not of classes."""
    if link != "softmax":
        return 1.0
    return 1.0 / fit_temperature(np.log(np.maximum(scores, FLOOR)), labels)


def _outputs(link: Link, scores: F64, slope: float) -> F64:
    """Convert scores to probabilities of classes or of tags; return values unchanged."""
    if link == "softmax":
        return softmax(np.log(np.maximum(scores, FLOOR)) * slope)
    if link == "sigmoid":
        return np.clip(scores, MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
    return scores

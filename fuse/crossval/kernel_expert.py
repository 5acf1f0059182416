"""Kernel expert: a head that is not linear, over all features, among the evaluated models.

It is chosen only if it wins inside the training folds (`mvemo.fuse.crossval.out_of_fold`). The
slope of the scores of classes is fitted on inner scores. Only the head of all clips is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import leave_each_out
from mvemo.fuse.heads import fitting
from mvemo.fuse.heads.fitting import target_scale
from mvemo.fuse.heads.kernel import FLOOR, MOST_CLIPS, fit_kernel, outputs_of, refit_kernel
from mvemo.fuse.metrics.calibration import fit_temperature
from mvemo.fuse.models import BLENDED, KERNEL, WITH_KERNEL, Model, modalities_of
from mvemo.fuse.numeric import Labels, Link
from mvemo.fuse.scaling import unit_rows
from mvemo.manifests.array_types import F32, F64, Bools


def kernel_expert(prepared: Preparation, settings: EvaluationSettings) -> KernelExpert | None:
    """Return the expert or None; raise `BadFeatures` if it is named, but cannot be made."""
    named = next((name for name in settings.models or () if name in WITH_KERNEL), None)
    if named is None and (settings.models is not None or not settings.kernel):
        return None
    features, n = prepared.features, len(prepared.clips.y_true)
    reasons = {
        "it needs at least one other model": not prepared.models,
        f"it needs at most {MOST_CLIPS:,} clips, got {n:,}": n > MOST_CLIPS,
        "it needs all features in memory (fuse.memory)": features.streamed,
        "it needs ratings": named == BLENDED and prepared.clips.link != "identity",
    }
    why_not = next((reason for reason, applies in reasons.items() if applies), None)
    if why_not and named:
        raise BadFeatures(f"{features.store.path}: {named}: {why_not}: leave it out")
    if why_not:
        return None
    everything = max(prepared.models, key=lambda model: len(model.features)).features
    names = dict.fromkeys((*everything, *prepared.names))
    return KernelExpert(Model(KERNEL, tuple(names), modalities_of(prepared.models)))


@dataclass(frozen=True)
class _Training:
    """Inputs of one fit."""

    fit: fitting.Fit
    unit: F32  # float32 (clips, dim): standardised vectors of length 1 of all clips
    valid: Bools  # bool (clips,): True for clips with all features
    rows: Bools  # bool (clips,): True for training clips
    target: F64  # float64 (training clips, outputs)
    target_scale: fitting.TargetScale
    weights: F32 | None  # float32 (training clips,)


@dataclass(frozen=True)
class KernelExpert:
    """Kernel ridge regression over all features, for clips that have all of them."""

    model: Model
    # Ridge and slope that each fold chose.
    chosen: dict[int, tuple[float, float]] = field(default_factory=dict)

    def predict_fold(self, oof: OutOfFold, fitter: fitting.HeadFitter, fold: int) -> None:
        """Fit one fold's expert, and write its predictions to `oof`, also the inner ones.

        Columns and targets are scaled on the training clips. Inner predictions use the slope that
        was fitted on the other inner folds.
        """
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        oof.inner[fold][key] = oof.blank()
        part = self._training(fitter, fold, ~tested)
        if part is None:
            return
        labels, link, scale = clips.y_true[part.rows], clips.link, part.target_scale
        folds = oof.inner_folds[fold][part.rows]
        head, scores = fit_kernel(part.unit[part.rows], part.target, folds, part.weights)
        inner = np.full_like(scores, np.nan)
        for others, rows in leave_each_out(folds):
            if others.any() and rows.any():
                slope = _slope(link, scores[others], labels[others])
                inner[rows] = scale.outputs(outputs_of(scores[rows], link, slope))
        oof.inner[fold][key][part.rows] = inner
        slope = _slope(link, scores, labels)
        predict = part.valid & tested
        outputs = outputs_of(head.scores(part.unit[predict]), link, slope)
        oof.outputs[key][predict] = scale.outputs(outputs)
        self.chosen[fold] = head.ridge, slope

    def fit_all(self, oof: OutOfFold, fitter: fitting.HeadFitter, tested: Sequence[int]) -> None:
        """Add a head of all clips, with the medians of the tested folds' ridges and slopes."""
        part = self._training(fitter, None, np.ones(len(oof.clips.y_true), bool))
        chosen = [self.chosen[fold] for fold in tested if fold in self.chosen]
        if part is None or not chosen:
            return
        ridge, slope = (sorted(values)[len(chosen) // 2] for values in zip(*chosen, strict=True))
        head = refit_kernel(part.unit[part.rows], part.target, ridge, part.weights)
        fit = replace(part.fit, C=1.0 / ridge)
        oof.heads.append(fitter.kernel_head(fit, head, slope, part.target_scale))

    def _training(
        self, fitter: fitting.HeadFitter, fold: int | None, train: Bools
    ) -> _Training | None:
        """Return what a fit on the clips in `train` reads; None if they are too few."""
        clips, fit = fitter.clips, fitting.Fit(self.model, fold, train, fitter.settings.C)
        columns, valid = fitter.standardised(fit)
        rows = valid & train
        labels = clips.y_true[rows]
        different = np.unique(labels) if clips.link == "softmax" else labels
        if len(different) < fitting.MIN_DIFFERENT:
            return None
        target = clips.target.T.astype(np.float64)[rows]
        scale = fitting.TargetScale(np.zeros(1), np.ones(1))
        if clips.link == "identity":
            scale = target_scale(labels)
            target = scale.standardised(labels)
        weights = None
        if fitter.settings.class_weight == "balanced":
            weights = fitting.balance(
                np.ones((1, len(target)), np.float32), target.T.astype(np.float32)
            )[0]
        return _Training(fit, unit_rows(columns), valid, rows, target, scale, weights)


def _slope(link: Link, scores: F64, labels: Labels) -> float:
    """Return the exponent of the scores with the lowest log loss; 1 if they are not of classes."""
    if link != "softmax":
        return 1.0
    return 1.0 / fit_temperature(np.log(np.maximum(scores, FLOOR)), labels)

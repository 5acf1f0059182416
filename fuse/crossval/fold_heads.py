"""Heads over one set of feature values: for scores, and for predictions inside training folds.

Features that all folds share serve the heads of six folds at once; crossfitted features are
another set for every fold. Whatever is chosen or fitted in addition to the heads (strength of
the penalty, stacking, temperatures, thresholds) uses only inner folds of the training clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mvemo.fuse.arrays import F32, F64, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.strengths import Strength, choose_strengths
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, HeadFitter, trainable
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.models import Key, Model

# Key of a head: its features, and the fold that it leaves out.
HeadKey = tuple[Key, int]

# Inner predictions need less precision than those that are scored.
INNER_TOLERANCE = 1e-5


@dataclass(frozen=True)
class HeadPlan:
    """Plan of the heads to fit over one set of feature values."""

    folds: tuple[int, ...]  # folds to leave out in turn
    models: tuple[Model, ...]  # models to fit a head of, for every fold
    inner_models: tuple[Model, ...] = ()  # models that also predict inner folds
    refit: tuple[Model, ...] = ()  # models that are also fitted on all clips
    net_fold: int | None = None  # fold whose nets made the values, for the record


@dataclass
class FoldHeads:
    """Fitted heads of one plan, with their predictions."""

    # Outputs of a fold's clips by the head trained without them, float64 (clips of the fold,
    # outputs).
    scored: dict[HeadKey, F64] = field(default_factory=dict)
    # Outputs of a fold's training clips, float32 (clips, outputs), each by a head that never saw
    # the clip; NaN elsewhere.
    inner: dict[HeadKey, F32] = field(default_factory=dict)
    # Fold to its inner folds, int64 (clips,); -1 for the fold's own clips.
    inner_folds: dict[int, Ints] = field(default_factory=dict)
    # Chosen C of each head; empty without a choice.
    strength: dict[HeadKey, float] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)


def fit_fold_heads(
    clips: Clips, matrices: Mapping[str, Matrix], plan: HeadPlan, settings: HeadSettings
) -> FoldHeads:
    """Fit all heads over one set of feature values."""
    inner_folds = {fold: clips.inner_folds(fold, settings.inner_folds) for fold in plan.folds}
    result = FoldHeads(inner_folds=inner_folds)
    fitter = HeadFitter(matrices, clips, settings, plan.net_fold)
    for fold in plan.folds:
        strengths: Mapping[Key, Strength] = {}
        if settings.choose_C:
            strengths = choose_strengths(fitter, plan.models, fold, inner_folds[fold])
            result.strength |= {(key, fold): one.C for key, one in strengths.items()}
        _predict_inside(result, fitter, plan, fold, strengths)
        _fit_outer(result, fitter, plan, fold, strengths)
    if plan.refit:
        again = _refits(plan.refit, fitter, result.strength)
        result.heads += [fitter.head(one) for one in fitter.fit(again)]
    return result


def _predict_inside(
    result: FoldHeads,
    fitter: HeadFitter,
    plan: HeadPlan,
    fold: int,
    strengths: Mapping[Key, Strength],
) -> None:
    """Predict a fold's training clips by heads on inner folds, into `result`.

    Heads without training clips are left out: few clips may have a feature.
    """
    clips, inner = fitter.clips, result.inner_folds[fold]
    shape = (len(clips.y_true), clips.n_outputs)
    for model in plan.inner_models:
        result.inner[model.features, fold] = np.full(shape, np.nan, np.float32)
        # Thresholds depend on the last digits of these predictions.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    fits = []
    for j in range(int(inner.max()) + 1):
        for model in plan.inner_models:
            chosen = strengths.get(model.features)
            fit = Fit(
                model, fold, (inner >= 0) & (inner != j), fitter.default_C, tolerance, inner == j
            )
            fit = replace(fit, scaled_on=clips.folds != fold)
            if chosen is not None:
                fit = replace(fit, C=chosen.C, start=chosen.start(j))
            fits.append(fit)
    for one in fitter.fit(trainable(fits, fitter.matrices, clips)):
        result.inner[one.fit.model.features, fold][one.fit.predict] = one.outputs


def _fit_outer(
    result: FoldHeads,
    fitter: HeadFitter,
    plan: HeadPlan,
    fold: int,
    strengths: Mapping[Key, Strength],
) -> None:
    """Fit the heads that leave a fold out, if they have training clips, into `result`."""
    clips = fitter.clips
    fits = []
    for model in plan.models:
        fit = Fit(model, fold, clips.folds != fold, fitter.default_C, predict=clips.folds == fold)
        chosen = strengths.get(model.features)
        if chosen is not None:
            fit = replace(fit, C=chosen.C, start=chosen.start(None))
        fits.append(fit)
    for one in fitter.fit(trainable(fits, fitter.matrices, clips)):
        result.scored[one.fit.model.features, fold] = one.outputs
        result.heads.append(fitter.head(one))


def _refits(
    models: tuple[Model, ...], fitter: HeadFitter, strength: Mapping[HeadKey, float]
) -> list[Fit]:
    """Return fits on all clips, with the median of the strengths that the folds chose."""
    everything = np.ones(len(fitter.clips.y_true), dtype=np.bool_)
    # Their outputs are not needed.
    nothing = ~everything
    fits = []
    for model in models:
        chosen = sorted(C for (names, _), C in strength.items() if names == model.features)
        C = chosen[len(chosen) // 2] if chosen else fitter.default_C
        fits.append(Fit(model, None, everything, C, predict=nothing))
    return trainable(fits, fitter.matrices, fitter.clips)

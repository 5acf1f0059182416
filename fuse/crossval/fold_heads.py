"""All heads that one set of feature values serves: for scores, and inside training folds.

Features that all folds share serve the heads of six folds at once; crossfitted features are
another set for every fold. What is chosen or fitted beyond the heads themselves (strength of
penalty, stacking, temperatures, thresholds) rests on inner folds of the training clips
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F32, F64, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, fit_heads, trainable
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.models import Model

# What a head is known by: its features, and the fold that it leaves out.
HeadKey = tuple[tuple[str, ...], int]
# Fits heads, and gives the outputs of the clips that each is to predict.
Fitter = Callable[[Sequence[Fit]], tuple[list[Head], list[F64]]]

# Inner predictions need not be as exact as those that are scored.
INNER_TOLERANCE = 1e-3
# Strengths that `choose_C` chooses from, the strongest penalty first.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class HeadPlan:
    """Which heads to fit over one set of feature values.

    Parameters
    ----------
    folds
        To leave out in turn.
    models
        A head of each, for every fold.
    inner_models
        Those to fit on inner folds as well; where C is chosen, all are.
    refit
        Those to fit on all clips, too.
    net_fold
        Which fold's nets made the values, for the record.
    """

    folds: tuple[int, ...]
    models: tuple[Model, ...]
    inner_models: tuple[Model, ...] = ()
    refit: tuple[Model, ...] = ()
    net_fold: int | None = None


@dataclass
class FoldHeads:
    """What `fit_fold_heads` gives.

    Parameters
    ----------
    scored
        Of heads trained without a fold: outputs for the fold's own clips, float64
        (clips of the fold, outputs).
    inner
        Inside a fold's training clips, float32 (clips, outputs): each by a head that never
        saw it; NaN elsewhere.
    inner_folds
        Fold to the int64 (clips,) inner folds that those are of; -1 for its own clips.
    strength
        The C that was chosen for each head; empty where none was.
    start
        Where C was chosen: a head near that of all training clips, to start its fit from.
    heads
        All of them.
    """

    scored: dict[HeadKey, F64] = field(default_factory=dict)
    inner: dict[HeadKey, F32] = field(default_factory=dict)
    inner_folds: dict[int, Ints] = field(default_factory=dict)
    strength: dict[HeadKey, float] = field(default_factory=dict)
    start: dict[HeadKey, Head] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)


def fit_fold_heads(
    clips: Clips, matrices: Mapping[str, Matrix], plan: HeadPlan, settings: HeadSettings
) -> FoldHeads:
    """Fit all heads over one set of feature values.

    Parameters
    ----------
    clips
        Labels, groups and folds.
    matrices
        Feature name to values.
    plan
        The heads.
    settings
        Of all heads.
    """
    inner_folds = {fold: clips.inner_folds(fold, settings.inner_folds) for fold in plan.folds}
    result = FoldHeads(inner_folds=inner_folds)

    def fit(fits: Sequence[Fit]) -> tuple[list[Head], list[F64]]:
        return fit_heads(fits, matrices, clips, settings, net_fold=plan.net_fold)

    if settings.choose_C:
        _choose_strengths(result, clips, matrices, plan.models, settings, fit)
        outer = _outer_fits(plan, matrices, clips, result.strength, settings.C)
        outer = [replace(one, start=result.start.get(_key(one))) for one in outer]
        result.heads, outputs = fit(outer) if outer else ([], [])
    else:
        # One set of products with the features serves inner and outer heads alike.
        fits = _inner_fits(plan.inner_models, result, settings.C, matrices, clips)
        outer = _outer_fits(plan, matrices, clips, {}, settings.C)
        heads, outputs = fit([*fits, *outer]) if outer else ([], [])
        fits = fits if outer else []
        result.inner = _assemble_inner(plan.inner_models, result, clips, fits, outputs[: len(fits)])
        result.heads, outputs = heads[len(fits) :], outputs[len(fits) :]
    for one, output in zip(outer, outputs, strict=True):
        result.scored[_key(one)] = output
    if plan.refit:
        # By themselves, so that scores are the same to the last digit with and without them.
        again = _refits(plan.refit, matrices, clips, result.strength, settings.C)
        result.heads = result.heads + (fit(again)[0] if again else [])
    return result


def _choose_strengths(
    result: FoldHeads,
    clips: Clips,
    matrices: Mapping[str, Matrix],
    models: Sequence[Model],
    settings: HeadSettings,
    fit: Fitter,
) -> None:
    """Choose each head's penalty on inner folds, into `result`; one strength at a time.

    From the strongest penalty, where a fit takes few steps, to weaker ones. Each starts from
    the last, and a head whose loss grew is done: the loss falls and then grows.
    """
    least: dict[HeadKey, float] = {}
    fits = _inner_fits(models, result, STRENGTHS[0], matrices, clips)
    for C in STRENGTHS:
        heads, outputs = fit(fits) if fits else ([], [])
        inner = _assemble_inner(models, result, clips, fits, outputs)
        better = set()
        for key in {_key(one) for one in fits}:
            loss = clips.loss(result.inner_folds[key[1]] >= 0, inner[key].astype(np.float64))
            if loss < least.get(key, np.inf):
                least[key], result.strength[key], result.inner[key] = loss, C, inner[key]
                better.add(key)
        members = [i for i, one in enumerate(fits) if _key(one) in better]
        for key in better:
            result.start[key] = _mean_head([heads[i] for i in members if _key(fits[i]) == key])
        following = STRENGTHS[STRENGTHS.index(C) + 1 :]
        if not members or not following:
            break
        fits = [replace(fits[i], C=following[0], start=heads[i]) for i in members]
    # Without inner predictions, as of clips of one group, nothing is chosen.
    for key, missing in _assemble_inner(models, result, clips, (), ()).items():
        result.strength.setdefault(key, settings.C)
        result.inner.setdefault(key, missing)


def _key(fit: Fit) -> HeadKey:
    assert fit.fold is not None
    return fit.model.features, fit.fold


def _mean_head(heads: Sequence[Head]) -> Head:
    """What the heads of inner folds have in common, on standardised features."""
    coef = np.stack([head.coef for head in heads]).mean(axis=0)
    intercept = np.stack([head.intercept for head in heads]).mean(axis=0)
    return replace(heads[0], coef=coef, intercept=intercept)


def _inner_fits(
    models: Sequence[Model],
    result: FoldHeads,
    C: float,
    matrices: Mapping[str, Matrix],
    clips: Clips,
) -> list[Fit]:
    """Heads inside the training folds, each to predict one inner fold.

    Those without training clips, as of a feature that few clips have, are left out.
    """
    # Thresholds are set on these predictions to their last digits.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    fits = [
        Fit(model, fold, (inner >= 0) & (inner != j), C, tolerance, inner == j)
        for fold, inner in result.inner_folds.items()
        for j in range(int(inner.max()) + 1)
        for model in models
    ]
    return trainable(fits, matrices, clips)


def _assemble_inner(
    models: Sequence[Model],
    result: FoldHeads,
    clips: Clips,
    fits: Sequence[Fit],
    outputs: Sequence[F64],
) -> dict[HeadKey, F32]:
    """Outputs of inner heads, put together for each model and fold as in `FoldHeads.inner`."""
    shape = (len(clips.y_true), clips.n_outputs)
    inner: dict[HeadKey, NDArray[np.float32]] = {
        (model.features, fold): np.full(shape, np.nan, np.float32)
        for model in models
        for fold in result.inner_folds
    }
    for fit, output in zip(fits, outputs, strict=True):
        inner[_key(fit)][fit.predict] = output
    return inner


def _outer_fits(
    plan: HeadPlan,
    matrices: Mapping[str, Matrix],
    clips: Clips,
    strength: Mapping[HeadKey, float],
    default: float,
) -> list[Fit]:
    """Heads that leave one fold out each; those without training clips are left out."""
    fits = [
        Fit(
            model,
            fold,
            clips.folds != fold,
            strength.get((model.features, fold), default),
            predict=clips.folds == fold,
        )
        for model in plan.models
        for fold in plan.folds
    ]
    return trainable(fits, matrices, clips)


def _refits(
    models: Sequence[Model],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    strength: Mapping[HeadKey, float],
    default: float,
) -> list[Fit]:
    """On all clips, with the middle of the strengths that the folds chose."""
    everything = np.ones(len(clips.y_true), dtype=np.bool_)
    # Nothing of them is scored.
    nothing = ~everything
    fits = []
    for model in models:
        chosen = sorted(C for (names, _), C in strength.items() if names == model.features)
        C = chosen[len(chosen) // 2] if chosen else default
        fits.append(Fit(model, None, everything, C, predict=nothing))
    return trainable(fits, matrices, clips)

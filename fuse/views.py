"""All heads that one set of feature values serves: for scores, and inside training folds.

Features that all folds share are one view of six folds; crossfitted features are six
views of one fold. What is chosen or fitted beyond the heads themselves (strength of
penalty, stacking, temperatures) rests on inner folds of the training clips alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.clips import Clips
from mvemo.fuse.features import Matrix
from mvemo.fuse.fitting import Fit, fit_heads
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Head
from mvemo.fuse.models import Model

F64 = NDArray[np.float64]
# What a head is known by: its features, and the fold that it leaves out.
Key = tuple[tuple[str, ...], int]

# Inner predictions need not be as exact as those that are scored.
INNER_TOLERANCE = 1e-3
# Strengths that `choose_C` chooses from.
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass
class View:
    """What `fit_view` gives.

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
        The C that each head was trained with.
    heads
        All of them.
    """

    scored: dict[Key, F64] = field(default_factory=dict)
    inner: dict[Key, NDArray[np.float32]] = field(default_factory=dict)
    inner_folds: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    strength: dict[Key, float] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)


def fit_view(
    clips: Clips,
    matrices: Mapping[str, Matrix],
    tested: Sequence[int],
    models: Sequence[Model],
    inner_models: Sequence[Model],
    settings: HeadSettings,
    *,
    net_fold: int | None,
    refit: Sequence[Model] = (),
) -> View:
    """Fit all heads over one set of feature values.

    Parameters
    ----------
    clips
        Labels, groups and folds.
    matrices
        Feature name to values.
    tested
        Folds to leave out in turn.
    models
        Heads to fit.
    inner_models
        Those to fit on inner folds as well.
    settings
        Of the heads.
    net_fold
        Which fold's nets made the values, for the record.
    refit
        Models to fit on all clips, too.
    """
    view = View()
    folds, default = clips.folds, settings.C
    looked_at = list(models) if settings.choose_C else list(inner_models)
    strengths = STRENGTHS if settings.choose_C else (default,)
    inner = {fold: clips.inner_folds(fold, settings.inner_folds) for fold in tested}
    view.inner_folds = inner
    fits, outer = [], []
    for fold in tested if looked_at else ():
        for j in range(int(inner[fold].max()) + 1):
            train = (inner[fold] >= 0) & (inner[fold] != j)
            for model in looked_at:
                for C in strengths:
                    fits.append(Fit(model, fold, train, C, INNER_TOLERANCE, inner[fold] == j))
                    outer.append((model.features, fold, j, C))
    held = {
        (model.features, fold, C): np.full((len(folds), clips.n_outputs), np.nan, np.float32)
        for model in looked_at
        for fold in tested
        for C in strengths
    }

    def run(which: Sequence[Fit]) -> tuple[list[Head], list[F64]]:
        return fit_heads(which, matrices, clips, settings, net_fold=net_fold)

    if not settings.choose_C:
        # One set of products with the features serves inner and outer heads alike.
        now = _outer(tested, models, folds, {}, default)
        heads, outputs = run([*fits, *now])
    else:
        heads, outputs = run(fits)
    for (names, fold, j, C), output in zip(outer, outputs, strict=False):
        held[names, fold, C][inner[fold] == j] = output
    for model in looked_at:
        for fold in tested:
            train = inner[fold] >= 0
            losses = [
                clips.loss(train, held[model.features, fold, C].astype(np.float64))
                for C in strengths
            ]
            # One group alone cannot be divided: without inner predictions nothing is chosen.
            best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else None
            view.strength[model.features, fold] = default if best is None else strengths[best]
            view.inner[model.features, fold] = held[model.features, fold, strengths[best or 0]]
    if settings.choose_C:
        now = _outer(tested, models, folds, view.strength, default)
        heads, outputs = run(now)
    else:
        heads, outputs = heads[len(fits) :], outputs[len(fits) :]
    view.heads = heads
    for fit, output in zip(now, outputs, strict=True):
        assert fit.fold is not None
        view.scored[fit.model.features, fit.fold] = output
        view.strength.setdefault((fit.model.features, fit.fold), fit.C)
    if refit:
        # By themselves, so that scores are the same to the last digit with and without them.
        strength = view.strength if settings.choose_C else {}
        view.heads = heads + run(_refits(refit, folds, strength, default))[0]
    return view


def _outer(
    tested: Sequence[int],
    models: Sequence[Model],
    folds: NDArray[np.int64],
    strength: Mapping[Key, float],
    default: float,
) -> list[Fit]:
    return [
        Fit(
            model,
            fold,
            folds != fold,
            strength.get((model.features, fold), default),
            wanted=folds == fold,
        )
        for model in models
        for fold in tested
    ]


def _refits(
    models: Sequence[Model],
    folds: NDArray[np.int64],
    strength: Mapping[Key, float],
    default: float,
) -> list[Fit]:
    """On all clips, with the middle of the strengths that the folds chose."""
    fits = []
    for model in models:
        chosen = sorted(C for (names, _), C in strength.items() if names == model.features)
        C = chosen[len(chosen) // 2] if chosen else default
        fits.append(Fit(model, None, np.ones(len(folds), dtype=np.bool_), C))
    return fits

"""All heads that one set of feature values serves: for scores, and inside training folds.

Features that all folds share are one view of six folds; crossfitted features are six
views of one fold. What is chosen or fitted beyond the heads themselves (strength of
penalty, stacking, temperatures, thresholds) rests on inner folds of the training clips
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.clips import Clips
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, fit_heads, trainable
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.settings import HeadSettings
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
        The C that was chosen for each head; empty where none was.
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
        Those to fit on inner folds as well; where C is chosen, all are.
    settings
        Of the heads.
    net_fold
        Which fold's nets made the values, for the record.
    refit
        Models to fit on all clips, too.
    """
    view = View(inner_folds={f: clips.inner_folds(f, settings.inner_folds) for f in tested})

    def run(which: Sequence[Fit]) -> tuple[list[Head], list[F64]]:
        return fit_heads(which, matrices, clips, settings, net_fold=net_fold)

    if settings.choose_C:
        _choose(view, clips, matrices, models, settings, run)
        outer = _outer(models, tested, matrices, clips, view.strength, settings.C)
        view.heads, outputs = run(outer) if outer else ([], [])
    else:
        # One set of products with the features serves inner and outer heads alike.
        fits = _inner(inner_models, view, settings.C, matrices, clips)
        outer = _outer(models, tested, matrices, clips, {}, settings.C)
        heads, outputs = run([*fits, *outer]) if outer else ([], [])
        fits = fits if outer else []
        view.inner = _held(inner_models, view, clips, fits, outputs[: len(fits)])
        view.heads, outputs = heads[len(fits) :], outputs[len(fits) :]
    for fit, output in zip(outer, outputs, strict=True):
        assert fit.fold is not None
        view.scored[fit.model.features, fit.fold] = output
    if refit:
        # By themselves, so that scores are the same to the last digit with and without them.
        again = _refits(refit, matrices, clips, view.strength, settings.C)
        view.heads = view.heads + (run(again)[0] if again else [])
    return view


def _choose(
    view: View,
    clips: Clips,
    matrices: Mapping[str, Matrix],
    models: Sequence[Model],
    settings: HeadSettings,
    run: Callable[[Sequence[Fit]], tuple[list[Head], list[F64]]],
) -> None:
    """Choose each head's penalty on inner folds, into `view`; one strength at a time."""
    least: dict[Key, float] = {}
    for C in STRENGTHS:
        fits = _inner(models, view, C, matrices, clips)
        held = _held(models, view, clips, fits, run(fits)[1]) if fits else {}
        for key, outputs in held.items():
            loss = clips.loss(view.inner_folds[key[1]] >= 0, outputs.astype(np.float64))
            if loss < least.get(key, np.inf):
                least[key], view.strength[key], view.inner[key] = loss, C, outputs
    # Without inner predictions, as of clips of one group, nothing is chosen.
    for key, outputs in _held(models, view, clips, (), ()).items():
        view.strength.setdefault(key, settings.C)
        view.inner.setdefault(key, outputs)


def _inner(
    models: Sequence[Model],
    view: View,
    C: float,
    matrices: Mapping[str, Matrix],
    clips: Clips,
) -> list[Fit]:
    """Heads inside the training folds, each of whose outputs one inner fold wants.

    Those without training clips, as of a feature that few clips have, are left out.
    """
    # Thresholds are set on these predictions to their last digits.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    fits = [
        Fit(model, fold, (inner >= 0) & (inner != j), C, tolerance, inner == j)
        for fold, inner in view.inner_folds.items()
        for j in range(int(inner.max()) + 1)
        for model in models
    ]
    return trainable(fits, matrices, clips)


def _held(
    models: Sequence[Model],
    view: View,
    clips: Clips,
    fits: Sequence[Fit],
    outputs: Sequence[F64],
) -> dict[Key, NDArray[np.float32]]:
    """Outputs of inner heads, put together for each model and fold as in `View.inner`."""
    shape = (len(clips.y_true), clips.n_outputs)
    held = {
        (model.features, fold): np.full(shape, np.nan, np.float32)
        for model in models
        for fold in view.inner_folds
    }
    for fit, output in zip(fits, outputs, strict=True):
        assert fit.fold is not None
        held[fit.model.features, fit.fold][fit.predict] = output
    return held


def _outer(
    models: Sequence[Model],
    tested: Sequence[int],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    strength: Mapping[Key, float],
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
        for model in models
        for fold in tested
    ]
    return trainable(fits, matrices, clips)


def _refits(
    models: Sequence[Model],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    strength: Mapping[Key, float],
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

"""The heads of all models and folds, fitted together; what a saved head is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.models import Model
from mvemo.fuse.solver import Block, Solution, solve

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Head:
    """A fitted softmax layer over concatenated features, with its standardisation.

    Parameters
    ----------
    model
        Name of the model that it belongs to.
    features
        Those it concatenates, in order.
    fold
        The fold left out of its training; None for one fitted on all clips.
    net_fold
        Which fold's nets made its features (``crossfit``); None where all folds share one.
    mean, scale
        float64 (dim,): x is standardised to (x - mean) / scale first.
    coef
        float32 (classes, dim).
    intercept
        float64 (classes,).
    C
        Inverse strength of its L2 penalty.
    """

    model: str
    features: tuple[str, ...]
    fold: int | None
    net_fold: int | None
    mean: F64
    scale: F64
    coef: NDArray[np.float32]
    intercept: F64
    C: float

    def probabilities(self, x: NDArray[np.floating]) -> F64:
        """float64 (clips, classes), rows summing to 1, of cached features (clips, dim).

        Raises
        ------
        BadFeatures
            `x` has another width.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise BadFeatures(
                f"head {self.model} takes {len(self.mean)} numbers a clip, not {x.shape[1:]}"
            )
        return softmax(((x - self.mean) / self.scale) @ self.coef.T + self.intercept)


@dataclass(frozen=True)
class Fit:
    """One head to be fitted.

    Parameters
    ----------
    model
        What it concatenates.
    fold
        Left out; None to train on all clips.
    train
        bool (clips,): its training clips.
    C
        Inverse strength of its L2 penalty.
    """

    model: Model
    fold: int | None
    train: NDArray[np.bool_]
    C: float


def fit_heads(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    net_fold: int | None = None,
) -> tuple[list[Head], list[F64]]:
    """Fit all heads at once.

    Parameters
    ----------
    fits
        The heads.
    matrices
        Feature name to its values, of every feature that a model names.
    labels
        int64 (clips,): only those of training clips are used.
    net_fold
        Which fold's nets made the values, for the record.

    Returns
    -------
    The heads, and for each the probabilities of all clips, float64 (clips, classes), NaN
    rows where a feature is missing.

    Raises
    ------
    BadFeatures
        A head has training clips of fewer than two classes.
    """
    present = [
        np.logical_and.reduce([matrices[name].present for name in fit.model.features])
        for fit in fits
    ]
    weights = np.array([p & fit.train for p, fit in zip(present, fits, strict=True)], np.float32)
    for fit, w in zip(fits, weights, strict=True):
        held = len(np.unique(labels[w > 0]))
        if held < 2:
            where = "all clips" if fit.fold is None else f"fold {fit.fold}"
            raise BadFeatures(
                f"{fit.model.name}, {where}: the training clips with all of its features are "
                f"of {held} class(es); two at least are needed"
            )
    names = list(dict.fromkeys(name for fit in fits for name in fit.model.features))
    blocks = [
        Block(
            matrices[name].values,
            np.array([i for i, f in enumerate(fits) if name in f.model.features], dtype=np.int64),
        )
        for name in names
    ]
    target = np.zeros((n_classes, len(labels)), np.float32)
    target[labels, np.arange(len(labels))] = 1.0
    solution = solve(blocks, target, weights, np.array([fit.C for fit in fits]))
    heads = [
        _head(i, fit, names, blocks, matrices, solution, net_fold) for i, fit in enumerate(fits)
    ]
    outputs = []
    for i, there in enumerate(present):
        probabilities = softmax(solution.scores[i].T.astype(np.float64))
        probabilities[~there] = np.nan
        outputs.append(probabilities)
    return heads, outputs


def _head(
    i: int,
    fit: Fit,
    names: Sequence[str],
    blocks: Sequence[Block],
    matrices: Mapping[str, Matrix],
    solution: Solution,
    net_fold: int | None,
) -> Head:
    """Problem `i` as a head over the cached values."""
    mean, scale, coef = [], [], []
    for name in fit.model.features:
        b = names.index(name)
        row = int(np.flatnonzero(blocks[b].problems == i)[0])
        matrix = matrices[name]
        mean.append(matrix.shift + matrix.spread * solution.mean[b][row])
        scale.append(matrix.spread * solution.scale[b][row])
        coef.append(solution.coef[b][row])
    return Head(
        model=fit.model.name,
        features=fit.model.features,
        fold=fit.fold,
        net_fold=net_fold,
        mean=np.concatenate(mean),
        scale=np.concatenate(scale),
        coef=np.concatenate(coef, axis=1),
        intercept=solution.intercept[i],
        C=fit.C,
    )


def softmax(scores: F64) -> F64:
    """Along the last axis (J22 eq. 6)."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: F64 = shifted / shifted.sum(axis=-1, keepdims=True)
    return result

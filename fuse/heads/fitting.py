"""The heads of all models and folds, fitted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.links import Link, apply_link
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.heads.solver import Solution, solve
from mvemo.fuse.models import Model

F64 = NDArray[np.float64]
DEFAULT = HeadSettings()
# Classes, or clips with tags or values, that a head is trained on at least.
LEAST_DIFFERENT = 2
# Largest entry of the gradient that a fit ends with.
TOLERANCE = 1e-4
# Scores that are solved for at once (heads x outputs x clips): some arrays of 1.2 MB.
HELD_SCORES = 300_000


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
    tol
        Largest entry of the gradient at which its fitting ends.
    wanted
        bool (clips,): clips whose outputs are given back; None for all.
    """

    model: Model
    fold: int | None
    train: NDArray[np.bool_]
    C: float
    tol: float = TOLERANCE
    wanted: NDArray[np.bool_] | None = None


def fit_heads(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    settings: HeadSettings = DEFAULT,
    *,
    net_fold: int | None = None,
) -> tuple[list[Head], list[F64]]:
    """Fit all heads at once: of classes (L1), tags (L5) or dimensions (L6, squared error).

    Dimensions are standardised on each fit's training clips, so that the penalty and the
    tolerance mean the same for every one of them; heads give them in the labels' unit.

    Parameters
    ----------
    fits
        The heads.
    matrices
        Feature name to its values, of every feature that a model names.
    clips
        Only labels of training clips are used.
    settings
        Of the heads; the strength of the penalty is each fit's own.
    net_fold
        Which fold's nets made the values, for the record.

    Returns
    -------
    The heads, and for each the outputs of its wanted clips, float64 (clips, outputs), NaN
    rows where a feature is missing.

    Raises
    ------
    BadFeatures
        A head has training clips of fewer than two classes, or fewer than two of them; or
        settings that heads of this task have not.
    """
    check_settings(clips, settings)
    present, weights = _training(fits, matrices)
    _refuse_few(fits, weights, clips)
    target = clips.target
    if settings.class_weight == "balanced":
        weights = weights * balance(weights, target)
    if clips.link == "identity":
        heads, outputs = _fitted_values(fits, matrices, weights, present, clips, net_fold)
    else:
        heads, outputs = _fitted(fits, matrices, target, weights, present, clips.link, net_fold)
    return [replace(head, inputs=settings.inputs) for head in heads], outputs


def check_settings(clips: Clips, settings: HeadSettings) -> None:
    """Raise `BadFeatures` for settings of classes where heads are of tags or dimensions."""
    if clips.link == "softmax":
        return
    if settings.class_weight != "none":
        raise BadFeatures(
            f"class_weight {settings.class_weight!r} of heads is for multiclass only, and the "
            f"task is {clips.task.name}: leave it at 'none'"
        )


def fits_with_clips(fits: Sequence[Fit], matrices: Mapping[str, Matrix], clips: Clips) -> list[Fit]:
    """Those of `fits` that have the training clips that `fit_heads` asks for."""
    _, weights = _training(fits, matrices) if fits else ([], np.zeros((0, 0), np.float32))
    return [
        fit
        for fit, w in zip(fits, weights, strict=True)
        if _different(w > 0, clips) >= LEAST_DIFFERENT
    ]


def _refuse_few(fits: Sequence[Fit], weights: NDArray[np.float32], clips: Clips) -> None:
    for fit, w in zip(fits, weights, strict=True):
        held = _different(w > 0, clips)
        if held >= LEAST_DIFFERENT:
            continue
        if clips.link == "softmax":
            raise BadFeatures(
                f"{_where(fit)}: the training clips with all of its features are "
                f"of {held} class(es); two at least are needed"
            )
        raise BadFeatures(
            f"{_where(fit)}: {held} training clip(s) have all of its features; "
            "two at least are needed"
        )


def _different(train: NDArray[np.bool_], clips: Clips) -> int:
    """Classes of training clips, or clips where they have tags or values."""
    if clips.link == "softmax":
        return len(np.unique(clips.y_true[train]))
    return int(train.sum())


def balance(weights: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """(fits, clips): n / (classes there * n of the class), over each fit's training clips."""
    counts = (weights > 0).astype(np.float32) @ target.T
    there = counts > 0
    factor = counts.sum(axis=1, keepdims=True) / (
        there.sum(axis=1, keepdims=True) * np.where(there, counts, 1.0)
    )
    result: NDArray[np.float32] = np.where(there, factor, 0.0).astype(np.float32) @ target
    return result


def _fitted_values(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    weights: NDArray[np.float32],
    present: Sequence[NDArray[np.bool_]],
    clips: Clips,
    net_fold: int | None,
) -> tuple[list[Head], list[F64]]:
    """As `_fitted`, to values that are standardised on the training clips."""
    values = clips.y_true.astype(np.float64)
    heads: dict[int, Head] = {}
    outputs: dict[int, F64] = {}
    # One solution for each set of training clips: all problems of one share their targets.
    same: dict[bytes, list[int]] = {}
    for i, fit in enumerate(fits):
        same.setdefault(fit.train.tobytes(), []).append(i)
    for members in same.values():
        train = fits[members[0]].train
        mean, scale = values[train].mean(axis=0), values[train].std(axis=0)
        scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1e-30)] = 1.0
        made, said = _fitted(
            [fits[i] for i in members],
            matrices,
            np.ascontiguousarray(((values - mean) / scale).T, np.float32),
            weights[members],
            [present[i] for i in members],
            "identity",
            net_fold,
        )
        for i, head, output in zip(members, made, said, strict=True):
            heads[i] = replace(
                head,
                coef=(head.coef * scale[:, None]).astype(np.float32),
                intercept=head.intercept * scale + mean,
            )
            outputs[i] = output * scale + mean
    return [heads[i] for i in range(len(fits))], [outputs[i] for i in range(len(fits))]


def _training(
    fits: Sequence[Fit], matrices: Mapping[str, Matrix]
) -> tuple[list[NDArray[np.bool_]], NDArray[np.float32]]:
    """Clips that have all features of each fit, and (fits, clips) weights in training."""
    present = [
        np.logical_and.reduce([matrices[name].present for name in fit.model.features])
        for fit in fits
    ]
    return present, np.array(
        [p & fit.train for p, fit in zip(present, fits, strict=True)], np.float32
    )


def _where(fit: Fit) -> str:
    return f"{fit.model.name}, {'all clips' if fit.fold is None else f'fold {fit.fold}'}"


def _fitted(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    target: NDArray[np.float32],
    weights: NDArray[np.float32],
    present: Sequence[NDArray[np.bool_]],
    link: Link,
    net_fold: int | None,
) -> tuple[list[Head], list[F64]]:
    """Heads and outputs of all fits, to one target (outputs, clips)."""
    made: dict[int, tuple[Head, F64]] = {}
    for members in _batches(fits, target):
        some = [fits[i] for i in members]
        names, blocks = _blocks(some, matrices)
        strengths, tolerances = np.array([(fit.C, fit.tol) for fit in some]).T
        solution = solve(blocks, target, weights[members], strengths, link=link, tol=tolerances)
        for n, i in enumerate(members):
            head = _head(n, fits[i], names, blocks, matrices, solution, net_fold, link)
            made[i] = head, _output(fits[i], solution.scores[n], present[i], link)
    return [made[i][0] for i in range(len(fits))], [made[i][1] for i in range(len(fits))]


def _batches(fits: Sequence[Fit], target: NDArray[np.float32]) -> list[list[int]]:
    """Which fits are made at once: a few, so that memory is bounded by the features.

    Those of the same features together: they share products with them, and end at about
    the same step.
    """
    order = sorted(range(len(fits)), key=lambda i: fits[i].model.features)
    step = max(HELD_SCORES // (target.shape[0] * target.shape[1]), 1)
    return [order[first : first + step] for first in range(0, len(order), step)]


def _output(fit: Fit, scores: NDArray[np.float32], there: NDArray[np.bool_], link: Link) -> F64:
    """float64 (wanted clips, outputs), NaN rows where a feature is missing."""
    if fit.wanted is not None:
        scores, there = scores[:, fit.wanted], there[fit.wanted]
    output = apply_link(scores.T.astype(np.float64), link)
    output[~there] = np.nan
    return output


def _blocks(fits: Sequence[Fit], matrices: Mapping[str, Matrix]) -> tuple[list[str], list[Block]]:
    """The features that fits use, and which fits use each."""
    names = list(dict.fromkeys(name for fit in fits for name in fit.model.features))
    return names, [
        Block(
            matrices[name].values,
            np.array([i for i, f in enumerate(fits) if name in f.model.features], dtype=np.int64),
        )
        for name in names
    ]


def _head(
    i: int,
    fit: Fit,
    names: Sequence[str],
    blocks: Sequence[Block],
    matrices: Mapping[str, Matrix],
    solution: Solution,
    net_fold: int | None,
    link: Link,
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
        link=link,
    )

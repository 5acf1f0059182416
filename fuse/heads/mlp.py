"""Many heads with one hidden layer at once: the models, folds and strengths of an evaluation.

All problems (model, fold, and where asked strength of penalty) that have the same features
step together: the first layer of all of them is one product with each feature. Each has
its own standardisation, its own clips to train on and to watch, and its own end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.losses import CENTRED, F64, Loss
from mvemo.fuse.heads.mlp_training import Run, Settings, Trained
from mvemo.fuse.heads.solver import Block

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Hidden outputs (problems x hidden x clips) that are held at once: 64 MiB of them.
HELD = 1 << 24


@dataclass(frozen=True)
class Layers:
    """One fitted head with a hidden layer, over its features side by side.

    Parameters
    ----------
    mean, scale
        float64 (dim,): x is standardised to (x - mean) / scale first.
    hidden_coef
        float32 (hidden, dim).
    hidden_intercept
        float32 (hidden,).
    coef
        float32 (outputs, hidden).
    intercept
        float32 (outputs,).
    """

    mean: F64
    scale: F64
    hidden_coef: F32
    hidden_intercept: F32
    coef: F32
    intercept: F32

    def embed(self, x: NDArray[np.floating]) -> F64:
        """float64 (clips, hidden): outputs of the hidden layer, of x (clips, dim)."""
        inner = ((x - self.mean) / self.scale) @ self.hidden_coef.T + self.hidden_intercept
        result: F64 = np.maximum(inner, 0.0)
        return result

    def scores(self, x: NDArray[np.floating]) -> F64:
        """float64 (clips, outputs), of x (clips, dim)."""
        result: F64 = self.embed(x) @ self.coef.T + self.intercept
        return result


@dataclass(frozen=True)
class MlpSolution:
    """All fitted problems, each as it was in its best epoch.

    Parameters
    ----------
    scores
        float32 (problems, outputs, clips): of every clip, in training or not.
    hidden_coef
        For each block, float32 (its problems, hidden, dim), of standardised columns.
    mean, scale
        For each block, float64 (its problems, dim): the standardisation that the clips
        that each problem was fitted on gave, in the block's units.
    hidden_intercept
        float32 (problems, hidden).
    coef
        float32 (problems, outputs, hidden).
    intercept
        float32 (problems, outputs).
    centres
        float32 (problems, outputs, hidden): those of the losses L3 and L4; else None.
    epochs
        int64 (problems,): steps that the best epoch had behind it.
    stopped
        bool (problems,): ended before `max_epochs`.
    loss, watched
        float64 (problems, max_epochs + 1): before each step, the training objective, and
        what early stopping looks at; NaN after the end.
    """

    scores: F32
    hidden_coef: tuple[F32, ...]
    mean: tuple[F64, ...]
    scale: tuple[F64, ...]
    hidden_intercept: F32
    coef: F32
    intercept: F32
    centres: F32 | None
    epochs: I64
    stopped: Mask
    loss: F64
    watched: F64

    def layers(self, problem: int, rows: Sequence[tuple[int, int]]) -> Layers:
        """One problem by itself.

        Parameters
        ----------
        problem
            Its index.
        rows
            For each of its features, in the order wanted: the block, and the problem's
            position in that block's `problems`.
        """
        return Layers(
            mean=np.concatenate([self.mean[b][row] for b, row in rows]),
            scale=np.concatenate([self.scale[b][row] for b, row in rows]),
            hidden_coef=np.concatenate([self.hidden_coef[b][row] for b, row in rows], axis=1),
            hidden_intercept=self.hidden_intercept[problem],
            coef=self.coef[problem],
            intercept=self.intercept[problem],
        )


def solve_mlp(
    blocks: Sequence[Block],
    target: NDArray[np.floating],
    weights: NDArray[np.floating],
    validation: Mask | None = None,
    *,
    hidden: int = 64,
    loss: Loss = "softmax",
    tau: float = 0.01,
    weight_decay: float | NDArray[np.floating] = 0.01,
    lr: float = 5e-3,
    max_epochs: int = 200,
    patience: int = 10,
    tol: float = 1e-4,
    dropout: float = 0.0,
    seed: int = 0,
) -> MlpSolution:
    """Fit every problem: standardise on the clips it is fitted on, then train its head.

    The objective of a problem is the weighted mean of its loss over those clips, plus
    weight_decay / 2 times the squared weights of both layers; intercepts are free.

    Parameters
    ----------
    blocks
        The features.
    target
        (outputs, clips): one-hot classes, 0/1 tags, or values.
    weights
        (problems, clips), 0 or more: 0 keeps a clip out of a problem's training.
    validation
        bool (problems, clips): training clips that a problem is not fitted on but watched
        on for its end; clips of weight 0 do not count. None, or none for a problem:
        that problem is watched on its objective, and fitted on all of its clips.
    hidden
        Units of the hidden layer; their outputs are the x_i of J22's losses.
    loss
        ``softmax`` (L1), ``angular`` (L2: weights of the last layer of norm 1, intercepts
        0), ``centre`` (L3), ``improved-centre`` (L4), all for classes; ``sigmoid`` (L5),
        ``identity`` (L6, half squared error of values standardised on the fitted clips).
    tau
        Weight of the centres' term in L3 and L4.
    weight_decay
        0 or more; (problems,) for one each.
    lr
        Adam's step. A step here sees all clips, so it can be larger than one of mini-batches.
    max_epochs
        Steps at most.
    patience
        A problem ends when so many epochs brought no improvement.
    tol
        Less than this is no improvement.
    dropout
        Share of hidden outputs set to 0 in each training step.
    seed
        Of the first weights and of dropout. Neither depends on other problems.

    Raises
    ------
    BadFeatures
        A setting is out of its range, or a problem has no clip to be fitted on.
    """
    settings = Settings(hidden, loss, tau, lr, max_epochs, patience, tol, dropout, seed)
    n_problems, n_clips = weights.shape
    decay = np.broadcast_to(np.asarray(weight_decay, dtype=np.float64), (n_problems,))
    if not (np.isfinite(decay) & (decay >= 0)).all():
        raise BadFeatures(f"weight_decay is {weight_decay}: it must be 0 or more")
    watch = np.zeros(weights.shape, np.bool_) if validation is None else validation
    fitted = np.where(watch, 0.0, weights)
    held_out = np.where(watch, weights, 0.0)
    empty = np.flatnonzero(fitted.sum(axis=1) <= 0)
    if len(empty):
        raise BadFeatures(f"head {empty[0]} has no clip to be fitted on")
    result = _blank(blocks, settings, target.shape[0], weights.shape)
    for members, parts in _groups(blocks, n_problems, max(1, HELD // (hidden * n_clips))):
        trained = Run(
            [blocks[b].values for b in parts],
            target,
            fitted[members],
            held_out[members],
            decay[members],
            settings,
        ).run()
        _write(result, members, [(b, _rows(blocks[b], members)) for b in parts], trained)
    return result


def _write(
    result: MlpSolution, members: I64, rows: Sequence[tuple[int, I64]], trained: Trained
) -> None:
    """Put the problems of a group where they are among all."""
    *first, hidden_intercept, coef, intercept = trained.parameters
    for (b, row), w, (mean, scale) in zip(rows, first, trained.moments, strict=True):
        result.hidden_coef[b][row], result.mean[b][row], result.scale[b][row] = w, mean, scale
    result.hidden_intercept[members] = hidden_intercept
    result.coef[members], result.intercept[members] = coef, intercept
    result.scores[members] = trained.scores
    if result.centres is not None:
        result.centres[members] = trained.centres
    result.epochs[members], result.stopped[members] = trained.epochs, trained.stopped
    result.loss[members], result.watched[members] = trained.loss, trained.watched


def _rows(block: Block, members: I64) -> I64:
    """Positions of problems in those of a block."""
    position = {int(p): row for row, p in enumerate(block.problems)}
    return np.array([position[int(p)] for p in members], dtype=np.int64)


def _groups(blocks: Sequence[Block], n: int, most: int) -> list[tuple[I64, tuple[int, ...]]]:
    """Problems with the same blocks, `most` at once, and those blocks."""
    used: list[list[int]] = [[] for _ in range(n)]
    for b, block in enumerate(blocks):
        for p in block.problems:
            used[p].append(b)
    groups: dict[tuple[int, ...], list[int]] = {}
    for p, parts in enumerate(used):
        groups.setdefault(tuple(parts), []).append(p)
    return [
        (np.array(members[first : first + most], dtype=np.int64), parts)
        for parts, members in groups.items()
        for first in range(0, len(members), most)
    ]


def _blank(
    blocks: Sequence[Block], settings: Settings, outputs: int, shape: tuple[int, ...]
) -> MlpSolution:
    """A solution for the groups of problems to write into."""
    n, clips = shape
    h = settings.hidden
    return MlpSolution(
        scores=np.zeros((n, outputs, clips), np.float32),
        hidden_coef=tuple(
            np.zeros((len(b.problems), h, b.values.shape[1]), np.float32) for b in blocks
        ),
        mean=tuple(np.zeros((len(b.problems), b.values.shape[1])) for b in blocks),
        scale=tuple(np.ones((len(b.problems), b.values.shape[1])) for b in blocks),
        hidden_intercept=np.zeros((n, h), np.float32),
        coef=np.zeros((n, outputs, h), np.float32),
        intercept=np.zeros((n, outputs), np.float32),
        centres=np.zeros((n, outputs, h), np.float32) if settings.loss in CENTRED else None,
        epochs=np.zeros(n, np.int64),
        stopped=np.zeros(n, np.bool_),
        loss=np.full((n, settings.max_epochs + 1), np.nan),
        watched=np.full((n, settings.max_epochs + 1), np.nan),
    )

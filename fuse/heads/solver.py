"""Many L2-regularised linear classifiers at once: one pass over the features for all.

Cross-validating nine models over six folds is 54 fits over the same few matrices. Each
step of a fit is two products with them, and both cost little more for many right-hand
sides than for one. So all problems (model, fold, and where asked inner fold and strength
of penalty) step together, each with its own step length, memory and end.

Method: L-BFGS with a Wolfe line search (Nocedal & Wright, Numerical Optimization, 2nd
ed., algorithms 7.4 and 3.5). A line search costs no product with the features, because
the scores are linear in the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Link = Literal["softmax", "sigmoid", "identity"]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Pairs of steps and gradient changes that L-BFGS keeps.
MEMORY = 10
# Wolfe conditions: sufficient decrease, and curvature.
DECREASE, CURVATURE = 1e-4, 0.9
LINE_STEPS = 12
# A column that varies less than this in training, its spread over all clips being one, is
# constant: single precision tells no smaller variance from none.
CONSTANT = 1e-3


@dataclass(frozen=True)
class Block:
    """One feature, and the problems that use it.

    Parameters
    ----------
    values
        float32 (clips, dim), finite; about zero mean and unit spread, for accuracy.
    problems
        int64: indices of the problems that have these columns.
    """

    values: F32
    problems: NDArray[np.int64]


@dataclass(frozen=True)
class Solution:
    """All fitted problems.

    Parameters
    ----------
    scores
        float32 (problems, outputs, clips): of every clip, in training or not.
    coef
        For each block, float32 (its problems, outputs, dim), of standardised columns.
    mean, scale
        For each block, float64 (its problems, dim): the standardisation that each
        problem's training clips gave, in the block's units.
    intercept
        float64 (problems, outputs).
    iterations
        int64 (problems,).
    converged
        bool (problems,): the gradient fell below the tolerance.
    """

    scores: F32
    coef: tuple[F32, ...]
    mean: tuple[F64, ...]
    scale: tuple[F64, ...]
    intercept: F64
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]


def solve(
    blocks: Sequence[Block],
    target: NDArray[np.floating],
    weights: NDArray[np.floating],
    C: NDArray[np.floating],
    *,
    link: Link = "softmax",
    tol: float | NDArray[np.floating] = 1e-4,
    max_iter: int = 500,
) -> Solution:
    """Fit every problem: standardise on its training clips, then minimise its loss.

    The objective of a problem is that of scikit-learn's LogisticRegression behind a
    StandardScaler: mean over training clips of the loss, plus ||W||² / (2 C sum of
    weights); the intercept is not penalised.

    Parameters
    ----------
    blocks
        The features.
    target
        (outputs, clips): one-hot classes, 0/1 tags, or values.
    weights
        (problems, clips), 0 or more: 0 keeps a clip out of a problem's training.
    C
        (problems,), above 0: inverse strength of the penalty.
    link
        ``softmax``: cross-entropy over outputs (J22 eq. 6-8). ``sigmoid``: binary
        cross-entropy, summed over outputs (L5). ``identity``: half squared error, summed.
    tol
        A problem ends when no entry of its gradient is larger; one for all, or (problems,).
    max_iter
        Steps at most.
    """
    state = _State(blocks, target, weights, C, link)
    step = np.zeros(len(C), dtype=np.int64)
    enough = np.broadcast_to(np.asarray(tol, dtype=np.float64), len(C))
    for iteration in range(max_iter):
        done = state.gradient_size() <= enough[state.ids]
        step[state.ids[~done]] = iteration + 1
        state.retire(done)
        if not len(state.ids):
            break
        state.advance()
    else:
        state.retire(state.gradient_size() <= enough[state.ids])
    converged = np.ones(len(C), dtype=np.bool_)
    converged[state.ids] = False
    state.retire(np.ones(len(state.ids), dtype=np.bool_))
    return Solution(
        scores=state.final_scores,
        coef=tuple(state.final_coef),
        mean=tuple(state.mean),
        scale=tuple(state.scale),
        intercept=state.final_intercept,
        iterations=step,
        converged=converged,
    )


class _Part:
    """One block as the problems still running see it."""

    def __init__(self, values: F32, slots: NDArray[np.int64], mean: F64, scale: F64) -> None:
        self.values = values
        # Positions among the running problems.
        self.slots = slots
        # float32 (problems, 1, dim)
        self.mean = mean.astype(np.float32)[:, None, :]
        self.inverse = (1.0 / scale).astype(np.float32)[:, None, :]

    def scores(self, coef: F32) -> F32:
        """(problems, outputs, dim) -> (problems, outputs, clips)."""
        scaled = coef * self.inverse
        flat = scaled.reshape(scaled.shape[0] * scaled.shape[1], scaled.shape[2])
        shape = (*coef.shape[:2], len(self.values))
        product: NDArray[np.floating] = (flat @ self.values.T).reshape(shape)
        product -= np.matmul(scaled, self.mean.transpose(0, 2, 1))
        return product.astype(np.float32, copy=False)

    def gradient(self, residual: F32) -> F32:
        """(problems, outputs, clips) -> (problems, outputs, dim)."""
        flat = residual.reshape(residual.shape[0] * residual.shape[1], residual.shape[2])
        product: F32 = (flat @ self.values).reshape(*residual.shape[:2], self.values.shape[1])
        product -= residual.sum(axis=2, dtype=np.float64).astype(np.float32)[:, :, None] * self.mean
        product *= self.inverse
        return product


# A direction, position or gradient of all problems: one array a part, and the intercepts.
_Vector = list[F32]


class _State:
    """Position, gradient and memory of all running problems."""

    def __init__(
        self,
        blocks: Sequence[Block],
        target: NDArray[np.floating],
        weights: NDArray[np.floating],
        C: NDArray[np.floating],
        link: Link,
    ) -> None:
        n_problems, n_clips = weights.shape
        outputs = target.shape[0]
        self.link = link
        self.target = np.ascontiguousarray(target, dtype=np.float32)
        total = weights.sum(axis=1, dtype=np.float64)
        # Mean over training clips: (problems, 1, clips)
        self.weights = (weights / total[:, None]).astype(np.float32)[:, None, :]
        self.penalty = 1.0 / (np.asarray(C, dtype=np.float64) * total)
        self.ids = np.arange(n_problems)
        self.blocks = blocks
        self.mean: list[F64] = []
        self.scale: list[F64] = []
        self.parts: list[_Part] = []
        for block in blocks:
            mean, scale = moments(block.values, self.weights[block.problems, 0])
            self.mean.append(mean)
            self.scale.append(scale)
            self.parts.append(_Part(block.values, block.problems, mean, scale))
        self.final_coef = [
            np.zeros((len(b.problems), outputs, b.values.shape[1]), np.float32) for b in blocks
        ]
        self.final_intercept = np.zeros((n_problems, outputs))
        self.final_scores = np.zeros((n_problems, outputs, n_clips), np.float32)
        # Rows of `final_coef` that each part's problems have.
        self.rows = [np.arange(len(b.problems)) for b in blocks]
        self.position: _Vector = [np.zeros_like(c) for c in self.final_coef]
        self.position.append(np.zeros((n_problems, outputs), np.float32))
        self.scores = np.zeros((n_problems, outputs, n_clips), np.float32)
        self.memory: list[tuple[_Vector, _Vector, F64]] = []
        # Without the penalty: line searches add what a step changes of it.
        self.residual, self.loss = self._losses(self.scores)
        self.gradient = self._gradient()

    # --- vectors of all problems

    def _dot(self, a: _Vector, b: _Vector) -> F64:
        """(problems,): inner products."""
        result: F64 = np.einsum("pk,pk->p", a[-1], b[-1]).astype(np.float64)
        for part, x, y in zip(self.parts, a[:-1], b[:-1], strict=True):
            flat = (len(x), x.shape[1] * x.shape[2])
            result[part.slots] += np.einsum("pd,pd->p", x.reshape(flat), y.reshape(flat))
        return result

    def _dot_coef(self, a: _Vector, b: _Vector) -> F64:
        """As `_dot`, without the intercepts."""
        both: F64 = self._dot(a, b) - np.einsum("pk,pk->p", a[-1], b[-1])
        return both

    def _spread(self, factors: F64) -> list[F32]:
        """A factor a problem, shaped for each array of a vector."""
        f = factors.astype(np.float32)
        return [f[part.slots][:, None, None] for part in self.parts] + [f[:, None]]

    def _plus(self, a: _Vector, factors: F64, b: _Vector) -> None:
        """a += factors * b, in place."""
        for x, f, y in zip(a, self._spread(factors), b, strict=True):
            x += f * y

    # --- the objective

    def _predicted(self, scores: F32) -> tuple[F32, F32]:
        """Predictions, and for ``softmax`` log sum exp of the scores (problems, clips)."""
        if self.link == "softmax":
            top = scores.max(axis=1, keepdims=True)
            p: F32 = scores - top
            np.exp(p, out=p)
            norm = p.sum(axis=1, keepdims=True)
            p /= norm
            return p, (np.log(norm) + top)[:, 0]
        p = scores.copy()
        if self.link == "sigmoid":
            p *= 0.5
            np.tanh(p, out=p)
            p += 1.0
            p *= 0.5
        return p, p[:, 0]

    def _losses(self, scores: F32) -> tuple[F32, F64]:
        """Weighted residual, and mean loss (problems,)."""
        p, norm = self._predicted(scores)
        w = self.weights[:, 0]
        if self.link == "softmax":
            each = norm - np.einsum("pkn,kn->pn", scores, self.target)
        elif self.link == "sigmoid":
            each = np.logaddexp(0.0, scores).sum(axis=1)
            each -= np.einsum("pkn,kn->pn", scores, self.target)
        # In place, here and elsewhere: arrays of the scores' size are most of the memory.
        p -= self.target
        if self.link == "identity":
            each = 0.5 * np.einsum("pkn,pkn->pn", p, p)
        p *= self.weights
        return p, np.einsum("pn,pn->p", w, each, dtype=np.float64)

    def _gradient(self) -> _Vector:
        gradient: _Vector = []
        penalty = self.penalty.astype(np.float32)
        for part, coef in zip(self.parts, self.position[:-1], strict=True):
            # Where all problems have the features, without a copy.
            some = len(part.slots) < len(self.ids)
            g = part.gradient(self.residual[part.slots] if some else self.residual)
            g += penalty[part.slots][:, None, None] * coef
            gradient.append(g)
        gradient.append(self.residual.sum(axis=2, dtype=np.float64).astype(np.float32))
        return gradient

    def gradient_size(self) -> F64:
        """(problems,): largest absolute entry of the gradient."""
        size: F64 = np.abs(self.gradient[-1]).max(axis=1).astype(np.float64)
        for part, g in zip(self.parts, self.gradient[:-1], strict=True):
            largest = np.abs(g).max(axis=(1, 2), initial=0.0)
            size[part.slots] = np.maximum(size[part.slots], largest)
        return size

    # --- a step of all

    def _direction(self) -> _Vector:
        """Two-loop recursion of L-BFGS, for all problems at once."""
        q = [-g for g in self.gradient]
        used: list[F64] = []
        for s, y, rho in reversed(self.memory):
            alpha = rho * self._dot(s, q)
            self._plus(q, -alpha, y)
            used.append(alpha)
        if self.memory:
            s, y, rho = self.memory[-1]
            # A pair without curvature (rho 0) leaves the scale as it is.
            gamma = np.where(rho > 0, 1.0 / np.maximum(rho * self._dot(y, y), 1e-300), 1.0)
            for x, f in zip(q, self._spread(gamma), strict=True):
                x *= f
        for (s, y, rho), alpha in zip(self.memory, reversed(used), strict=True):
            beta = rho * self._dot(y, q)
            self._plus(q, alpha - beta, s)
        return q

    def advance(self) -> None:
        """One L-BFGS step of every running problem."""
        direction = self._direction()
        slope = self._dot(self.gradient, direction)
        uphill = slope >= 0
        if uphill.any():
            # Rounding spoiled the memory of these: start theirs afresh.
            for x, f, g in zip(
                direction, self._spread(uphill.astype(np.float64)), self.gradient, strict=True
            ):
                x[:] = np.where(f > 0, -g, x)
            for _, _, rho in self.memory:
                rho[uphill] = 0.0
            slope = self._dot(self.gradient, direction)
        along = np.zeros_like(self.scores)
        along += direction[-1][:, :, None]
        for part, d in zip(self.parts, direction[:-1], strict=True):
            for slot, scores in zip(part.slots.tolist(), part.scores(d), strict=True):
                along[slot] += scores
        t = self._line_search(direction, along, slope)
        before = self.gradient
        step = [x * f for x, f in zip(direction, self._spread(t), strict=True)]
        for x, s in zip(self.position, step, strict=True):
            x += s
        self.gradient = self._gradient()
        change = [a - b for a, b in zip(self.gradient, before, strict=True)]
        curvature = self._dot(step, change)
        good = curvature > 1e-10 * np.sqrt(self._dot(step, step) * self._dot(change, change))
        rho = np.where(good, 1.0 / np.where(good, curvature, 1.0), 0.0)
        self.memory.append((step, change, rho))
        del self.memory[:-MEMORY]

    def _line_search(self, direction: _Vector, along: F32, slope: F64) -> F64:
        """Step lengths that meet the Wolfe conditions; moves scores, residual and value.

        The objective along a direction is convex, so a bracket closes by safeguarded
        Newton steps on its slope.
        """
        cross = self.penalty * self._dot_coef(self.position, direction)
        square = self.penalty * self._dot_coef(direction, direction)
        t = np.ones(len(self.ids))
        if not self.memory:
            t = self._newton(self.scores, along, slope, square, np.zeros_like(t))
        low, high = np.zeros_like(t), np.full_like(t, np.inf)
        active = np.ones(len(t), dtype=np.bool_)
        moved = np.empty_like(along)
        for trial in range(LINE_STEPS):
            np.multiply(along, t.astype(np.float32)[:, None, None], out=moved)
            moved += self.scores
            # The last one goes before the next is made.
            self.residual = moved[:0]
            self.residual, loss = self._losses(moved)
            value = loss + t * cross + 0.5 * t * t * square
            rise = np.einsum("pkn,pkn->p", self.residual, along, dtype=np.float64)
            rise += cross + t * square
            # In single precision the loss itself is too coarse near the end; the slope is not.
            slack = 1e-6 * np.maximum(1.0, np.abs(self.loss))
            too_far = (value > self.loss + DECREASE * t * slope + slack) | (
                rise > -CURVATURE * slope
            )
            too_near = ~too_far & (rise < CURVATURE * slope)
            active = too_far | too_near
            if not active.any() or trial == LINE_STEPS - 1:
                break
            high = np.where(too_far, t, high)
            low = np.where(too_near, t, low)
            newton = self._newton(moved, along, rise, square, t)
            middle = np.where(np.isinf(high), 2.0 * t, 0.5 * (low + high))
            inside = (newton > low) & (newton < np.where(np.isinf(high), 8.0 * t, high))
            t = np.where(active, np.where(inside, newton, middle), t)
        self.scores, self.loss = moved, loss
        return t

    def _newton(self, scores: F32, along: F32, slope: F64, square: F64, t: F64) -> F64:
        """Newton's step for the minimum along a direction, from where `scores` are."""
        p, _ = self._predicted(scores)
        if self.link == "softmax":
            mean = np.einsum("pkn,pkn->pn", p, along)
            bend = np.einsum("pkn,pkn,pkn->pn", p, along, along) - mean * mean
        elif self.link == "sigmoid":
            bend = np.einsum("pkn,pkn,pkn->pn", p * (1.0 - p), along, along)
        else:
            bend = np.einsum("pkn,pkn->pn", along, along)
        second = np.einsum("pn,pn->p", self.weights[:, 0], bend, dtype=np.float64) + square
        result: F64 = t - slope / np.maximum(second, 1e-300)
        return result

    # --- ends

    def retire(self, done: NDArray[np.bool_]) -> None:
        """Keep the results of finished problems, and run on without them."""
        if not done.any():
            return
        gone, stay = self.ids[done], ~done
        self.final_scores[gone] = self.scores[done]
        self.final_intercept[gone] = self.position[-1][done]
        new_slot = np.cumsum(stay) - 1
        kept: list[NDArray[np.bool_]] = []
        for i, part in enumerate(self.parts):
            ended = done[part.slots]
            self.final_coef[i][self.rows[i][ended]] = self.position[i][ended]
            self.rows[i] = self.rows[i][~ended]
            part.slots = new_slot[part.slots[~ended]]
            part.mean, part.inverse = part.mean[~ended], part.inverse[~ended]
            kept.append(~ended)
        kept.append(stay)

        def cut(vector: _Vector) -> _Vector:
            return [x[k] for x, k in zip(vector, kept, strict=True)]

        self.position, self.gradient = cut(self.position), cut(self.gradient)
        self.memory = [(cut(s), cut(y), rho[stay]) for s, y, rho in self.memory]
        self.scores, self.residual = self.scores[stay], self.residual[stay]
        self.weights, self.penalty = self.weights[stay], self.penalty[stay]
        self.loss, self.ids = self.loss[stay], self.ids[stay]


def moments(values: F32, weights: F32) -> tuple[F64, F64]:
    """Weighted mean and standard deviation of columns, (problems, dim), by GEMM."""
    mean = (weights @ values).astype(np.float64)
    squares = np.empty_like(mean)
    # By columns, so that no second copy of the features is held.
    for first in range(0, values.shape[1], 256):
        some = slice(first, first + 256)
        squares[:, some] = weights @ np.square(values[:, some])
    variance = np.maximum(squares - np.square(mean), 0.0)
    scale = np.sqrt(variance)
    scale[scale < CONSTANT * np.maximum(1.0, np.abs(mean))] = 1.0
    return mean, scale

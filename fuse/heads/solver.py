"""The solver: many L2-regularised linear models at once, in one pass over the features.

Cross-validating nine models over six folds needs 54 fits over the same few matrices. Each step
of a fit is two products with these matrices, which cost little more for many fits than for one.
So all problems (a model, a fold and, where needed, an inner fold and a strength of the penalty)
step together; each problem has a separate step length, L-BFGS memory and end.

Method: L-BFGS with a Wolfe line search (Nocedal & Wright, Numerical Optimization, 2nd ed.,
algorithms 7.4 and 3.5). The first guess of the second derivatives comes from the spectrum of
the features (`mvemo.fuse.heads.blocks.Spectrum`): one factorisation serves all problems and
strengths. A line search needs no product with the features, because the scores are linear in
the step length.

Objective, as in LogisticRegression of scikit-learn: the mean loss over the training clips plus
|coef|^2 / (2 C total weight).

Loss: ``softmax``: cross-entropy over classes (J22 eq. 6-8). ``sigmoid``: binary cross-entropy,
summed over tags. ``identity``: half the squared error, summed over targets. `scores` are float32
(problems, outputs, clips), `target` is (problems or 1, outputs, clips), `weights` are (problems, 1,
clips), with rows that sum to 1: the loss of a problem is the weighted mean over clips. Results
overwrite given arrays where possible: arrays as large as the scores take most of the memory.
"""

from collections.abc import Sequence

import numpy as np

from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.numeric import Link
from mvemo.manifests.array_types import F32, F64, Bools

# Number of pairs of steps and gradient changes that L-BFGS keeps.
MEMORY = 10
# Constants of the Wolfe conditions: sufficient decrease, and curvature.
DECREASE, CURVATURE = 1e-4, 0.9
LINE_STEPS = 12
MAX_STEPS = 500
# Lower bound of the curvature of the loss, needed when all clips are fitted well.
MIN_CURVATURE = 1e-4


# A direction, position or gradient of all problems: for each block an array (its problems, outputs,
# dim) of coefficients of its columns times the factor, then the intercepts (problems, outputs).
Vector = list[F32]


def solve(
    blocks: Sequence[Block],
    start: Vector,
    target: F32,
    weights: F32,
    C: F64,
    tol: F64,
    link: Link,
) -> Vector:
    """Minimise the penalised loss of every problem, until half the Newton decrement < `tol`."""
    running = _Problems(blocks, start, target, weights, C, link)
    for _ in range(MAX_STEPS):
        running.retire(running.excess() <= tol[running.ids])
        if not len(running.ids):
            break
        running.step()
    running.retire(np.ones(len(running.ids), bool))
    return running.final


class _Problems:
    """Position, gradient and L-BFGS memory of the problems that are still running."""

    def __init__(
        self,
        blocks: Sequence[Block],
        start: Vector,
        target: F32,
        weights: F32,
        C: F64,
        link: Link,
    ) -> None:
        n_problems, n_clips = weights.shape
        n_outputs = target.shape[1]
        self.link = link
        self.target = np.ascontiguousarray(target)
        total = weights.sum(axis=1, dtype=float)
        # Normalised weights, (problems, 1, clips): each problem's weights sum to 1.
        self.weights = (weights / total[:, None]).astype(np.float32)[:, None, :]
        # (problems, outputs)
        self.penalty = np.repeat(1.0 / (C * total)[:, None], n_outputs, axis=1)
        self.ids = np.arange(n_problems)
        self.blocks = blocks
        self.position = start
        self.final = [np.zeros_like(x) for x in start]
        self.scores = np.zeros((n_problems, n_outputs, n_clips), np.float32)
        if any(x.any() for x in start):
            self._add_scores(start, self.scores)
        self.memory: list[tuple[Vector, Vector, F64]] = []
        # The loss excludes the penalty: line searches add the change of the penalty.
        self.residual, self.loss = residual_and_loss(
            self.scores, self.target, self.weights, self.link
        )
        self._set_gradient()

    # --- vectors of all problems

    def _dot(self, a: Vector, b: Vector) -> F64:
        """Return inner products, (problems,)."""
        result: F64 = np.einsum("pk,pk->p", a[-1], b[-1]).astype(float)
        for block, x, y in zip(self.blocks, a[:-1], b[:-1], strict=True):
            flat = (len(x), x.shape[1] * x.shape[2])
            result[block.slots] += np.einsum("pd,pd->p", x.reshape(flat), y.reshape(flat))
        return result

    def _penalised(self, a: Vector, b: Vector) -> F64:
        """Return inner products of coefficients in the metric of the penalty, (problems,)."""
        result = np.zeros(self.penalty.shape)
        for block, x, y in zip(self.blocks, a[:-1], b[:-1], strict=True):
            result[block.slots] += np.einsum("pkd,pkd->pk", x, y)
        return (self.penalty * result).sum(axis=1)

    def _broadcast(self, factors: F64) -> list[F32]:
        """Shape factors (problems,) for each array of a vector."""
        f = factors.astype(np.float32)
        return [f[block.slots][:, None, None] for block in self.blocks] + [f[:, None]]

    def _add(self, a: Vector, factors: F64, b: Vector) -> None:
        """Add factors * b to a, in place."""
        for x, f, y in zip(a, self._broadcast(factors), b, strict=True):
            x += f * y

    # --- the objective

    def _set_gradient(self) -> None:
        """Set gradient, curvature and scaled gradient at the current position."""
        gradient: Vector = []
        penalty = self.penalty.astype(np.float32)
        for block, coef in zip(self.blocks, self.position[:-1], strict=True):
            # If all problems have the feature, no copy is needed.
            partial = len(block.slots) < len(self.ids)
            g = block.gradient(self.residual[block.slots] if partial else self.residual)
            g += penalty[block.slots][:, :, None] * coef
            gradient.append(g)
        gradient.append(self.residual.sum(axis=2, dtype=float).astype(np.float32))
        self.gradient = gradient
        if self.link == "identity":
            self.curvature = np.ones(len(self.ids))
        else:
            # An output with residual r has the second derivative |r| (1 - |r|).
            size = np.abs(self.residual).sum(axis=(1, 2), dtype=float)
            self.curvature = np.maximum(0.5 * size / self.target.shape[1], MIN_CURVATURE)
        for block in self.blocks:
            block.set_curvature(self.curvature[block.slots], self.penalty[block.slots])
        self.scaled_gradient = self._precondition(gradient)

    def _precondition(self, vector: Vector) -> Vector:
        """Multiply a gradient by an approximate inverse of the second derivatives."""
        scaled = [block.precondition(v) for block, v in zip(self.blocks, vector[:-1], strict=True)]
        return [*scaled, (vector[-1] / self.curvature[:, None]).astype(np.float32)]

    def excess(self) -> F64:
        """Estimate how far each objective is above its minimum, (problems,)."""
        return 0.5 * self._dot(self.gradient, self.scaled_gradient)

    # --- steps of all problems

    def step(self) -> None:
        """Do one L-BFGS step for every running problem."""
        direction, slope = self._descent()
        along = np.zeros_like(self.scores)
        self._add_scores(direction, along)
        t = self._line_search(direction, along, slope)
        last_gradient = self.gradient
        step = [x * f for x, f in zip(direction, self._broadcast(t), strict=True)]
        for x, s in zip(self.position, step, strict=True):
            x += s
        self._set_gradient()
        change = [a - b for a, b in zip(self.gradient, last_gradient, strict=True)]
        product = self._dot(step, change)
        curved = product > 1e-10 * np.sqrt(self._dot(step, step) * self._dot(change, change))
        rho = np.where(curved, 1.0 / np.where(curved, product, 1.0), 0.0)
        self.memory.append((step, change, rho))
        del self.memory[:-MEMORY]

    def _descent(self) -> tuple[Vector, F64]:
        """Return the direction of a step, and the objective's slope along it, below 0."""
        direction = self._quasi_newton()
        slope = self._dot(self.gradient, direction)
        uphill = slope >= 0
        if uphill.any():
            # Rounding errors made the memory of these problems useless, so it is restarted.
            for x, f, g in zip(
                direction,
                self._broadcast(uphill.astype(float)),
                self.scaled_gradient,
                strict=True,
            ):
                x[:] = np.where(f > 0, -g, x)
            for _, _, rho in self.memory:
                rho[uphill] = 0.0
            slope = self._dot(self.gradient, direction)
        return direction, slope

    def _quasi_newton(self) -> Vector:
        """Run the two-loop recursion of L-BFGS for all problems at once."""
        if not self.memory:
            return [-g for g in self.scaled_gradient]
        q = [-g for g in self.gradient]
        alphas: list[F64] = []
        for s, y, rho in reversed(self.memory):
            alpha = rho * self._dot(s, q)
            self._add(q, -alpha, y)
            alphas.append(alpha)
        q = self._precondition(q)
        s, y, rho = self.memory[-1]
        # A pair without curvature (rho 0) does not change the scale.
        size = self._dot(y, self._precondition(y))
        gamma = np.where(rho > 0, 1.0 / np.maximum(rho * size, 1e-300), 1.0)
        for x, f in zip(q, self._broadcast(gamma), strict=True):
            x *= f
        for (s, y, rho), alpha in zip(self.memory, reversed(alphas), strict=True):
            beta = rho * self._dot(y, q)
            self._add(q, alpha - beta, s)
        return q

    def _add_scores(self, vector: Vector, scores: F32) -> None:
        """Add the scores of coefficients to `scores` (problems, outputs, clips), in place."""
        scores += vector[-1][:, :, None]
        for block, coef in zip(self.blocks, vector[:-1], strict=True):
            for slot, of_block in zip(block.slots.tolist(), block.scores(coef), strict=True):
                scores[slot] += of_block

    def _line_search(self, direction: Vector, along: F32, slope: F64) -> F64:
        """Return step lengths that meet the Wolfe conditions; move scores, residual and loss."""
        cross = self._penalised(self.position, direction)
        square = self._penalised(direction, direction)
        t = np.ones(len(self.ids))
        if not self.memory:
            t = self._newton(self.scores, along, slope, square, np.zeros_like(t))
        low, high = np.zeros_like(t), np.full_like(t, np.inf)
        moved = np.empty_like(along)
        for trial in range(LINE_STEPS):
            np.multiply(along, t.astype(np.float32)[:, None, None], out=moved)
            moved += self.scores
            # The last residual is freed before the next one is computed.
            self.residual = moved[:0]
            self.residual, loss = residual_and_loss(moved, self.target, self.weights, self.link)
            value = loss + t * cross + 0.5 * t * t * square
            rise = np.einsum("pkn,pkn->p", self.residual, along, dtype=float)
            rise += cross + t * square
            # In single precision the loss is too coarse near the end, so the slope is compared.
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
        """Return Newton's step length for the minimum along a direction, from `scores`."""
        second = curvature(scores, along, self.weights, self.link) + square
        return t - slope / np.maximum(second, 1e-300)

    # --- end of problems

    def retire(self, done: Bools) -> None:
        """Store the results of the problems in `done`, bool (running problems,), and drop them."""
        if not done.any():
            return
        kept = ~done
        kept_of: list[Bools] = []
        for block, coef, final in zip(self.blocks, self.position[:-1], self.final, strict=False):
            ended = done[block.slots]
            final[block.rows[ended]] = coef[ended]
            kept_of.append(block.drop(done))
        self.final[-1][self.ids[done]] = self.position[-1][done]
        kept_of.append(kept)

        def keep(vector: Vector) -> Vector:
            return [x[k] for x, k in zip(vector, kept_of, strict=True)]

        self.position, self.gradient = keep(self.position), keep(self.gradient)
        self.scaled_gradient = keep(self.scaled_gradient)
        self.memory = [(keep(s), keep(y), rho[kept]) for s, y, rho in self.memory]
        self.scores, self.residual = self.scores[kept], self.residual[kept]
        self.weights, self.penalty = self.weights[kept], self.penalty[kept]
        self.loss, self.ids = self.loss[kept], self.ids[kept]
        self.curvature = self.curvature[kept]
        if len(self.target) > 1:
            self.target = self.target[kept]


def residual_and_loss(scores: F32, target: F32, weights: F32, link: Link) -> tuple[F32, F64]:
    """Return weight * (prediction - target), shaped like the scores, and each problem's loss."""
    if link == "softmax":
        predicted, log_sum = _softmax(scores)
        each = log_sum - np.einsum("pkn,pkn->pn", scores, target)
    elif link == "sigmoid":
        predicted = _sigmoid(scores)
        each = np.logaddexp(0.0, scores).sum(axis=1)
        each -= np.einsum("pkn,pkn->pn", scores, target)
    else:
        predicted = scores.copy()
    residual = predicted
    residual -= target
    if link == "identity":
        each = 0.5 * np.einsum("pkn,pkn->pn", residual, residual)
    residual *= weights
    return residual, np.einsum("pn,pn->p", weights[:, 0], each, dtype=float)


def curvature(scores: F32, direction: F32, weights: F32, link: Link) -> F64:
    """Return the second derivative of each problem's loss along a direction of the scores."""
    if link == "softmax":
        p, _ = _softmax(scores)
        mean = np.einsum("pkn,pkn->pn", p, direction)
        each = np.einsum("pkn,pkn,pkn->pn", p, direction, direction) - mean * mean
    elif link == "sigmoid":
        p = _sigmoid(scores)
        each = np.einsum("pkn,pkn,pkn->pn", p * (1.0 - p), direction, direction)
    else:
        each = np.einsum("pkn,pkn->pn", direction, direction)
    return np.einsum("pn,pn->p", weights[:, 0], each, dtype=float)


def _softmax(scores: F32) -> tuple[F32, F32]:
    """Return probabilities, and the log of each clip's sum of exponentials, (problems, clips)."""
    largest = scores.max(axis=1, keepdims=True)
    p = scores - largest
    np.exp(p, out=p)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, (np.log(total) + largest)[:, 0]


def _sigmoid(scores: F32) -> F32:
    p = scores * np.float32(0.5)
    np.tanh(p, out=p)
    p += 1.0
    p *= 0.5
    return p

"""The training of heads with one hidden layer that have the same features, all at once.

Method: Adam (Kingma & Ba 2015) on all training clips at once, one hidden layer of
rectified linear units, early stopping on clips that are kept out of the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.losses import (
    CENTRED,
    F64,
    Loss,
    Real,
    centre_loss,
    check_loss,
    move_centres,
    score_loss,
)
from mvemo.fuse.heads.solver import moments

I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Decay of Adam's two moments, and what keeps its division finite.
FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Settings:
    """How heads are trained; `mvemo.fuse.heads.mlp.solve_mlp` says what each is."""

    hidden: int = 64
    loss: Loss = "softmax"
    tau: float = 0.01
    lr: float = 5e-3
    max_epochs: int = 200
    patience: int = 10
    tol: float = 1e-4
    dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_loss(self.loss, self.tau)
        if self.hidden < 1 or self.max_epochs < 1 or self.patience < 1:
            raise BadFeatures(
                f"hidden, max_epochs and patience are {self.hidden}, {self.max_epochs}, "
                f"{self.patience}: each must be 1 or more"
            )
        if not self.lr > 0:
            raise BadFeatures(f"lr is {self.lr}: it must be above 0")
        if not 0 <= self.dropout < 1:
            raise BadFeatures(f"dropout is {self.dropout}: it must be 0 or more and below 1")


@dataclass(frozen=True)
class Trained:
    """Problems of one group, each as it was in its best epoch.

    Parameters
    ----------
    parameters
        As in `Run`, for values in the target's units.
    centres
        (problems, outputs, hidden).
    scores
        (problems, outputs, clips).
    moments
        For each feature, mean and scale (problems, dim).
    epochs, stopped
        (problems,): the best epoch, and whether the training ended before the last.
    loss, watched
        (problems, max_epochs + 1): objective and watched loss before each step.
    """

    parameters: list[Real]
    centres: Real
    scores: Real
    moments: list[tuple[F64, F64]]
    epochs: I64
    stopped: Mask
    loss: F64
    watched: F64


class Run:
    """Problems of one group in training.

    `parameters` holds the first layer's weights, one array (problems, hidden, dim) a
    block, then its intercepts (problems, hidden), then the last layer's weights
    (problems, outputs, hidden) and intercepts (problems, outputs).
    """

    def __init__(
        self,
        values: Sequence[Real],
        target: NDArray[np.floating],
        fitted: NDArray[np.floating],
        held_out: NDArray[np.floating],
        decay: F64,
        settings: Settings,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        self.settings = settings
        self.dtype = dtype
        self.values = [np.ascontiguousarray(v, dtype=dtype) for v in values]
        n_problems, self.n_clips = fitted.shape
        total = fitted.sum(axis=1, dtype=np.float64)[:, None]
        # Means over the fitted clips, and over those watched: (problems, clips)
        self.fitted = (fitted / total).astype(dtype)
        kept = held_out.sum(axis=1, dtype=np.float64)[:, None]
        self.has_watch = kept[:, 0] > 0
        self.held_out = (held_out / np.where(kept > 0, kept, 1.0)).astype(dtype)
        # Mean 1 over the fitted clips
        self.counts = (fitted * (np.count_nonzero(fitted, axis=1)[:, None] / total)).astype(dtype)
        self.decay = decay.astype(dtype)
        # In one layout: products of another may round otherwise.
        self.target = np.ascontiguousarray(target, dtype=dtype)[None]
        # Of the outputs: 0 and 1 but for values, which are standardised.
        self.shift = np.zeros((n_problems, target.shape[0]), dtype)
        self.spread = np.ones_like(self.shift)
        if settings.loss == "identity":
            self._standardise_target(target, fitted / total)
        self.moments = [moments(v, self.fitted) for v in self.values]
        self.mean = [m.astype(dtype) for m, _ in self.moments]
        self.inverse = [(1.0 / s).astype(dtype)[:, None, :] for _, s in self.moments]
        self.parameters = self._first_weights(n_problems, target.shape[0])
        self.centres = np.zeros((n_problems, target.shape[0], settings.hidden), dtype)
        self.adam = [[np.zeros_like(x), np.zeros_like(x)] for x in self.parameters]
        self._make_room()

    def _standardise_target(self, target: NDArray[np.floating], share: F64) -> None:
        mean = share @ target.T.astype(np.float64)
        away = target[None] - mean[:, :, None]
        spread = np.sqrt(np.einsum("pn,pkn->pk", share, np.square(away)))
        spread[spread == 0] = 1.0
        self.shift, self.spread = mean.astype(self.dtype), spread.astype(self.dtype)
        self.target = (away / spread[:, :, None]).astype(self.dtype)

    def _first_weights(self, n_problems: int, outputs: int) -> list[Real]:
        """Uniform as of Glorot & Bengio 2010, the same for all problems of a seed."""
        rng = np.random.default_rng([self.settings.seed, 0])
        dims = [v.shape[1] for v in self.values]
        h = self.settings.hidden

        def draw(fan_in: int, fan_out: int, shape: tuple[int, int]) -> Real:
            bound = np.sqrt(6.0 / (fan_in + fan_out))
            drawn = rng.uniform(-bound, bound, shape).astype(self.dtype)
            return np.repeat(drawn[None], n_problems, axis=0)

        made = [draw(sum(dims), h, (h, dim)) for dim in dims]
        made.append(np.zeros((n_problems, h), self.dtype))
        made.append(draw(h, outputs, (outputs, h)))
        made.append(np.zeros((n_problems, outputs), self.dtype))
        self._constrain(made)
        return made

    def _constrain(self, parameters: list[Real]) -> None:
        """L2: weights of norm 1, intercepts 0 (J22 eq. 9)."""
        if self.settings.loss == "angular":
            coef = parameters[-2]
            coef /= np.maximum(np.linalg.norm(coef, axis=2, keepdims=True), 1e-12)
            parameters[-1][:] = 0.0

    def _make_room(self) -> None:
        """Arrays that every step writes into."""
        n, h = self.parameters[-3].shape
        self.inner = np.empty((n, h, self.n_clips), self.dtype)
        self.room = np.empty_like(self.inner)
        self.gradient = [np.empty_like(x) for x in self.parameters]
        self.scratch = [np.empty_like(x) for x in self.parameters]

    # --- one step

    def forward(self) -> tuple[Real, Real]:
        """Hidden outputs (problems, hidden, clips), and scores (problems, outputs, clips)."""
        *first, hidden_intercept, _, _ = self.parameters
        n, h = hidden_intercept.shape
        offset = hidden_intercept.copy()
        for w, inverse, mean, scaled in zip(
            first, self.inverse, self.mean, self.scratch, strict=False
        ):
            np.multiply(w, inverse, out=scaled)
            offset -= np.matmul(scaled, mean[:, :, None])[:, :, 0]
        for i, values in enumerate(self.values):
            flat = self.scratch[i].reshape(n * h, -1)
            out = (self.room if i else self.inner).reshape(n * h, self.n_clips)
            np.matmul(flat, values.T, out=out)
            if i:
                self.inner += self.room
        self.inner += offset[:, :, None]
        np.maximum(self.inner, 0.0, out=self.inner)
        return self.inner, self._scores(self.inner)

    def _scores(self, x: Real) -> Real:
        scores: Real = np.matmul(self.parameters[-2], x)
        scores += self.parameters[-1][:, :, None]
        return scores

    def objective(self, x: Real, scores: Real) -> tuple[F64, F64, Real, Real | None]:
        """Objective and watched loss (problems,), and the slopes by scores and features."""
        s = self.settings
        each, slope = score_loss(s.loss, scores, self.target)
        value = np.einsum("pn,pn->p", self.fitted, each, dtype=np.float64)
        watched = np.einsum("pn,pn->p", self.held_out, each, dtype=np.float64)
        slope *= self.fitted[:, None, :]
        by_features: Real | None = None
        if s.loss in CENTRED:
            term = centre_loss(s.loss, x, self.centres, self.target[0])
            value += s.tau * np.einsum("pn,pn->p", self.fitted, term.each, dtype=np.float64)
            by_features = term.slope
            by_features *= (s.tau * self.fitted)[:, None, :]
        for w in self._penalised():
            square = np.einsum("pk,pk->p", w.reshape(len(w), -1), w.reshape(len(w), -1))
            value += 0.5 * self.decay * square
        return value, np.where(self.has_watch, watched, value), slope, by_features

    def _penalised(self) -> list[Real]:
        """Weights, without those whose norm is fixed."""
        some = self.parameters[: len(self.values)]
        return some if self.settings.loss == "angular" else [*some, self.parameters[-2]]

    def backward(self, x: Real, slope: Real, by_features: Real | None, kept: Real | None) -> None:
        """Gradient of the objective, into `gradient`.

        `x` is what entered the last layer, `kept` the factors that dropout put on it.
        """
        n_blocks, g = len(self.values), self.gradient
        *first, hidden_intercept, coef, _ = self.parameters
        n, h = hidden_intercept.shape
        np.matmul(slope, x.transpose(0, 2, 1), out=g[-2])
        np.sum(slope, axis=2, out=g[-1])
        if self.settings.loss == "angular":
            # Along the weights nothing changes: their norm is fixed.
            g[-2] -= np.einsum("pkh,pkh->pk", g[-2], coef)[:, :, None] * coef
            g[-1][:] = 0.0
        else:
            g[-2] += self.decay[:, None, None] * coef
        back = np.matmul(coef.transpose(0, 2, 1), slope, out=self.room)
        if by_features is not None:
            back += by_features
        if kept is not None:
            back *= kept
        back *= self.inner > 0
        flat = back.reshape(n * h, self.n_clips)
        sums = np.matmul(flat, np.ones(self.n_clips, self.dtype)).reshape(n, h)
        g[n_blocks][:] = sums
        for i, values in enumerate(self.values):
            np.matmul(flat, values, out=g[i].reshape(n * h, -1))
            g[i] -= np.multiply(sums[:, :, None], self.mean[i][:, None, :], out=self.scratch[i])
            g[i] *= self.inverse[i]
            if self.decay.any():
                g[i] += np.multiply(first[i], self.decay[:, None, None], out=self.scratch[i])

    def step(self, epoch: int) -> None:
        """Adam; `epoch` counts from 0."""
        rate = self.settings.lr / (1.0 - FIRST ** (epoch + 1))
        correct = 1.0 / np.sqrt(1.0 - SECOND ** (epoch + 1))
        for x, g, (m, v), room in zip(
            self.parameters, self.gradient, self.adam, self.scratch, strict=True
        ):
            np.subtract(g, m, out=room)
            room *= 1.0 - FIRST
            m += room
            np.square(g, out=room)
            room -= v
            room *= 1.0 - SECOND
            v += room
            np.sqrt(v, out=room)
            room *= correct
            room += TINY
            np.divide(m, room, out=room)
            room *= rate
            x -= room
        self._constrain(self.parameters)

    # --- training

    def run(self) -> Trained:
        """Train all problems to their ends."""
        s = self.settings
        ids = np.arange(len(self.fitted))
        kept = self._blank(len(ids))
        best = np.full(len(ids), np.inf)
        best_epoch = np.zeros(len(ids), np.int64)
        for epoch in range(s.max_epochs + 1):
            x, scores = self.forward()
            value, watched, slope, by_features = self.objective(x, scores)
            kept.loss[ids, epoch], kept.watched[ids, epoch] = value, watched
            better = watched < best - s.tol
            best[better], best_epoch[better] = watched[better], epoch
            self._keep(kept, ids, better, scores)
            kept.epochs[ids] = best_epoch
            if epoch == s.max_epochs:
                break
            done = epoch - best_epoch >= s.patience
            if done.any():
                kept.stopped[ids[done]] = True
                stay = ~done
                ids, best, best_epoch = ids[stay], best[stay], best_epoch[stay]
                if not len(ids):
                    break
                self._cut(stay)
                slope = slope[stay]
                by_features = None if by_features is None else by_features[stay]
                x = self.inner
            factors: Real | None = None
            if s.dropout:
                factors = self._dropped(epoch)
                x = x * factors
                _, _, slope, by_features = self.objective(x, self._scores(x))
            self.backward(x, slope, by_features, factors)
            self.step(epoch)
            if s.loss in CENTRED:
                self.centres = move_centres(self.centres, x, self.target[0], self.counts)
        return kept

    def _blank(self, n: int) -> Trained:
        shape = (n, self.settings.max_epochs + 1)
        return Trained(
            parameters=[np.zeros_like(x) for x in self.parameters],
            centres=np.zeros_like(self.centres),
            scores=np.zeros((n, self.shift.shape[1], self.n_clips), self.dtype),
            moments=self.moments,
            epochs=np.zeros(n, np.int64),
            stopped=np.zeros(n, np.bool_),
            loss=np.full(shape, np.nan),
            watched=np.full(shape, np.nan),
        )

    def _keep(self, kept: Trained, ids: I64, better: Mask, scores: Real) -> None:
        """Keep the problems that got better as they are, in the target's units."""
        if not better.any():
            return
        now = ids[better]
        for to, x in zip(kept.parameters, self.parameters, strict=True):
            to[now] = x[better]
        shift, spread = self.shift[better], self.spread[better]
        kept.parameters[-2][now] *= spread[:, :, None]
        kept.parameters[-1][now] = self.parameters[-1][better] * spread + shift
        kept.scores[now] = scores[better] * spread[:, :, None] + shift[:, :, None]
        kept.centres[now] = self.centres[better]

    def _dropped(self, epoch: int) -> Real:
        """(hidden, clips): 0, or what makes up for the zeros; the same for all problems."""
        rng = np.random.default_rng([self.settings.seed, 1, epoch])
        share = self.settings.dropout
        drawn = rng.random((self.settings.hidden, self.n_clips), dtype=np.float32)
        kept: Real = (drawn >= share).astype(self.dtype) / self.dtype(1.0 - share)
        return kept

    def _cut(self, stay: Mask) -> None:
        """Run on without the problems that ended."""
        self.parameters = [x[stay] for x in self.parameters]
        self.adam = [[m[stay], v[stay]] for m, v in self.adam]
        self.mean = [m[stay] for m in self.mean]
        self.inverse = [i[stay] for i in self.inverse]
        self.fitted, self.held_out = self.fitted[stay], self.held_out[stay]
        self.counts, self.decay = self.counts[stay], self.decay[stay]
        self.has_watch, self.centres = self.has_watch[stay], self.centres[stay]
        self.shift, self.spread = self.shift[stay], self.spread[stay]
        if len(self.target) > 1:
            self.target = self.target[stay]
        inner = self.inner[stay]
        self._make_room()
        self.inner = inner

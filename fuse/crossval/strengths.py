"""Choice of the strength of each head's penalty, on inner folds of its training clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mvemo.fuse.clips import Clips, leave_each_out
from mvemo.fuse.heads.fitting import Fit, Fitted, HeadFitter, Position
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import Key, Model
from mvemo.fuse.numeric import Ints

# Inverse strengths to try: a decade apart, because the loss changes slowly between them.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Indices in `GRID` of the first two to try.
FIRST = (1, 2)
# Number of clips that is enough to compare strengths; larger sets predict fewer inner folds.
ENOUGH = 500
# Tolerance of fits that are only compared.
TOLERANCE = 1e-4


@dataclass
class Strength:
    """Chosen strength of a model's penalty, and starts for fits with it."""

    C: float  # inverse strength of the penalty
    # For each inner fold, the end of the fit that left it out, at the tried strength nearest to
    # `C`.
    positions: Mapping[int, Position] = field(default_factory=dict)

    def start(self, inner_fold: int | None) -> Position | None:
        """Return a start for the fit without an inner fold, or (None) on all training clips."""
        if inner_fold is not None and inner_fold in self.positions:
            return self.positions[inner_fold]
        if not self.positions:
            return None
        positions = list(self.positions.values())
        coef = zip(*(position.coef for position in positions), strict=True)
        intercept = np.mean([position.intercept for position in positions], axis=0)
        return Position(tuple(np.mean(of_feature, axis=0) for of_feature in coef), intercept)


@dataclass
class _Trials:
    """Trials of one model: index in `GRID` to the loss, and to the ends of the fits."""

    losses: dict[int, float] = field(default_factory=dict)
    positions: dict[int, dict[int, Position]] = field(default_factory=dict)
    margin: float = 0.0

    @property
    def best(self) -> int:
        """Return the strongest penalty, unless a weaker one gains more than the margin."""
        best, *others = sorted(self.losses)
        for i in others:
            if self.losses[i] < self.losses[best] - self.margin:
                best = i
        return best

    def next(self) -> int | None:
        """Return the next strength to try, next to the best; None if both neighbours are known."""
        if len(self.losses) < len(FIRST):
            return FIRST[len(self.losses)]
        beside = (self.best + 1, self.best - 1)
        return next((i for i in beside if 0 <= i < len(GRID) and i not in self.losses), None)

    def start(self, step: int, inner_fold: int) -> Position | None:
        """Return the end of the fit without an inner fold at the nearest tried strength."""
        nearest = min(self.losses, key=lambda i: abs(i - step), default=None)
        return None if nearest is None else self.positions[nearest].get(inner_fold)

    def add(self, step: int, fitted: Sequence[Fitted], clips: Clips, inner: Ints) -> bool:
        """Add the fits of one strength; return False if they predict nothing."""
        outputs = np.full((len(inner), clips.n_outputs), np.nan)
        positions = {}
        for one in fitted:
            predicted = np.flatnonzero(inner >= 0 if one.fit.predict is None else one.fit.predict)
            outputs[predicted] = one.outputs
            positions[int(inner[predicted[0]])] = one.position
        loss = clips.task.choice_loss(clips.y_true, outputs)
        if not np.isfinite(loss):
            return False
        self.losses[step], self.positions[step] = loss, positions
        self.margin = 0.5 / int(complete(outputs).sum())
        return True

    def chosen(self) -> Strength:
        """Return the strength at the minimum of a parabola through the best and its neighbours."""
        best = self.best
        shift = 0.0
        if best - 1 in self.losses and best + 1 in self.losses:
            left, middle, right = (self.losses[i] for i in (best - 1, best, best + 1))
            bend = left - 2 * middle + right
            shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
        C = GRID[best] * 10**shift
        return Strength(float(f"{C:.3g}"), self.positions[best])


def choose_strengths(
    fitter: HeadFitter, models: Sequence[Model], fold: int, inner: Ints
) -> dict[Key, Strength]:
    """Choose the strength of each model's penalty by the loss of inner predictions."""
    clips = fitter.clips
    splits = leave_each_out(inner)
    per_fold = (inner >= 0).sum() / max(len(splits), 1)
    splits = splits[: int(np.ceil(ENOUGH / max(per_fold, 1.0)))]
    trials = {model.features: _Trials() for model in models}
    active = [(model, FIRST[0]) for model in models]
    while active:
        fits = [
            Fit(
                model,
                fold,
                train,
                GRID[step],
                TOLERANCE,
                predict=rows,
                scaled_on=clips.folds != fold,
                start=trials[model.features].start(step, j),
            )
            for j, (train, rows) in enumerate(splits)
            for model, step in active
        ]
        by_model: dict[Key, list[Fitted]] = {}
        for one in fitter.fit(fits):
            by_model.setdefault(one.fit.model.features, []).append(one)
        following = []
        for model, step in active:
            tried = trials[model.features]
            if not tried.add(step, by_model.get(model.features, []), clips, inner):
                continue
            beside = tried.next()
            if beside is not None:
                following.append((model, beside))
        active = following
    return {key: tried.chosen() for key, tried in trials.items() if tried.losses}

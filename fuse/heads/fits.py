"""One head to be fitted, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from mvemo.fuse.arrays import F32, F64, Bools
from mvemo.fuse.models import Model

# How far above its minimum the mean loss of a clip may be at the end of a fit, in nats.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Position:
    """Where a fit ended, in the coordinates of its `ScaledFeatures`."""

    coef: tuple[F32, ...]  # for each feature of the model, float32 (outputs, columns)
    intercept: F64  # float64 (outputs,)


@dataclass(frozen=True)
class Fit:
    """One head to be fitted.

    Parameters
    ----------
    model
        Whose features it concatenates.
    fold
        Left out; None to train on all clips.
    train
        bool (clips,): its training clips. Those without one of its features are left out.
    C
        Inverse strength of its L2 penalty, above 0.
    tol
        How far above its minimum its mean loss may be at the end.
    predict
        bool (clips,): clips whose outputs are given back; None for all.
    scaled_on
        bool (clips,): clips whose features are standardised by; None for its training clips.
        Of an inner fold, the training clips of the outer one: all its heads then share
        values.
    start
        Where another fit of the same model ended, over features scaled on the same clips: of
        another C, or of other training clips. None for zeros.
    """

    model: Model
    fold: int | None
    train: Bools
    C: float
    tol: float = TOLERANCE
    predict: Bools | None = None
    scaled_on: Bools | None = None
    start: Position | None = None

    def __str__(self) -> str:
        return f"{self.model.name}, {'all clips' if self.fold is None else f'fold {self.fold}'}"


@dataclass(frozen=True)
class Fitted:
    """One fit, solved."""

    fit: Fit
    outputs: F64  # float64 (clips to predict, outputs); NaN rows where a feature is missing
    position: Position  # where it ended
    target_scale: tuple[F64, F64]

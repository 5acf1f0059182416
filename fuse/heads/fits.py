"""One head to be fitted, and its fitted state."""

from __future__ import annotations

from dataclasses import dataclass

from mvemo.fuse.arrays import F32, F64, Bools
from mvemo.fuse.models import Model

# Largest excess of the mean loss of a clip over its minimum at the end of a fit, in nats.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Position:
    """Coefficients of a fit, in the coordinates of its `ScaledFeatures`."""

    coef: tuple[F32, ...]  # for each feature of the model, float32 (outputs, columns)
    intercept: F64  # float64 (outputs,)


@dataclass(frozen=True)
class Fit:
    """One head to be fitted.

    Parameters
    ----------
    model
        Model whose features the head concatenates.
    fold
        Fold that is left out; None to train on all clips.
    train
        bool (clips,): training clips. Clips that lack one of the features are left out.
    C
        Inverse strength of the L2 penalty, above 0.
    tol
        Largest excess of the mean loss over its minimum at the end, in nats.
    predict
        bool (clips,): clips whose outputs are returned; None for all.
    scaled_on
        bool (clips,): clips that the features are standardised on; None for the training clips.
        For an inner fold these are the training clips of the outer fold, so that its heads
        share values.
    start
        End of another fit of the same model on features scaled on the same clips, with another
        C or other training clips; None for zeros.
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
    """One solved fit."""

    fit: Fit
    outputs: F64  # float64 (clips to predict, outputs); NaN rows where a feature is missing
    position: Position
    target_scale: tuple[F64, F64]  # mean and deviation of the targets, in their unit

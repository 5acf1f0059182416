"""Settings of heads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.fuse.errors import BadFeatures

# Beyond these, the loss or the penalty has no digits left in single precision.
MIN_C, MAX_C = 1e-10, 1e10
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all heads of an evaluation.

    Parameters
    ----------
    C
        Inverse strength of the L2 penalty, as in scikit-learn, if it is not chosen.
    choose_C
        Choose the strength for each head on inner folds of its training clips
        (`mvemo.fuse.crossval.strengths`).
    inner_folds
        Number of folds of the training clips, for that choice, stacking, temperatures and
        thresholds.
    class_weight
        ``balanced``: every class has the same weight in training, whatever its number of clips
        (for classes only, not for tags).
    balance_blocks
        Concatenated features have the same weight in the penalty, however many numbers each
        has: standardised columns are multiplied by the square root of the mean number of
        columns over the feature's own number. Heads of one feature do not change.
    inputs
        Inputs of the heads: cached ``features``, or ``log-probabilities``, ``log-odds`` or
        ``values`` of other heads (set by stacking).

    Raises
    ------
    BadFeatures
        A value is not allowed; the message names the range.

    Examples
    --------
    >>> HeadSettings(C=0.1, choose_C=False).C
    0.1
    >>> HeadSettings(inner_folds=1)
    Traceback (most recent call last):
    ...
    mvemo.fuse.errors.BadFeatures: inner_folds is 1: at least 2 is needed
    """

    C: float = 0.01
    choose_C: bool = True
    inner_folds: int = 3
    class_weight: str = "none"
    balance_blocks: bool = True
    inputs: str = field(default="features", metadata={"profile": False})

    def __post_init__(self) -> None:
        if self.class_weight not in CLASS_WEIGHTS:
            raise BadFeatures(
                f"class_weight of heads is {self.class_weight!r}: one of {', '.join(CLASS_WEIGHTS)}"
            )
        if self.inner_folds < 2:
            raise BadFeatures(f"inner_folds is {self.inner_folds}: at least 2 is needed")
        if not MIN_C <= self.C <= MAX_C:
            raise BadFeatures(f"C of heads is {self.C}: it must be from {MIN_C} to {MAX_C}")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

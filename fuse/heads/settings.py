"""Settings of heads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.fuse.errors import BadFeatures

# Beyond these single precision has no digits left for the loss, or for the penalty.
MIN_C, MAX_C = 1e-10, 1e10
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all heads of an evaluation.

    Parameters
    ----------
    C
        Inverse strength of the L2 penalty, as in scikit-learn, where it is not chosen.
    choose_C
        Choose it for each head on inner folds of its training clips
        (`mvemo.fuse.crossval.strengths`).
    inner_folds
        Folds of the training clips: of that choice, of stacking, temperatures and
        thresholds.
    class_weight
        ``balanced``: every class weighs the same in training, however few its clips (of
        classes only, not of tags).
    balance_blocks
        Features that are concatenated weigh the same in the penalty, however many numbers each
        has: standardised columns are scaled by the root of mean over own number of columns.
        Heads of one feature stay as they are.
    inputs
        What heads read: cached ``features``, or of other heads their ``log-probabilities``,
        ``log-odds`` or ``values`` (stacking sets it).

    Raises
    ------
    BadFeatures
        A value is none of those allowed; the message names the range.

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
        """As JSON values."""
        return asdict(self)

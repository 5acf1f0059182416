"""What heads are, beyond the features that they concatenate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.losses import LOSSES

KINDS = ("softmax", "mlp")
# Beyond these single precision has no digits left for the loss, or for the penalty.
LEAST_C, MOST_C = 1e-10, 1e10
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all heads of an evaluation.

    Parameters
    ----------
    kind
        ``softmax``: one layer (PL20 3.4; logistic for tags, linear for dimensions).
        ``mlp``: a hidden layer before it, stopped early on groups held out of its training
        clips.
    C
        Inverse strength of the L2 penalty, as in scikit-learn.
    choose_C
        Choose `C` for each head on inner folds of its training clips instead.
    inner_folds
        Folds of the training clips: of that choice, of stacking, temperatures and
        thresholds.
    class_weight
        ``balanced``: every class weighs the same in training, however few its clips (of
        classes only, not of tags).
    hidden, loss, tau
        Of ``mlp``: hidden units; loss (L1-L4, of classes only); weight of the centres' term.
    inputs
        What heads read: cached ``features``, or of other heads their ``log-probabilities``,
        ``log-odds`` or ``values``.
    """

    kind: str = "softmax"
    C: float = 0.01
    choose_C: bool = False
    inner_folds: int = 3
    class_weight: str = "none"
    hidden: int = 64
    loss: str = "softmax"
    tau: float = 0.01
    inputs: str = "features"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", KINDS),
            ("class_weight", CLASS_WEIGHTS),
            ("loss", tuple(name for name in LOSSES if name not in ("sigmoid", "identity"))),
        ):
            if getattr(self, name) not in allowed:
                raise BadFeatures(
                    f"{name} of heads is {getattr(self, name)!r}: one of {', '.join(allowed)}"
                )
        if self.kind == "softmax" and self.loss != "softmax":
            raise BadFeatures(f"loss {self.loss!r} needs a hidden layer: set kind to 'mlp'")
        for name, least in (("inner_folds", 2), ("hidden", 1)):
            if getattr(self, name) < least:
                raise BadFeatures(f"{name} is {getattr(self, name)}: at least {least} is needed")
        if not LEAST_C <= self.C <= MOST_C:
            raise BadFeatures(f"C of heads is {self.C}: it must be from {LEAST_C} to {MOST_C}")
        if not 0 < self.tau < float("inf"):
            raise BadFeatures(f"tau of heads is {self.tau}: it must be above 0, and finite")

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

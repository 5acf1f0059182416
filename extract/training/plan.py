"""What to run: a net with its size, its starting weights and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.extract.errors import BadSetting
from mvemo.extract.training.losses import check_loss

OPTIMIZERS = ("adam", "sgd", "rmsprop")
PROTOCOLS = ("crossfit", "frozen", "shared", "holdout")
PRECISIONS = ("float32", "bf16")


# Ten times the papers' channels is a hundred times their parameters.
MOST_WIDTH = 10


@dataclass(frozen=True)
class TrainSettings:
    """Fine-tuning of one net.

    Parameters
    ----------
    optimizer
        One of `OPTIMIZERS`.
    lr, momentum, weight_decay
        Of the optimizer; `momentum` is for SGD alone. PL20 Table 2 has the papers' rates.
    epochs
        At most; early stopping usually ends before.
    iterations
        Optimizer steps at most, instead of epochs: as many epochs as they need, the last
        one cut off at exactly that step (J22 3.3: 2,500). 0 leaves it to `epochs`.
    patience
        Epochs without a lower validation loss before training stops; the weights of the
        lowest are kept. 0 is no early stopping: nothing is held out from the training
        clips, all epochs or iterations are run, and the last weights are kept. Under
        ``holdout`` the validation clips are still scored for the curve, and decide nothing.
    batch_size
        Clips a step; what bounds the memory.
    val_fraction
        Share of the training clips held out, by group, for early stopping.
    loss, tau
        Name of the loss and weight of its centres' term, see `mvemo.extract.training.losses`.
    """

    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 60
    iterations: int = 0
    patience: int = 10
    batch_size: int = 16
    val_fraction: float = 0.15
    loss: str = "softmax"
    tau: float = 0.01

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise BadSetting(
                f"optimizer {self.optimizer!r} is not known: one of {', '.join(OPTIMIZERS)}"
            )
        for name in ("lr", "epochs", "batch_size"):
            if not getattr(self, name) > 0:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("momentum", "weight_decay", "iterations", "patience"):
            if not getattr(self, name) >= 0:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if self.momentum >= 1:
            raise BadSetting(f"momentum is {self.momentum}: it must be below 1")
        if not 0 < self.val_fraction < 1:
            raise BadSetting(f"val_fraction is {self.val_fraction}: it must lie between 0 and 1")
        check_loss(self.loss, self.tau)


@dataclass(frozen=True)
class NetPlan:
    """One net of a run.

    Parameters
    ----------
    name
        In the registry of nets.
    width
        Multiplies the channel counts; 1 is the papers' size.
    weights
        Path of a pretrained weight file; empty to start from random weights.
    options
        The net's own options (input length, frame count and size, front end, …).
    train
        How it is fine-tuned.
    """

    name: str
    width: float = 1.0
    weights: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if not 0 < self.width <= MOST_WIDTH:
            raise BadSetting(
                f"width of {self.name} is {self.width}: it must be above 0 and at most {MOST_WIDTH}"
            )

    def record(self) -> dict[str, Any]:
        """All settings as JSON values; the weight file's path is left out, its bytes count."""
        return {
            "name": self.name,
            "width": self.width,
            "options": dict(self.options),
            "train": asdict(self.train),
        }

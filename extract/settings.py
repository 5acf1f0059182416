"""Settings of stage one's nets: of one net, of its training, of a whole run.

Nothing here needs torch, so that profiles can be read where none is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.extract.errors import BadSetting

OPTIMIZERS = ("adam", "sgd", "rmsprop")
LOSSES = ("softmax", "angular", "centre", "improved-centre")
PROTOCOLS = ("crossfit", "frozen", "shared", "holdout")
PRECISIONS = ("float32", "bf16")
# Ten times the papers' channels is a hundred times their parameters.
MAX_WIDTH = 10
# Stands for a path among a net's settings: the weights that `mvemo weights get` fetched.
FETCHED = "pretrained"


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
        one ended at exactly that step (J22 3.3: 2,500). 0 leaves it to `epochs`.
    patience
        Epochs without a lower validation loss before training stops; the weights of the
        lowest are kept. 0 is no early stopping: nothing is held out from the training
        clips, all epochs or iterations are run, and the last weights are kept. Under
        ``holdout`` the validation clips are still scored for the curve, and decide nothing.
    batch_size
        Clips a step; what bounds the memory.
    val_fraction
        Share of the training clips held out, by group, for early stopping.
    loss
        One of `LOSSES` for classes; tags and regression targets have one loss each, which
        ``softmax`` stands for.
    tau
        Weight of the centres' term in ``centre`` and ``improved-centre``, see
        `mvemo.extract.training.losses.make_loss`.

    Raises
    ------
    BadSetting
        A value is unknown or out of range.

    Examples
    --------
    >>> TrainSettings(optimizer="sgd", lr=1e-3, momentum=0.5).epochs
    60
    >>> TrainSettings(lr=0.0)
    Traceback (most recent call last):
    mvemo.extract.errors.BadSetting: lr is 0.0: it must be above 0
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
        _check_known("optimizer", self.optimizer, OPTIMIZERS)
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
class NetSettings:
    """One net of a run: its size, its starting weights and how it is trained.

    Parameters
    ----------
    name
        Of a net in `mvemo.extract.nets`.
    width
        Multiplies the channel counts; 1 is the papers' size.
    weights
        Path of a pretrained weight file, or `FETCHED`; empty to start from random weights.
    options
        The net's own options (input length, frame count and size, front end, …); those not
        named are its defaults.
    train
        How it is fine-tuned.

    Raises
    ------
    BadSetting
        The width is out of range.
    """

    name: str
    width: float = 1.0
    weights: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if not 0 < self.width <= MAX_WIDTH:
            raise BadSetting(f"width is {self.width}: it must be above 0 and at most {MAX_WIDTH}")

    def record(self) -> dict[str, Any]:
        """All settings as JSON values; the weight file's path is left out, its bytes count."""
        return {
            "name": self.name,
            "width": self.width,
            "options": dict(self.options),
            "train": asdict(self.train),
        }


@dataclass(frozen=True)
class RunSettings:
    """What all nets of a run share.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`, see `mvemo.extract.training.protocols`.
    seed
        Of initial weights, inner splits, batch order and dropout.
    device
        ``auto``, ``cpu`` or ``cuda``.
    precision
        One of `PRECISIONS`; ``bf16`` is mixed precision.

    Raises
    ------
    BadSetting
        A value is unknown or out of range.
    """

    protocol: str = "crossfit"
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check_known("protocol", self.protocol, PROTOCOLS)
        _check_known("precision", self.precision, PRECISIONS)
        if self.seed < 0:
            raise BadSetting(f"seed is {self.seed}: it must be 0 or more")
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise BadSetting(f"device {self.device!r} is not known: auto, cpu or cuda")


def check_loss(name: str, tau: float) -> None:
    """Raise `BadSetting` for an unknown loss, or a tau that is no number of 0 or more."""
    _check_known("loss", name, LOSSES)
    if not (math.isfinite(tau) and tau >= 0):
        raise BadSetting(f"tau is {tau}: it must be 0 or more")


def _check_known(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadSetting(f"{setting} {value!r} is not known: one of {', '.join(allowed)}")

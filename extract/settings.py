"""Settings of one net, of its training and of a whole run of stage one.

This module does not import torch: profiles can be read without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.extract.errors import BadSetting
from mvemo.extract.views import ViewSettings

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
LOSSES = ("softmax", "angular", "centre", "improved-centre")
PROTOCOLS = ("crossfit", "frozen", "shared", "holdout")
PRECISIONS = ("float32", "bf16", "auto")
# Ten times the papers' channels gives a hundred times their parameters.
MAX_WIDTH = 10
# Value of `NetSettings.weights` for the weights that `mvemo weights get` fetched.
FETCHED = "pretrained"


@dataclass(frozen=True)
class RecipeSettings:
    """Current fine-tuning techniques that the papers do not use; all are off by default.

    Parameters
    ----------
    probe
        Fit only the classifier first, on the embeddings of the starting weights (Kumar et
        al. 2022: a random classifier would spoil pretrained layers in the first steps).
    warmup
        Share of all steps during which the learning rate rises from 0, in [0, 1).
    cosine
        Let the learning rate fall to 0 along a half cosine after the warm-up.
    clip_norm
        Largest norm of a step's gradient; 0 for no limit.
    layer_decay
        Factor of the learning rate from one layer to the layer before it, in (0, 1]: layers
        near the input change less.
    freeze_norm
        Keep the starting statistics of batch normalisation.
    average
        Share of the epochs, counted from the end, whose weights are averaged, in [0, 1). It
        replaces early stopping: set ``patience = 0``.
    augment
        Change pictures (crop, flip, times) and sound (start, gain, masked stretches and
        bands) at random, see `mvemo.extract.training.recipe`.
    mixup
        Both parameters of the beta distribution by which pairs of clips are mixed (Zhang et
        al. 2018); 0 for no mixing.

    Raises
    ------
    BadSetting
        A value is out of range.
    """

    probe: bool = False
    warmup: float = 0.0
    cosine: bool = False
    clip_norm: float = 0.0
    layer_decay: float = 1.0
    freeze_norm: bool = False
    average: float = 0.0
    augment: bool = False
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warmup", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must lie in [0, 1)")
        for name in ("clip_norm", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if not 0 < self.layer_decay <= 1:
            raise BadSetting(f"layer_decay is {self.layer_decay}: it must lie in (0, 1]")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the fine-tuning of one net.

    Parameters
    ----------
    optimizer
        One of `OPTIMIZERS`.
    lr
        Learning rate. The papers' rates are in PL20 Table 2.
    momentum
        Momentum; only SGD uses it.
    weight_decay
        Weight decay of the optimizer.
    epochs
        Maximum number of epochs; early stopping usually ends sooner.
    iterations
        Maximum number of optimizer steps, which replaces `epochs` (J22 3.3: 2,500). Training
        ends at exactly this step, or sooner by early stopping. 0 to use `epochs`.
    patience
        Number of epochs without a lower validation loss before training stops; the weights
        with the lowest loss are kept. 0 turns early stopping off: no training clips are held
        out, all epochs or iterations are run, and the last weights are kept. Under
        ``holdout`` the validation clips are then scored for the curve only.
    batch_size
        Number of clips per step; it decides the memory that training needs.
    val_fraction
        Share of the training clips held out, by group, for early stopping.
    loss
        One of `LOSSES` for classes. Tags and regression targets have one loss each: leave
        ``softmax`` for them.
    tau
        Weight of the centre term in ``centre`` and ``improved-centre``, see
        `mvemo.extract.training.losses.make_loss`.
    recipe
        Additions to the papers' way of training.

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
    recipe: RecipeSettings = field(default_factory=RecipeSettings)

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
        if self.recipe.average and self.patience:
            raise BadSetting(
                f"average is {self.recipe.average} and patience {self.patience}: averaged weights "
                "take the place of early stopping: set patience = 0"
            )
        if self.recipe.mixup and self.loss != "softmax":
            raise BadSetting(f"mixup is {self.recipe.mixup}: it is for the loss softmax alone")


@dataclass(frozen=True)
class NetSettings:
    """Settings of one net of a run: its size, its starting weights and its training.

    Parameters
    ----------
    name
        Name of a net in `mvemo.extract.nets`.
    width
        Factor of the channel counts; 1 is the papers' size.
    weights
        Path of a pretrained weight file, or `FETCHED`; empty to start from random weights.
    options
        The net's own options (input length, frame count and size, front end, …); an option
        that is not given has the net's default.
    train
        Settings of the fine-tuning.
    view
        Windows of a clip that are embedded. Fine-tuning reads only the middle window.

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
    view: ViewSettings = field(default_factory=ViewSettings)

    def __post_init__(self) -> None:
        if not 0 < self.width <= MAX_WIDTH:
            raise BadSetting(f"width is {self.width}: it must be above 0 and at most {MAX_WIDTH}")

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values, without `weights`: the file's content counts."""
        return {
            "name": self.name,
            "width": self.width,
            "options": dict(self.options),
            "train": asdict(self.train),
            **self.view.record(),
        }


@dataclass(frozen=True)
class RunSettings:
    """Settings that all nets of a run share.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`, see `mvemo.extract.training.protocols`.
    seed
        Seed of the initial weights, inner splits, batch order and dropout.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision
        One of `PRECISIONS`. ``bf16`` is mixed precision. ``auto`` is ``bf16`` on a GPU, and
        ``float32`` on a CPU unless ``mvemo extract`` measures that bf16 is faster.
    compile
        Compile nets before training (``torch.compile``): the start takes a minute or more
        longer, steps on a GPU are faster.
    deterministic
        Make a GPU give the same bits in each run, at a loss of speed.

    Raises
    ------
    BadSetting
        A value is unknown or out of range.
    """

    protocol: str = "crossfit"
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    compile: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        _check_known("protocol", self.protocol, PROTOCOLS)
        _check_known("precision", self.precision, PRECISIONS)
        if self.seed < 0:
            raise BadSetting(f"seed is {self.seed}: it must be 0 or more")
        check_device(self.device, "device")


def check_device(name: str, setting: str) -> str:
    """Return the device's name; raise `BadSetting` if it is not one of the known forms."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise BadSetting(
            f"{setting} {name!r} is not known: expected auto, cpu, cuda, cuda:N or mps"
        )
    return name


def check_loss(name: str, tau: float) -> None:
    """Raise `BadSetting` if the loss is unknown, or `tau` is negative or not finite."""
    _check_known("loss", name, LOSSES)
    if not (math.isfinite(tau) and tau >= 0):
        raise BadSetting(f"tau is {tau}: it must be 0 or more")


def _check_known(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadSetting(f"{setting} {value!r} is not known: one of {', '.join(allowed)}")

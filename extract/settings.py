"""Settings of stage one's nets: of one net, of its training, of a whole run.

Nothing here needs torch, so that profiles can be read where none is installed.
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
# Ten times the papers' channels is a hundred times their parameters.
MAX_WIDTH = 10
# Stands for a path among a net's settings: the weights that `mvemo weights get` fetched.
FETCHED = "pretrained"


@dataclass(frozen=True)
class RecipeSettings:
    """What fine-tuning of today does and the papers do not; each part is off unless set.

    Parameters
    ----------
    probe
        Fit the classifier alone first, on the embeddings of the starting weights (Kumar et
        al. 2022: a random classifier would spoil pretrained layers in the first steps).
    warmup
        Share of all steps in which the rate rises from 0, in [0, 1).
    cosine
        Let the rate fall to 0 along a half cosine after that.
    clip_norm
        Largest norm of a step's gradient; 0 for none.
    layer_decay
        Factor of the rate from a layer to the one before it, in (0, 1]: layers near the
        input change less.
    freeze_norm
        Keep the statistics of batch normalisation as they start.
    average
        Share of the epochs, the last ones, whose weights are averaged, in [0, 1). It takes
        the place of early stopping: set ``patience = 0``.
    augment
        Change pictures (crop, flip, times) and sound (start, gain, stretches and bands left
        out) at random, see `mvemo.extract.training.augment`.
    mixup
        Both parameters of the beta distribution that pairs of clips are mixed by (Zhang et
        al. 2018); 0 for none.

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
    recipe
        What is added to the papers' way of training.

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
    view
        Which windows of a clip are embedded. A fine-tuning reads the middle one alone.

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
        """All settings as JSON values; the weight file's path is left out, its bytes count."""
        return {
            "name": self.name,
            "width": self.width,
            "options": dict(self.options),
            "train": asdict(self.train),
            **self.view.record(),
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
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision
        One of `PRECISIONS`; ``bf16`` is mixed precision, ``auto`` is that on a GPU, and
        ``float32`` on a processor unless ``mvemo extract`` measures that bf16 is faster.
    compile
        Compile nets before training (``torch.compile``): a minute or more at the start,
        faster steps on a GPU.
    deterministic
        Let a GPU give the same bits in every run, at a loss of speed.

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
    """Return a device's name; raise `BadSetting` if no device is called so."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise BadSetting(
            f"{setting} {name!r} is not known: expected auto, cpu, cuda, cuda:N or mps"
        )
    return name


def check_loss(name: str, tau: float) -> None:
    """Raise `BadSetting` for an unknown loss, or a tau that is no number of 0 or more."""
    _check_known("loss", name, LOSSES)
    if not (math.isfinite(tau) and tau >= 0):
        raise BadSetting(f"tau is {tau}: it must be 0 or more")


def _check_known(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadSetting(f"{setting} {value!r} is not known: one of {', '.join(allowed)}")

"""Settings of a net, of its training, and of a whole run of stage one.

This module does not import torch, so that profiles can be read without it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mvemo.manifests.declared import check_settings, setting
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import reserve

if TYPE_CHECKING:
    from mvemo.manifests.array_types import F64

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
LOSSES = reserve("losses", ("softmax", "angular", "centre", "improved-centre"))
PROTOCOLS = ("crossfit", "frozen", "shared", "holdout")
PRECISIONS = ("float32", "bf16", "auto")
LAYOUTS = ("start", "spread", "dense")
POOLINGS = ("mean", "mean+std")
# A remainder shorter than this share of a window gets no window, because codecs pad files to
# whole frames.
LEAST_REST = 0.02
# Value of `NetSettings.weights` for the weights that `mvemo weights get` downloaded.
FETCHED = "pretrained"


@dataclass(frozen=True)
class RecipeSettings:
    """Newer fine-tuning techniques (probe: Kumar et al. 2022, mixup: Zhang et al. 2018)."""

    probe: bool = setting(False, "First fit only the classifier.")
    warmup: float = setting(
        0.0, "Share of the steps during which the learning rate rises.", ge=0, lt=1
    )
    cosine: bool = setting(
        False, "Let the learning rate fall along half a cosine after the warm-up."
    )
    clip_norm: float = setting(0.0, "Largest norm of a gradient; 0 for no limit.", ge=0)
    layer_decay: float = setting(
        1.0,
        "Factor by which the learning rate changes from one layer to the next, towards the input.",
        gt=0,
        le=1,
    )
    freeze_norm: bool = setting(False, "Keep the starting statistics of batch normalisation.")
    average: float = setting(
        0.0,
        "Average the weights over this last share of the epochs; needs `patience=0`.",
        ge=0,
        lt=1,
    )
    augment: bool = setting(False, "Change pictures and sound at random.")
    mixup: float = setting(0.0, "Mixup parameter (alpha); 0 for no mixup.", ge=0)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the fine-tuning of one net; a value out of range raises `BadOption`.

    Without early stopping (``patience=0``) no training clips are held out, all epochs or iterations
    are run, and the last weights are kept. J22 3.3 uses 2,500 `iterations`.

    Examples
    --------
    >>> TrainSettings(optimizer="sgd", lr=1e-3, momentum=0.5).epochs
    60
    >>> TrainSettings(lr=0.0)
    Traceback (most recent call last):
    mvemo.manifests.errors.BadOption: lr is 0.0: it must be above 0
    """

    optimizer: str = setting("adam", "Optimizer.", names=OPTIMIZERS)
    lr: float = setting(1e-3, "Learning rate (papers: PL20 Table 2).", gt=0)
    momentum: float = setting(0.0, "Momentum of SGD.", ge=0, lt=1)
    weight_decay: float = setting(0.0, "Weight decay.", ge=0)
    epochs: int = setting(60, "Maximum number of epochs.", gt=0)
    iterations: int = setting(
        0, "Maximum number of steps, instead of `epochs`; 0 to use `epochs`.", ge=0
    )
    patience: int = setting(10, "Epochs without a lower loss before training stops.", ge=0)
    batch_size: int = setting(16, "Clips per step.", gt=0)
    val_fraction: float = setting(0.15, "Share of clips held out for early stopping.", gt=0, lt=1)
    loss: str = setting(
        "softmax",
        "Loss; for tags and ratings leave it at softmax.",
        names=LOSSES,
        plugins="losses",
    )
    tau: float = setting(0.01, "Weight of the centre term of `loss`.", ge=0)
    recipe: RecipeSettings = setting(RecipeSettings, "Additions to the papers' training.")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.recipe.average and self.patience:
            raise BadOption(
                f"average is {self.recipe.average} and patience is {self.patience}, but averaging "
                "replaces early stopping: set patience = 0"
            )
        if self.recipe.mixup and self.loss != "softmax":
            raise BadOption(f"mixup is {self.recipe.mixup}: it needs loss = 'softmax'")

    def steps_per_epoch(self, n_clips: int) -> int:
        """Return the steps of an epoch; a last batch of one clip joins the previous one."""
        return max(math.ceil((n_clips - 1) / self.batch_size), 1)

    def max_epochs(self, n_clips: int) -> int:
        """Return the maximum number of epochs for a number of training clips."""
        if not self.iterations:
            return self.epochs
        return math.ceil(self.iterations / self.steps_per_epoch(n_clips))


@dataclass(frozen=True)
class ViewSettings:
    """Windows of a clip that a net reads, and the pooling of their embeddings.

    A short clip has fewer windows than `views`: no window occurs twice, and a window is padded
    only if the clip is shorter than the window. Layouts: ``start``, one window after the other
    from the clip's start; ``spread``, at equal distances from the clip's start to its end, with no
    more windows than cover the clip; ``dense``, like ``spread``, but neighbours may overlap by
    half. A single window begins at the clip's start. For video nets, a window lasts
    ``n_frames / rate`` seconds; a rate of 0 splits the clip into `views` equal parts and spreads
    the frames of a window evenly over its part, as in the papers. ``mean+std`` appends the
    standard deviation of the embeddings to their mean.

    Examples
    --------
    >>> ViewSettings(views=4, rate=12.5).record()
    {'views': 4, 'layout': 'spread', 'rate': 12.5, 'pooling': 'mean'}
    """

    views: int = setting(1, "Maximum number of windows per clip.", ge=1)
    layout: str = setting("spread", "Positions of the windows in the clip.", names=LAYOUTS)
    rate: float = setting(0.0, "Frames per second in a window; 0 to spread them.", ge=0)
    pooling: str = setting("mean", "Statistics of the windows' embeddings.", names=POOLINGS)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.pooling == "mean+std" and self.views == 1:
            raise BadOption("pooling 'mean+std' needs 2 or more views: set views = 2 or more")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON values; {} for the defaults, which keeps old cache keys."""
        return {} if self == ViewSettings() else asdict(self)

    def pooled_dim(self, dim: int) -> int:
        """Return the size of a clip's embedding, given the size `dim` of a window's embedding."""
        return 2 * dim if self.pooling == "mean+std" else dim


@dataclass(frozen=True)
class NetSettings:
    """Settings of one net of a run: its size, its starting weights and its training.

    `name` is the name of a net in `mvemo.extract.nets`. `options` depend on the net (for example
    input length, frame count and size, or front end); the net's defaults apply to all others.
    Fine-tuning reads only the middle window of `view`. A value out of range raises `BadOption`.
    """

    name: str
    # The limit is 10, because ten times the channels are a hundred times the parameters.
    width: float = setting(1.0, "Multiplier for the papers' channel counts.", gt=0, le=10)
    weights: str = setting("", f"Weight file, or `{FETCHED}`; empty for random weights.")
    options: Mapping[str, Any] = field(default_factory=dict)
    train: TrainSettings = setting(TrainSettings, "Settings of the fine-tuning.")
    view: ViewSettings = setting(ViewSettings, "Windows of a clip that are embedded.")

    def __post_init__(self) -> None:
        check_settings(self)

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values, except `weights`, because the content counts."""
        return {
            "name": self.name,
            "width": self.width,
            "options": dict(self.options),
            "train": asdict(self.train),
            **self.view.record(),
        }

    def with_absolute_weights(self) -> NetSettings:
        """Return the settings for processes in other folders."""
        is_file = self.weights not in ("", FETCHED)
        return replace(self, weights=os.path.join(os.getcwd(), self.weights)) if is_file else self


@dataclass(frozen=True)
class RunSettings:
    """Settings that all nets of a run share; a value out of range raises `BadOption`.

    ``precision="auto"`` is ``bf16`` (mixed precision) on a GPU, and ``float32`` on a CPU unless
    ``mvemo extract`` measures that bf16 is faster. It is ``float32`` where bf16 changes the
    predictions from a frozen net (`NetCard.faithful_in_bf16`).
    """

    protocol: str = setting("crossfit", "Training protocol (docs/protocols.md).", names=PROTOCOLS)
    level: float = setting(
        -23.0, "Loudness in LUFS to which all sound is brought; 0: as it is.", ge=-70, le=0
    )
    seed: int = setting(0, "Seed of weights, inner splits, batches and dropout.", ge=0)
    device: str = setting("auto", "`auto`, `cpu`, `cuda`, `cuda:N` or `mps`.")
    precision: str = setting(
        "float32", "Precision of the nets; `auto` for bf16 if it is faster.", names=PRECISIONS
    )
    compile: bool = setting(False, "Compile nets: slower start, faster steps on a GPU.")
    deterministic: bool = setting(False, "Identical results in each run on a GPU; slower.")

    def __post_init__(self) -> None:
        check_settings(self)
        check_device(self.device, "device")


def check_device(name: str, setting: str) -> str:
    """Return the device's name; raise `BadOption` if it is not one of the known forms."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise BadOption(f"unknown {setting} {name!r}; expected auto, cpu, cuda, cuda:N or mps")
    return name


def window_starts(length: float, window: float, settings: ViewSettings) -> F64:
    """Return the starts of a clip's windows, float64 (windows,), ascending and distinct.

    >>> window_starts(25.0, 10.0, ViewSettings(views=4, layout="dense")).tolist()
    [0.0, 5.0, 10.0, 15.0]
    """
    import numpy as np  # imported here because ``--help`` reads this module

    room = length - window
    if room <= 0 or settings.views == 1:
        return np.zeros(1)
    per_window = 2 if settings.layout == "dense" else 1
    covering = 1 + math.ceil(per_window * room / window - LEAST_REST)
    count = min(settings.views, max(covering, 1))
    if settings.layout == "start":
        return np.minimum(np.arange(count) * window, room)
    return np.linspace(0.0, room, count)

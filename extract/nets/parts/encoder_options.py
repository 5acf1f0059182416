"""Options of the nets made from local folders of encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.encoder_folders import OUTPUT

POOLINGS = ("mean", "mean+std")
TOKENS = ("auto", "first", "mean")


@dataclass(frozen=True)
class SoundEncoderOptions:
    """Options of encoders of sound.

    Parameters
    ----------
    seconds
        Length of a window in seconds.
    layer
        Number of the hidden state used as the embedding; -1 for the encoder's output.
    pooling
        Pooling over the frames of a window: ``mean`` or ``mean+std``.
    """

    seconds: float = 10.0
    layer: int = OUTPUT
    pooling: str = "mean"

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds < math.inf:
            raise BadSetting(f"seconds is {self.seconds}: it must be at least 0.1")
        _check_choice("pooling", self.pooling, POOLINGS)


@dataclass(frozen=True)
class PictureEncoderOptions:
    """Options of encoders of pictures.

    Parameters
    ----------
    n_frames
        Number of frames of a clip.
    layer
        Number of the hidden state used as the embedding; -1 for the encoder's output.
    pooling
        Pooling over the frames: ``mean`` or ``mean+std``.
    tokens
        Tokens that represent a picture: the ``first``, a class token in some encoders; the
        ``mean`` of all; or ``auto``, the first if it is a class token, otherwise the mean.
    """

    n_frames: int = 8
    layer: int = OUTPUT
    pooling: str = "mean"
    tokens: str = "auto"

    def __post_init__(self) -> None:
        if self.n_frames < 1:
            raise BadSetting(f"n_frames is {self.n_frames}: it must be at least 1")
        _check_choice("pooling", self.pooling, POOLINGS)
        _check_choice("tokens", self.tokens, TOKENS)


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise BadSetting(f"{name} {value!r} is not known: one of {', '.join(allowed)}")

"""What nets are given, and what of a run decides it. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvemo.extract.descriptors import DescriptorSettings


@dataclass(frozen=True)
class AudioInput:
    """The decoded waveform that a net is given: mono float32, filled up or shortened.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    seconds
        Length.
    mark_end
        Fill shorter clips up with NaN, by which a net knows their length; else with zeros.

    Examples
    --------
    >>> AudioInput(sr=16000, seconds=30.0).samples
    480000
    """

    sr: int
    seconds: float
    mark_end: bool = False

    @property
    def samples(self) -> int:
        """Length in samples."""
        return round(self.sr * self.seconds)


@dataclass(frozen=True)
class VideoInput:
    """The decoded frames that a net is given: uint8 RGB, square.

    Parameters
    ----------
    n_frames
        Frames at uniform presentation times over the clip.
    size
        Height and width in pixels.
    """

    n_frames: int
    size: int


@dataclass(frozen=True)
class SequenceInput:
    """Descriptor sequences of a clip side by side.

    Those with fewer frames than the longest are filled up with NaN rows of their own columns.

    Parameters
    ----------
    features
        Names of descriptors (`mvemo.extract.descriptors`), in the order of the columns.
    n_frames
        Length; longer clips are shortened, shorter ones filled up with NaN rows, by which
        a net knows their length.
    """

    features: tuple[str, ...]
    n_frames: int


NetInput = AudioInput | VideoInput | SequenceInput


@dataclass(frozen=True)
class PieceInput:
    """What a net embeds by itself of a clip, before it pools over the clip."""

    raw: AudioInput | VideoInput  # decoded media of one piece
    # Seconds from the start of a piece to that of the next; 0 where pieces may lie anywhere,
    # as single frames.
    step: float = 0.0
    # Seconds of `raw` that precede the piece, as a spectrogram's first frame needs.
    before: float = 0.0
    # Pieces of a clip, where the net takes as many of any clip; 0 for as many as there are.
    count: int = 0


@dataclass(frozen=True)
class SharedSettings:
    """What a run decides for all its nets, and their options follow.

    Parameters
    ----------
    n_frames
        Frames of a clip that video nets are given (32 in PL20 3.3 and Z22 1.2).
    descriptors
        Of the descriptor sequences: they decide how many columns a sequence has, and how
        many frames a second.
    """

    n_frames: int
    descriptors: DescriptorSettings

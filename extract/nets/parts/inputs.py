"""Inputs of nets, and the settings of a run that determine them; torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvemo.extract.descriptors import DescriptorSettings


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
        Padding of shorter clips: NaN if True, so that the net knows their length; otherwise
        zeros.

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
        """Return the length in samples."""
        return round(self.sr * self.seconds)


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


NetInput = AudioInput | VideoInput | SequenceInput


@dataclass(frozen=True)
class PieceInput:
    """Part of a clip that a net embeds separately, before it pools over the clip."""

    raw: AudioInput | VideoInput  # decoded media of one piece
    # Seconds between the starts of two pieces; 0 if pieces may lie anywhere, as single frames.
    step: float = 0.0
    # Seconds of `raw` before the piece, for example for the first frame of a spectrogram.
    before: float = 0.0
    # Number of pieces of every clip; 0 if it depends on the length of the clip.
    count: int = 0


@dataclass(frozen=True)
class SharedSettings:
    """Settings of a run that determine options of all its nets.

    Parameters
    ----------
    n_frames
        Number of frames of a clip for video nets (32 in PL20 3.3 and Z22 1.2).
    descriptors
        Settings of the descriptor sequences. They determine the number of columns of a
        sequence and its frames per second.
    """

    n_frames: int
    descriptors: DescriptorSettings

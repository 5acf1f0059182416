"""Decoding of one clip of a media file: waveforms and frames in one pass.

PyAV reads containers, soundfile reads audio files, OpenCV scales pictures. All times are
presentation times: the frame rates, frame counts and durations in headers are wrong in too
many files.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av.error
import cv2
import soundfile

from mvemo.extract.errors import BadMedia, ExtractError, MediaUnavailable
from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, decode_audio_file
from mvemo.extract.media.checks import check_file, error_line
from mvemo.extract.media.container import decode_container
from mvemo.extract.media.request import ClipRequest, Decoded, FrameSampling

# Errors of the machine, not of the file.
_PASSING = frozenset(
    getattr(errno, name)
    for name in ("ENOMEM", "EMFILE", "ENFILE", "EIO", "EAGAIN", "ENOSPC", "ESTALE", "ETIMEDOUT")
    if hasattr(errno, name)
)


def decode_clip(
    path: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    sample_rates: Sequence[int] = (16000,),
    pictures: Sequence[FrameSampling] = (FrameSampling(n_frames=32, size=112),),
    threads: int = 0,
    spool: Path | None = None,
) -> Decoded:
    """Decode one clip of a media file.

    Frame i of n frames spread over the clip is the frame that a player shows at
    start + (i + 1/2) L / n, where L is the clip's length, or the length of its pictures if they
    end sooner; `FrameSampling.times` has the other samplings. The frame shown at a time is the
    last one whose presentation time is not later, or the first of all. Its short side is scaled
    to `size`, and its middle is kept. The rotation that the file states is applied; pixels are
    taken as square. Sound that begins later than the clip is preceded by zeros, so that sound
    and pictures stay aligned.

    Parameters
    ----------
    path
        Path of the file.
    start, duration
        Start and length of the clip in seconds, counted from the file's first presentation
        time; a duration of None for the rest of the file.
    sample_rates
        Sampling rates in Hz; empty to skip the sound.
    pictures
        Times and sizes of the frames; empty to skip the pictures. One decoding serves all.
    threads
        Number of decoder threads; 0 for one per core.
    spool
        Folder for long sound: its waveforms are then mapped from temporary files and take no
        memory. None to keep all sound in memory.

    Returns
    -------
    Waveforms by sampling rate, frames by sampling, and the problems of what was not decoded.

    Raises
    ------
    MissingFile
        If the file does not exist or cannot be opened.
    MediaUnavailable
        If the machine fails and not the file: no memory, or an error of the disk.
    BadMedia
        If the file is empty, or nothing in it can be read.
    BadSetting
        If a time, a rate, a count or a size is out of range.

    See Also
    --------
    mvemo.extract.media.probe.probe_seconds : Length of a file, without decoding it.

    Examples
    --------
    Two seconds of a tone, read at two sampling rates:

    >>> import numpy as np, soundfile
    >>> tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * 48000) / 48000)
    >>> soundfile.write("tone.wav", tone, 48000)
    >>> clip = decode_clip("tone.wav", sample_rates=(16000, 12000), pictures=())
    >>> {sr: waveform.shape for sr, waveform in clip.waveforms.items()}
    {16000: (32000,), 12000: (24000,)}
    >>> clip.seconds, clip.problems
    (2.0, {})

    A requested modality that the file does not have is a problem, not an error:

    >>> clip = decode_clip("tone.wav", start=0.5, duration=1.0)
    >>> len(clip.waveforms[16000]), clip.frames
    (16000, {})
    >>> clip.problems["video"]
    Problem(reason='no video stream', missing=True, passing=False)
    """
    path = Path(path)
    request = ClipRequest(start, duration, tuple(sample_rates), tuple(pictures), threads, spool)
    check_file(path)
    with media_errors(path):
        return _decode(path, request)


def _decode(path: Path, request: ClipRequest) -> Decoded:
    if path.suffix.lower() in AUDIO_SUFFIXES:
        try:
            return decode_audio_file(path, request)
        except BadMedia:
            raise
        except (soundfile.LibsndfileError, ValueError):
            # The name is wrong, the codec is unknown to libsndfile, or the header's length is
            # missing or wrong: the container reader may succeed.
            pass
    return decode_container(path, request)


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Convert the media libraries' errors to errors of this package."""
    try:
        yield
    except ExtractError:
        raise
    # Damaged files make the libraries raise more than their own errors.
    except Exception as error:
        raise _media_error(path, error) from error


def _media_error(path: Path, error: Exception) -> ExtractError:
    """Convert a library's error to `BadMedia`, or to `MediaUnavailable` if it may pass."""
    if isinstance(error, MemoryError):
        return MediaUnavailable(
            f"{path}: reading it takes more memory than there is, or than a clip may have"
        )
    if isinstance(error, OSError) and error.errno in _PASSING:
        return MediaUnavailable(f"{path}: cannot be read now: {error_line(error)}")
    # Other errors name the library's objects, not the file: a stream without a codec has None
    # for its context, and streams may be gone when a file is opened again.
    reason = "damaged, or of an unknown codec"
    if isinstance(error, (av.error.FFmpegError, cv2.error, OSError, RuntimeError, ValueError)):
        reason = error_line(error)
    return BadMedia(f"{path}: cannot be read as media: {reason}")

"""The one reader of media files: waveforms and frames, both from one decoding.

PyAV reads containers, soundfile audio files, OpenCV scales pictures. Everything goes by
presentation time: nominal frame rates, frame counts and durations in headers are wrong
in too many files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import soundfile

from mvemo.extract.errors import BadMedia, ExtractError
from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, decode_audio_file
from mvemo.extract.media.checks import check_file
from mvemo.extract.media.container import decode_container
from mvemo.extract.media.failures import media_error
from mvemo.extract.media.request import ClipRequest, Decoded, FrameSampling


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

    Frame i of n that are spread over the clip is what a player shows at
    start + (i + 1/2) L / n, L being the clip's length, or less where the pictures end before:
    the last frame whose presentation time is not later, or the first of all; other times are
    those of `FrameSampling.times`. Its short side is scaled to `size`, and the middle
    is taken. Rotation that the file asks for is done; pixels are taken for square. Sound
    that begins later than the clip is preceded by zeros, so that sound and pictures keep
    their places.

    Parameters
    ----------
    path
        Of the file.
    start, duration
        The clip's stretch, in seconds from the file's first presentation time; None for
        all that follows.
    sample_rates
        In Hz; empty to leave the sound undecoded.
    pictures
        Which frames, and how large; empty to leave the pictures undecoded. One decoding
        serves all.
    threads
        Of the decoders; 0 for as many as there are cores.
    spool
        Folder for long sound on its way: its waveforms are then mapped from files, and take
        no memory. None to keep all in memory.

    Raises
    ------
    MissingFile
        There is no such file, or it may not be opened.
    MediaUnavailable
        The machine fails, not the file: there is no memory, or a disk's error.
    BadMedia
        Empty, or nothing in it can be read at all.
    BadSetting
        A time, a rate, a count or a size out of range.

    See Also
    --------
    mvemo.extract.media.probe.probe_seconds : The length of a file without decoding it.

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

    A modality that is asked for and not to be had is a problem, not an error:

    >>> clip = decode_clip("tone.wav", start=0.5, duration=1.0)
    >>> len(clip.waveforms[16000]), clip.frames
    (16000, {})
    >>> clip.problems["video"]
    Problem(reason='no video stream', missing=True, passing=False)
    """
    path = Path(path)
    request = ClipRequest(start, duration, tuple(sample_rates), tuple(pictures), threads, spool)
    check_file(path)
    try:
        return _decode(path, request)
    except ExtractError:
        raise
    # Damaged files make the libraries fail in more ways than their own errors.
    except Exception as error:
        raise media_error(path, error) from error


def _decode(path: Path, request: ClipRequest) -> Decoded:
    if path.suffix.lower() in AUDIO_SUFFIXES:
        try:
            return decode_audio_file(path, request)
        except BadMedia:
            raise
        except (soundfile.LibsndfileError, ValueError):
            # Misnamed, a codec that libsndfile does not know, or a length that its header does
            # not tell or gets wrong: the container reader may.
            pass
    return decode_container(path, request)

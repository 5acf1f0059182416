"""Readers of one media file: decode a clip, or measure the file's length.

PyAV reads containers, soundfile reads audio files, and OpenCV scales pictures. All times are
presentation times: rates, counts and durations in headers are wrong in too many files.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av.error
import cv2
import soundfile

from mvemo.extract.errors import BadMedia, MediaUnavailable
from mvemo.extract.media import audio, container, packets, sound_files
from mvemo.extract.media.request import (
    ClipRequest,
    Decoded,
    FrameSampling,
    error_line,
    reasons_text,
)
from mvemo.manifests.errors import MissingFile, MvemoError

# Errors that the machine causes, not the file.
_TEMPORARY = frozenset(
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
    level: float = 0.0,
    threads: int = 0,
    spool: Path | None = None,
) -> Decoded:
    """Decode one clip of a media file.

    Frame i of n frames spread over the clip is the frame that a player shows at
    start + (i + 1/2) L / n, where L is the length of the clip, or of its video if that ends
    earlier. Its short side is scaled to `size`, and its middle is kept. The rotation that the
    file states and the shape of its pixels are applied. Sound that begins later than the clip
    is preceded by zeros, so that sound and pictures stay aligned. Channels are mixed to mono by
    their layout (`mvemo.extract.media.loudness.mono_weights`).

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
        Times and sizes of the frames; empty to skip the pictures. All are decoded in one pass.
    level
        Integrated loudness in LUFS (ITU-R BS.1770) to which the sound is brought; 0 to leave it as
        it is. The loudness is measured after the mix to mono.
    threads
        Number of decoder threads; 0 for one per core.
    spool
        Folder for temporary files, to which long sound is written and from which it is mapped;
        None to keep all sound in memory.

    Returns
    -------
    Waveforms by sampling rate, frames by sampling, and the problems by modality.

    Raises
    ------
    MissingFile
        If the file does not exist or cannot be opened.
    MediaUnavailable
        If the machine fails: memory runs out, or the disk has an error.
    BadMedia
        If the file is empty, or nothing in it can be read.
    BadOption
        If a time, a rate, a count or a size is out of range.

    See Also
    --------
    probe_seconds : Length of a file, without decoding it.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * 48000) / 48000)
    >>> soundfile.write("tone.wav", tone, 48000)
    >>> clip = decode_clip("tone.wav", sample_rates=(16000,), pictures=())
    >>> clip.waveforms[16000].shape, clip.seconds, clip.problems
    ((32000,), 2.0, {})
    """
    path = Path(path)
    asked = tuple(sample_rates), tuple(pictures), level
    request = ClipRequest(*asked, start, duration, threads, spool)
    with media_errors(path):
        if path.suffix.lower() in sound_files.AUDIO_SUFFIXES:
            # If the suffix or the length in the header is wrong, or libsndfile does not know the
            # codec, the container reader may succeed.
            with suppress(soundfile.LibsndfileError, ValueError):
                return audio.decode_audio_file(path, request)
        return container.decode_container(path, request)


def probe_seconds(path: str | Path) -> float:
    """Return the length of a file's sound, or else of its video, in seconds, from its packets.

    Parameters
    ----------
    path
        Path of the file.

    Raises
    ------
    MissingFile
        If the file does not exist or cannot be opened.
    BadMedia
        If the file cannot be read as media.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> soundfile.write("noise.flac", np.random.default_rng(0).uniform(-1, 1, 12000), 8000)
    >>> probe_seconds("noise.flac")
    1.5
    """
    path = Path(path)
    with media_errors(path):
        seconds = 0.0
        if path.suffix.lower() in sound_files.AUDIO_SUFFIXES:
            with suppress(soundfile.LibsndfileError, ValueError):
                for file in sound_files.open_parts(path):
                    # A seek fails if the header states more frames than the file has.
                    file.seek(max(file.frames - 1, 0))
                    seconds += file.frames / file.samplerate
                if seconds > 0:
                    return seconds
        seconds = _by_packets(path)
    if not seconds > 0:
        raise BadMedia(f"{path}: {reasons_text(decode_clip(path).problems)}")
    return seconds


def has_pictures(path: Path) -> bool:
    """Return True if a container has a video that is not a cover picture; decode nothing."""
    with media_errors(path), packets.open_container(path) as opened:
        return bool(packets.videos(opened))


def _by_packets(path: Path) -> float:
    """Return the seconds from the first presentation time to the end of the sound, or video."""
    with packets.open_container(path) as opened:
        sounds, pictures = packets.sound_tracks(opened)[:1], packets.videos(opened)[:1]
        origin, end = packets.start_of(opened), 0.0
        source = packets.Packets(opened, [*sounds, *pictures])
        # A tag may follow the last packet.
        with suppress(av.error.FFmpegError):
            for packet in source if source.streams else ():
                if packet.pts is not None and packet.stream.type == "audio":
                    unit = packets.unit_seconds(opened, packet)
                    end = max(end, (packet.pts + (packet.duration or 0)) * unit - origin)
        if problem := source.rest_problem():
            raise BadMedia(f"{path}: {problem}")
        if end > 0 or not pictures or pictures[0].codec_context is None:
            return end
    with packets.open_container(path) as opened:
        video = packets.videos(opened)[0]
        times = packets.frame_times(path, opened, video, origin, ClipRequest())
    return times.end if times else 0.0


@contextmanager
def media_errors(path: Path) -> Iterator[None]:
    """Check that a file can be opened; inside the context, convert errors to `MvemoError`."""
    if path.is_dir():
        raise BadMedia(f"{path}: is a folder, not a media file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such media file") from None
    except OSError as error:
        raise MissingFile(f"{path}: cannot be opened: {error.strerror}") from None
    if empty:
        raise BadMedia(f"{path}: is empty (0 bytes)")
    try:
        yield
    except MvemoError:
        raise
    # Damaged files make the libraries raise errors of many types.
    except Exception as error:
        if isinstance(error, MemoryError):
            raise MediaUnavailable(f"{path}: not enough memory to read it") from error
        if isinstance(error, OSError) and error.errno in _TEMPORARY:
            problem = f"cannot be read now: {error_line(error)}"
            raise MediaUnavailable(f"{path}: {problem}") from error
        # Messages of other errors name internal objects of the library, so they are not shown.
        reason = "it is damaged or its codec is unknown"
        if isinstance(error, (av.error.FFmpegError, cv2.error, OSError, RuntimeError, ValueError)):
            reason = error_line(error)
        raise BadMedia(f"{path}: cannot be read as media: {reason}") from error

"""The one reader of media files: waveforms and frames, both from one decoding.

PyAV reads containers, soundfile audio files, OpenCV scales pictures. Everything goes by
presentation time: nominal frame rates, frame counts and durations in headers are wrong
in too many files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.checks import (
    LEAST_SHARE,
    beyond,
    check_file,
    check_request,
    cut_off,
    missing_share,
    reason,
    sound_problem,
)
from mvemo.extract.media.frames import Scaler
from mvemo.extract.media.timeline import Beside, FramePicker, FrameTimes, SoundCollector

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Containers whose index makes seeking exact.
_INDEXED = ("mov", "matroska")
# Read before a clip's start, for decoders that need a run-up.
_RUN_UP = 1.0
# Frames of sound handed over at a time.
SOUND_FRAMES = 64
# Containers that state how long their streams should be; others guess, or say how long they are.
_STATING = frozenset({"mov", "avi", "mp3", "flac", "asf"})
# Codecs of which pictures that no other depends on may be left out, the others being the same.
_SKIPPING = ("h264",)
# Of these, libsndfile reads the sound; MP3 not: its decoder writes warnings to the terminal.
AUDIO_FILES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")


@dataclass(frozen=True)
class Decoded:
    """One clip, decoded.

    Parameters
    ----------
    waveforms
        Sampling rate in Hz to float32 (samples,): mono, the mean of all channels, as
        decoded (in [-1, 1] but for sound that clips). Empty where there is a problem.
    frames
        Size to uint8 (n_frames, size, size, 3), RGB. Empty where there is a problem.
    seconds
        Length of the clip: of its sound, else of its pictures.
    problems
        ``audio`` or ``video`` to why that modality could not be had, in one line.
    """

    waveforms: dict[int, Floats] = field(default_factory=dict)
    frames: dict[int, Bytes] = field(default_factory=dict)
    seconds: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)


def decode_clip(
    path: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    sample_rates: Sequence[int] = (16000,),
    n_frames: int = 32,
    sizes: Sequence[int] = (112,),
    threads: int = 0,
) -> Decoded:
    """Decode one clip of a media file.

    Frame i of n is what a player shows at start + (i + 1/2) L / n, L being the clip's
    length, or less where the pictures end before (V1, V2): the last frame whose
    presentation time is not later, or the first of all. Its short side is scaled to
    `size`, and the middle is taken. Rotation that the file asks for is done; pixels are
    taken for square. Sound that begins later than the clip is preceded by zeros, so that
    sound and pictures keep their places.

    Parameters
    ----------
    path
        Of the file.
    start, duration
        The clip's stretch, in seconds from the file's first presentation time; None for
        all that follows.
    sample_rates
        In Hz; empty to leave the sound undecoded.
    n_frames
        How many frames.
    sizes
        In pixels; empty to leave the pictures undecoded.
    threads
        Of the decoders; 0 for as many as there are cores.

    Raises
    ------
    MissingFile
        There is no such file, or it may not be opened.
    BadMedia
        Empty, or nothing in it can be read at all.
    BadSetting
        A time, a rate, a count or a size out of range.
    """
    path = Path(path)
    check_request(start, duration, sample_rates, n_frames, sizes)
    check_file(path)
    if path.suffix.lower() in AUDIO_FILES:
        try:
            return _decode_audio_file(path, start, duration, sample_rates, bool(sizes))
        except soundfile.LibsndfileError:
            # Misnamed, or a codec that it lacks: the container reader may know it.
            pass
    try:
        return _decode_container(path, start, duration, sample_rates, n_frames, sizes, threads)
    except BadMedia:
        raise
    # Damaged files make the libraries fail in more ways than their own errors.
    except (av.error.FFmpegError, ValueError, RuntimeError, OSError, cv2.error) as error:
        raise BadMedia(f"{path}: cannot be read as media: {reason(error)}") from error


def _decode_container(
    path: Path,
    start: float,
    duration: float | None,
    sample_rates: Sequence[int],
    n_frames: int,
    sizes: Sequence[int],
    threads: int,
) -> Decoded:
    decoded = Decoded()
    with open_container(path) as container:
        # A cover picture in an audio file is no video.
        pictures = [s for s in container.streams.video if not is_cover(s)]
        video = pictures[0] if pictures and sizes else None
        audio = container.streams.audio[0] if container.streams.audio and sample_rates else None
        if not pictures and not container.streams.audio:
            raise BadMedia(f"{path}: has neither sound nor pictures")
        if sizes and video is None:
            decoded.problems["video"] = "no video stream"
        if sample_rates and audio is None:
            decoded.problems["audio"] = "no audio stream"
        streams = [s for s in (video, audio) if s is not None]
        if not streams:
            return decoded
        indices = [s.index for s in streams]
        stated = container.start_time
        origin = 0.0 if stated is None else stated / av.time_base
        stop = None if duration is None else start + duration
        shown = None if video is None else _frame_times(container, video, origin, start, stop)
        end = shown.end if shown else start
        end = end if stop is None else min(end, stop)
        scaler = Scaler(n_frames, sizes)
        beside = Beside()
        picker = FramePicker(start, end, n_frames, partial(beside.run, scaler.add))
        collector = SoundCollector(start, duration)
        stack = ExitStack()
        container = _rewound(path, container, stack, video, shown, start, origin)
        wanted = [container.streams[index] for index in indices]
        needed = None
        if (
            shown
            and video is not None
            and video.codec_context.name in _SKIPPING
            and _indexed(container)
        ):
            # Its last picture too: it tells how far the pictures can be decoded.
            needed = shown.shown_at(np.append(picker.times, end))
        for stream in wanted:
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
        with stack, beside:
            sound: list[tuple[float, Any]] = []
            for kind, when, frame in _frames(container, wanted, origin, stop, needed):
                if kind == "video":
                    picker.add(when, frame)
                else:
                    sound.append((when, frame))
                    if len(sound) >= SOUND_FRAMES:
                        beside.run(collector.add_all, sound)
                        sound = []
            beside.run(collector.add_all, sound)
            any_frame = picker.finish()
            beside.wait()
            decodes = (picker.seconds, collector.seconds)
            expected = _expected(path, container, wanted, start, duration, origin, *decodes)
    seconds = picker.seconds
    if video is not None:
        if shown and start >= shown.end:
            problem = beyond(start, "pictures end", shown.end)
        elif not any_frame:
            problem = "no frame decodes"
        elif shown and shown.still:
            problem = ""
        else:
            problem = cut_off(picker.seconds, expected["video"])
        if problem:
            decoded.problems["video"] = problem
        else:
            decoded.frames.update(scaler.result)
    if audio is not None:
        native, sr = collector.finish()
        problem = collector.problem
        if not problem and len(native) == 0 and 0 < collector.ended <= start:
            problem = beyond(start, "sound ends", collector.ended)
        problem = problem or sound_problem(native)
        problem = problem or cut_off(collector.seconds, expected["audio"])
        if problem:
            decoded.problems["audio"] = problem
        else:
            decoded.waveforms.update(_resampled(native, sr, sample_rates))
            seconds = len(native) / sr
    return Decoded(decoded.waveforms, decoded.frames, seconds, decoded.problems)


def _decode_audio_file(
    path: Path,
    start: float,
    duration: float | None,
    sample_rates: Sequence[int],
    want_video: bool,
) -> Decoded:
    """Sound of a file that libsndfile reads."""
    problems = {"video": "no video stream"} if want_video else {}
    with soundfile.SoundFile(path) as file:
        sr = file.samplerate
        first = round(start * sr)
        count = -1 if duration is None else round(duration * sr)
        stated = file.frames / sr * missing_share(file.extra_info)
        if not sample_rates or first >= file.frames:
            if sample_rates and file.frames == 0:
                problems["audio"] = "no sound decodes"
            elif sample_rates:
                problems["audio"] = beyond(start, "sound ends", file.frames / sr)
            return Decoded(problems=problems)
        file.seek(first)
        native = file.read(count, dtype="float32", always_2d=True).mean(axis=1, dtype=np.float32)
    expected = stated - start if duration is None else duration
    problem = sound_problem(native) or cut_off(len(native) / sr, expected)
    if problem:
        return Decoded(problems={**problems, "audio": problem})
    waveforms = _resampled(native, sr, sample_rates)
    return Decoded(waveforms, {}, len(native) / sr, problems)


# --- containers


def open_container(path: Path) -> Any:
    # The prefix and the whitelist keep playlists and odd names from reaching elsewhere;
    # titles in other encodings than UTF-8 are no reason to refuse a file.
    return av.open(
        f"file:{path.resolve()}",
        options={"protocol_whitelist": "file"},
        metadata_errors="replace",
    )


def is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & 0x0400)


def _indexed(container: Any) -> bool:
    """Whether seeking in the container is exact."""
    return any(name in container.format.name for name in _INDEXED)


def _seek(container: Any, when: float) -> bool:
    """To a key frame well before a clip's start, or back to the file's beginning.

    False where the container cannot: the place is then undefined, and it must be reopened.
    """
    target = max(when - _RUN_UP, min((container.start_time or 0) / av.time_base, 0.0))
    try:
        container.seek(int(target * av.time_base), backward=True)
    except av.error.FFmpegError:
        return False
    return True


def _rewound(
    path: Path,
    container: Any,
    stack: ExitStack,
    video: Any,
    shown: FrameTimes | None,
    start: float,
    origin: float,
) -> Any:
    """The container where decoding begins: it again after a seek, or opened anew.

    QuickTime's index serves each stream by itself. Matroska's serves one for all, and
    where the pictures begin late a seek skips the sound before them: there, only a key
    frame that is known to lie before the clip makes a seek safe.
    """
    if video is None and "mov" not in container.format.name:
        # Nothing was read yet, and sound is decoded fast.
        return container
    far = start > 2 * _RUN_UP and shown is not None and shown.first <= start - _RUN_UP
    safe = "mov" in container.format.name or ("matroska" in container.format.name and far)
    if safe and _seek(container, start + origin):
        return container
    return stack.enter_context(open_container(path))


def _frame_times(
    container: Any, video: Any, origin: float, start: float, stop: float | None
) -> FrameTimes | None:
    """When the pictures around the clip are shown, from packets alone; None: no packet."""
    base = float(video.time_base)
    # Decoding order lags presentation by far less than this.
    late = None if stop is None else (origin + stop + 2 * _RUN_UP) / base
    if start > 2 * _RUN_UP and _indexed(container):
        _seek(container, start + origin)
    stamps: list[int] = []
    latest, last = -(2**63), 0
    try:
        for packet in container.demux(video):
            # Packets outside the file's edit list are decoded, but never shown.
            if packet.pts is None or packet.is_discard:
                continue
            if packet.pts > latest:
                latest, last = packet.pts, packet.duration or 0
            stamps.append(packet.pts)
            if late is not None and packet.pts > late:
                break
    except av.error.FFmpegError:
        # Cut off or damaged: what was read so far is what there is.
        pass
    return FrameTimes(stamps, last, base, origin) if stamps else None


def _frames(
    container: Any,
    streams: Sequence[Any],
    origin: float,
    stop: float | None,
    needed: set[int] | None,
) -> Iterator[tuple[str, float, Any]]:
    """Kind, time and decoded frame, up to where each stream is past the clip's end.

    Of the pictures, those whose stamps are `needed` come for sure (None: all), of the
    others those that no other depends on are not decoded.
    """
    running = {stream.index: stream for stream in streams}
    base = {stream.index: float(stream.time_base) for stream in streams}
    kind = {stream.index: stream.type for stream in streams}
    packets = container.demux(list(streams))
    while running:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            # The rest of the file is not there; whether that matters is told by the length.
            for index, stream in running.items():
                for frame in _decoded(stream.codec_context, None):
                    if frame.pts is not None:
                        yield kind[index], frame.pts * base[index] - origin, frame
            return
        # Not stream_index: that of a packet which flushes a decoder is always 0.
        index = packet.stream.index
        if index not in running:
            continue
        codec = running[index].codec_context
        if needed is not None and kind[index] == "video":
            shown = packet.pts is None or packet.pts in needed
            codec.skip_frame = "DEFAULT" if shown else "NONREF"
        for frame in _decoded(codec, packet):
            if frame.pts is None:
                continue
            when = frame.pts * base[index] - origin
            yield kind[index], when, frame
            if stop is not None and when >= stop:
                del running[index]
                break


def _decoded(codec: Any, packet: Any) -> list[Any]:
    """Frames of a packet (None flushes); a damaged packet has none."""
    try:
        frames: list[Any] = codec.decode(packet)
    except av.error.FFmpegError:
        return []
    return frames


def _expected(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    start: float,
    duration: float | None,
    origin: float,
    *decoded: float,
) -> dict[str, float]:
    """Seconds that the clip should have, by stream type: asked for, or stated in the file.

    0 where nothing is stated.
    """
    if duration is not None:
        return {stream.type: duration for stream in streams}
    if container.format.name == "mp3" and not _has_length(path):
        return {stream.type: 0.0 for stream in streams}
    expected = {}
    for stream in streams:
        expected[stream.type] = 0.0
        if stream.duration is not None and _STATING.intersection(container.format.name.split(",")):
            begin = float((stream.start_time or 0) * stream.time_base) - origin
            expected[stream.type] = float(stream.duration * stream.time_base) + begin - start
    if "matroska" in container.format.name and container.duration is not None:
        # It states the length of the whole alone, which one of the streams has to reach.
        whole = container.duration / av.time_base - start
        if max(decoded) < LEAST_SHARE * whole:
            expected = dict.fromkeys(expected, whole)
    return expected


def _has_length(path: Path) -> bool:
    """Whether an MP3 file states its length; else the reader guesses it from the first frame."""
    with path.open("rb") as file:
        head = file.read(1 << 20)
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))


def _resampled(native: Floats, sr: int, sample_rates: Sequence[int]) -> dict[int, Floats]:
    return {
        rate: native
        if rate == sr
        else np.ascontiguousarray(soxr.resample(native, sr, rate), dtype=np.float32)
        for rate in sample_rates
    }

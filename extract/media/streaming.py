"""A clip decoded from its start to its end in bounded memory: sound and pictures as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from mvemo.extract.arrays import F64, U8
from mvemo.extract.errors import ExtractError
from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, read_blocks
from mvemo.extract.media.checks import NO_VIDEO, Problem, check_file
from mvemo.extract.media.container import SOUND_FRAMES, can_skip, select_streams
from mvemo.extract.media.failures import media_error
from mvemo.extract.media.formats import check_format
from mvemo.extract.media.frames import SquareScaler
from mvemo.extract.media.packets import (
    decoded_frames,
    frame_times,
    is_indexed,
    open_container,
    rewind,
)
from mvemo.extract.media.request import ClipRequest, FrameSampling
from mvemo.extract.media.timeline import FramePicker, SoundCollector
from mvemo.extract.media.waveforms import OnBlock, Waveforms


@dataclass(frozen=True)
class StreamRequest:
    """What is read of a clip.

    Parameters
    ----------
    start, duration
        The clip's stretch in seconds; None for all that follows.
    sample_rates
        In Hz; empty to leave the sound undecoded.
    times
        float64 (n,), ascending: when the pictures are shown, in seconds from the clip's
        start; empty to leave them undecoded.
    sizes
        Of each time, the heights and widths in pixels that are asked for.
    threads
        Of the decoders; 0 for as many as there are cores.
    """

    start: float = 0.0
    duration: float | None = None
    sample_rates: tuple[int, ...] = ()
    times: F64 = field(default_factory=lambda: np.zeros(0))
    sizes: Sequence[frozenset[int]] = ()
    threads: int = 0


# Called with the row of a time and its pictures by size, uint8 (size, size, 3).
OnPicture = Callable[[int, dict[int, U8]], None]
# Called with a modality and why the clip does not have it.
OnProblem = Callable[[str, Problem], None]


def stream_clip(
    path: Path,
    request: StreamRequest,
    on_sound: OnBlock,
    on_picture: OnPicture,
    on_problem: OnProblem = lambda modality, problem: None,
) -> dict[str, Problem]:
    """Decode a clip in one pass; memory does not grow with its length.

    Pictures are those that `mvemo.extract.media.reading.decode_clip` chooses, times beyond
    the last frame showing the last. Sound is resampled as it comes; resamplers look ahead,
    so that the last samples come at the end. A modality without a stream is told to
    `on_problem` before anything is decoded.

    Returns
    -------
    ``audio`` or ``video`` to why the clip has no such modality.

    Raises
    ------
    MissingFile, BadMedia
        Nothing in the file can be read at all.
    """
    check_file(path)
    try:
        if path.suffix.lower() in AUDIO_SUFFIXES:
            try:
                return _stream_audio_file(path, request, on_sound, on_problem)
            except (soundfile.LibsndfileError, ValueError):
                # Misnamed, or of a codec that libsndfile does not know.
                pass
        return _stream_container(path, request, on_sound, on_picture, on_problem)
    except ExtractError:
        raise
    # Damaged files make the libraries fail in more ways than their own errors.
    except Exception as error:
        raise media_error(path, error) from error


def _stream_audio_file(
    path: Path, request: StreamRequest, on_sound: OnBlock, on_problem: OnProblem
) -> dict[str, Problem]:
    problems = {"video": NO_VIDEO} if len(request.times) else {}
    with soundfile.SoundFile(path) as file:
        _tell(problems, on_problem)
        if not request.sample_rates:
            return problems
        first = min(round(request.start * file.samplerate), file.frames)
        sound = Waveforms(file.samplerate, request.sample_rates, on_sound)
        # A second at a time.
        block = file.samplerate * file.channels
        problem = read_blocks(file, first, request.duration, sound, block)
    problem = problem or sound.finish()[1]
    return problems if problem is None else {**problems, "audio": problem}


def _tell(problems: Mapping[str, Problem], on_problem: OnProblem) -> None:
    for modality, problem in problems.items():
        on_problem(modality, problem)


def _stream_container(
    path: Path,
    request: StreamRequest,
    on_sound: OnBlock,
    on_picture: OnPicture,
    on_problem: OnProblem,
) -> dict[str, Problem]:
    clip = ClipRequest(
        request.start,
        request.duration,
        request.sample_rates,
        (FrameSampling(1, 1),) if len(request.times) else (),
        request.threads,
    )
    with ExitStack() as stack:
        container = stack.enter_context(open_container(path))
        check_format(path, container.format.name)
        video, audio, problems = select_streams(path, container, clip)
        _tell(problems, on_problem)
        indices = [stream.index for stream in (video, audio) if stream is not None]
        if not indices:
            return problems
        origin = 0.0 if container.start_time is None else container.start_time / av.time_base
        times = None if video is None else frame_times(container, video, origin, clip)
        if video is not None or "mov" in container.format.name:
            container = rewind(path, container, stack, request.start, origin, times)
        streams = [container.streams[index] for index in indices]
        picker = _Picker(request, times.end if times else request.start, on_picture)
        sound = SoundCollector(request.start, request.duration, request.sample_rates, on_sound)
        needed = None
        if times and is_indexed(container) and can_skip(streams):
            needed = times.stamps_at(np.append(picker.times, times.end))
        for stream in streams:
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = request.threads
        frames = decoded_frames(container, streams, origin, clip.stop, needed)
        waiting: list[tuple[float, Any]] = []
        for kind, when, frame in frames:
            if kind == "video":
                picker.add(when, frame)
                continue
            waiting.append((when, frame))
            if len(waiting) >= SOUND_FRAMES:
                sound.add(waiting)
                waiting = []
        sound.add(waiting)
    if video is not None and not picker.finish():
        problems["video"] = Problem("no frame decodes")
    if audio is not None:
        _, problem = sound.finish()
        if problem is not None:
            problems["audio"] = problem
    return problems


class _Picker:
    """Pictures at the times of a request, each as large as is asked for."""

    def __init__(self, request: StreamRequest, end: float, on_picture: OnPicture) -> None:
        self.times = request.start + request.times
        self._sizes, self._on_picture = request.sizes, on_picture
        self._scaler = SquareScaler()
        stop = end if request.duration is None else min(end, request.start + request.duration)
        picker = FramePicker(request.start, stop, self.times, self._take)
        self.add, self.finish = picker.add, picker.finish

    def _take(self, frame: Any, rows: slice) -> None:
        """Times within one frame share its pictures."""
        wanted = range(rows.start, rows.stop)
        sizes = frozenset[int]().union(*(self._sizes[row] for row in wanted))
        pictures = self._scaler.squares(frame, sorted(sizes))
        for row in wanted:
            self._on_picture(row, {size: pictures[size] for size in self._sizes[row]})

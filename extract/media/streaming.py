"""Decoding of one clip as a stream of sound and pictures, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mvemo.extract.errors import ExtractError
from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, decode_audio_file
from mvemo.extract.media.checks import NO_VIDEO, Problem, check_file
from mvemo.extract.media.container import (
    SOUND_FRAMES,
    Collected,
    can_skip,
    choose_sound,
    find_problems,
    select_streams,
    sound_note,
)
from mvemo.extract.media.failures import media_error
from mvemo.extract.media.formats import check_format, is_cut_off
from mvemo.extract.media.frames import SquareScaler
from mvemo.extract.media.packets import (
    decoded_frames,
    expected_seconds,
    frame_times,
    is_indexed,
    open_container,
    rewind,
    start_of,
    thread_decoders,
)
from mvemo.extract.media.request import Sound, StreamRequest
from mvemo.extract.media.timeline import FramePicker, FrameTimes, SoundCollector

# Callback for the events of `stream_clip`.
Emit = Callable[[tuple[Any, ...]], None]


def stream_clip(path: Path, request: StreamRequest, *, emit: Emit) -> dict[str, Problem]:
    """Decode a clip in one pass; memory does not grow with its length.

    The pictures are those that `mvemo.extract.media.reading.decode_clip` chooses; times beyond
    the last frame show the last frame. Sound is resampled as it is decoded; resamplers look
    ahead, so the last samples come at the end. `emit` is called with these events:

    - ``("problem", modality, problem)``: a modality without a stream, before decoding;
    - ``("note", text)``: the track or channel that is read;
    - ``("sound", sr, y)``: the next samples at one of the rates, float32 (n,);
    - ``("picture", row, pictures)``: the row of a time, and its pictures by size, uint8
      (size, size, 3).

    The return value has the problems of `decode_clip`, including those that are found only at
    the end (the clip is cut off).
    """
    check_file(path)
    sent: Counter[int] = Counter()

    def send(event: tuple[Any, ...]) -> None:
        emit(event)
        if event[0] == "sound":
            sent[event[1]] += len(event[2])

    def send_rest(event: tuple[Any, ...]) -> None:
        if event[0] == "sound":
            _, sr, y = event
            event = ("sound", sr, y[sent[sr] :])
            sent[sr] -= len(y) - len(event[2])
        emit(event)

    try:
        choice = Sound()
        if request.sample_rates:
            # Emitted sound cannot be taken back, so choose first. Errors are raised when reading.
            with suppress(Exception):
                choice = choose_sound(path, request.of_clip())
        if path.suffix.lower() in AUDIO_SUFFIXES and choice.channel is None:
            try:
                return _stream_audio_file(path, request, send)
            except (soundfile.LibsndfileError, ValueError):
                # The name is wrong, or libsndfile does not know the codec or the length.
                pass
        return _stream_container(path, request, send_rest, choice)
    except ExtractError:
        raise
    # Damaged files make the libraries raise more than their own errors.
    except Exception as error:
        raise media_error(path, error) from error


def _stream_audio_file(path: Path, request: StreamRequest, emit: Emit) -> dict[str, Problem]:
    with soundfile.SoundFile(path) as file:
        if not file.frames:
            raise ValueError("no length is stated")
        if len(request.times):
            emit(("problem", "video", NO_VIDEO))
    decoded = decode_audio_file(path, request.of_clip(), lambda sr, y: emit(("sound", sr, y)))
    return decoded.problems


def _stream_container(
    path: Path, request: StreamRequest, emit: Emit, choice: Sound
) -> dict[str, Problem]:
    clip = request.of_clip()
    with ExitStack() as stack:
        container = stack.enter_context(open_container(path))
        check_format(path, container.format.name)
        video, audio, problems = select_streams(path, container, clip, choice)
        if note := sound_note(container, audio, choice):
            emit(("note", note))
        for modality, problem in problems.items():
            emit(("problem", modality, problem))
        indices = [stream.index for stream in (video, audio) if stream is not None]
        if not indices:
            return problems
        origin = start_of(container)
        times = None if video is None else frame_times(container, video, origin, clip)
        if video is not None or "mov" in container.format.name:
            container = rewind(path, container, stack, request.start, origin, times)
        streams = [container.streams[index] for index in indices]
        collected = _collect(path, container, streams, origin, times, request, emit, choice.channel)
        expected = expected_seconds(path, container, streams, clip, origin, collected.seconds)
    problems.update(find_problems(request.start, times, collected, expected))
    if audio is not None and "audio" not in problems:
        # Emits the rest of the sound.
        _, of_sound = collected.sound.finish()
        problems.update({} if of_sound is None else {"audio": of_sound})
    return problems


def _collect(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    origin: float,
    times: FrameTimes | None,
    request: StreamRequest,
    emit: Emit,
    channel: int | None,
) -> Collected:
    """Decode the streams up to the clip's end."""
    picker = _Picker(request, times.end if times else request.start, emit)
    sound = SoundCollector(
        request.start,
        request.duration,
        request.sample_rates,
        lambda sr, y: emit(("sound", sr, y)),
        channel=channel,
    )
    needed = None
    if times and is_indexed(container) and can_skip(streams):
        needed = times.stamps_at(np.append(picker.times, times.end))
    thread_decoders(streams, request.threads)
    waiting: list[tuple[float, Any]] = []
    stop = request.of_clip().stop
    for kind, when, frame in decoded_frames(container, streams, origin, stop, needed):
        if kind == "video":
            picker.add(when, frame)
            continue
        waiting.append((when, frame))
        if len(waiting) >= SOUND_FRAMES:
            sound.add(waiting)
            waiting = []
    sound.add(waiting)
    any_frame = picker.finish()
    cut_off = request.duration is None and is_cut_off(path, container.format.name)
    return Collected(picker.picker, sound, any_frame, cut_off)


class _Picker:
    """Picker of the pictures at the times of a request, in the requested sizes."""

    def __init__(self, request: StreamRequest, end: float, emit: Emit) -> None:
        self.times = request.start + request.times
        self._sizes, self._emit = request.sizes, emit
        self._scaler = SquareScaler()
        stop = end if request.duration is None else min(end, request.start + request.duration)
        self.picker = FramePicker(request.start, stop, self.times, self._take)
        self.add, self.finish = self.picker.add, self.picker.finish

    def _take(self, frame: Any, rows: slice) -> None:
        """Emit a frame's pictures for all rows whose times it covers."""
        wanted = range(rows.start, rows.stop)
        sizes = frozenset[int]().union(*(self._sizes[row] for row in wanted))
        pictures = self._scaler.squares(frame, sorted(sizes))
        for row in wanted:
            self._emit(("picture", row, {size: pictures[size] for size in self._sizes[row]}))

"""Decoding of one clip as a stream of sound and pictures, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import soundfile

from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, decode_audio_file
from mvemo.extract.media.checks import NO_VIDEO, Problem, check_file
from mvemo.extract.media.container import (
    choose_sound,
    decode_packets,
    find_problems,
    open_clip,
)
from mvemo.extract.media.frames import SquareScaler
from mvemo.extract.media.reading import media_errors
from mvemo.extract.media.request import Sound, StreamRequest
from mvemo.extract.media.timeline import FramePicker, SoundCollector

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

    with media_errors(path):
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
    with ExitStack() as stack:
        clip = open_clip(path, request.of_clip(), choice, stack)
        if clip.note:
            emit(("note", clip.note))
        for modality, problem in clip.problems.items():
            emit(("problem", modality, problem))
        if not clip.streams:
            return clip.problems
        picker = _picture_picker(request, clip.end, emit)
        sound = SoundCollector(
            request.start,
            request.duration,
            request.sample_rates,
            lambda sr, y: emit(("sound", sr, y)),
            channel=choice.channel,
        )
        decode_packets(clip, picker, sound, lambda function, frames: function(frames))
        problems = find_problems(clip, picker, sound)
        if "audio" in clip.kinds and "audio" not in problems:
            # Emits the rest of the sound.
            _, of_sound = sound.finish()
            problems.update({} if of_sound is None else {"audio": of_sound})
    return problems


def _picture_picker(request: StreamRequest, end: float, emit: Emit) -> FramePicker:
    """Return a picker that emits the pictures at the times of a request."""
    scaler = SquareScaler()

    def emit_pictures(frame: Any, rows: slice) -> None:
        wanted = range(rows.start, rows.stop)
        sizes = frozenset[int]().union(*(request.sizes[row] for row in wanted))
        pictures = scaler.squares(frame, sorted(sizes))
        for row in wanted:
            emit(("picture", row, {size: pictures[size] for size in request.sizes[row]}))

    return FramePicker(request.start, end, request.start + request.times, emit_pictures)

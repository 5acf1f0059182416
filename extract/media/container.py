"""Decoding of one clip of a container by PyAV: sound and frames in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.background import BackgroundQueue
from mvemo.extract.media.checks import (
    CUT_OFF,
    NO_AUDIO,
    NO_VIDEO,
    Problem,
    check_length,
    starts_after_end,
)
from mvemo.extract.media.formats import check_format, is_cut_off
from mvemo.extract.media.frames import FrameScaler
from mvemo.extract.media.packets import (
    decoded_frames,
    expected_seconds,
    frame_times,
    is_cover,
    is_indexed,
    open_container,
    picture_problem,
    rewind,
    sound_tracks,
    start_of,
    thread_decoders,
)
from mvemo.extract.media.request import ClipRequest, Decoded, Sound
from mvemo.extract.media.timeline import FramePicker, FrameTimes, SoundCollector

# Frames of sound joined at a time.
SOUND_FRAMES = 64
# Codecs that decode the other frames unchanged if non-reference frames are skipped.
_SKIPPING_CODECS = ("h264",)


@dataclass(frozen=True)
class Collected:
    """Result of one pass over a container's packets."""

    picker: FramePicker
    sound: SoundCollector
    any_frame: bool
    is_cut_off: bool

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds of pictures and of sound that were decoded."""
        return self.picker.seconds, self.sound.seconds


def choose_sound(path: Path, request: ClipRequest) -> Sound:
    """Return the first track that is not silent, and a channel if the mean of all is silent."""
    with open_container(path) as container:
        tracks = [s.index for s in sound_tracks(container) if s.codec_context is not None]
    for track in tracks:
        with open_container(path) as container:
            stream = container.streams[track]
            sound = SoundCollector(request.start, request.duration, (), lambda sr, y: None)
            origin = start_of(container)
            for _, when, frame in decoded_frames(container, [stream], origin, request.stop, None):
                sound.add([(when, frame)])
                if not sound.is_silent:
                    return Sound(track)
            if sound.channel is not None:
                return Sound(track, sound.channel)
    return Sound()


def decode_container(path: Path, request: ClipRequest, choice: Sound | None = None) -> Decoded:
    """Decode a clip of a container; see `mvemo.extract.media.reading.decode_clip`."""
    with ExitStack() as stack:
        container = stack.enter_context(open_container(path))
        check_format(path, container.format.name)
        video, audio, problems = select_streams(path, container, request, choice)
        note = sound_note(container, audio, choice)
        indices = [stream.index for stream in (video, audio) if stream is not None]
        if not indices:
            return Decoded(problems=problems)
        origin = start_of(container)
        times = None if video is None else frame_times(container, video, origin, request)
        # If only sound is decoded, nothing has been read yet, and sound is decoded fast.
        if video is not None or "mov" in container.format.name:
            container = rewind(path, container, stack, request.start, origin, times)
        streams = [container.streams[index] for index in indices]
        channel = choice.channel if choice else None
        collected, scaler = _collect(path, container, streams, origin, times, request, channel)
        expected = expected_seconds(path, container, streams, request, origin, collected.seconds)
        others = len(container.streams.audio) > 1 or collected.sound.channel is not None
    problems.update(find_problems(request.start, times, collected, expected))
    silent = audio is not None and problems.get("audio", CUT_OFF).missing
    if silent and others and choice is None and (found := choose_sound(path, request)) != Sound():
        return decode_container(path, request, found)
    decoded = Decoded(seconds=collected.picker.seconds, problems=problems, note=note)
    if "video" in expected and "video" not in problems:
        decoded.frames.update(scaler.pictures)
    if "audio" not in expected or "audio" in problems:
        return decoded
    waveforms, problem = collected.sound.finish()
    if problem is not None:
        problems["audio"] = problem
        return decoded
    return Decoded(waveforms, decoded.frames, collected.sound.seconds, problems, note)


def sound_note(container: Any, audio: Any | None, choice: Sound | None) -> str:
    """Return a note about the track and channel that are read; empty for most files."""
    notes = []
    if audio is not None and (count := len(container.streams.audio)) > 1:
        rank = [stream.index for stream in container.streams.audio].index(audio.index)
        notes.append(f"sound track {rank + 1} of {count} is read")
    if choice is not None and choice.channel is not None:
        notes.append(f"the channels cancel each other: channel {choice.channel + 1} is read")
    return "; ".join(notes)


def select_streams(
    path: Path, container: Any, request: ClipRequest, choice: Sound | None = None
) -> tuple[Any | None, Any | None, dict[str, Problem]]:
    """Return the video and the audio stream to decode, and the problems of missing ones."""
    # A cover picture in an audio file is not a video.
    videos = [stream for stream in container.streams.video if not is_cover(stream)]
    audios = sound_tracks(container)
    if choice is not None and choice.track is not None:
        audios = [container.streams[choice.track]]
    if not videos and not audios:
        raise BadMedia(f"{path}: has neither sound nor pictures")
    problems = {}
    if request.pictures and not videos:
        problems["video"] = NO_VIDEO
    if request.sample_rates and not audios:
        problems["audio"] = NO_AUDIO
    video = videos[0] if videos and request.pictures else None
    audio = audios[0] if audios and request.sample_rates else None
    if video is not None and (problem := picture_problem(video)) is not None:
        video, problems["video"] = None, problem
    if audio is not None and audio.codec_context is None:
        audio, problems["audio"] = None, Problem("sound of an unknown codec")
    return video, audio, problems


def _collect(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    origin: float,
    times: FrameTimes | None,
    request: ClipRequest,
    channel: int | None,
) -> tuple[Collected, FrameScaler]:
    """Decode the streams up to the clip's end; a second thread, if allowed, scales pictures."""
    end = times.end if times else request.start
    end = end if request.stop is None else min(end, request.stop)
    scaler = FrameScaler(request.pictures, request.start, end)
    background = BackgroundQueue(threaded=request.threads != 1)
    picker = FramePicker(request.start, end, scaler.times, partial(background.submit, scaler.add))
    sound = SoundCollector(
        request.start,
        request.duration,
        request.sample_rates,
        spool=request.spool,
        channel=channel,
    )
    needed = None
    if times and is_indexed(container) and can_skip(streams):
        # The last frame shows how far the pictures can be decoded.
        needed = times.stamps_at(np.append(picker.times, end))
    thread_decoders(streams, request.threads)
    with background:
        waiting: list[tuple[float, Any]] = []
        frames = decoded_frames(container, streams, origin, request.stop, needed)
        for kind, when, frame in frames:
            if kind == "video":
                picker.add(when, frame)
                continue
            waiting.append((when, frame))
            if len(waiting) >= SOUND_FRAMES:
                background.submit(sound.add, waiting)
                waiting = []
        background.submit(sound.add, waiting)
        any_frame = picker.finish()
    # If a duration is given, only that stretch must be there.
    cut_off = request.duration is None and is_cut_off(path, container.format.name)
    return Collected(picker, sound, any_frame, cut_off), scaler


def can_skip(streams: Sequence[Any]) -> bool:
    """Return True if the video's decoder can skip frames that no other frame depends on."""
    return any(
        stream.type == "video" and stream.codec_context.name in _SKIPPING_CODECS
        for stream in streams
    )


def find_problems(
    start: float, times: FrameTimes | None, collected: Collected, expected: dict[str, float]
) -> dict[str, Problem]:
    """Return the problems of a clip's decoded sound and pictures, by modality.

    `start` is the clip's start in seconds; `expected` is the result of
    `mvemo.extract.media.packets.expected_seconds`.
    """
    problems: dict[str, Problem | None] = {}
    if "video" in expected:
        problems["video"] = _video_problem(start, times, collected, expected["video"])
    if "audio" in expected:
        problems["audio"] = _sound_problem(start, collected, expected["audio"])
    return {name: problem for name, problem in problems.items() if problem is not None}


def _sound_problem(start: float, collected: Collected, expected: float) -> Problem | None:
    sound = collected.sound
    if not sound.error and sound.seconds == 0 and 0 < sound.end <= start:
        return starts_after_end(start, "sound ends", sound.end)
    # Sound that begins late is complete, but not if much of it is gaps.
    whole = max(expected, sound.seconds)
    problem = sound.problem() or check_length(sound.decoded_seconds, whole)
    return problem or (CUT_OFF if collected.is_cut_off else None)


def _video_problem(
    start: float, times: FrameTimes | None, collected: Collected, expected: float
) -> Problem | None:
    if times and start >= times.end:
        return starts_after_end(start, "pictures end", times.end)
    if not collected.any_frame:
        return Problem("no frame decodes")
    if times and times.single:
        return None
    problem = check_length(collected.picker.seconds, expected)
    return problem or (CUT_OFF if collected.is_cut_off else None)

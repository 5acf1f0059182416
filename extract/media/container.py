"""Decoding of one clip of a container by PyAV: sound and frames in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mvemo.extract.errors import BadMedia
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
_SOUND_FRAMES = 64
# Codecs that decode the other frames unchanged if non-reference frames are skipped.
_SKIPPING_CODECS = ("h264",)


@dataclass(frozen=True)
class OpenClip:
    """Container at the start of a clip, with the streams to decode."""

    path: Path
    request: ClipRequest
    container: Any
    streams: Sequence[Any]  # the video before the audio
    problems: dict[str, Problem]  # requested modalities that cannot be decoded
    note: str  # about the sound that is read
    channel: int | None  # of the sound; None for the mean of all
    origin: float  # the file's first presentation time in seconds
    times: FrameTimes | None  # None if no pictures are decoded, or they have no packets

    @property
    def kinds(self) -> set[str]:
        """Types of the streams; PyAV crashes if they are read from a closed container."""
        return {stream.type for stream in self.streams}

    @property
    def end(self) -> float:
        """End of the clip's pictures in seconds."""
        end = self.times.end if self.times else self.request.start
        return end if self.request.stop is None else min(end, self.request.stop)


def open_clip(path: Path, request: ClipRequest, choice: Sound | None, stack: ExitStack) -> OpenClip:
    """Open a container, choose its streams, and seek the clip; `stack` closes the container."""
    container = stack.enter_context(open_container(path))
    check_format(path, container.format.name)
    video, audio, problems = _select_streams(path, container, request, choice)
    note = _sound_note(container, audio, choice)
    indices = [stream.index for stream in (video, audio) if stream is not None]
    origin = start_of(container)
    times = None if video is None else frame_times(container, video, origin, request)
    # If only sound is decoded, nothing has been read yet, and sound is decoded fast.
    if video is not None or (audio is not None and "mov" in container.format.name):
        container = rewind(path, container, stack, request.start, origin, times)
    streams = [container.streams[index] for index in indices]
    channel = choice.channel if choice else None
    return OpenClip(path, request, container, streams, problems, note, channel, origin, times)


def decode_packets(
    clip: OpenClip,
    picker: FramePicker,
    sound: SoundCollector,
    submit: Callable[..., object],
) -> None:
    """Decode a clip's streams; `submit` calls ``sound.add`` now or later, in order."""
    needed = None
    if clip.times and is_indexed(clip.container) and _can_skip(clip.streams):
        # The last frame shows how far the pictures can be decoded.
        needed = clip.times.stamps_at(np.append(picker.times, clip.end))
    thread_decoders(clip.streams, clip.request.threads)
    waiting: list[tuple[float, Any]] = []
    frames = decoded_frames(clip.container, clip.streams, clip.origin, clip.request.stop, needed)
    for kind, when, frame in frames:
        if kind == "video":
            picker.add(when, frame)
            continue
        waiting.append((when, frame))
        if len(waiting) >= _SOUND_FRAMES:
            submit(sound.add, waiting)
            waiting = []
    submit(sound.add, waiting)
    picker.finish()


def find_problems(clip: OpenClip, picker: FramePicker, sound: SoundCollector) -> dict[str, Problem]:
    """Return all problems of a decoded clip by modality; its container is still open."""
    request, container = clip.request, clip.container
    decoded = (picker.seconds, sound.seconds)
    expected = expected_seconds(clip.path, container, clip.streams, request, clip.origin, decoded)
    # If a duration is given, only that stretch must be there.
    whole_file = request.duration is None
    cut_off = CUT_OFF if whole_file and is_cut_off(clip.path, container.format.name) else None
    found: dict[str, Problem | None] = {}
    if "video" in expected:
        found["video"] = _video_problem(clip, picker, expected["video"], cut_off)
    if "audio" in expected:
        found["audio"] = _sound_problem(request.start, sound, expected["audio"], cut_off)
    return clip.problems | {name: problem for name, problem in found.items() if problem is not None}


def _sound_problem(
    start: float, sound: SoundCollector, expected: float, cut_off: Problem | None
) -> Problem | None:
    if not sound.error and sound.seconds == 0 and 0 < sound.end <= start:
        return starts_after_end(start, "sound ends", sound.end)
    # Sound that begins late is complete, but not if much of it is gaps.
    whole = max(expected, sound.seconds)
    return sound.problem() or check_length(sound.decoded_seconds, whole) or cut_off


def _video_problem(
    clip: OpenClip, picker: FramePicker, expected: float, cut_off: Problem | None
) -> Problem | None:
    start, times = clip.request.start, clip.times
    if times and start >= times.end:
        return starts_after_end(start, "pictures end", times.end)
    if picker.is_empty:
        return Problem("no frame decodes")
    if times and times.single:
        return None
    return check_length(picker.seconds, expected) or cut_off


def _can_skip(streams: Sequence[Any]) -> bool:
    """Return True if the video's decoder can skip frames that no other frame depends on."""
    return any(
        stream.type == "video" and stream.codec_context.name in _SKIPPING_CODECS
        for stream in streams
    )


def _select_streams(
    path: Path, container: Any, request: ClipRequest, choice: Sound | None
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


def _sound_note(container: Any, audio: Any | None, choice: Sound | None) -> str:
    """Return a note about the track and channel that are read; empty for most files."""
    notes = []
    if audio is not None and (count := len(container.streams.audio)) > 1:
        rank = [stream.index for stream in container.streams.audio].index(audio.index)
        notes.append(f"sound track {rank + 1} of {count} is read")
    if choice is not None and choice.channel is not None:
        notes.append(f"the channels cancel each other: channel {choice.channel + 1} is read")
    return "; ".join(notes)


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
        clip = open_clip(path, request, choice, stack)
        if not clip.streams:
            return Decoded(problems=clip.problems)
        scaler = FrameScaler(request.pictures, request.start, clip.end)
        background = BackgroundQueue(threaded=request.threads != 1)
        scale = partial(background.submit, scaler.add)
        picker = FramePicker(request.start, clip.end, scaler.times, scale)
        sound = SoundCollector(
            request.start,
            request.duration,
            request.sample_rates,
            spool=request.spool,
            channel=clip.channel,
        )
        with background:
            decode_packets(clip, picker, sound, background.submit)
        problems = find_problems(clip, picker, sound)
        kinds = clip.kinds
        others = len(clip.container.streams.audio) > 1 or sound.channel is not None
    silent = "audio" in kinds and problems.get("audio", CUT_OFF).missing
    if silent and others and choice is None and (found := choose_sound(path, request)) != Sound():
        return decode_container(path, request, found)
    decoded = Decoded(seconds=picker.seconds, problems=problems, note=clip.note)
    if "video" in kinds and "video" not in problems:
        decoded.frames.update(scaler.pictures)
    if "audio" not in kinds or "audio" in problems:
        return decoded
    waveforms, problem = sound.finish()
    if problem is not None:
        problems["audio"] = problem
        return decoded
    return Decoded(waveforms, decoded.frames, sound.seconds, problems, clip.note)


class BackgroundQueue:
    """Queue of calls that run one after the other on a second thread.

    Decoders release the interpreter's lock: a frame is scaled while the next one is decoded.
    Leaving the context waits for all calls, and raises the error of the first that failed.
    If `threaded` is False, each call runs at once: on one core, two threads take a sixth longer.
    """

    # Calls that may wait. Each holds a frame, so a faster decoder must wait for them.
    MAX_WAITING = 8

    def __init__(self, *, threaded: bool = True) -> None:
        # The pool starts its thread at the first call.
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._threaded = threaded
        self._waiting: list[Future[None]] = []

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call ``function(*arguments)`` after all earlier calls."""
        if not self._threaded:
            function(*arguments)
            return
        self._waiting.append(self._pool.submit(function, *arguments))
        if len(self._waiting) > self.MAX_WAITING:
            self._waiting.pop(0).result()

    def wait(self) -> None:
        """Wait until all calls are done."""
        while self._waiting:
            self._waiting.pop(0).result()

    def __enter__(self) -> BackgroundQueue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self.wait()

"""Decoding of one clip by PyAV: square frames and sound, in one pass over the container."""

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import av
import numpy as np

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import audio, packets
from mvemo.extract.media.formats import is_cut_off, mp3_seconds
from mvemo.extract.media.pictures import FramePicker, SquareScaler
from mvemo.extract.media.request import (
    CUT_OFF,
    MIN_DECODED_SHARE,
    NO_AUDIO,
    NO_VIDEO,
    ClipRequest,
    Decoded,
    MediaProblem,
    Sound,
    check_length,
    error_line,
    starts_after_end,
)
from mvemo.manifests.array_types import F32, F64, U8

# Maximum number of waiting calls. Each call holds a frame, so the decoder must not run far ahead.
MAX_WAITING = 8
# Largest number of bytes of frames that are kept in memory if there is a folder for longer ones.
IN_MEMORY = 1 << 28
# Number of audio frames that are joined at a time.
_SOUND_FRAMES = 64
# Containers that state the length of each stream, and containers that state only the length of the
# whole file. For other containers, FFmpeg guesses the length.
_STATING_LENGTH = frozenset({"mov", "avi", "mp3", "flac"})
_STATING_WHOLE = frozenset({"matroska", "flv", "asf", "ogg"})
# Codecs whose other frames decode to the same pictures if non-reference frames are skipped.
_SKIPPING_CODECS = ("h264",)


@dataclass(frozen=True)
class OpenClip:
    """Container at the start of a clip, with the streams to decode."""

    path: Path
    request: ClipRequest
    container: Any
    streams: Sequence[Any]  # the video before the audio
    problems: dict[str, MediaProblem]  # requested modalities that cannot be decoded
    choice: Sound
    note: str  # note about the tracks and the channel that are read
    origin: float  # the file's first presentation time in seconds
    times: packets.PacketTimes | None  # None if no video is decoded, or it has no packets

    @property
    def kinds(self) -> set[str]:
        """Types of the streams; read them before the container is closed, or PyAV crashes."""
        return {stream.type for stream in self.streams}

    @property
    def end(self) -> float:
        return self._bounded(self.times.end if self.times else self.request.start)

    @property
    def stated_end(self) -> float:
        """End of the pictures by the file's own account, which may be wrong, for checks."""
        return self._bounded(self.times.stated if self.times else self.request.start)

    def _bounded(self, end: float) -> float:
        return end if self.request.stop is None else min(end, self.request.stop)

    def needed(self, times: F64) -> tuple[set[int] | None, set[int]]:
        """Return the stamps of pictures that must be decoded (None for all), and of unused ones."""
        skipping = any(stream.codec_context.name in _SKIPPING_CODECS for stream in self.streams)
        if not (self.times and packets.is_indexed(self.container) and skipping):
            return None, set()
        # The clip's last frame is needed to learn how far the video can be decoded.
        needed = self.times.stamps_at(np.append(times, self.end))
        return needed, self.times.unused(needed)


@contextmanager
def open_clip(path: Path, request: ClipRequest, choice: Sound) -> Iterator[OpenClip]:
    """Open a container, choose its streams, and seek to the clip."""
    with ExitStack() as stack:
        container = stack.enter_context(packets.open_container(path))
        found, problems = _select_streams(path, container, request, choice)
        note = _note(container, found, choice)
        origin, times = packets.start_of(container), None
        reads_video = "video" in found
        if reads_video:
            try:
                times = packets.frame_times(path, container, found["video"], origin, request)
            except Exception as error:
                problems["video"] = _picture_problem(error)
                del found["video"]
        indices = [stream.index for stream in found.values()]
        # Without video, nothing has been read yet, and audio decodes fast: do not seek.
        is_mov, start = "mov" in container.format.name, request.start
        if reads_video or ("audio" in found and is_mov):
            # QuickTime has an index for each stream. Matroska has one index for all streams: if the
            # video starts late, a seek skips the audio before it, unless a key frame surely
            # precedes the clip.
            far = start > 2 * packets.RUN_UP and times and times.first <= start - packets.RUN_UP
            is_safe = is_mov or ("matroska" in container.format.name and far)
            if not (is_safe and packets.seek(container, start + origin)):
                container = stack.enter_context(packets.open_container(path))
        streams = [container.streams[index] for index in indices]
        yield OpenClip(path, request, container, streams, problems, choice, note, origin, times)


def _decode(clip: OpenClip, *, threaded: bool) -> tuple[Decoded, audio.SoundCollector]:
    """Decode an open clip; if `threaded`, a second thread scales frames and resamples sound."""
    request, failures = clip.request, list[MediaProblem]()
    times = {s: s.times(request.start, clip.end) for s in request.pictures}
    # uint8 (windows * n_frames, size, size, 3), RGB; zeros until frames are decoded.
    frames = {s: spooled_zeros((len(times[s]), s.size, s.size, 3), request.spool) for s in times}
    # (time, sampling, row in the frames of that sampling), sorted by time.
    targets = sorted(
        ((when, s, row) for s in times for row, when in enumerate(times[s])), key=itemgetter(0)
    )
    scaler = SquareScaler()
    if "video" in clip.kinds:
        video = clip.streams[0]
        scaler = SquareScaler(float(video.sample_aspect_ratio or 1), video.codec_context.color_trc)

    def scale(frame: Any, shown: slice) -> None:
        if failures:
            return
        try:
            pictures = scaler.squares(frame, {s.size for _, s, _ in targets[shown]})
        except Exception as error:
            failures.append(_picture_problem(error))
            return
        for _, sampling, row in targets[shown]:
            frames[sampling][row] = pictures[sampling.size]

    packets.thread_decoders(clip.streams, request.threads)
    sound = audio.SoundCollector(request, clip.choice.channel)
    source = packets.Packets(clip.container, clip.streams)
    waiting: list[tuple[float, Any]] = []
    moments = np.array([when for when, _, _ in targets])
    with background_calls(threaded=threaded) as submit:
        picker = FramePicker(request.start, clip.stated_end, moments, partial(submit, scale))
        place = (clip.origin, request.stop, request.start)
        for kind, when, frame in packets.decoded_frames(source, *place, *clip.needed(moments)):
            if kind == "video":
                picker.add(when, frame)
                continue
            waiting.append((when, frame))
            if len(waiting) >= _SOUND_FRAMES:
                submit(sound.add, waiting)
                waiting = []
        submit(sound.add, waiting)
        # The last frame lasts until the clip's end. The next frame may be left out.
        last = clip.times.stamps_at(np.array([clip.stated_end])) if clip.times else set[int]()
        picker.finish(picker.frame is not None and picker.frame.pts in last)
    problems = find_problems(clip, picker, sound)
    if "video" in clip.kinds and failures:
        problems["video"] = failures[0]
    if request.duration is None and (rest := source.rest_problem()):
        problems = {**dict.fromkeys(clip.kinds, rest), **problems}
    waveforms: dict[int, F32] = {}
    if sound.sound and "audio" not in problems:
        waveforms, problem = sound.sound.finish()
        problems |= {"audio": problem} if problem else {}
    seconds = sound.seconds if waveforms else min(picker.seconds, clip.end - request.start)
    loudness = sound.sound.loudness if sound.sound else -math.inf
    shown = {} if "video" in problems else frames
    return Decoded(waveforms, shown, seconds, problems, clip.note, loudness), sound


def find_problems(
    clip: OpenClip, picker: FramePicker, sound: audio.SoundCollector
) -> dict[str, MediaProblem]:
    """Return all problems of a decoded clip by modality; its container must still be open."""
    request, container = clip.request, clip.container
    expected = _expected_seconds(clip, max(picker.seconds, sound.seconds))
    # If a duration is given, only that part of the file must be complete.
    whole_file = request.duration is None
    cut_off = CUT_OFF if whole_file and is_cut_off(clip.path, container.format.name) else None
    found: dict[str, MediaProblem | None] = {**clip.problems}
    if "video" in expected:
        times = clip.times
        if times and request.start >= times.end:
            found["video"] = starts_after_end(request.start, "pictures end", times.end)
        elif picker.frame is None:
            found["video"] = MediaProblem("no frame can be decoded")
        elif not (times and times.single):
            found["video"] = check_length(picker.seconds, expected["video"]) or cut_off
    if "audio" in expected:
        if not sound.error and sound.seconds == 0 and 0 < sound.end <= request.start:
            found["audio"] = starts_after_end(request.start, "sound ends", sound.end)
        else:
            # Sound that begins late counts as complete, but not if it has large gaps.
            whole = max(expected["audio"], sound.seconds)
            decoded = sound.seconds - sound.missing_seconds
            found["audio"] = sound.problem() or check_length(decoded, whole) or cut_off
    return {name: problem for name, problem in found.items() if problem is not None}


def _expected_seconds(clip: OpenClip, longest: float) -> dict[str, float]:
    """Return the expected seconds by stream type, 0 if unknown; `longest` is the decoded length."""
    request, container = clip.request, clip.container
    formats = set(container.format.name.split(","))
    expected = {stream.type: request.duration or 0.0 for stream in clip.streams}
    if request.duration is not None:
        return expected
    longest_stated = mp3_seconds(clip.path) if formats == {"mp3"} else math.inf
    for stream in clip.streams:
        if stream.duration is not None and _STATING_LENGTH & formats:
            begin = float((stream.start_time or 0) * stream.time_base) - clip.origin
            # FFmpeg guesses the length of an MP3 file that goes on after the stated frames.
            length = min(float(stream.duration * stream.time_base), longest_stated)
            expected[stream.type] = length + begin - request.start
    if _STATING_WHOLE & formats and container.duration is not None:
        # Only the length of the whole file is stated: at least one stream must reach it.
        whole = container.duration / av.time_base - request.start
        if formats & {"matroska", "flv"} and whole > clip.origin:
            # Both count the length from 0, even if the time stamps begin later.
            whole -= clip.origin
        if longest < MIN_DECODED_SHARE * whole:
            expected = dict.fromkeys(expected, whole)
    return expected


def _select_streams(
    path: Path, container: Any, request: ClipRequest, choice: Sound
) -> tuple[dict[str, Any], dict[str, MediaProblem]]:
    """Return by type the streams to decode, and the problems of streams that cannot be."""
    videos, audios = packets.videos(container), packets.sound_tracks(container)
    if choice.track is not None:
        audios = [container.streams[choice.track]]
    if not videos and not audios:
        raise BadMedia(f"{path}: has neither sound nor pictures")
    problems: dict[str, MediaProblem | None] = {}
    if request.pictures:
        problems["video"] = packets.picture_problem(videos[0]) if videos else NO_VIDEO
    if request.sample_rates:
        known = audios and audios[0].codec_context is not None
        unknown = MediaProblem("the audio codec is unknown") if audios else NO_AUDIO
        problems["audio"] = None if known else unknown
    first = {"video": videos[:1], "audio": audios[:1]}
    found = {kind: first[kind][0] for kind, problem in problems.items() if problem is None}
    return found, {kind: problem for kind, problem in problems.items() if problem is not None}


def _picture_problem(error: Exception) -> MediaProblem:
    reason = f"the pictures cannot be read: {error_line(error)}"
    return MediaProblem(reason, passing=isinstance(error, MemoryError))


def _note(container: Any, found: dict[str, Any], choice: Sound) -> str:
    notes = []
    tracks = {"video": packets.videos(container), "audio": container.streams.audio}
    for kind, name in (("video", "video"), ("audio", "sound")):
        indices = sorted(stream.index for stream in tracks[kind])
        if kind in found and len(indices) > 1:
            rank = indices.index(found[kind].index) + 1
            notes.append(f"{name} track {rank} of {len(indices)} is read")
    if choice.channel is not None:
        notes.append(audio.channel_note(choice.channel))
    return "; ".join(notes)


def choose_sound(path: Path, request: ClipRequest) -> Sound:
    """Return the first audible track, and one of its channels if they cancel each other."""
    with packets.open_container(path) as container:
        tracks = [s.index for s in packets.sound_tracks(container) if s.codec_context is not None]
    for track in tracks:
        with packets.open_container(path) as container:
            stream = container.streams[track]
            collector = audio.SoundCollector(replace(request, sample_rates=(), level=0.0))
            origin = packets.start_of(container)
            source = packets.Packets(container, [stream])
            decoded = packets.decoded_frames(source, origin, request.stop)
            while block := [frame[1:] for frame in islice(decoded, _SOUND_FRAMES)]:
                collector.add(block)
                sound, is_mono = collector.sound, stream.codec_context.channels == 1
                if sound and (sound.is_judged or (is_mono and not sound.is_silent)):
                    break
            sound = collector.sound
            if sound and (sound.channel is not None or not sound.is_silent):
                return Sound(track, sound.channel)
    return Sound()


def decode_container(path: Path, request: ClipRequest, choice: Sound | None = None) -> Decoded:
    """Decode a clip of a container; see `mvemo.extract.media.reading.decode_clip`."""
    with open_clip(path, request, choice or Sound()) as clip:
        decoded, sound = _decode(clip, threaded=request.threads != 1)
        several = len(clip.container.streams.audio) > 1
    silent = decoded.problems.get("audio", CUT_OFF).missing
    cancels = sound.sound is not None and sound.sound.channel is not None
    if choice is None and (cancels or (silent and several)):
        found = choose_sound(path, request)
        if found != Sound():
            return decode_container(path, request, found)
    return decoded


def spooled_zeros(shape: tuple[int, ...], spool: Path | None) -> U8:
    """Return zeros, uint8, in a temporary file of the folder `spool` if they are many."""
    if spool is None or math.prod(shape) <= IN_MEMORY:
        return np.zeros(shape, dtype=np.uint8)
    spool.mkdir(parents=True, exist_ok=True)
    # The file stays open, because the mapped frames need it.
    file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115
    return np.memmap(file, np.uint8, "w+", shape=shape)


@contextmanager
def background_calls(*, threaded: bool = True) -> Iterator[Callable[..., None]]:
    """Yield a function `submit(function, *arguments)`; if `threaded`, a second thread runs it."""
    # Decoders release the interpreter's lock, so a frame is scaled while the next frame is decoded.
    # On a single core, two threads take a sixth longer than one.
    if not threaded:
        yield lambda function, *arguments: function(*arguments)
        return
    waiting: deque[Future[None]] = deque()
    # The pool starts its thread only at the first call.
    with ThreadPoolExecutor(max_workers=1) as pool:

        def submit(function: Callable[..., None], *arguments: Any) -> None:
            waiting.append(pool.submit(function, *arguments))
            if len(waiting) > MAX_WAITING:
                waiting.popleft().result()

        try:
            yield submit
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for call in waiting:
        call.result()

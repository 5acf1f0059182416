"""Packets of a container: opening, seeking, presentation times, decoding."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.formats import FORMAT_WHITELIST, check_format, check_head, is_cut_off
from mvemo.extract.media.request import MIN_DECODED_SHARE, ClipRequest, MediaProblem
from mvemo.extract.media.sound_files import find_bitstream
from mvemo.manifests.array_types import F64

# Files in these formats may be joined end to end, each part with its own time stamps. In "jumping"
# formats, the stamps of a part may also begin much later than the previous part ends.
_JOINABLE = frozenset({"mpegts", "mpeg", "matroska", "ogg"})
_JUMPING = frozenset({"mpegts", "mpeg"})
# A new part begins if stamps go back, or ahead of all streams, by more than these seconds.
_BACK, _AHEAD = 0.1, 10.0
# Raw streams whose time stamps count frames; the length of a frame is rounded down to whole units.
_COUNTING_FRAMES = frozenset({"ac3", "eac3", "dts", "spdif"})
# Attached picture, timed thumbnails, still image: FFmpeg's dispositions.
_COVER = 0x0400 | 0x0800 | 0x100000
_DEFAULT = 0x0001
# Sound that speaks over the original: a commentary, or descriptions of the pictures.
_SPOKEN = 0x0008 | 0x0100 | 0x20000
# Sound that is not the original: the former, dubbed, for the hard of hearing, without voices
# (karaoke, clean effects), or to be mixed with another track.
_OTHER = _SPOKEN | 0x0002 | 0x0020 | 0x0080 | 0x0200 | 0x1000 | 0x80000
# Smaller differences, in seconds, are rounding: between the stated and the computed end of a
# video, and between a frame's duration and the time of the next frame.
_END_ROUNDING, _GAP_ROUNDING = 0.1, 0.01
# Tag of a Matroska track with the time at which it ends.
_TRACK_END = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d+)?)")
# Maximum number of pixels per picture, twice the number of 8K video.
MAX_PIXELS = 1 << 26
# Number of pixels per picture above which two threads decode faster than one.
_THREADED_PIXELS = 1280 * 720
# Titles need not be valid UTF-8. Since version 19, PyAV reads metadata only when asked for it.
_METADATA: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
)
# Containers with an index that makes seeking exact.
_INDEXED = ("mov", "matroska")
# Seconds of the file that are decoded before a clip's start; at most so many packets of sound.
RUN_UP, _RUN_UP_PACKETS = 1.0, 50
# Decoders whose sound depends on less than `RUN_UP` before it.
_FORGETTING = ("mp3", "mp3float")


def open_container(path: Path) -> Any:
    check_head(path)
    bitstream = find_bitstream(path)
    try:
        # The prefix and the whitelists prevent playlists and unusual names from opening other
        # files or URLs.
        container = av.open(
            bitstream or f"file:{path.resolve()}",
            format=bitstream.format if bitstream else None,
            options={"protocol_whitelist": "file", "format_whitelist": FORMAT_WHITELIST},
            **_METADATA,
        )
    except av.error.FFmpegError as error:
        if bitstream:
            kind = f"compressed sound ({bitstream.format}) of an unknown kind"
            raise BadMedia(f"{path}: its samples are {kind}") from error
        if isinstance(error, av.error.ArgumentError):
            raise BadMedia(f"{path}: is not in a supported audio or video format") from error
        raise
    check_format(path, container.format.name)
    return container


def start_of(container: Any) -> float:
    return 0.0 if container.start_time is None else float(container.start_time / av.time_base)


def videos(container: Any) -> list[Any]:
    """Return the video streams, the default first, without cover pictures and thumbnails."""
    found = [s for s in container.streams.video if not int(s.disposition) & _COVER]
    return sorted(found, key=lambda s: (s.codec_context is None, not int(s.disposition) & _DEFAULT))


def sound_tracks(container: Any) -> list[Any]:
    """Return the audio streams by preference: original before others, default before the rest."""

    def rank(stream: Any) -> tuple[bool, bool, bool, bool]:
        flags, unknown = int(stream.disposition), stream.codec_context is None
        return unknown, bool(flags & _OTHER), bool(flags & _SPOKEN), not flags & _DEFAULT

    return sorted(container.streams.audio, key=rank)


def picture_problem(stream: Any) -> MediaProblem | None:
    """Return a problem if the header shows a video that cannot be decoded or is too large."""
    codec = stream.codec_context
    if codec is None:
        return MediaProblem("the video codec is unknown")
    if codec.width * codec.height > MAX_PIXELS:
        return MediaProblem(
            f"the pictures have {codec.width} x {codec.height} pixels, expected at most "
            f"{MAX_PIXELS / 1e6:.0f} million pixels"
        )
    # A picture may be larger than the header states.
    codec.options = {**codec.options, "max_pixels": str(MAX_PIXELS)}
    return None


def unit_seconds(container: Any, packet: Any) -> float:
    """Return the length, in seconds, of one unit of a packet's time stamps."""
    unit = packet.time_base
    if container.format.name not in _COUNTING_FRAMES or not packet.duration:
        return float(unit)
    sr = packet.stream.codec_context.sample_rate
    return float(math.ceil(packet.duration * unit * sr) / sr / packet.duration)


class Packets:
    """Packets of some streams; if time stamps restart, they are shifted and `joined` is True."""

    def __init__(self, container: Any, streams: Sequence[Any]) -> None:
        formats = set(container.format.name.split(","))
        self.joined: bool = False
        self.container = container
        self.streams = streams
        self._position = 0
        self._joinable, self._jumping = bool(formats & _JOINABLE), bool(formats & _JUMPING)
        self._indices = {stream.index for stream in streams}
        every = list(streams)
        if self._jumping:
            # A pause in one stream is not a jump if the other stream continues.
            others = [*container.streams.video[:1], *container.streams.audio[:1]]
            every += [stream for stream in others if stream.index not in self._indices]
        self._packets = container.demux(every)
        # For each stream, in units: last stamp, expected next stamp, shift of the stamps, and the
        # previous shift.
        self._places: dict[int, tuple[int, int, int, int]] = {}
        self._now = float("-inf")

    def __iter__(self) -> Iterator[Any]:
        for packet in self._packets:
            # Do not use packet.stream_index, which is 0 for every packet that flushes a decoder.
            index = packet.stream.index
            if self._joinable and packet.dts is not None:
                self._place(index, packet)
            if index in self._indices:
                yield packet

    def rest_problem(self) -> MediaProblem | None:
        """Return a problem if, after its end, the file goes on in tracks that are not read."""
        tracks = self.container.streams
        several = max(len(tracks.video), len(tracks.audio)) > 1
        share = self._position / (self.container.size or 1)
        if not (self._jumping and several and 0 < share < MIN_DECODED_SHARE):
            return None
        return MediaProblem(
            f"only the first {share:.0%} of the file is in the tracks that are read: a recording "
            "with other tracks follows, so split the file there"
        )

    def _place(self, index: int, packet: Any) -> None:
        unit = float(packet.time_base)
        self._position = max(self._position, packet.pos or 0)
        last, due, shift, before = self._places.get(index, (packet.dts, packet.dts, 0, 0))
        stamp = packet.dts + shift
        if abs(packet.dts + before - due) < _BACK / unit < abs(stamp - due):
            # Only a few stamps were wrong, so the previous shift applies again.
            shift, before = before, shift
        # Matroska has no decoding times, and those that FFmpeg computes may go back within a part.
        elif ((last - stamp) * unit > _BACK and (self._jumping or packet.is_keyframe)) or (
            self._jumping and self._places and stamp * unit - self._now > _AHEAD
        ):
            shift, before = due - packet.dts, shift
            self.joined = True
        stamp = packet.dts + shift
        due = stamp + (packet.duration or 0)
        self._places[index] = (stamp, due, shift, before)
        self._now = max(self._now, due * unit)
        if shift:
            packet.dts = stamp
            packet.pts = None if packet.pts is None else packet.pts + shift


def thread_decoders(streams: Sequence[Any], threads: int) -> None:
    """Set the number of threads of the streams' decoders; 0 for one per core."""
    for stream in streams:
        codec = stream.codec_context
        # Two threads decode small pictures no faster than one thread and use a third more CPU time.
        small = stream.type == "video" and codec.width * codec.height < _THREADED_PIXELS
        codec.thread_type = "AUTO"
        codec.thread_count = 1 if threads == 2 and small else threads


def is_indexed(container: Any) -> bool:
    return any(name in container.format.name for name in _INDEXED)


def seek(container: Any, when: float) -> bool:
    """Seek to a key frame well before a clip's start; return False if the file must be reopened."""
    target = max(when - RUN_UP, min((container.start_time or 0) / av.time_base, 0.0))
    try:
        container.seek(int(target * av.time_base), backward=True)
    except av.error.FFmpegError:
        return False
    return True


class PacketTimes:
    """Presentation times, in seconds, of the frames in a part of a file, read from its packets."""

    def __init__(
        self,
        frames: Sequence[tuple[int, int]],  # stamp and duration in units of `time_base`
        time_base: float,
        origin: float,
        resets: Sequence[int] = (),  # rows of `frames` from which on no earlier frame is needed
        ends: tuple[float, float] = (-math.inf, math.inf),  # earliest and latest end, in seconds
        sound_end: float = -math.inf,  # end of the last packet of sound, in seconds
    ) -> None:
        self._order = np.array([stamp for stamp, _ in frames], dtype=np.int64)
        self._groups = np.zeros(len(frames), dtype=np.int64)
        self._groups[list(resets)] = 1
        self._groups = self._groups.cumsum()
        self._stamps = np.sort(np.array([stamp for stamp, _ in frames], dtype=np.int64))
        self._seconds = self._stamps * time_base - origin
        # A video of only one frame shows it as long as the sound lasts.
        self.single: bool = len(frames) == 1
        # Seconds from the file's first presentation time.
        self.first: float = float(self._seconds[0])
        self.last: float = float(self._seconds[-1])
        durations = np.array([length for _, length in sorted(frames)]) * time_base
        gaps = np.diff(self._seconds)
        usual = durations[-1] if self.single else np.median(gaps)
        length = durations[-1] if durations[-1] > 0 else usual
        self.stated: float = self.last + float(max(length, 0.0))
        bounded = min(max(self.stated, ends[0]), ends[1])
        if bounded > self.last and abs(bounded - self.stated) > _END_ROUNDING:
            self.stated = bounded
        self.end: float = self.stated
        # The duration of the last frame is that of another if the frames are stored in another
        # order (MP4), or a mean (Matroska): trust it only if the other frames last until the next.
        if durations[-1] <= 0 or (np.abs(durations[:-1] - gaps) > _GAP_ROUNDING).any():
            if not self.last < ends[1] < math.inf:
                self.end = min(self.end, self.last + float(usual))
            if self.last < sound_end < self.end - _END_ROUNDING:
                self.end = sound_end

    def stamps_at(self, times: F64) -> set[int]:
        """Return the stamps of the frames shown at `times`, the first frame's for earlier times."""
        rows = np.searchsorted(self._seconds, times, side="right") - 1
        return {int(stamp) for stamp in self._stamps[np.maximum(rows, 0)]}

    def unused(self, needed: set[int]) -> set[int]:
        """Return the stamps of frames that no `needed` frame depends on: the ends of groups."""
        rows = np.flatnonzero(np.isin(self._order, list(needed)))
        last = np.full(self._groups[-1] + 1, -1)
        np.maximum.at(last, self._groups[rows], rows)
        used = np.arange(len(self._order)) <= last[self._groups]
        return set(self._order[~used].tolist()) - set(self._order[used].tolist())


def _is_reset(packet: Any, extradata: bytes | None) -> bool:
    """Return True for an H.264 packet after which no earlier picture is needed (IDR)."""
    # MP4 and Matroska store each unit after its length (ISO/IEC 14496-15); 5 is an IDR slice.
    if not packet.is_keyframe or not extradata or extradata[0] != 1:
        return False
    data, place, width = memoryview(packet), 0, (extradata[4] & 3) + 1
    while place + width < len(data):
        kind = data[place + width] & 31
        if kind in (1, 5):
            return kind == 5
        place += width + int.from_bytes(data[place : place + width], "big")
    return False


def _stated_ends(path: Path, container: Any, video: Any) -> tuple[float, float]:
    """Return the earliest and the latest end of a video by the file's header, in seconds."""
    end, listed = math.inf, False
    if "mov" in container.format.name and video.duration is not None:
        end = float(((video.start_time or 0) + video.duration) * video.time_base)
        # Without fragments, the header lists all frames, so none can be missing before the end.
        listed = video.frames > 0
    elif tag := _TRACK_END.match(video.metadata.get("DURATION", "")):
        # A tag may be older than the file's last cut.
        whole = (container.duration or math.inf) / av.time_base
        end = min(3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]), whole)
    if end < math.inf and is_cut_off(path, container.format.name, 1.0):
        return -math.inf, math.inf
    return (end if listed else -math.inf), end


def frame_times(
    path: Path, container: Any, video: Any, origin: float, request: ClipRequest
) -> PacketTimes | None:
    """Return the times of a clip's frames, read from packets, or None if there are no packets."""
    time_base = float(video.time_base)
    # Decoding order and presentation order differ by far less than `RUN_UP`.
    stop = request.stop
    latest_needed = None if stop is None else (origin + stop + 2 * RUN_UP) / time_base
    if request.start > 2 * RUN_UP and is_indexed(container):
        seek(container, request.start + origin)
    packets = Packets(container, [video, *sound_tracks(container)[:1]])
    sound_end = -math.inf
    frames: list[tuple[int, int]] = []
    resets: list[int] = []
    extradata = video.codec_context.extradata if video.codec_context.name == "h264" else None
    try:
        for packet in packets:
            # Packets outside the file's edit list are decoded but never shown.
            if packet.pts is None or packet.is_discard:
                continue
            if packet.stream.index != video.index:
                stop_time = (packet.pts + (packet.duration or 0)) * float(packet.time_base)
                sound_end = max(sound_end, stop_time - origin)
                continue
            if _is_reset(packet, extradata):
                resets.append(len(frames))
            frames.append((packet.pts, packet.duration or 0))
            if latest_needed is not None and packet.pts > latest_needed:
                break
    except av.error.FFmpegError:
        # The file is cut off or damaged at this point: use the packets before it.
        pass
    if not frames:
        return None
    earliest, latest = _stated_ends(path, container, video)
    ends = earliest - origin, latest - origin
    times = PacketTimes(frames, time_base, origin, resets, ends, sound_end)
    # In a joined file, a stamp may occur in several parts: prevent seeking.
    if packets.joined:
        times.first = math.inf
    return times


def _decode(
    origin: float, packet: Any, kind: str, codec: Any, unit: float
) -> list[tuple[str, float, Any]]:
    """Return the frames of a packet (None flushes the decoder); [] if it is damaged."""
    try:
        frames = codec.decode(packet)
    except Exception as error:
        # Whatever is wrong with the pictures, the sound is read.
        if kind == "audio" and not isinstance(error, av.error.FFmpegError):
            raise
        return []
    return [(kind, f.pts * unit - origin, f) for f in frames if f.pts is not None]


def decoded_frames(
    packets: Packets,
    origin: float,
    stop: float | None,
    start: float = 0.0,  # start of the clip in seconds
    needed: set[int] | None = None,  # stamps of the pictures that must be decoded; None for all
    unused: Set[int] = frozenset(),  # stamps of pictures on which no needed picture depends
) -> Iterator[tuple[str, float, Any]]:
    """Yield (stream type, time in seconds, frame) until every stream is past `stop`."""
    # PyAV computes a stream's properties each time they are read.
    running = {s.index: (s.type, s.codec_context, float(s.time_base)) for s in packets.streams}
    counting = packets.container.format.name in _COUNTING_FRAMES
    begin, early = start - RUN_UP + origin, deque[Any](maxlen=_RUN_UP_PACKETS)
    following = iter(packets)
    decode = partial(_decode, origin)
    while running:
        try:
            packet = next(following)
        except StopIteration:
            return
        except av.error.FFmpegError:
            # The rest of the file is unreadable; `check_length` decides if too much is missing.
            for decoder in running.values():
                yield from decode(None, *decoder)
            return
        index = packet.stream.index
        if index not in running:
            continue
        kind, codec, unit = running[index]
        if kind == "video" and packet.pts in unused:
            if stop is not None and packet.pts * unit - origin >= stop:
                yield from decode(None, *running.pop(index))
            continue
        if codec.name in _FORGETTING:
            if packet.pts is not None and packet.pts * unit < begin:
                early.append(packet)
                continue
            if packet.pts is None:
                # The clip starts after the end of the file: its last frames say where that is.
                for waiting in early:
                    yield from decode(waiting, kind, codec, unit)
            early.clear()
        if needed is not None and kind == "video":
            shown = packet.pts is None or packet.pts in needed
            codec.skip_frame = "DEFAULT" if shown else "NONREF"
        if counting and packet.duration:
            unit = unit_seconds(packets.container, packet)
            running[index] = kind, codec, unit
        for decoded in decode(packet, kind, codec, unit):
            yield decoded
            if stop is not None and decoded[1] >= stop:
                del running[index]
                break

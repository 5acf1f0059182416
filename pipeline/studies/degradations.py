"""Degraded copies of media files: the same clip in another codec, level, layout, speed or size.

Each degradation has a name, such as ``mp3-64k`` or ``level-15``; `FORMS` lists them. Sound that is
not encoded is written as 32-bit floats, so that nothing is clipped. Pictures are copied, unless a
degradation changes them or reads a part of the file, or the file is not MP4 or QuickTime: then they
are encoded anew, almost without loss.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import soundfile
import soxr

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import packets, reading
from mvemo.extract.media.pictures import FramePicker
from mvemo.extract.media.request import NO_AUDIO, NO_VIDEO, ClipRequest
from mvemo.manifests.array_types import F32
from mvemo.manifests.demo.media import video_codec
from mvemo.manifests.errors import BadOption

# Function from sound, float32 (channels, samples), and its sampling rate in Hz to the new sound.
Change = Callable[[F32, int], F32]
_BLOCK = 1 << 13  # samples passed to an encoder at a time
# Encoders and suffixes of their files; libsndfile encodes Vorbis, for which PyAV has no good one.
_ENCODERS = {
    "wav": ("pcm_f32le", ".wav"),
    "flac": ("flac", ".flac"),
    "mp3": ("libmp3lame", ".mp3"),
    "aac": ("aac", ".m4a"),
    "opus": ("libopus", ".opus"),
    "vorbis": ("", ".ogg"),
}
# Kilobits per second of stereo at 44.1 kHz at Vorbis's qualities 0, 0.1, ..., 1.
_VORBIS_KILOBITS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)


@dataclass(frozen=True)
class Degradation:
    """Changes to a media file."""

    change: Change = lambda y, _: y
    codec: str = "wav"  # key of `_ENCODERS`
    kilobits: int = 0  # bit rate in kbit/s; 0 for a codec without one
    layout: str = ""  # FFmpeg's name of the channels after `change`; "" for those of the file
    seconds: float = np.inf  # length of the part in the middle that is kept
    speed: float = 1.0
    short_side: int = 0  # pixels; 0 for those of the file
    fps: float = 0.0  # frames per second; 0 for those of the file

    @property
    def modality(self) -> str:
        """Modality that the degradation changes; both change with a speed and in an excerpt."""
        return "video" if self.short_side or self.fps else "audio"


def _layout(name: str) -> Degradation:
    """Return a degradation with one channel, or with stereo in front and other channels silent."""
    more = {"mono": 0, "5.1": 4, "7.1": 6}[name]

    def arrange(y: F32, _: int) -> F32:
        middle = y.mean(axis=0, keepdims=True)
        if name == "mono":
            return middle
        return np.pad(y if len(y) == 2 else np.repeat(middle, 2, axis=0), ((0, more), (0, 0)))

    # Unlike PCM in Matroska, FLAC states the layout.
    return Degradation(arrange, "flac", layout=name)


def _noise(ratio: str) -> Degradation:
    """Return a degradation by white noise, the same in each channel, `ratio` dB below the sound."""

    def add(y: F32, _: int) -> F32:
        noise = np.random.default_rng(0).standard_normal(y.shape[1], dtype=np.float32)
        return y + noise * np.float32(np.sqrt(np.mean(y**2)) * 10 ** (-float(ratio) / 20))

    return Degradation(add)


def _lowpass(kilohertz: str) -> Degradation:
    cut = 2000 * float(kilohertz)  # sampling rate with nothing above the limit

    def limit(y: F32, sr: int) -> F32:
        if cut >= sr:
            return y
        lower = soxr.resample(y.T, sr, cut)
        return librosa.util.fix_length(soxr.resample(lower, cut, sr).T, size=y.shape[1])

    return Degradation(limit)


def _speed(percent: str) -> Degradation:
    speed = 1 + float(percent) / 100
    if not speed > 0:
        raise BadOption(f"speed{percent}%: expected more than -100 %")
    return Degradation(lambda y, sr: soxr.resample(y.T, sr * speed, sr).T, speed=speed)


def _pitch(semitones: str) -> Degradation:
    def shift(y: F32, sr: int) -> F32:
        shifted = librosa.effects.pitch_shift(y, sr=sr, n_steps=float(semitones))
        # The phase vocoder makes sound about 3 dB softer.
        return shifted * (np.sqrt(np.mean(y**2)) / max(np.sqrt(np.mean(shifted**2)), 1e-9))

    return Degradation(shift)


_N, _SIGNED = r"(\d+(?:\.\d+)?)", r"([+-]\d+(?:\.\d+)?)"
# Example of a name -> pattern of such names, and function of the pattern's groups.
FORMS: Mapping[str, tuple[str, Callable[..., Degradation]]] = {
    "mp3-64k (aac, opus, vorbis)": (
        r"(mp3|aac|opus|vorbis)-(\d+)k",
        lambda codec, kilobits: Degradation(codec=codec, kilobits=int(kilobits)),
    ),
    "level-15 (dB)": (
        f"level{_SIGNED}",
        lambda decibels: Degradation(lambda y, _: y * np.float32(10 ** (float(decibels) / 20))),
    ),
    "mono": ("(mono)", _layout),
    "5.1 (7.1)": (r"(5\.1|7\.1)", _layout),
    "noise-20 (dB below the sound)": (f"noise-{_N}", _noise),
    "lowpass-7k (Hz)": (f"lowpass-{_N}k", _lowpass),
    "excerpt-12 (s)": (f"excerpt-{_N}", lambda seconds: Degradation(seconds=float(seconds))),
    "speed+2%": (f"speed{_SIGNED}%", _speed),
    "pitch+1 (semitones)": (f"pitch{_SIGNED}", _pitch),
    "short-side-144 (pixels)": (
        r"short-side-(\d+)",
        lambda side: Degradation(short_side=int(side)),
    ),
    "fps-12": (f"fps-{_N}", lambda fps: Degradation(fps=float(fps))),
}


def find_degradation(name: str) -> Degradation:
    """Return the degradation with this name; raise `BadOption` if no form matches it."""
    for pattern, make in FORMS.values():
        if match := re.fullmatch(pattern, name):
            # A size, a rate or a length of 0 is not valid.
            if re.search(r"-0*\.?0*k?$", name) and not name.startswith(("level", "noise", "pitch")):
                break
            return make(*match.groups())
    raise BadOption(f"degradation {name!r}: expected a name such as {', '.join(FORMS)}")


def degradation(
    path: str | Path,
    name: str,
    target: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
) -> Path:
    """Write a degraded copy of a clip, from `start` for `duration` seconds (None for the rest).

    The path is that of `target` with another suffix: .mkv with pictures, otherwise that of the
    codec. BadMedia is raised for a file without the sound or the pictures to change.
    """
    wanted, path, target = find_degradation(name), Path(path), Path(target)
    with reading.media_errors(path):
        with closing(packets.open_container(path)) as container:
            kinds = {"video": packets.videos(container), "audio": packets.sound_tracks(container)}
            if not kinds[wanted.modality]:
                missing = NO_VIDEO if wanted.modality == "video" else NO_AUDIO
                raise BadMedia(f"{path}: {name}: {missing}")
            has_pictures, has_sound = bool(kinds["video"]), bool(kinds["audio"])
            # Other containers do not state both times of each packet.
            copied = wanted.modality == "audio" and "mov" in container.format.name
        length = duration
        if wanted.seconds < np.inf:
            length = reading.probe_seconds(path) - start if duration is None else duration
            start += max(length - wanted.seconds, 0.0) / 2
            length = min(length, wanted.seconds)
        if not has_pictures:
            return _write_sound(path, wanted, target, start, length)
        copies: list[Path] = []
        if has_sound:
            copies.append(_write_sound(path, wanted, target.with_suffix(".sound"), start, length))
        pictures, whole = path, start == 0 and length is None and wanted.speed == 1
        if not (copied and whole):
            copies.append(_write_pictures(path, wanted, target, start, length))
            pictures = copies[-1]
        joined = _join(pictures, copies[0] if has_sound else None, target.with_suffix(".mkv"))
        for part in copies:
            part.unlink()
        return joined


def _read_sound(path: Path, start: float, length: float | None) -> tuple[F32, int, str]:
    """Return the first sound track, float32 (channels, samples), its rate in Hz and its layout."""
    stop = None if length is None else start + length
    with closing(packets.open_container(path)) as container:
        source = packets.Packets(container, packets.sound_tracks(container)[:1])
        packed, blocks, first = av.AudioResampler(format="flt"), list[Any](), start
        sr, layout = 0, ""
        for _, when, frame in packets.decoded_frames(source, packets.start_of(container), stop):
            if not blocks:
                first, sr, layout = when, frame.sample_rate, frame.layout.name
            if stop is None or when < stop:
                blocks += [part.to_ndarray().ravel() for part in packed.resample(frame)]
                n_channels = len(frame.layout.channels)
    if not blocks:
        raise BadMedia(f"{path}: no sound can be decoded")
    # Sound that begins late is preceded by zeros, as when a clip is read.
    y, late = np.concatenate(blocks).reshape(-1, n_channels).T, round((first - start) * sr)
    y = np.pad(y, ((0, 0), (max(late, 0), 0)))[:, max(-late, 0) :]
    return y if length is None else y[:, : round(length * sr)], sr, layout


def _write_sound(path: Path, wanted: Degradation, target: Path, start: float, length: Any) -> Path:
    """Write the degraded sound of a file, and return the path."""
    y, sr, layout = _read_sound(path, start, length)
    y = np.ascontiguousarray(wanted.change(y, sr), dtype=np.float32)
    layout = wanted.layout or layout
    encoder, suffix = _ENCODERS[wanted.codec]
    target = target.with_suffix(suffix)
    if wanted.kilobits:
        # Encoders get at most two channels; FFmpeg mixes the others into them.
        mixed = "mono" if len(y) == 1 else "stereo"
    if not encoder:
        _write_vorbis(_frames(y, sr, layout), mixed, wanted.kilobits, sr, target)
        return target
    with av.open(str(target), "w") as out:
        if wanted.kilobits:
            rates = av.Codec(encoder, "w").audio_rates or [sr]
            stream: Any = out.add_stream(encoder, sr if sr in rates else 48000, layout=mixed)
            # No encoder has a higher bit rate per channel.
            stream.bit_rate = 1000 * min(wanted.kilobits, 256 * len(stream.layout.channels))
        else:
            stream = out.add_stream(encoder, sr, layout=layout)
        for frame in _frames(y, sr, layout):
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return target


def _frames(y: F32, sr: int, layout: str) -> Iterator[Any]:
    """Yield sound (channels, samples) as PyAV's frames."""
    for first in range(0, y.shape[1], _BLOCK):
        # PyAV does not make planar frames of eight channels.
        piece = np.ascontiguousarray(y[:, first : first + _BLOCK].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sr, first, Fraction(1, sr)
        yield frame


def _write_vorbis(frames: Iterator[Any], layout: str, kilobits: int, sr: int, target: Path) -> None:
    """Write Vorbis of the quality that has this bit rate; below 64 kbit/s at half of the rate."""
    rate = 22050 if kilobits < _VORBIS_KILOBITS[0] and sr > 22050 else sr
    quality = float(np.interp(kilobits, _VORBIS_KILOBITS, np.linspace(0, 1, 11)))
    mixer = av.AudioResampler(format="flt", layout=layout, rate=rate)
    kind = {"format": "OGG", "subtype": "VORBIS", "compression_level": 1 - quality}
    n_channels = 1 if layout == "mono" else 2
    with soundfile.SoundFile(target, "w", rate, n_channels, **kind) as out:
        for frame in (*frames, None):
            for part in mixer.resample(frame):
                out.write(part.to_ndarray().reshape(-1, n_channels))


def _write_pictures(
    path: Path, wanted: Degradation, target: Path, start: float, length: Any
) -> Path:
    """Encode the pictures of a clip anew, upright, and return the path."""
    target = target.with_suffix(".pictures.mp4")
    with closing(packets.open_container(path)) as container:
        video, origin = packets.videos(container)[0], packets.start_of(container)
        request = ClipRequest(start=start, duration=length)
        shown = packets.frame_times(path, container, video, origin, request)
        # The rate of a file is a guess; 60 frames a second show all that nets read.
        fps = Fraction(wanted.fps or min(video.average_rate or 25, 60)).limit_denominator(1001)
        aspect = video.sample_aspect_ratio or 1
    if shown is None or shown.end <= start:
        raise BadMedia(f"{path}: no frame can be decoded")
    stop = shown.end if length is None else min(shown.end, start + length)
    count = max(round((stop - start) / wanted.speed * float(fps)), 1)
    times = start + np.arange(count) * wanted.speed / float(fps)
    with closing(packets.open_container(path)) as container, av.open(str(target), "w") as out:
        stream: Any = out.add_stream(video_codec(), fps)
        stream.pix_fmt = "yuv420p"
        if stream.codec_context.name == "libx264":
            stream.options = {"preset": "veryfast", "crf": "16"}
        else:
            stream.bit_rate = 8_000_000

        def write(frame: Any, rows: slice) -> None:
            upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
            height, width = upright.shape[:2]
            scale = (wanted.short_side or min(height, width)) / min(height, width)
            size = [max(2 * round(side * scale / 2), 2) for side in (height, width)]
            if stream.codec_context.is_open is False:
                stream.height, stream.width = size
                turned = upright.shape[:2] != (frame.height, frame.width)
                stream.codec_context.sample_aspect_ratio = 1 / aspect if turned else aspect
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright), format="rgb24")
            picture = picture.reformat(size[1], size[0], "yuv420p", interpolation="AREA")
            for row in range(rows.start, rows.stop):
                picture.pts, picture.time_base = row, 1 / fps
                out.mux(stream.encode(picture))

        picker = FramePicker(start, stop, times, write)
        source = packets.Packets(container, [packets.videos(container)[0]])
        for _, when, frame in packets.decoded_frames(source, origin, stop, start):
            picker.add(when, frame)
        picker.finish()
        out.mux(stream.encode())
    return target


def _join(pictures: Path, sound: Path | None, target: Path) -> Path:
    """Copy the packets of the pictures and the sound into one file, in the order of their times."""
    waiting: list[tuple[float, Any]] = []
    with av.open(str(target), "w") as out, ExitStack() as stack:
        for path, tracks in ((pictures, packets.videos), (sound, packets.sound_tracks)):
            if path is None:
                continue
            container = stack.enter_context(closing(packets.open_container(path)))
            track, origin = tracks(container)[0], packets.start_of(container)
            stream = out.add_stream_from_template(track)
            for packet in container.demux(track):
                if packet.pts is None or packet.is_discard:
                    continue
                if path is pictures:
                    # The first presentation time of the source file becomes 0.
                    late = round(origin / packet.time_base)
                    packet.pts, packet.dts = packet.pts - late, packet.dts - late
                waiting.append((float(packet.dts * packet.time_base), packet))
                packet.stream = stream
        for _, packet in sorted(waiting, key=lambda each: each[0]):
            out.mux(packet)
    return target

"""Small media files made by PyAV, whose frames and sound say which they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import Decoded, FrameSampling

MS = Fraction(1, 1000)


def decode(
    path: Path, *, n_frames: int = 32, sizes: Sequence[int] = (112,), **asked: Any
) -> Decoded:
    """`decode_clip` of frames spread over the clip, which are found by their size."""
    pictures = [FrameSampling(n_frames, size) for size in sizes]
    decoded = decode_clip(path, pictures=pictures, **asked)
    by_size: Any = {sampling.size: frames for sampling, frames in decoded.frames.items()}
    return replace(decoded, frames=by_size)


def level(index: int) -> int:
    """Grey of the frame of that index: far enough from its neighbours to survive coding."""
    return 20 + 7 * index


def index_of(frame: NDArray[np.uint8]) -> int:
    """Which frame a decoded picture is, by its grey."""
    return round((float(frame[..., :].mean()) - 20) / 7)


def grey(index: int, height: int = 64, width: int = 80) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level(index), dtype=np.uint8)


def sine(seconds: float, sr: int, hertz: float = 440.0, channels: int = 1) -> NDArray[np.float32]:
    """float32 (channels, samples); each channel softer than the one before."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sr)) / sr)
    return np.stack([wave / (c + 1) for c in range(channels)]).astype(np.float32)


def write_media(
    path: Path,
    *,
    frames: Sequence[NDArray[np.uint8]] = (),
    times_ms: Sequence[int] = (),
    sound: NDArray[np.float32] | None = None,
    sr: int = 16000,
    layout: str = "mono",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio_codec: str = "aac",
    options: dict[str, str] | None = None,
    gop: int = 12,
    sound_at: float = 0.0,
    container_options: dict[str, str] | None = None,
    title: str = "",
    time_base: Fraction = MS,
) -> Path:
    """Write pictures shown from `times_ms` on and sound (channels, samples)."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        if title:
            container.metadata["title"] = title
        video: Any = None
        audio: Any = None
        if len(frames):
            video = container.add_stream(codec, rate=25)
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pix_fmt
            video.codec_context.time_base = time_base
            video.time_base = time_base
            video.codec_context.gop_size = gop
            video.options = options or {}
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=sr, layout=layout)
        packets: list[Any] = []
        for picture, when in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = when, MS
            packets += video.encode(frame)
        if video is not None:
            packets += video.encode(None)
        if sound is not None:
            size = audio.codec_context.frame_size or 1024
            for at in range(0, sound.shape[1], size):
                part = np.ascontiguousarray(sound[:, at : at + size])
                if audio.codec_context.format.name == "s16":
                    part = np.round(part.T * 32767).astype(np.int16).reshape(1, -1)
                name = audio.codec_context.format.name
                block = av.AudioFrame.from_ndarray(part, format=name, layout=layout)
                block.sample_rate = sr
                block.pts, block.time_base = at + round(sound_at * sr), Fraction(1, sr)
                packets += audio.encode(block)
            packets += audio.encode(None)
        packets.sort(key=lambda p: float(p.dts * p.time_base))
        for packet in packets:
            container.mux(packet)
    return path


def film(
    path: Path, frames: int | Sequence[NDArray[np.uint8]] = 30, step: int = 40, **options: Any
) -> Path:
    """Write pictures that say their number, or the given ones, each shown for `step` ms."""
    shown = [grey(i) for i in range(frames)] if isinstance(frames, int) else frames
    times = [step * i for i in range(len(shown))]
    return write_media(path, frames=shown, times_ms=times, **options)

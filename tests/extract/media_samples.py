"""Small media files made by PyAV, whose frames and sound say which they are."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np

from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling

MS = Fraction(1, 1000)


def decode(path, *, n_frames=32, sizes=(112,), **asked):
    """`decode_clip` of frames spread over the clip, which are found by their size."""
    decoded = decode_clip(path, pictures=[FrameSampling(n_frames, size) for size in sizes], **asked)
    return replace(decoded, frames={s.size: frames for s, frames in decoded.frames.items()})


def level(index):
    """Grey of the frame of that index: far enough from its neighbours to survive coding."""
    return 20 + 7 * index


def index_of(frame):
    """Which frame a decoded picture is, by its grey."""
    return round((float(frame.mean()) - 20) / 7)


def grey(index, height=64, width=80):
    return np.full((height, width, 3), level(index), dtype=np.uint8)


def sine(seconds, sr, hertz=440.0, channels=1):
    """float32 (channels, samples); each channel softer than the one before."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sr)) / sr)
    return np.stack([wave / (c + 1) for c in range(channels)]).astype(np.float32)


def write_media(
    path,
    *,
    frames=(),
    times_ms=(),
    sound=None,
    sr=16000,
    layout="mono",
    codec="libx264",
    pix_fmt="yuv420p",
    audio_codec="aac",
    options=None,
    gop=12,
    sound_at=0.0,
    container_options=None,
    time_base=MS,
):
    """Write pictures shown from `times_ms` on and sound (channels, samples)."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        packets, video = [], None
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
        for picture, when in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = when, MS
            packets += video.encode(frame)
        if video is not None:
            packets += video.encode(None)
        if sound is not None:
            size = audio.codec_context.frame_size or 1024
            name = audio.codec_context.format.name
            for at in range(0, sound.shape[1], size):
                part = np.ascontiguousarray(sound[:, at : at + size])
                if name == "s16":
                    part = np.round(part.T * 32767).astype(np.int16).reshape(1, -1)
                block = av.AudioFrame.from_ndarray(part, format=name, layout=layout)
                block.sample_rate = sr
                block.pts, block.time_base = at + round(sound_at * sr), Fraction(1, sr)
                packets += audio.encode(block)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def film(path, frames=30, step=40, **options):
    """Write pictures that say their number, or the given ones, each shown for `step` ms."""
    shown = [grey(i) for i in range(frames)] if isinstance(frames, int) else frames
    times = [step * i for i in range(len(shown))]
    return write_media(path, frames=shown, times_ms=times, **options)


def resampled(path, sr):
    """Mono sound, float32, by FFmpeg's resampler with its defaults."""
    resampler, parts = av.AudioResampler("fltp", "mono", sr), []
    with av.open(str(path)) as container:
        for frame in [*container.decode(audio=0), None]:
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts)

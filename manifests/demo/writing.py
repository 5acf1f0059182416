"""Encoding of frames and sound as an MP4 file: H.264 (or MPEG-4) and AAC."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.demo.pictures import FPS
from mvemo.manifests.demo.sound import SR
from mvemo.manifests.errors import ManifestError
from mvemo.manifests.files import replacing

CODECS = ("libx264", "mpeg4")
# Suffix of a file that is being written.
PARTIAL = ".partial"
_BLOCK = 1024  # samples of an AAC frame


def video_codec() -> str:
    """Return the first of `CODECS` that this build of PyAV can encode with."""
    try:
        import av
    except ImportError:
        raise ManifestError(
            "the demo set's files are written with PyAV: pip install '.[extract]' in mvemo's folder"
        ) from None
    for name in CODECS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise ManifestError(f"PyAV {av.__version__} has none of the encoders {', '.join(CODECS)}")


def write_clip(
    path: Path,
    frames: NDArray[np.uint8],
    kept: NDArray[np.bool_],
    sound: NDArray[np.float32],
    codec: str,
) -> None:
    """Write one clip atomically.

    `frames` is uint8 (n, height, width, 3), RGB at `FPS`; only frames with `kept` True are written,
    which makes the frame rate variable. `sound` is float32 (2, samples) at `SR`.
    """
    import av

    temp = path.with_name(f".{path.name}{PARTIAL}")
    with (
        replacing(path, temp) as partial,
        av.open(str(partial), "w", format="mp4") as container,
    ):
        video: Any = container.add_stream(codec, rate=FPS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        # With one thread, the same settings give the same bytes.
        video.codec_context.thread_count = 1
        if codec == "libx264":
            # With the macroblock tree, x264 of PyAV 18 gives different bytes in each run.
            video.options = {"preset": "veryfast", "crf": "24", "x264-params": "mbtree=0"}
        audio: Any = container.add_stream("aac", rate=SR, layout="stereo")
        audio.bit_rate = 96_000
        audio.options = {"aac_coder": "fast"}
        for i in np.flatnonzero(kept):
            picture = av.VideoFrame.from_ndarray(frames[i], format="rgb24")
            picture.pts, picture.time_base = int(i), Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for first in range(0, sound.shape[1], _BLOCK):
            piece = np.ascontiguousarray(sound[:, first : first + _BLOCK])
            samples = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            samples.sample_rate = SR
            samples.pts, samples.time_base = first, Fraction(1, SR)
            container.mux(audio.encode(samples))
        container.mux(audio.encode())

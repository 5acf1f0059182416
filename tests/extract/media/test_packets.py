"""Threads of decoders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from media_samples import decode, grey, write_media

from mvemo.extract.media.packets import thread_decoders


def stream(kind: str, width: int = 0, height: int = 0) -> SimpleNamespace:
    return SimpleNamespace(type=kind, codec_context=SimpleNamespace(width=width, height=height))


@pytest.mark.parametrize(
    ("threads", "small", "large"), [(0, 0, 0), (1, 1, 1), (2, 1, 2), (3, 3, 3)]
)
def test_two_threads_are_for_large_pictures(threads: int, small: int, large: int) -> None:
    sound = SimpleNamespace(type="audio", codec_context=SimpleNamespace())
    streams = [stream("video", 640, 360), stream("video", 1280, 720), sound]
    thread_decoders(streams, threads)
    counts = [each.codec_context.thread_count for each in streams]
    assert counts == [small, large, threads]


@pytest.mark.parametrize("threads", [0, 2, 4])
def test_pictures_do_not_depend_on_threads(tmp_path: Path, threads: int) -> None:
    times = [40 * i for i in range(30)]
    path = write_media(tmp_path / "a.mp4", frames=[grey(i) for i in range(30)], times_ms=times)
    one = decode(path, sample_rates=(), sizes=(16,), threads=1).frames[16]
    many = decode(path, sample_rates=(), sizes=(16,), threads=threads).frames[16]
    assert np.array_equal(one, many)

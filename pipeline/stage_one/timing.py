"""Time and room of reading clips: a few are read, and the rest is extrapolated."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from mvemo.extract.nets import AudioInput, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.views import window_starts
from mvemo.extract.workers import pool
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.settings import Settings

T = TypeVar("T")
# Number of clips that are read to measure the time.
N_SAMPLED = 3


@dataclass(frozen=True)
class Sample:
    """Time of some measured items, extrapolated to all."""

    count: int  # number of measured items
    seconds: float  # for all items
    share: float  # size of all items, as a multiple of the size of the measured ones


def time_sample(
    sizes: Mapping[T, float], read: Callable[[Sequence[T]], object], most: int = N_SAMPLED
) -> Sample:
    """Time reading at most `most` items, from small to large; `sizes` are those of all items."""
    by_size = sorted(sizes, key=lambda item: sizes[item])
    places = np.linspace(0, len(by_size) - 1, min(most, len(by_size)))
    chosen = [by_size[round(place)] for place in places]
    with silenced():
        # The start-up cost is not measured.
        read(chosen[:1])
        start = time.perf_counter()
        read(chosen)
        seconds = time.perf_counter() - start
    share = sum(sizes.values()) / max(sum(sizes[item] for item in chosen), 1e-9)
    return Sample(len(chosen), seconds * share, share)


@dataclass(frozen=True)
class ReadingForecast:
    """Work and cost of reading the clips."""

    n_new: int  # clips to decode
    n_kept: int  # clips in the working folder
    n_sampled: int = 0  # clips that were read to measure
    seconds: float = 0.0  # for all new clips
    n_bytes: float = 0.0  # size of the new clips in the working folder
    worker_bytes: int = 0  # memory of each worker
    workers: int = 1


def forecast_reading(
    manifest: Manifest,
    settings: Settings,
    nets: Sequence[NetSettings],
    sizes: Mapping[str, float],
    n_kept: int = 0,
) -> ReadingForecast:
    """Measure the reading of a few new clips, in a temporary folder; `sizes` are by clip id."""
    if not sizes:
        return ReadingForecast(0, n_kept)
    extract, clips = settings.extract, {clip.clip_id: clip for clip in manifest.clips}
    with tempfile.TemporaryDirectory(prefix="mvemo-plan-") as temp:

        def read(ids: Sequence[str]) -> None:
            shutil.rmtree(temp)
            ClipMedia(
                replace(manifest, clips=tuple(clips[i] for i in ids)),
                replace(settings, extract=replace(extract, workers=1)),
                Path(temp),
                plans=nets,
                descriptors=extract.descriptors,
                require_any=False,
            )

        sample = time_sample(sizes, read)
        n_bytes = sum(path.stat().st_size for path in Path(temp).rglob("*") if path.is_file())
    worker_bytes = pool.worker_memory()
    pool.stop_workers()
    workers = min(extract.workers or pool.cores(), len(sizes))
    return ReadingForecast(
        n_new=len(sizes),
        n_kept=n_kept,
        n_sampled=sample.count,
        seconds=sample.seconds / workers,
        n_bytes=n_bytes * sample.share,
        worker_bytes=worker_bytes,
        workers=workers,
    )


def n_windows(net: NetSettings, length: float | None, duration: float | None = None) -> float:
    """Return a net's work for a clip, in whole windows; the maximum for an unknown length."""
    taken = input_of(net)
    if length is None or not isinstance(taken, AudioInput):
        return net.view.views
    length = length if duration is None else min(length, duration)
    count = len(window_starts(length, taken.seconds, net.view))
    return count * (min(length / taken.seconds, 1.0) if taken.mark_end else 1.0)

"""Estimate of the time and memory of predictions, measured on a few clips."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mvemo.extract.workers.handle import peak_memory
from mvemo.extract.workers.pool import cores, worker_memory
from mvemo.fuse.final.files import load_model
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.prediction.batches import MOST_WORKERS, BatchReader
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.run import PredictSettings, find_ways
from mvemo.pipeline.prediction.windows import windows_of
from mvemo.pipeline.work_folder import size_text

# Number of clips that are read: enough for more than one worker.
N_SAMPLED = 8


def plan_text(folder: Path, clips: Sequence[NewClip], settings: PredictSettings) -> str:
    """Return a text with the time and the memory that predicting clips needs."""
    maker = FeatureMaker(load_model(folder), folder, settings.weights, settings.device)
    ways = find_ways(maker, settings.modalities)
    reader = BatchReader(maker, tuple(dict.fromkeys(n for way in ways for n in way.features)))
    found = {i: windows_of(clip, reader.window) for i, clip in enumerate(clips) if not clip.problem}
    # Seconds to read of each clip.
    lengths = {
        i: sum(min(duration or w.length, reader.window) for _, duration in w.stretches)
        for i, w in found.items()
        if not w.problem
    }
    lines = [f"clips: {len(clips)}, {len(clips) - len(lengths)} of them cannot be read"]
    if lengths:
        by_length = sorted(lengths, key=lambda i: lengths[i])
        places = np.linspace(0, len(by_length) - 1, min(N_SAMPLED, len(by_length)))
        chosen = [by_length[round(place)] for place in places]
        with silenced():
            # The start-up cost is not measured.
            list(reader.read({i: clips[i] for i in chosen[-1:]}))
            start = time.perf_counter()
            list(reader.read({i: clips[i] for i in chosen}))
        seconds = time.perf_counter() - start
        total, sampled = sum(lengths.values()), sum(lengths[i] for i in chosen)
        lines += [
            f"length: {duration_text(total)} are read",
            f"time: about {duration_text(seconds * total / sampled)} (measured on {len(chosen)})",
            f"memory: about {size_text(peak_memory(os.getpid()))}, and "
            f"{size_text(worker_memory())} in each of {min(cores(), MOST_WORKERS)} workers, "
            "however many clips there are",
        ]
    return "\n".join(lines)

"""Estimate of the time and the memory that predicting new clips needs."""

import os

from mvemo.extract.workers import pool, process
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.prediction.new_clips import windows_of
from mvemo.pipeline.prediction.request import PredictRequest, clips_and_settings


def plan_text(request: PredictRequest) -> str:
    """Return an estimate of the time and the memory that predicting clips needs."""
    clips, folder, settings = clips_and_settings(request)
    if all(clip.problem for clip in clips):
        # There is nothing to time, so torch and the nets need not be imported.
        return f"clips: {len(clips)}, {len(clips)} of them cannot be read"
    from mvemo.pipeline.prediction import embedding
    from mvemo.pipeline.prediction.feature_maker import FeatureMaker
    from mvemo.pipeline.work_folder import size_text

    reader = embedding.BatchReader(FeatureMaker(folder, settings))
    # Seconds of media to read from each clip.
    lengths = {}
    for i, clip in enumerate(clips):
        windows = windows_of(clip, reader.window)
        if windows.stretches:
            stretches = (min(d or windows.length, reader.window) for _, d in windows.stretches)
            lengths[i] = sum(stretches)
    lines = [f"clips: {len(clips)}, {len(clips) - len(lengths)} of them cannot be read"]
    if lengths:
        from mvemo.extract.cost import time_sample

        with silenced():
            count, seconds, _ = time_sample(
                lengths,
                lambda rows: list(reader.read({row: clips[row] for row in rows})),
                embedding.BATCH,
            )
        lines += [
            f"media to read: {duration_text(sum(lengths.values()))}",
            f"time: about {duration_text(seconds)} (measured on {count} clips)",
            f"memory: about {size_text(process.peak_memory(os.getpid()))}, and "
            f"{size_text(pool.worker_memory())} in each of "
            f"{min(pool.cores(), embedding.MOST_WORKERS)} workers, for any number of clips",
        ]
    return "\n".join(lines)

"""Predictions of many clips by several processes or Dask workers, or of one shard of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from mvemo.extract.settings import RunSettings
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model import FinalModel, load_model, with_coverage
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.model_nets import fetch_model_weights
from mvemo.pipeline.models.boxed import boxed_names, model_folder
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings, warm_up
from mvemo.pipeline.stage_one import backends

if TYPE_CHECKING:
    from collections.abc import Callable

    from mvemo.pipeline.stage_one.division import Shard

# Clips of a task: enough to fill batches, and few enough that processes end together.
TASK_CLIPS = 32


@dataclass(frozen=True)
class PredictTask:
    """Clips that one process predicts."""

    model: str  # name or folder; a name is found on other machines, too
    clips: tuple[NewClip, ...]
    settings: PredictSettings

    @property
    def label(self) -> str:
        """Return the first and the last clip."""
        return f"clips {self.clips[0].file} to {self.clips[-1].file}"

    def run(self, note: backends.Note) -> list[ClipPrediction]:
        """Predict the clips."""
        from mvemo.pipeline.prediction.run import predict_files

        folder = model_folder(self.model)
        warm_up(folder, self.settings)
        return predict_files(folder, self.clips, self.settings)[1]


def of_shard(clips: Sequence[NewClip], shard: Shard, folder: Path) -> list[NewClip]:
    """Return the clips of a shard, by the SHA-256 of their names.

    A model that standardises the clips of a folder gets whole folders.
    """
    whole = load_model(folder).within_groups
    rows = shard.rows([str(clip.path.parent) if whole else clip.file for clip in clips])
    return [clips[row] for row in rows]


def predict_spread(
    folder: Path,
    clips: Sequence[NewClip],
    settings: PredictSettings,
    jobs: int,
    scheduler: str,
    on_clip: Callable[[FinalModel, ClipPrediction], object] | None = None,
) -> tuple[FinalModel, list[ClipPrediction]]:
    """Predict clips in `jobs` processes, or on the workers of a Dask scheduler."""
    model = with_coverage(load_model(folder), settings.coverage)
    if not scheduler:
        # Once here, not in every process.
        fetch_model_weights(folder, settings.modalities, but=settings.weights)
    name = folder.name if folder.name in boxed_names() else str(folder.resolve())
    clips = [replace(clip, path=clip.path.absolute()) for clip in clips]
    predictions: dict[int, ClipPrediction] = {}
    with _backend(clips, folder, settings, jobs, scheduler) as backend:
        parts = _parts(clips, model, backend.processes)
        tasks = [PredictTask(name, tuple(clips[row] for row in rows), settings) for rows in parts]
        rows_of = {id(task): rows for task, rows in zip(tasks, parts, strict=True)}
        with Progress("clips", len(clips)) as bar:
            for task, result in backend.do(tasks, lambda count: None):
                if isinstance(result, Exception):
                    raise result
                predictions |= zip(rows_of[id(task)], result, strict=True)
                if on_clip is not None:
                    for prediction in result:
                        on_clip(model, prediction)
                bar.step(len(result))
    return model, [predictions[row] for row in range(len(clips))]


def _parts(clips: Sequence[NewClip], model: FinalModel, processes: int) -> list[list[int]]:
    """Divide the rows of clips into tasks; some models need the clips of a folder together."""
    if model.within_groups:
        folders: dict[Path, list[int]] = {}
        for row, clip in enumerate(clips):
            folders.setdefault(clip.path.parent, []).append(row)
        return [*folders.values()]
    rows, size = [*range(len(clips))], max(1, min(TASK_CLIPS, ceil(len(clips) / processes)))
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@contextmanager
def _backend(
    clips: Sequence[NewClip], folder: Path, settings: PredictSettings, jobs: int, scheduler: str
) -> Iterator[backends.Backend]:
    if not scheduler:
        run = RunSettings(protocol="frozen", device=settings.device)
        yield backends.local_backend(run, min(jobs, len(clips)))
        return
    folders = {clip.path.parent for clip in clips if not clip.problem}
    folders |= set() if folder.name in boxed_names() else {folder.resolve()}
    with backends.dask_backend(scheduler, sorted(folders)) as backend:
        yield backend

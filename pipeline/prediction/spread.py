"""New clips read by several processes or Dask workers, and the clips of a shard."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path

from mvemo.fuse.final.model_files import load_model
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.model_nets import fetch_model_weights
from mvemo.pipeline.models.boxed import boxed_names, model_folder
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import (
    Batch,
    EmbeddedClip,
    NewClip,
    PredictSettings,
    warm_up,
)
from mvemo.pipeline.stage_one import backends, division

# Number of clips per task: large enough to fill batches, small enough to balance the processes.
TASK_CLIPS = 32


@dataclass(frozen=True)
class EmbedTask:
    """Clips that one process embeds."""

    model: str  # folder, or name (valid on other machines, too)
    clips: tuple[NewClip, ...]
    settings: PredictSettings

    @property
    def label(self) -> str:
        return f"clips {self.clips[0].file} to {self.clips[-1].file}"

    def run(self, note: backends.Note) -> tuple[list[EmbeddedClip], dict[str, str]]:
        """Return the embedded clips in order, and the reasons for unavailable features."""
        folder = model_folder(self.model)
        warm_up(folder, self.settings)
        from mvemo.pipeline.prediction.embedding import BatchReader

        maker = FeatureMaker(folder, self.settings)
        batches = BatchReader(maker).read(dict(enumerate(self.clips)))
        return [clip for batch in batches for _, clip in batch], maker.unavailable


class SpreadReader:
    """Reader of new clips, as `BatchReader`, by `jobs` processes or a Dask scheduler's workers."""

    def __init__(self, maker: FeatureMaker, jobs: int, scheduler: str) -> None:
        self._maker, self._jobs, self._scheduler = maker, jobs, scheduler

    @cached_property
    def _facts(self) -> tuple[tuple[str, ...], float]:
        # Only workers embed clips, so the device option is for their machines, not for this one.
        options = replace(self._maker.options, device="cpu")
        warm_up(self._maker.folder, options)
        from mvemo.pipeline.prediction.embedding import BatchReader

        reader = BatchReader(FeatureMaker(self._maker.folder, options))
        return reader.features, reader.window

    @property
    def features(self) -> tuple[str, ...]:
        return self._facts[0]

    @property
    def window(self) -> float:
        return self._facts[1]

    def read(self, clips: Mapping[int, NewClip]) -> Generator[Batch]:
        """Yield batches of (key, clip), in the order in which they are done."""
        if not clips:
            return
        folder, settings = self._maker.folder, self._maker.options
        if not self._scheduler:
            # Weights are downloaded once here, and not in every process.
            fetch_model_weights(folder, settings.modalities, but=settings.weights)
        name = folder.name if folder.name in boxed_names() else str(folder.resolve())
        rows = list(clips)
        placed = [replace(clips[row], path=clips[row].path.absolute()) for row in rows]
        with self._backend(placed) as backend, Progress("clips", len(rows)) as bar:
            size = max(1, min(TASK_CLIPS, ceil(len(rows) / backend.processes)))
            starts = range(0, len(rows), size)
            tasks = [EmbedTask(name, tuple(placed[i : i + size]), settings) for i in starts]
            rows_of = {id(task): rows[i : i + size] for task, i in zip(tasks, starts, strict=True)}
            for task, result in backend.do(tasks, lambda count: None):
                if isinstance(result, Exception):
                    raise result
                embedded, unavailable = result
                self._maker.unavailable.update(unavailable)
                bar.step(len(embedded), failed=sum(not clip.vectors for clip in embedded))
                # Workers see absolute paths; the returned clips have the user's paths.
                yield [
                    (row, replace(clip, clip=clips[row]))
                    for row, clip in zip(rows_of[id(task)], embedded, strict=True)
                ]

    @contextmanager
    def _backend(self, clips: Sequence[NewClip]) -> Iterator[backends.Backend]:
        folder, settings = self._maker.folder, self._maker.options
        if not self._scheduler:
            yield backends.local_backend(settings.device, min(self._jobs, len(clips)))
            return
        folders = {clip.path.parent for clip in clips}
        folders |= set() if folder.name in boxed_names() else {folder.resolve()}
        with backends.dask_backend(self._scheduler, sorted(folders)) as backend:
            yield backend


def of_shard(clips: Sequence[NewClip], shard: division.Shard, folder: Path) -> list[NewClip]:
    """Return the clips of a shard, by the SHA-256 of their names.

    A model that standardises the clips of a folder gets whole folders.
    """
    whole = load_model(folder).within_groups
    rows = shard.rows([str(clip.path.parent) if whole else clip.file for clip in clips])
    return [clips[row] for row in rows]

"""Tasks of stage one that run in other processes, here or on other machines.

A task reads files by their paths and commits rows to shards next to the cache. It returns only
names of clips and shards, and the keys of the rows. Running a task again, after a whole or a
partial run, writes the same rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from mvemo.cache import ClipTable, FeatureSpec, PartWriter, StoredRows
from mvemo.cache.table import subset
from mvemo.extract.nets.parts.registry import add_folder_nets, folder_nets
from mvemo.extract.settings import FETCHED, NetSettings
from mvemo.extract.training.memory import keep_freed_memory
from mvemo.extract.training.protocols import FrozenNets
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.progress import told_as_parts
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.execution import Training
from mvemo.pipeline.stage_one.steps import FeatureWriter

# Called with the state of a training, or with a number of further clips done.
Note = Callable[[str | float], object]
# Largest number of clips of a task; a killed worker loses at most these.
BATCH = 32
# Run, number of outputs and nets of the last task.
_frozen: tuple[TaskSettings, int, FrozenNets] | None = None
# Only one task at a time: the seeds and switches of torch are global.
_alone = threading.Lock()


@dataclass(frozen=True)
class TaskSettings:
    """Settings and paths that all tasks of a run share."""

    settings: Settings
    nets: tuple[NetSettings, ...]
    work: Path  # absolute, the same for all processes
    out: Path  # absolute, the same for all processes
    folders: Mapping[str, Any] = field(default_factory=folder_nets)

    @classmethod
    def of(
        cls, settings: Settings, nets: Sequence[NetSettings], work: Path, out: Path
    ) -> TaskSettings:
        """Return the settings of a run with absolute paths."""
        absolute = tuple(
            net
            if net.weights in ("", FETCHED)
            else replace(net, weights=str(Path(net.weights).absolute()))
            for net in nets
        )
        return cls(settings, absolute, work.absolute(), out.absolute())

    @property
    def frozen(self) -> bool:
        """True if nets are not trained, so that clips can be embedded separately."""
        return self.settings.extract.run.protocol == "frozen"

    def frozen_nets(self, n_outputs: int) -> FrozenNets:
        """Return frozen nets, which this process keeps for the next tasks of the run."""
        global _frozen
        if _frozen is None or _frozen[:2] != (self, n_outputs):
            _frozen = (self, n_outputs, FrozenNets(self.settings.extract.run, n_outputs))
        return _frozen[2]


@dataclass(frozen=True)
class Finished:
    """Result of a task."""

    clip_ids: tuple[str, ...]
    shards: tuple[str, ...]  # names of the committed shards
    # Expected keys of the rows of each feature; failed clips are in the failures of the shards.
    requested: tuple[tuple[FeatureSpec, dict[str, str]], ...]
    missing: tuple[tuple[str, str, str], ...] = ()  # see `ClipMedia.missing`


@dataclass(frozen=True)
class ClipTask:
    """Clips to decode, to describe, and to embed with frozen nets."""

    shared: TaskSettings
    clips: Manifest  # part of the manifest
    numbers: tuple[int, ...]  # rows of these clips in the whole manifest
    table: ClipTable  # table of these clips
    stored: StoredRows  # rows of these clips in the cache

    @property
    def label(self) -> str:
        """Name of the task for messages."""
        return f"clips {self.clips.clip_ids[0]} to {self.clips.clip_ids[-1]}"

    def run(self, note: Note) -> Finished:
        """Run the task; rows that are stored already are not made again."""
        shared = self.shared
        descriptors, nets = shared.settings.extract.descriptors, shared.nets
        writer = PartWriter(shared.out, self.table, self.stored)
        n_parts = 1 + bool(descriptors) + len(nets) * shared.frozen
        with told_as_parts(len(self.table), n_parts, lambda steps, title: note(steps)):
            media = ClipMedia(
                self.clips,
                shared.settings,
                shared.work,
                plans=nets,
                descriptors=descriptors,
                require_any=False,
                numbers=self.numbers,
            )
            made = shared.frozen_nets(len(self.clips.classes)) if shared.frozen else None
            features = FeatureWriter(media, shared.settings, writer, shared.work, frozen_nets=made)
            features.write_failures()
            features.write_descriptors()
            for net in nets if shared.frozen else ():
                features.write_embeddings(net, self.table.folds, self.table.splits)
        return _finished(writer, media)


@dataclass(frozen=True)
class TrainingTask:
    """Net to train on one fold, and to embed all clips with."""

    shared: TaskSettings
    media: ClipMedia  # decoded media of all clips
    table: ClipTable  # table of all clips
    stored: StoredRows  # rows in the cache
    training: Training  # net and fold

    @property
    def label(self) -> str:
        """Name of the task for messages."""
        net, fold = self.training
        return net if fold is None else f"{net}@fold{fold}"

    @cached_property
    def net(self) -> NetSettings:
        """Settings of the net."""
        return next(net for net in self.shared.nets if net.name == self.training[0])

    def run(self, note: Note) -> Finished:
        """Run the task; a net that is trained already is not trained again."""
        shared = self.shared
        writer = PartWriter(shared.out, self.table, self.stored)
        features = FeatureWriter(
            self.media, shared.settings, writer, shared.work, [self.training], on_epoch=note
        )
        features.write_embeddings(self.net, self.table.folds, self.table.splits)
        return _finished(writer, self.media)


Task = ClipTask | TrainingTask


def _finished(writer: PartWriter, media: ClipMedia) -> Finished:
    writer.commit()
    return Finished(
        writer.table.clip_ids, tuple(writer.shards), tuple(writer.requested), media.missing
    )


def do_task(task: Task, emit: Note | None = None) -> Finished:
    """Run a task in this process; `emit` is called with its progress."""
    with _alone:
        keep_freed_memory()
        add_folder_nets(task.shared.folders)
        return task.run(emit or (lambda steps: None))


@dataclass(frozen=True)
class Backend:
    """Function that runs tasks: in worker processes or on Dask."""

    # Yields tasks with their results in the order in which they finish; calls the `Note`.
    do: Callable[[Sequence[Task], Note], Iterator[tuple[Task, Finished | BaseException]]]
    processes: int  # number of concurrent tasks


def batch_sizes(n_clips: int, processes: int, unit: int) -> list[int]:
    """Return the number of clips of each task: half a process's share of the rest, at most BATCH.

    The last tasks are small, so that no process waits long for the others. Sizes are multiples of
    `unit`, the number of clips that are embedded together: a smaller batch costs as much.

    Examples
    --------
    >>> batch_sizes(200, 2, 4)
    [32, 32, 32, 24, 20, 12, 12, 8, 4, 4, 4, 4, 4, 4, 4]
    >>> batch_sizes(7, 1, 5)
    [5, 2]
    """
    sizes: list[int] = []
    left = n_clips
    while left:
        share = min(BATCH, left // (2 * processes))
        sizes.append(min(max(share // unit, 1) * unit, left))
        left -= sizes[-1]
    return sizes


def clip_tasks(
    shared: TaskSettings,
    manifest: Manifest,
    table: ClipTable,
    stored: StoredRows,
    sizes: Sequence[int],
) -> list[ClipTask]:
    """Return one task for each batch of these sizes, with its stored rows."""
    failures: dict[str, dict[tuple[str, str], Any]] = {}
    for (clip, stage), why in stored.failures.items():
        failures.setdefault(clip, {})[clip, stage] = why
    tasks = []
    for size, last in zip(sizes, accumulate(sizes), strict=True):
        rows = tuple(range(last - size, last))
        clips = replace(manifest, clips=tuple(manifest.clips[row] for row in rows))
        keys = {
            digest: {clip: of[clip] for clip in clips.clip_ids if clip in of}
            for digest, of in stored.keys.items()
        }
        failed = {k: v for clip in clips.clip_ids for k, v in failures.get(clip, {}).items()}
        known = StoredRows(keys, failed, stored.number)
        tasks.append(ClipTask(shared, clips, rows, subset(table, rows), known))
    return tasks

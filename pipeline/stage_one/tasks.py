"""Pieces of stage one that processes of their own do, here or on another machine.

A task reads files by their paths and commits rows to shards beside the cache; what comes
back are names: of clips, of shards, and the keys of the rows in them. So a task may be done
twice, or half and again, and nothing comes of it but the same rows.
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
from mvemo.cache.storage.layout import subset
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

# Told how a task goes.
Note = Callable[[str | float], object]
# Clips of one task at most: what a worker that is killed loses, and does again.
BATCH = 32
# Of the task that came last: its run, the outputs of its nets, and the nets.
_frozen: tuple[TaskSettings, int, FrozenNets] | None = None
# One task at a time: torch's seeds and switches are the process's.
_alone = threading.Lock()


@dataclass(frozen=True)
class TaskSettings:
    """What all tasks of a run share.

    Parameters
    ----------
    settings, nets
        Of the run.
    work, out
        Absolute paths, the same for all processes.
    folders
        Of `folder_nets`.
    """

    settings: Settings
    nets: tuple[NetSettings, ...]
    work: Path
    out: Path
    folders: Mapping[str, Any] = field(default_factory=folder_nets)

    @classmethod
    def of(
        cls, settings: Settings, nets: Sequence[NetSettings], work: Path, out: Path
    ) -> TaskSettings:
        """With absolute paths in place of those that the run was given."""
        absolute = tuple(
            net
            if net.weights in ("", FETCHED)
            else replace(net, weights=str(Path(net.weights).absolute()))
            for net in nets
        )
        return cls(settings, absolute, work.absolute(), out.absolute())

    @property
    def frozen(self) -> bool:
        """Whether nothing is trained, so that clips can be embedded one by one."""
        return self.settings.extract.run.protocol == "frozen"

    def frozen_nets(self, n_outputs: int) -> FrozenNets:
        """Nets that this process has made, or will, for the tasks of one run after another."""
        global _frozen
        if _frozen is None or _frozen[:2] != (self, n_outputs):
            _frozen = (self, n_outputs, FrozenNets(self.settings.extract.run, n_outputs))
        return _frozen[2]


@dataclass(frozen=True)
class Finished:
    """What came of a task."""

    clip_ids: tuple[str, ...]  # the clips that it was about
    shards: tuple[str, ...]  # names of the shards that it committed
    # Features, and the key that each clip's row should have; clips that failed are in the
    # shards' failures.
    requested: tuple[tuple[FeatureSpec, dict[str, str]], ...]
    missing: tuple[tuple[str, str, str], ...] = ()  # as `ClipMedia.missing`


@dataclass(frozen=True)
class ClipTask:
    """Some clips to decode, describe and, by frozen nets, embed."""

    shared: TaskSettings  # of the run
    clips: Manifest  # of the manifest that these are a part of
    numbers: tuple[int, ...]  # their rows in it
    table: ClipTable  # theirs
    stored: StoredRows  # what the cache has of them

    @property
    def label(self) -> str:
        """For messages."""
        return f"clips {self.clips.clip_ids[0]} to {self.clips.clip_ids[-1]}"

    def run(self, note: Note) -> Finished:
        """Do it; rows that are stored already are not made again."""
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
    """A net to train, of one fold, and all clips to embed by it."""

    shared: TaskSettings  # of the run
    media: ClipMedia  # of all clips, decoded
    table: ClipTable  # all clips
    stored: StoredRows  # what the cache has of them
    training: Training  # net and fold

    @property
    def label(self) -> str:
        """For messages."""
        net, fold = self.training
        return net if fold is None else f"{net}@fold{fold}"

    @cached_property
    def net(self) -> NetSettings:
        """Its settings."""
        return next(net for net in self.shared.nets if net.name == self.training[0])

    def run(self, note: Note) -> Finished:
        """Do it; a net that is trained already is not trained again."""
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
    """Do a task in this process; `emit` is told how it goes."""
    with _alone:
        keep_freed_memory()
        add_folder_nets(task.shared.folders)
        return task.run(emit or (lambda steps: None))


@dataclass(frozen=True)
class Backend:
    """Who does tasks."""

    # Does tasks, in the order that they end in; the other argument is told how it goes.
    do: Callable[[Sequence[Task], Note], Iterator[tuple[Task, Finished | BaseException]]]
    processes: int  # how many are done at once


def batch_sizes(n_clips: int, processes: int, unit: int) -> list[int]:
    """Clips of each task: of a process's share of what is left a half, `BATCH` at most.

    The last ones are small, so that no process waits long for the others.

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
    """All clips in batches of these sizes, each with what is stored of it."""
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

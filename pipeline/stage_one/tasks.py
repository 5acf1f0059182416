"""Tasks of stage one that run in other processes, on this or on other machines.

A task reads files by their paths and commits rows to shards next to the cache. It returns only
ids of clips, names of shards, and keys of rows. Running a task again, after a whole or a
partial run, writes the same rows. `SpreadRun` gives the tasks to a backend and collects the rows.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec, PartWriter, StoredRows
from mvemo.cache.table import subset
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.settings import FETCHED, NetSettings
from mvemo.extract.training import devices, embedding
from mvemo.manifests import Manifest
from mvemo.manifests.errors import MvemoError
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.errors import ClipFailed, TaskFailed
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import steps
from mvemo.pipeline.stage_one.backends import Backend, Note, Training

# Maximum number of clips in a task, and in a first one; a killed worker loses at most these clips.
BATCH, FIRST = 32, 8
# Settings, number of outputs and loaded nets of this process's last task with frozen nets.
_frozen: list[tuple[TaskSettings, int, embedding.FrozenNets]] = []
# Times of the parts of this process's last task for each output file, see `told_as_parts`.
_part_seconds: dict[Path, dict[str, float]] = {}
# Only one task runs at a time, because torch's seeds and switches are global.
_one_task = threading.Lock()


@dataclass(frozen=True)
class TaskSettings:
    """Settings and paths that all tasks of a run share."""

    settings: Settings
    nets: tuple[NetSettings, ...]
    work: Path  # absolute, the same for all processes
    out: Path  # absolute, the same for all processes

    @classmethod
    def of(
        cls, settings: Settings, nets: Sequence[NetSettings], work: Path, out: Path
    ) -> TaskSettings:
        """Return the settings of a run with absolute paths."""
        files = {net.weights: str(Path(net.weights).absolute()) for net in nets}
        files |= {"": "", FETCHED: FETCHED}
        absolute = tuple(replace(net, weights=files[net.weights]) for net in nets)
        return cls(settings, absolute, work.absolute(), out.absolute())

    @property
    def frozen(self) -> bool:
        """True if nets are not trained, so that tasks can embed batches of clips."""
        return self.settings.extract.run.protocol == "frozen"

    def frozen_nets(self, n_outputs: int) -> embedding.FrozenNets:
        """Return frozen nets, which this process keeps for further tasks of the run."""
        if not _frozen or _frozen[0][:2] != (self, n_outputs):
            nets = embedding.FrozenNets(self.settings.extract.run, n_outputs)
            _frozen[:] = [(self, n_outputs, nets)]
        return _frozen[0][2]


@dataclass(frozen=True)
class Finished:
    """Result of a task."""

    clip_ids: tuple[str, ...]
    shards: tuple[str, ...]  # names of the committed shards
    # Expected row keys of each feature; failed clips are in the shards' failures instead.
    requested: tuple[tuple[FeatureSpec, dict[str, str]], ...]
    missing: tuple[tuple[str, str, str], ...] = ()  # see `ClipMedia.missing`

    @classmethod
    def of(cls, writer: PartWriter, media: ClipMedia) -> Finished:
        """Commit the rows of a task, and return its result."""
        writer.commit()
        requested = tuple(writer.requested)
        return cls(writer.table.clip_ids, tuple(writer.shards), requested, media.missing)


Result = Finished | BaseException


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
        """Run the task; rows that are already stored are not computed again."""
        shared = self.shared
        descriptors, nets = shared.settings.extract.descriptors, shared.nets
        writer = PartWriter(shared.out, self.table, self.stored)
        titles = ["decode", *["describe"] * bool(descriptors)]
        titles += [net.name for net in nets if shared.frozen]
        n = len(self.table)
        seconds = _part_seconds.setdefault(shared.out, {})
        with progress.told_as_parts(n, titles, lambda count, _: note(count), seconds):
            media = ClipMedia(
                self.clips,
                shared.settings,
                shared.work,
                plans=nets,
                descriptors=descriptors,
                require_any=False,
                numbers=self.numbers,
            )
            loaded = shared.frozen_nets(len(self.clips.classes)) if shared.frozen else None
            features = steps.FeatureWriter(
                media, shared.settings, writer, shared.work, frozen_nets=loaded
            )
            features.write_failures()
            features.write_descriptors()
            for net in nets if shared.frozen else ():
                features.write_embeddings(net, self.table.folds, self.table.splits)
        return Finished.of(writer, media)


@dataclass(frozen=True)
class TrainingTask:
    """Training of a net on one fold, followed by embedding all clips."""

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
        """Run the task; a net that is already trained is not trained again."""
        shared = self.shared
        writer = PartWriter(shared.out, self.table, self.stored)
        features = steps.FeatureWriter(
            self.media, shared.settings, writer, shared.work, [self.training], on_epoch=note
        )
        features.write_embeddings(self.net, self.table.folds, self.table.splits)
        return Finished.of(writer, self.media)


Task = ClipTask | TrainingTask


def do_task(task: Task, emit: Note | None = None) -> Finished:
    """Run a task in this process; `emit` is called with its progress."""
    with _one_task:
        devices.keep_freed_memory()
        return task.run(emit or (lambda steps: None))


def batch_sizes(n_clips: int, processes: int, unit: int) -> list[int]:
    """Return task sizes: half a process's share of the remaining clips, in multiples of `unit`.

    The first task of each process is small: when it is done, the remaining time is known.
    """
    sizes: list[int] = []
    remaining = n_clips
    while remaining:
        share = min(FIRST if len(sizes) < processes else BATCH, remaining // (2 * processes))
        sizes.append(min(max(share // unit, 1) * unit, remaining))
        remaining -= sizes[-1]
    return sizes


@dataclass
class SpreadRun:
    """Runs tasks on a backend, and adds their rows to the cache."""

    writer: CacheWriter
    backend: Backend
    # `ClipMedia.missing` of all tasks.
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    features: list[str] = field(default_factory=list)  # names of the written features
    # Errors of trainings by net.
    diverged: dict[str, TrainingDiverged] = field(default_factory=dict)

    def do_clips(self, shared: TaskSettings, manifest: Manifest) -> None:
        """Decode and describe all clips, and embed them with frozen nets."""
        extract = shared.settings.extract
        device = devices.pick_device(extract.run.device)
        at_once = (
            devices.windows_at_once(extract.embed_batch, device, NETS[net.name])
            for net in shared.nets
            if shared.frozen
        )
        unit = min(at_once, default=extract.embed_batch or 1)
        sizes = batch_sizes(len(manifest), self.backend.processes, unit)
        with progress.Progress("clips", len(manifest)) as bar:
            self._do(self._clip_tasks(shared, manifest, sizes), bar)

    def do_trainings(
        self, shared: TaskSettings, media: ClipMedia, trainings: Sequence[Training]
    ) -> None:
        """Train nets, and embed all clips with them."""
        table = self.writer.table
        stored = self.writer.stored_rows(table.clip_ids)
        tasks = [TrainingTask(shared, media, table, stored, each) for each in trainings]
        with progress.Progress("trainings", len(tasks), "net") as bar:
            self._do(tasks, bar)

    def _clip_tasks(
        self, shared: TaskSettings, manifest: Manifest, sizes: Sequence[int]
    ) -> list[ClipTask]:
        """Return a task for each batch of clips, with stored rows; `sizes` has the batch sizes."""
        stored = self.writer.stored_rows(manifest.clip_ids)
        failures: dict[str, dict[tuple[str, str], Any]] = {}
        for (clip, stage), why in stored.failures.items():
            failures.setdefault(clip, {})[clip, stage] = why
        tasks = []
        for size, last in zip(sizes, accumulate(sizes), strict=True):
            rows = tuple(range(last - size, last))
            clips = replace(manifest, clips=tuple(manifest.clips[row] for row in rows))
            ids = clips.clip_ids
            keys = {d: {c: of[c] for c in ids if c in of} for d, of in stored.keys.items()}
            failed = {k: v for c in ids for k, v in failures.get(c, {}).items()}
            known = StoredRows(keys, failed, stored.number)
            tasks.append(ClipTask(shared, clips, rows, subset(self.writer.table, rows), known))
        return tasks

    def _do(self, tasks: Sequence[Task], bar: progress.Progress) -> None:
        """Run all tasks; if some failed, raise one error when all others are done."""
        failed: list[tuple[Task, BaseException]] = []
        for task, result in self.backend.do(tasks, bar.report):
            clips = lost = set(task.table.clip_ids) if isinstance(task, ClipTask) else {""}
            if isinstance(result, Finished):
                self._take_up(task, result)
                lost = clips.intersection(clip for clip, *_ in self.writer.failures)
            elif isinstance(result, TrainingDiverged) and isinstance(task, TrainingTask):
                self.diverged.setdefault(task.net.name, result)
                messages.tell_note(f"{task.label} diverged; the others continue")
            elif isinstance(result, ClipFailed):
                raise result
            else:
                failed.append((task, result))
                messages.tell_note(f"{task.label} failed; the others continue: {_reason(result)}")
            bar.step(len(clips), failed=len(lost))
        if failed:
            task, error = failed[0]
            more = f" ({len(failed)} of {len(tasks)} failed)" if len(failed) > 1 else ""
            raise TaskFailed(
                f"{task.label}: {_reason(error)}{more}; all other tasks are done: run the same "
                "command again"
            ) from None

    def _take_up(self, task: Task, finished: Finished) -> None:
        """Add the rows of a task to the cache, and check that none is missing."""
        self.writer.take_up(finished.shards)
        failed = {(clip, stage) for clip, stage, _ in self.writer.failures}
        for spec, keys in finished.requested:
            lost = keys.keys() - self.writer.current(spec, keys)
            lost -= {clip for clip in lost if (clip, f"embed:{spec.name}") in failed}
            # Outputs are not checked: a failed embedding has none, and its failure names only
            # the embedding.
            if lost and not spec.name.endswith("-outputs"):
                raise TaskFailed(
                    f"{task.label}: {spec.name} of clip {min(lost)!r} is missing from the shards "
                    "it was written to: run the same command again"
                )
            if spec.kind != "outputs" and spec.name not in self.features:
                self.features.append(spec.name)
        if isinstance(task, ClipTask):
            self.missing += finished.missing


def _reason(error: BaseException) -> str:
    """Return the reason of a failure in one line; name the type of an unexpected error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MvemoError) else f"{type(error).__name__}: {text}"

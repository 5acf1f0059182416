"""Tasks of stage one that run in other processes, on this or on other machines.

A task reads files by their paths and commits rows to shards next to the cache. It returns only
ids of clips, names of shards, and keys of rows. Running a task again, after a whole or a
partial run, writes the same rows. `SpreadRun` gives the tasks to a backend and collects the rows.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvemo.cache import CacheWriter, FeatureSpec, PartWriter, StoredRows
from mvemo.extract.errors import ClipFailed, TaskFailed, TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.training import devices, embedding
from mvemo.extract.workers.pool import cores
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import find_stamp
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.stage_one import division, steps, summary
from mvemo.pipeline.stage_one.backends import Backend, Note, RunTask
from mvemo.pipeline.stage_one.plan import ExtractPlan

# Loaded nets of this process's last task with frozen nets.
_frozen = embedding.FrozenNets()
# Output file to the seconds of each part of this process's last task, see `told_as_parts`.
_part_seconds: dict[Path, dict[str, float]] = {}
# Only one task runs at a time, because torch's seeds and switches are global.
_one_task = threading.Lock()


@dataclass(frozen=True)
class Finished:
    """Result of a task."""

    clip_ids: tuple[str, ...]
    parts: tuple[str, ...]  # names of the committed parts
    # Expected row keys of each feature; failed clips are in the shards' failures instead.
    requested: tuple[tuple[FeatureSpec, dict[str, str]], ...]
    missing: tuple[summary.Problem, ...] = ()  # see `ClipMedia.missing`
    settled: bool = True  # see `ClipMedia.settled`

    @classmethod
    def of(cls, writer: PartWriter, media: ClipMedia) -> Finished:
        """Commit the rows of a task, and return its result."""
        writer.commit()
        rows = tuple(writer.parts), tuple(writer.requested)
        return cls(writer.table.clip_ids, *rows, media.missing, media.settled)


@dataclass(frozen=True)
class ClipTask:
    """Clips to decode, to describe, and to embed with frozen nets."""

    plan: ExtractPlan  # plan of these clips
    stored: StoredRows  # rows of these clips in the cache

    @property
    def label(self) -> str:
        first, *others = self.plan.manifest.clip_ids
        return f"{first} and {len(others)} more clips" if others else f"clip {first}"

    def run(self, note: Note) -> Finished:
        """Run the task; rows that are already stored are not computed again."""
        plan, out = self.plan, self.plan.request.out
        nets = plan.nets if plan.run.protocol == "frozen" else ()
        titles = ["decode", *["describe"] * bool(plan.settings.extract.descriptors)]
        titles += [net.name for net in nets]
        n = len(plan.manifest)
        seconds = _part_seconds.setdefault(out, {})
        with progress.told_as_parts(n, titles, lambda count, _: note(count), seconds):
            writer = PartWriter(out, plan.table, self.stored)
            features = steps.FeatureWriter.read(plan, writer)
            features.write_failures()
            features.write_descriptors()
            for net in nets:
                frozen = _frozen.get(net, len(plan.manifest.classes), plan.run)
                features.write_embeddings(net, frozen)
            return Finished.of(writer, features.media)


@dataclass(frozen=True)
class TrainingTask:
    """Training of a net on one fold, followed by embedding all clips."""

    plan: ExtractPlan
    media: ClipMedia  # decoded media of all clips
    stored: StoredRows  # rows in the cache
    training: division.Training  # net and fold

    @property
    def label(self) -> str:
        net, fold = self.training
        return net if fold is None else f"{net}@fold{fold}"

    def run(self, note: Note) -> Finished:
        """Run the task; a net that is already trained is not trained again."""
        plan = self.plan
        writer = PartWriter(plan.request.out, plan.table, self.stored)
        features = steps.FeatureWriter(plan, self.media, writer, [self.training], note)
        features.write_embeddings(next(n for n in plan.nets if n.name == self.training[0]))
        return Finished.of(writer, self.media)


def do_task(task: ClipTask | TrainingTask, emit: Note | None = None) -> Finished:
    """Run a task in this process; `emit` is called with its progress."""
    with _one_task:
        devices.keep_freed_memory()
        return task.run(emit or (lambda state: None))


@dataclass
class SpreadRun:
    """Runs tasks on a backend, and adds their rows to the cache."""

    plan: ExtractPlan
    writer: CacheWriter
    backend: Backend
    # `ClipMedia.missing` of all tasks.
    missing: list[summary.Problem] = field(default_factory=list)
    settled: bool = True  # `ClipMedia.settled` of all tasks
    features: list[str] = field(default_factory=list)  # names of the written features
    # Errors of trainings by net.
    diverged: dict[str, TrainingDiverged] = field(default_factory=dict)

    def do_clips(self) -> None:
        """Decode and describe all clips, and embed them with frozen nets."""
        plan, extract = self.plan, self.plan.settings.extract
        device = devices.pick_device(plan.run.device)
        nets = plan.nets if plan.run.protocol == "frozen" else ()
        batch = extract.embed_batch
        at_once = (devices.windows_at_once(batch, device, NETS[net.name]) for net in nets)
        unit = min(at_once, default=batch or 1)
        paths = [plan.manifest.media_path(clip) for clip in plan.manifest.clips]
        # Clips of one file share its size.
        n_clips = Counter(paths)
        stamps = map(find_stamp, paths)
        sizes = [s[0] / n_clips[path] if s else 0.0 for path, s in zip(paths, stamps, strict=True)]
        batches = division.clip_batches(sizes, self.backend.processes, unit)
        with progress.Progress("clips", len(sizes)) as bar:
            self._do(self._clip_tasks(batches), bar)
        failures = self.writer.failures
        failed = {clip for clip, stage, _ in failures if stage.startswith("decode:")}
        if len(failed) == len(plan.manifest):
            clip, _, reason = failures[0]
            raise BadOption(f"no clip could be decoded; the first, {clip}: {reason}")

    def do_trainings(self, media: ClipMedia, trainings: Sequence[division.Training]) -> None:
        plan = self.plan.for_processes(self.plan.settings.extract.workers)
        stored = self.writer.stored_rows(plan.table.clip_ids)
        tasks = [TrainingTask(plan, media, stored, each) for each in trainings]
        with progress.Progress("trainings", len(tasks), "net") as bar:
            self._do(tasks, bar)

    def _clip_tasks(self, batches: Sequence[Sequence[int]]) -> list[ClipTask]:
        """Return a task for each batch of rows of the manifest, with the rows that are stored."""
        request, workers = self.plan.request, self.plan.settings.extract.workers
        # A worker of a scheduler may share its machine with other workers.
        jobs = cores() if request.scheduler else request.jobs
        plan = self.plan.for_processes(max((workers or cores()) // jobs, 1))
        stored = self.writer.stored_rows(plan.table.clip_ids)
        failures: dict[str, dict[tuple[str, str], Any]] = {}
        for (clip, stage), why in stored.failures.items():
            failures.setdefault(clip, {})[clip, stage] = why
        tasks = []
        for batch in batches:
            part = plan.part(batch)
            ids = part.manifest.clip_ids
            keys = {d: {c: of[c] for c in ids if c in of} for d, of in stored.keys.items()}
            failed = {k: v for c in ids for k, v in failures.get(c, {}).items()}
            tasks.append(ClipTask(part, StoredRows(keys, failed, stored.number)))
        return tasks

    def _do(self, tasks: Sequence[RunTask], bar: progress.Progress) -> None:
        """Run all tasks; if some failed, raise one error when all others are done."""
        failed: list[tuple[RunTask, BaseException]] = []
        for task, result in self.backend.do(tasks, bar.report):
            clips = lost = {""}
            if isinstance(task, ClipTask):
                clips = lost = set(task.plan.manifest.clip_ids)
            if isinstance(result, Finished):
                self._take_up(task, result)
                lost = clips.intersection(clip for clip, *_ in self.writer.failures)
            elif isinstance(result, TrainingDiverged) and isinstance(task, TrainingTask):
                self.diverged.setdefault(task.training[0], result)
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

    def _take_up(self, task: RunTask, finished: Finished) -> None:
        """Add the rows of a task to the cache, and check that none is missing."""
        self.writer.take_up(finished.parts)
        failed = {(clip, stage) for clip, stage, _ in self.writer.failures}
        for spec, keys in finished.requested:
            lost = keys.keys() - self.writer.current(spec, keys)
            lost -= {clip for clip in lost if (clip, f"embed:{spec.name}") in failed}
            # A failed embedding also has no outputs, but its failure names only the embedding, so
            # outputs are not checked.
            if lost and not spec.name.endswith("-outputs"):
                raise TaskFailed(
                    f"{task.label}: {spec.name} of clip {min(lost)!r} is missing from the shards "
                    "it was written to: run the same command again"
                )
            if spec.kind != "outputs" and spec.name not in self.features:
                self.features.append(spec.name)
        if isinstance(task, ClipTask):
            self.missing += finished.missing
            self.settled &= finished.settled


def _reason(error: BaseException) -> str:
    """Return the reason of a failure in one line; name the type of an unexpected error."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MvemoError) else f"{type(error).__name__}: {text}"

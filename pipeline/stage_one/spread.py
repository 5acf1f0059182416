"""Stage one in many processes: their tasks, and the collection of their results."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mvemo.cache import CacheError, CacheWriter
from mvemo.extract.errors import ExtractError, TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.settings import RunSettings
from mvemo.extract.training.devices import pick_device, windows_at_once
from mvemo.extract.workers.pool import cores, run_calls
from mvemo.extract.workers.process import Call
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption, ClipFailed, PipelineError, TaskFailed
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.ahead import TASKS, thread_variables
from mvemo.pipeline.stage_one.execution import Training
from mvemo.pipeline.stage_one.tasks import (
    Backend,
    ClipTask,
    Finished,
    Note,
    Task,
    TaskSettings,
    TrainingTask,
    batch_sizes,
    clip_tasks,
)


@dataclass
class SpreadRun:
    """Run of tasks on a backend, which adds their rows to the cache."""

    writer: CacheWriter
    backend: Backend
    # `ClipMedia.missing` of all tasks.
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    features: list[str] = field(default_factory=list)  # names of the written features
    # Errors of trainings by net.
    diverged: dict[str, TrainingDiverged] = field(default_factory=dict)

    def do_clips(self, shared: TaskSettings, manifest: Manifest) -> None:
        """Decode and describe all clips, and embed them by frozen nets."""
        stored = self.writer.stored_rows(manifest.clip_ids)
        extract = shared.settings.extract
        device = pick_device(extract.run.device)
        nets = [NETS[net.name] for net in shared.nets if shared.frozen]
        at_once = (windows_at_once(extract.embed_batch, device, net) for net in nets)
        unit = min(at_once, default=extract.embed_batch or 1)
        sizes = batch_sizes(len(manifest), self.backend.processes, unit)
        tasks = clip_tasks(shared, manifest, self.writer.table, stored, sizes)
        with Progress("clips", len(manifest)) as bar:
            self._do(tasks, bar)

    def do_trainings(
        self, shared: TaskSettings, media: ClipMedia, trainings: Sequence[Training]
    ) -> None:
        """Train nets, and embed all clips with them."""
        table = self.writer.table
        stored = self.writer.stored_rows(table.clip_ids)
        tasks = [TrainingTask(shared, media, table, stored, each) for each in trainings]
        with Progress("trainings", len(tasks), "net") as bar:
            self._do(tasks, bar)

    def _do(self, tasks: Sequence[Task], bar: Progress) -> None:
        """Run all tasks; raise one error for the failed ones when all others are done."""
        failed: list[tuple[Task, BaseException]] = []

        def note(how: str | float) -> None:
            bar.note(how) if isinstance(how, str) else bar.ahead(how)

        for task, result in self.backend.do(tasks, note):
            clips = set(task.table.clip_ids) if isinstance(task, ClipTask) else {""}
            lost = clips
            if isinstance(result, Finished):
                self._take_up(task, result)
                lost = clips.intersection(clip for clip, *_ in self.writer.failures)
            elif isinstance(result, TrainingDiverged) and isinstance(task, TrainingTask):
                self.diverged.setdefault(task.net.name, result)
                tell_note(f"{task.label} diverged; the others go on")
            elif isinstance(result, ClipFailed):
                raise result
            else:
                failed.append((task, result))
                tell_note(f"{task.label} failed; the others go on: {_reason(result)}")
            bar.step(len(clips), failed=len(lost))
        if failed:
            task, error = failed[0]
            more = f" ({len(failed)} of {len(tasks)} failed)" if len(failed) > 1 else ""
            raise TaskFailed(
                f"{task.label}: {_reason(error)}{more}; all others are done and kept: run the same "
                "again"
            ) from None

    def _take_up(self, task: Task, finished: Finished) -> None:
        """Add the rows of a task, and check that none is missing."""
        self.writer.take_up(finished.shards)
        failed = {(clip, stage) for clip, stage, _ in self.writer.failures}
        for spec, keys in finished.requested:
            lost = keys.keys() - self.writer.current(spec, keys)
            lost -= {clip for clip in lost if (clip, f"embed:{spec.name}") in failed}
            if lost and not spec.name.endswith("-outputs"):
                raise TaskFailed(
                    f"{task.label}: {spec.name} of clip {min(lost)!r} is not in the shards that it "
                    "was written to: run the same again"
                )
            if spec.kind != "outputs" and spec.name not in self.features:
                self.features.append(spec.name)
        if isinstance(task, ClipTask):
            self.missing += finished.missing


def _reason(error: BaseException) -> str:
    """Return why a task failed, in one line; unexpected errors with their type."""
    text = " ".join(str(error).split())
    ours = isinstance(error, (CacheError, ExtractError, PipelineError))
    return text if ours else f"{type(error).__name__}: {text}"


def settings_per_process(settings: Settings, jobs: int) -> Settings:
    """Return the settings of one of `jobs` processes, with its share of the decoding workers."""
    extract = settings.extract
    workers = max((extract.workers or cores()) // jobs, 1)
    return replace(settings, extract=replace(extract, workers=workers))


def require_decoded_clip(run: SpreadRun, manifest: Manifest) -> None:
    """Raise BadOption if not one clip could be decoded."""
    failures = run.writer.failures
    if len({clip for clip, stage, _ in failures if stage.startswith("decode:")}) == len(manifest):
        clip, _, reason = failures[0]
        raise BadOption(f"not one clip could be decoded; the first: {clip}: {reason}")


def job_environments(jobs: int, run: RunSettings) -> list[dict[str, str]]:
    """Return the environment variables of each process: its number of threads and its GPU.

    Examples
    --------
    >>> settings = RunSettings(device="cpu")
    >>> len({environment["OMP_NUM_THREADS"] for environment in job_environments(2, settings)})
    1
    """
    environments = [thread_variables(jobs) for _ in range(jobs)]
    if pick_device(run.device).type == "cuda":
        gpus = visible_gpus()
        for i, environment in enumerate(environments):
            environment["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
    return environments


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if named:
        return [name.strip() for name in named.split(",")][: torch.cuda.device_count()]
    return [str(i) for i in range(torch.cuda.device_count())]


def local_backend(settings: Settings, jobs: int) -> Backend:
    """Return a backend of `jobs` processes on this machine."""
    run = settings.extract.run

    def do(tasks: Sequence[Task], note: Note) -> Iterator[tuple[Task, Finished | BaseException]]:
        calls = [Call(f"{TASKS}:do_task", (task,), parts=True) for task in tasks]
        for outcome in run_calls(calls, environments=job_environments(jobs, run)):
            if not outcome.last:
                note(outcome.value)
            elif outcome.error is not None:
                yield tasks[outcome.index], outcome.error
            else:
                yield tasks[outcome.index], outcome.value

    return Backend(do, jobs)

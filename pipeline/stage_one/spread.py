"""Stage one by many processes: what each does, and what is made of what they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mvemo.cache import CacheError, CacheWriter
from mvemo.extract.errors import ExtractError, TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.training.devices import pick_device, windows_at_once
from mvemo.extract.workers.pool import cores
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption, ClipFailed, PipelineError, TaskFailed
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.execution import Training
from mvemo.pipeline.stage_one.local_jobs import do_locally
from mvemo.pipeline.stage_one.tasks import (
    Backend,
    ClipTask,
    Finished,
    Task,
    TaskSettings,
    TrainingTask,
    batch_sizes,
    clip_tasks,
)


@dataclass
class SpreadRun:
    """Has tasks done, and takes up what comes of them."""

    writer: CacheWriter  # of the cache; open
    backend: Backend  # who does tasks
    # As `ClipMedia.missing`, of the clips of all tasks.
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    features: list[str] = field(default_factory=list)  # names of the features that tasks wrote
    # Net to the error of its training.
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
        """Train nets, and embed all clips by them."""
        table = self.writer.table
        stored = self.writer.stored_rows(table.clip_ids)
        tasks = [TrainingTask(shared, media, table, stored, each) for each in trainings]
        with Progress("trainings", len(tasks), "net") as bar:
            self._do(tasks, bar)

    def _do(self, tasks: Sequence[Task], bar: Progress) -> None:
        """Do all tasks; those that fail are told in one error, when all others are done."""
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
        """Add a task's rows, and see that they are those that it says."""
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
    """Why a task failed, in a line; of errors of ours their own."""
    text = " ".join(str(error).split())
    ours = isinstance(error, (CacheError, ExtractError, PipelineError))
    return text if ours else f"{type(error).__name__}: {text}"


def local_backend(settings: Settings, jobs: int) -> Backend:
    """Processes of this machine."""
    run = settings.extract.run
    return Backend(lambda tasks, note: do_locally(tasks, jobs, run, note), jobs)


def of_jobs(settings: Settings, jobs: int) -> Settings:
    """Settings of one of so many processes: its part of the decoding processes."""
    extract = settings.extract
    workers = max((extract.workers or cores()) // jobs, 1)
    return replace(settings, extract=replace(extract, workers=workers))


def refuse_nothing(run: SpreadRun, manifest: Manifest) -> None:
    """Refuse clips of which not one has a feature."""
    failures = run.writer.failures
    if len({clip for clip, stage, _ in failures if stage.startswith("decode:")}) == len(manifest):
        clip, _, reason = failures[0]
        raise BadOption(f"not one clip could be decoded; the first: {clip}: {reason}")

"""Nets of a study that several processes train, before the study asks for one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvemo.extract.nets.parts.registry import add_folder_nets, folder_nets
from mvemo.extract.nets.parts.weights import WeightReport
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.memory import keep_freed_memory
from mvemo.extract.training.protocols import TrainedNet, known_nets, train_nets
from mvemo.extract.training.splits import TrainingClips
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call
from mvemo.pipeline.console.progress import Progress, epoch_text
from mvemo.pipeline.stage_one.spread import job_environments
from mvemo.pipeline.studies.core import Study
from mvemo.pipeline.studies.media import StudyMedia

_TRAIN = "mvemo.pipeline.studies.ahead:train"


@dataclass(frozen=True)
class NetTraining:
    """A net to train as a protocol asks: for each fold, or once."""

    media: StudyMedia  # what it reads, and how that is divided
    clips: TrainingClips  # what it reads, and how that is divided
    plan: NetSettings  # of the net, and of the training
    run: RunSettings  # of the net, and of the training
    folder: Path  # where trained nets are kept
    folders: Mapping[str, Any] = field(default_factory=folder_nets)  # of `folder_nets`

    def missing(self) -> dict[Path, NetTraining]:
        """One for each net that is not in the folder, by the net's own folder in it."""
        return {
            net.folder: self._of_fold(net.split.fold)
            for net in known_nets(self.plan, self.clips, self.run, self.folder)
            if net.split is not None and net.folder is not None and net.spec is None
        }

    def nets(
        self,
        on_epoch: Callable[[str], None],
        on_report: Callable[[WeightReport], None] | None = None,
    ) -> Iterator[TrainedNet]:
        """The nets, one after the other: those of the folder as they are, others trained.

        `on_epoch` is told of each epoch, as text, and `on_report` what `train_nets` reports.
        """
        return train_nets(
            self.plan,
            self.clips,
            self.run,
            batches=lambda net: self.media.batches(net, self.plan.view),
            jobs=self.folder,
            on_epoch=lambda *epoch: on_epoch(epoch_text(*epoch)),
            on_report=on_report,
        )

    def _of_fold(self, fold: int | None) -> NetTraining:
        if fold is None:
            return self
        return replace(self, clips=replace(self.clips, trained_folds=frozenset([fold])))


def train_ahead(study: Study, trainings: Sequence[NetTraining]) -> None:
    """Train nets by as many processes as the study has; it finds them trained afterwards.

    The nets are those that one process would train, but for rounding by other numbers of threads.
    A training that ends in an error is left to the study, which meets the error again.
    """
    if study.jobs < 2:
        return
    # Two may need the same net.
    missing: dict[Path, NetTraining] = {}
    for training in trainings:
        missing |= training.missing()
    jobs = min(study.jobs, len(missing))
    if jobs < 2:
        return
    calls = [Call(_TRAIN, (each,), parts=True) for each in missing.values()]
    environments = job_environments(jobs, study.settings.extract.run)
    with Progress(f"train by {jobs} processes", len(calls), "net") as bar:
        for outcome in run_calls(calls, environments=environments):
            if outcome.last:
                bar.step(failed=int(outcome.error is not None))
            else:
                bar.note(outcome.value)


def train(training: NetTraining, emit: Callable[[str], None]) -> None:
    """Train in this process what is not in the folder, telling of each epoch."""
    keep_freed_memory()
    add_folder_nets(training.folders)
    for _ in training.nets(emit):
        pass

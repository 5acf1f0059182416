"""Trainings of a study's nets: in this process, or in advance in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo import extract
from mvemo.extract.training.devices import keep_freed_memory
from mvemo.extract.training.protocols import known_nets
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call
from mvemo.pipeline.console.progress import Progress, epoch_text
from mvemo.pipeline.stage_one.backends import job_environments
from mvemo.pipeline.starting_weights import tell_weights
from mvemo.pipeline.studies.study import Study, StudyMedia

_TRAIN = "mvemo.pipeline.studies.trainings:train_missing"


@dataclass(frozen=True)
class NetTraining:
    """Training of a net under a protocol: one net, or a net for each fold."""

    media: StudyMedia  # the decoded clips that the net reads
    clips: extract.TrainingClips  # the clips with their folds or split
    plan: extract.NetSettings
    run: extract.RunSettings  # protocol, seed, device
    folder: Path  # the folder of trained nets

    def missing(self) -> dict[Path, NetTraining]:
        """Return a training for each net that is not trained yet, by the net's own folder."""
        missing = {}
        for net in known_nets(self.plan, self.clips, self.run, self.folder):
            if net.split is not None and net.folder is not None and net.spec is None:
                fold = None if net.split.fold is None else frozenset([net.split.fold])
                missing[net.folder] = replace(self, clips=replace(self.clips, trained_folds=fold))
        return missing

    def nets(
        self,
        on_epoch: Callable[[str], None],
        on_report: Callable[[extract.WeightReport], None] | None = tell_weights,
    ) -> Iterator[extract.TrainedNet]:
        """Yield the nets one by one; those that are trained already are read from the folder."""
        return extract.train_nets(
            self.plan,
            self.clips,
            self.run,
            batches=lambda net: self.media.batches(net, self.plan.view),
            jobs=self.folder,
            on_epoch=lambda *epoch: on_epoch(epoch_text(*epoch)),
            on_report=on_report,
        )


def train_ahead(study: Study, trainings: Sequence[NetTraining]) -> None:
    """Train missing nets in ``study.jobs`` processes; the study repeats failed trainings later."""
    # Two trainings may need the same net.
    missing: dict[Path, NetTraining] = {}
    for training in trainings if study.jobs > 1 else ():
        missing |= training.missing()
    jobs = min(study.jobs, len(missing))
    if jobs < 2:
        return
    calls = [Call(_TRAIN, (each,), parts=True) for each in missing.values()]
    environments = job_environments(jobs, study.settings.extract.run)
    with Progress(f"train in {jobs} processes", len(calls), "net") as bar:
        for outcome in run_calls(calls, environments=environments):
            if outcome.last:
                bar.step(failed=int(outcome.error is not None))
            else:
                bar.note(outcome.value)


def train_missing(training: NetTraining, emit: Callable[[str], None]) -> None:
    """Train the missing nets in this process, and emit a text after each epoch."""
    keep_freed_memory()
    for _ in training.nets(emit):
        pass

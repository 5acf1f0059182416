"""Cross-fitting of nets: training, also by several processes, and out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.nets import Net
from mvemo.extract.nets.parts.registry import add_folder_nets, folder_nets
from mvemo.extract.nets.parts.weights import WeightReport
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.devices import pick_device
from mvemo.extract.training.embedding import embed_rows, outputs_of
from mvemo.extract.training.jobs import Curve
from mvemo.extract.training.memory import keep_freed_memory
from mvemo.extract.training.protocols import TrainedNet, known_nets, train_nets
from mvemo.extract.training.splits import TrainingClips
from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call
from mvemo.fuse.numeric import F64, Ints, Link, apply_link
from mvemo.manifests.splits.holdout import TRAIN
from mvemo.pipeline.console.progress import Progress, epoch_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.backends import job_environments
from mvemo.pipeline.starting_weights import tell_weights
from mvemo.pipeline.studies.core import Study, StudyMedia
from mvemo.pipeline.studies.scores import Labels

_TRAIN = "mvemo.pipeline.studies.crossfit:train_missing"


@dataclass(frozen=True)
class NetJob:
    """Net to cross-fit."""

    plan: NetSettings
    folds: Ints  # int64 (clips,), in the order of the media
    run: int = 0  # number of the repeat; changes the seed of weights, batches and dropout
    title: str = ""  # of the progress bar; the net's name by default
    with_train_score: bool = False  # also predict the clips that each net was trained on
    # int64 (clips,): 0 training, 1 validation, 2 test. One net is then trained on this split
    # instead of the folds, and predicts its validation and test clips.
    splits: Ints | None = None
    only_first: bool = False  # leave out only the first fold, so train one net


@dataclass(frozen=True)
class FoldPredictions:
    """Out-of-fold predictions of a net or a model in one repeat."""

    # float64 (clips, outputs), probabilities or values; NaN rows for clips that could not be
    # decoded and for folds that were not run.
    outputs: F64
    # Primary metric of each fold's net on its own training clips, including the validation
    # clips for early stopping; empty without `NetJob.with_train_score`.
    train_scores: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = field(default=(), repr=False)  # losses by epoch, for each fold
    n_parameters: int = 0  # number of trainable parameters


def cross_fit(study: Study, media: StudyMedia, job: NetJob) -> FoldPredictions:
    """Train a net without each fold in turn, and predict that fold's clips."""
    manifest, plan = media.manifest, job.plan
    training = training_of(study, media, job)
    usable = training.clips.usable
    labels = Labels.of(manifest)
    link = labels.task.link
    outputs = np.full((len(manifest), len(manifest.classes)), np.nan)
    train_scores: list[float] = []
    curves: list[Curve] = []
    n_parameters = 0
    total = len(np.unique(job.folds)) if job.splits is None and not job.only_first else 1
    with Progress(job.title or plan.name, total, "net") as bar:
        for trained in training.nets(bar.note, tell_weights):
            unseen = job.folds == trained.spec.fold if job.splits is None else job.splits != TRAIN
            test = np.flatnonzero(usable & unseen)
            batches = media.batches(trained.net, plan.view)
            outputs[test] = predict(trained.net, batches, test, study.settings, link)
            if job.with_train_score:
                train = np.flatnonzero(usable & ~unseen)
                of_train = predict(trained.net, batches, train, study.settings, link)
                train_scores.append(labels.task.primary(labels.y_true[train], of_train))
            curves.append(trained.curve)
            n_parameters = sum(p.numel() for p in trained.net.parameters() if p.requires_grad)
            bar.step()
    return FoldPredictions(outputs, tuple(train_scores), tuple(curves), n_parameters)


def training_of(study: Study, media: StudyMedia, job: NetJob) -> NetTraining:
    """Return the trainings of a job; raise `BadOption` if no clip has the net's input."""
    usable = media.usable(job.plan)
    if not usable.any():
        raise BadOption(f"{job.plan.name}: no clip has what this net is given")
    first = [int(job.folds.min())] if job.only_first else None
    clips = TrainingClips(media.manifest, media.digests, usable, job.folds, job.splits, first)
    run = study.settings.extract.run
    protocol = "crossfit" if job.splits is None else "holdout"
    run = replace(run, protocol=protocol, seed=run.seed + job.run)
    return NetTraining(media, clips, job.plan, run, study.work / "nets")


def predict(net: Net, batches: RawBatches, rows: Ints, settings: Settings, link: Link) -> F64:
    """Predict rows with the net's own last layer, without dropout; float64 (rows, outputs).

    If a clip has several windows, the link is applied to the mean of their outputs.
    """
    outputs = np.empty((len(rows), net.classifier.out_features))
    start = 0
    for batch, embeddings in embed_rows(
        net,
        batches,
        rows.tolist(),
        batch_size=settings.extract.embed_batch,
        device=pick_device(settings.extract.run.device),
        precision=settings.extract.run.precision,
    ):
        scores = outputs_of(net, embeddings).astype(np.float64)
        outputs[start : start + len(batch)] = apply_link(scores, link)
        start += len(batch)
    return outputs


@dataclass(frozen=True)
class NetTraining:
    """Training of a net under a protocol: once, or once for each fold."""

    media: StudyMedia  # the decoded clips that the net reads
    clips: TrainingClips  # the clips with their folds or split
    plan: NetSettings
    run: RunSettings  # protocol, seed, device
    folder: Path  # the folder of trained nets
    folders: Mapping[str, Any] = field(default_factory=folder_nets)  # nets from hf:FOLDER

    def missing(self) -> dict[Path, NetTraining]:
        """Return a training for each net that is not trained yet, by the net's own folder."""
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
        """Yield the nets one after the other, trained ones from the folder.

        `on_epoch` gets a text after each epoch; `on_report` gets the reports of `train_nets`.
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
    """Train nets in ``study.jobs`` processes and leave them in the folder of trained nets.

    The nets are the same as from one process, except for rounding with other numbers of
    threads. If a training fails, the study tries it again and raises the error.
    """
    if study.jobs < 2:
        return
    # Two trainings may need the same net.
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


def train_missing(training: NetTraining, emit: Callable[[str], None]) -> None:
    """Train the missing nets in this process, and emit a text after each epoch."""
    keep_freed_memory()
    add_folder_nets(training.folders)
    for _ in training.nets(emit):
        pass

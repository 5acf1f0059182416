"""Out-of-fold predictions of nets, and of heads on the embeddings of nets; trainings of the nets.

Nets are trained in this process, or in advance in several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mvemo import extract
from mvemo.extract.nets import NETS
from mvemo.extract.training import devices, embedding, protocols, steps
from mvemo.extract.workers import pool, process
from mvemo.fuse import Clips, Fit, features, fit_heads, models_of, numeric
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.errors import BadOption
from mvemo.manifests.splits.assignment import TRAIN
from mvemo.pipeline.console.progress import Progress, epoch_text
from mvemo.pipeline.stage_one.backends import job_environments
from mvemo.pipeline.starting_weights import tell_weights
from mvemo.pipeline.studies.study import Study, StudyMedia, read_labels


@dataclass(frozen=True)
class StudyRow:
    """Row of a study: nets with their settings, or a classical model."""

    name: str  # name in plots and notes
    values: Mapping[str, Any]  # axis -> value, and other cells of the table
    plans: tuple[extract.NetSettings, ...] = ()
    protocol: str = ""  # protocol of a head on embeddings; "" if the net's last layer predicts
    # Descriptors of a model that is not a net, and a function of media, repeat and folds that
    # returns its outputs.
    descriptors: tuple[str, ...] = ()
    model: Callable[[StudyMedia, int, Ints], F64] | None = None
    runs: int | None = None  # number of repeats; None for the study's number

    @property
    def shuffled(self) -> bool:
        """True for a check with shuffled labels."""
        return self.values.get("labels") == "shuffled"


@dataclass(frozen=True)
class FoldPredictions:
    """Out-of-fold predictions of a net or a model in one repeat."""

    # float64 (clips, outputs), probabilities or values; NaN rows for clips that could not be
    # decoded and for folds that were not run.
    outputs: F64
    # Primary metric of each fold's net on its own training clips, including the validation
    # clips for early stopping; empty without `RowPredictor.with_train_score`.
    train_scores: tuple[float, ...] = ()
    curves: tuple[steps.Curve, ...] = ()  # losses by epoch, for each fold
    n_parameters: int = 0  # number of trainable parameters


@dataclass(frozen=True)
class RowPredictor:
    """Out-of-fold predictions of all clips by the model, the net or the head of a row."""

    study: Study
    media: StudyMedia
    row: StudyRow
    with_train_score: bool = False  # a net also predicts the clips that it was trained on

    @cached_property
    def manifest(self) -> Manifest:
        """Source of the labels."""
        return self.study.shuffled() if self.row.shuffled else self.study.manifest

    def __call__(self, run: int) -> FoldPredictions:
        """Predict all clips in a repeat."""
        if self.row.model is not None:
            return FoldPredictions(self.row.model(self.media, run, self.study.folds(run)))
        return self._by_head(run) if self.row.protocol else self._by_net(run)

    @property
    def _title(self) -> str:
        """Title of the progress bar."""
        net, name = self.row.plans[0].name, self.row.name
        return name if net in name else f"{net}, {name}"

    def trainings(self, run: int) -> list[NetTraining]:
        """Return the trainings of nets in a repeat; BadOption if no clip has a net's input."""
        if self.row.protocol or not self.row.plans:
            return [self._training(plan, self.row.protocol, run) for plan in self.row.plans]
        (plan,), parts = self.row.plans, self.study.parts
        if not self.media.usable(plan).any():
            raise BadOption(f"{plan.name}: no clip has the input that this net reads")
        if parts is not None:
            return [self._training(plan, "holdout", run, splits=parts)]
        first = [int(self.study.folds(run).min())] if self.study.first_fold else None
        return [self._training(plan, "crossfit", run, trained_folds=first)]

    def _training(
        self, plan: extract.NetSettings, protocol: str, run: int, **options: Any
    ) -> NetTraining:
        media, of_study = self.media, self.study.settings.extract.run
        usable, folds = media.usable(plan), self.study.folds(run)
        clips = extract.TrainingClips(self.manifest, media.digests, usable, folds, **options)
        settings = replace(of_study, protocol=protocol, seed=of_study.seed + run)
        return NetTraining(media, clips, plan, settings, self.study.work / "nets")

    def _by_net(self, run: int) -> FoldPredictions:
        """Predict each fold, or validation and test, by the last layer of a net trained without."""
        (training,) = self.trainings(run)
        usable, view = training.clips.usable, training.plan.view
        task, y_true = read_labels(self.manifest)
        parts, folds = self.study.parts, self.study.folds(run)
        outputs = np.full((len(self.manifest), len(self.manifest.classes)), np.nan)
        train_scores: list[float] = []
        curves: list[steps.Curve] = []
        n_parameters = 0
        total = 1 if self.study.first_fold else len(np.unique(folds))
        with Progress(self._title, total, "net") as bar:
            for trained in training.nets(bar.note):
                unseen = folds == trained.spec.fold if parts is None else parts != TRAIN
                test = np.flatnonzero(usable & unseen)
                outputs[test] = predict(trained.net, self.media, view, test, task.link)
                if self.with_train_score:
                    train = np.flatnonzero(usable & ~unseen)
                    known = predict(trained.net, self.media, view, train, task.link)
                    train_scores.append(task.primary(y_true[train], known))
                curves.append(trained.curve)
                n_parameters = sum(p.numel() for p in trained.net.parameters() if p.requires_grad)
                bar.step()
        return FoldPredictions(outputs, tuple(train_scores), tuple(curves), n_parameters)

    def _by_head(self, run: int) -> FoldPredictions:
        """Embed all clips, and predict each fold by a head fitted on the other folds.

        Under ``crossfit`` a fold's head reads embeddings of nets trained without the fold. Under
        ``shared`` it reads embeddings of nets trained on all clips, including the test clips:
        this is optimistic, which is what the study shows.
        """
        folds, plans = self.study.folds(run), self.row.plans
        n_nets = len(np.unique(folds)) if self.row.protocol == "crossfit" else 1
        # net -> fold -> embeddings; the fold is None if all folds have the same net.
        tables: dict[str, dict[int | None, features.Matrix]] = {}
        with Progress(self._title, len(plans) * n_nets, "net") as bar:
            for training in self.trainings(run):
                of_folds = tables.setdefault(training.plan.name, {})
                for trained in training.nets(bar.note):
                    of_folds[trained.spec.fold] = self._embed(training.plan, trained)
                    bar.step()
        n_outputs = len(self.manifest.classes)
        clips = Clips(*read_labels(self.manifest), self.manifest.groups, folds, n_outputs, run)
        # The last model reads all nets.
        model = models_of({plan.name: NETS[plan.name].modality for plan in plans})[-1]
        outputs = np.full((len(folds), n_outputs), np.nan)
        head = self.study.settings.fuse.head
        for fold in np.unique(folds[folds >= 0]).tolist():
            matrices = {net: of[fold if fold in of else None] for net, of in tables.items()}
            test = folds == fold
            fit = Fit(model, fold, train=~test, C=head.C, predict=test)
            outputs[test] = fit_heads([fit], matrices, clips, head)[1][0]
        return FoldPredictions(outputs)

    def _embed(self, plan: extract.NetSettings, trained: extract.TrainedNet) -> features.Matrix:
        """Return embeddings of all clips; clips that the net cannot read are missing."""
        rows = np.flatnonzero(self.media.usable(plan))
        values = np.full((len(self.media.manifest), trained.spec.dim), np.nan, dtype=np.float32)
        for batch, embeddings in self.media.embedded(trained.net, plan.view, rows):
            values[list(batch)] = embeddings
        return features.matrix_of(values)


def predict(
    net: extract.Net, media: StudyMedia, view: extract.ViewSettings, rows: Ints, link: numeric.Link
) -> F64:
    """Predict rows with the net's last layer on means of windows; float64 (rows, outputs)."""
    outputs = [np.empty((0, net.classifier.out_features))]
    for _, embeddings in media.embedded(net, view, rows):
        outputs.append(
            numeric.apply_link(embedding.outputs_of(net, embeddings).astype(np.float64), link)
        )
    return np.concatenate(outputs)


# --- trainings


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
        for net in protocols.known_nets(self.plan, self.clips, self.run, self.folder):
            if net.split is not None and net.folder is not None and net.spec is None:
                fold = None if net.split.fold is None else frozenset([net.split.fold])
                missing[net.folder] = replace(self, clips=replace(self.clips, trained_folds=fold))
        return missing

    def nets(self, on_epoch: Callable[[str], None]) -> Iterator[extract.TrainedNet]:
        """Yield the nets one by one; trained ones are read from the folder."""
        return extract.train_nets(
            self.plan,
            self.clips,
            self.run,
            batches=lambda net: self.media.batches(net, self.plan.view),
            jobs=self.folder,
            on_epoch=lambda *epoch: on_epoch(epoch_text(*epoch)),
            on_report=tell_weights,
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
    train = "mvemo.pipeline.studies.predictors:train_missing"
    calls = [process.Call(train, (each,), parts=True) for each in missing.values()]
    environments = job_environments(jobs, study.settings.extract.run.device)
    with Progress(f"train in {jobs} processes", len(calls), "net") as bar:
        for outcome in pool.run_calls(calls, environments=environments):
            if outcome.last:
                bar.step(failed=int(outcome.error is not None))
            else:
                bar.note(outcome.value)


def train_missing(training: NetTraining, emit: Callable[[str], None]) -> None:
    """Train the missing nets in this process, and emit a text after each epoch."""
    devices.keep_freed_memory()
    for _ in training.nets(emit):
        pass

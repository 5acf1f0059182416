"""Heads on the embeddings of nets in a study, under any protocol: stage two in short."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import pick_device
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.training.protocols import TrainedNet
from mvemo.extract.training.splits import TrainingClips
from mvemo.fuse.clips import Clips
from mvemo.fuse.features import Matrix, matrix_of
from mvemo.fuse.heads.fitting import Fit, fit_heads
from mvemo.fuse.models import models_of
from mvemo.fuse.numeric import Ints
from mvemo.manifests import Manifest
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.starting_weights import tell_weights
from mvemo.pipeline.studies.core import Study, StudyMedia
from mvemo.pipeline.studies.crossfit import FoldPredictions, NetTraining
from mvemo.pipeline.studies.scores import Labels


@dataclass(frozen=True)
class HeadJob:
    """Head on the embeddings of one or several nets, cross-validated."""

    plans: tuple[NetSettings, ...]  # the nets
    protocol: str  # ``crossfit``, ``shared`` or ``frozen``
    manifest: Manifest  # source of the labels for nets and heads
    title: str  # of the progress bar


@dataclass(frozen=True)
class HeadPredictor:
    """`Variant.predict` of a `HeadJob`."""

    study: Study
    media: StudyMedia
    job: HeadJob

    def __call__(self, run: int, folds: Ints) -> FoldPredictions:
        return predict_by_heads(self.study, self.media, self.job, run, folds)

    def trainings(self, run: int, folds: Ints) -> list[NetTraining]:
        """Return the trainings of the nets in a repeat."""
        return trainings_of(self.study, self.media, self.job, run, folds)


def predict_by_heads(
    study: Study, media: StudyMedia, job: HeadJob, run: int, folds: Ints
) -> FoldPredictions:
    """Embed all clips, and predict each fold by a head fitted on the other folds.

    Under ``crossfit`` a fold's head reads embeddings of nets trained without the fold. Under
    ``shared`` it reads embeddings of nets trained on all clips, including the test clips:
    this is optimistic, which is what the study shows.
    """
    n_nets = len(np.unique(folds)) if job.protocol == "crossfit" else 1
    # net -> fold -> embeddings; the fold is None if all folds have the same net.
    tables: dict[str, dict[int | None, Matrix]] = {}
    with Progress(job.title, len(job.plans) * n_nets, "net") as bar:
        for training in trainings_of(study, media, job, run, folds):
            plan = training.plan
            tables[plan.name] = {}
            for trained in training.nets(bar.note, tell_weights):
                tables[plan.name][trained.spec.fold] = _embed(study, media, plan, trained)
                bar.step()
    labels = Labels.of(job.manifest)
    clips = Clips(labels.task, labels.y_true, labels.groups, folds, len(labels.names), seed=run)
    # The last model reads all nets.
    model = models_of({plan.name: NETS[plan.name].modality for plan in job.plans})[-1]
    outputs = np.full((len(folds), len(labels.names)), np.nan)
    for fold in np.unique(folds[folds >= 0]).tolist():
        matrices = {
            net: of_folds[fold] if fold in of_folds else of_folds[None]
            for net, of_folds in tables.items()
        }
        test = folds == fold
        head = study.settings.fuse.head
        fit = Fit(model, fold, train=~test, C=head.C, predict=test)
        outputs[test] = fit_heads([fit], matrices, clips, head)[1][0]
    return FoldPredictions(outputs)


def trainings_of(
    study: Study, media: StudyMedia, job: HeadJob, run: int, folds: Ints
) -> list[NetTraining]:
    """Return the trainings of a job's nets."""
    settings = study.settings.extract.run
    settings = replace(settings, protocol=job.protocol, seed=settings.seed + run)
    return [
        NetTraining(
            media,
            TrainingClips(job.manifest, media.digests, media.usable(plan), folds),
            plan,
            settings,
            study.work / "nets",
        )
        for plan in job.plans
    ]


def _embed(study: Study, media: StudyMedia, plan: NetSettings, trained: TrainedNet) -> Matrix:
    """Return embeddings of all clips; clips that the net cannot read are missing."""
    rows = np.flatnonzero(media.usable(plan)).tolist()
    values = np.full((len(media.manifest), trained.spec.dim), np.nan, dtype=np.float32)
    for batch, embeddings in embed_rows(
        trained.net,
        media.batches(trained.net, plan.view),
        rows,
        batch_size=study.settings.extract.embed_batch,
        device=pick_device(study.settings.extract.run.device),
        precision=study.settings.extract.run.precision,
    ):
        values[list(batch)] = embeddings
    return matrix_of(values)

"""Nets of a study under cross-fitting: each fold's clips by a net that never saw the fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mvemo.extract.nets import Net
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.devices import pick_device
from mvemo.extract.training.embedding import embed_rows, outputs_of
from mvemo.extract.training.jobs import Curve
from mvemo.extract.training.splits import TrainingClips
from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.links import Link, apply_link
from mvemo.manifests.splits.holdout import TRAIN
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.starting_weights import tell_weights
from mvemo.pipeline.studies.ahead import NetTraining
from mvemo.pipeline.studies.core import Study
from mvemo.pipeline.studies.media import StudyMedia
from mvemo.pipeline.studies.scores import Labels


@dataclass(frozen=True)
class NetJob:
    """One net to cross-fit."""

    plan: NetSettings  # the net
    folds: Ints  # int64 (clips,), for the rows of the media that it reads
    run: int = 0  # repeat; changes the seed of weights, batches and dropout
    title: str = ""  # for the progress bar; the net's name by default
    with_train_score: bool = False  # also predict the clips that each net was trained on
    # Int64 (clips,), 0 training, 1 validation, 2 test: one net is trained on this split
    # instead, and predicts its validation and test clips.
    splits: Ints | None = None
    only_first: bool = False  # train and predict without the first fold alone


@dataclass(frozen=True)
class FoldPredictions:
    """Out-of-fold predictions of a net or a model, in one repeat."""

    # Float64 (clips, outputs): probabilities or values, each clip's by the net trained
    # without its fold; NaN rows for clips that could not be decoded, and for folds that were
    # not run.
    outputs: F64
    # The primary metric of each fold's net on the clips that it was trained on, the
    # validation clips for early stopping among them; empty where it was not asked for.
    train_scores: tuple[float, ...] = ()
    # Losses by epoch of each fold's training.
    curves: tuple[Curve, ...] = field(default=(), repr=False)
    n_parameters: int = 0  # numbers that are learnt


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
    """The trainings of a job."""
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
    """float64 (rows, outputs): the net's own last layer on its embeddings, dropout off.

    Of several windows of a clip it is the link of their mean output.
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

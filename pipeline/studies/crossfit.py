"""Nets of a study under cross-fitting: each fold's clips by a net that never saw the fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.special import softmax

from mvemo.extract.nets import Net
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import pick_device
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.training.jobs import Curve
from mvemo.extract.training.protocols import TrainingClips, train_nets
from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.metrics.multiclass import accuracy
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.messages import tell_outline
from mvemo.pipeline.progress import Progress
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.studies.core import Study, class_indices
from mvemo.pipeline.studies.media import StudyMedia


@dataclass(frozen=True)
class NetJob:
    """One net to cross-fit.

    Parameters
    ----------
    plan
        The net.
    folds
        int64 (clips,), for the rows of the media that it reads.
    run
        Repeat; changes the seed of weights, batches and dropout.
    title
        For the progress bar; the net's name by default.
    with_train_accuracy
        Also predict the clips that each net was trained on.
    only_first
        Train and predict without the first fold alone.
    """

    plan: NetSettings
    folds: Ints
    run: int = 0
    title: str = ""
    with_train_accuracy: bool = False
    only_first: bool = False


@dataclass(frozen=True)
class FoldPredictions:
    """Out-of-fold predictions of a net or a model, in one repeat.

    Parameters
    ----------
    proba
        float64 (clips, classes), each clip's by the net trained without its fold; NaN
        rows for clips that could not be decoded, and for folds that were not run.
    train_accuracy
        Of each fold's net on the clips that it was trained on, the validation clips for
        early stopping among them; empty where it was not asked for.
    curves
        Losses by epoch of each fold's training.
    n_parameters
        Numbers that are learnt.
    """

    proba: F64
    train_accuracy: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = field(default=(), repr=False)
    n_parameters: int = 0


def cross_fit(study: Study, media: StudyMedia, job: NetJob) -> FoldPredictions:
    """Train a net without each fold in turn, and predict that fold's clips.

    Parameters
    ----------
    study
        Seed, device and precision are its settings'.
    media
        Of the manifest that is predicted, which may be the study's cut into segments.
    job
        The net and its folds.
    """
    manifest, settings, plan = media.manifest, study.settings.extract, job.plan
    usable = media.usable(plan)
    if not usable.any():
        raise BadOption(f"{plan.name}: no clip has what this net is given")
    y_true = class_indices(manifest)
    proba = np.full((len(manifest), len(manifest.classes)), np.nan)
    train_accuracy: list[float] = []
    curves: list[Curve] = []
    n_parameters = 0
    run_settings = replace(settings.run, protocol="crossfit", seed=settings.run.seed + job.run)
    total = 1 if job.only_first else len(np.unique(job.folds))
    with Progress(job.title or plan.name, total, "net") as bar:
        for trained in train_nets(
            plan,
            TrainingClips(manifest, media.digests, usable, job.folds),
            run_settings,
            batches=lambda net: media.batches(net, plan.view),
            jobs=study.work / "nets",
            on_epoch=lambda label, epoch, epochs, loss: bar.note(
                f"{label} epoch {epoch}/{epochs}, validation loss {loss:.3f}"
            ),
            on_report=tell_outline,
        ):
            test = np.flatnonzero(usable & (job.folds == trained.spec.fold))
            proba[test] = predict_proba(trained.net, media, test, study.settings)
            if job.with_train_accuracy:
                train = np.flatnonzero(usable & (job.folds != trained.spec.fold))
                y_pred = predict_proba(trained.net, media, train, study.settings).argmax(axis=1)
                train_accuracy.append(accuracy(y_true[train], y_pred))
            curves.append(trained.curve)
            n_parameters = sum(p.numel() for p in trained.net.parameters() if p.requires_grad)
            bar.step()
            if job.only_first:
                break
    return FoldPredictions(proba, tuple(train_accuracy), tuple(curves), n_parameters)


def predict_proba(net: Net, media: StudyMedia, rows: Ints, settings: Settings) -> F64:
    """float64 (rows, classes): the net's own classifier on its embeddings, dropout off."""
    device = pick_device(settings.extract.run.device)
    classifier = net.classifier
    proba = np.empty((len(rows), classifier.out_features))
    start = 0
    for batch, embeddings in embed_rows(
        net,
        media.batches(net),
        rows.tolist(),
        batch_size=settings.extract.embed_batch,
        device=device,
        precision=settings.extract.run.precision,
    ):
        # A deviation over windows comes after their mean.
        embeddings = embeddings[:, : classifier.in_features]
        with torch.inference_mode():
            logits = classifier(torch.from_numpy(embeddings).to(device)).cpu().numpy()
        proba[start : start + len(batch)] = softmax(logits.astype(np.float64), axis=1)
        start += len(batch)
    return proba

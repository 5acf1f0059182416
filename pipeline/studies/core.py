"""What all studies share: the manifest and its folds, nets under cross-fitting, scores.

Every figure is out of fold: a clip is predicted by a net, or a classical model, whose
training had neither the clip nor any other of its group. Folds of all variants of a study
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from mvemo.extract.nets.base import Net
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.training.fine_tuning import Curve, pick_device
from mvemo.extract.training.plan import NetPlan, TrainSettings
from mvemo.extract.training.protocols import RunSettings, trained_nets
from mvemo.fuse.metrics.multiclass import accuracy, confusion_matrix, f1_macro, roc_auc_macro_ovr
from mvemo.fuse.statistics.resamples import percentile_interval, resample_groups
from mvemo.manifests import Manifest, folds_of
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.progress import Progress
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import manifest_with_media, net_plan, with_fold_file
from mvemo.pipeline.studies.media import StudyMedia

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Study:
    """One study's data and settings.

    Parameters
    ----------
    manifest
        Multiclass; its labels are shuffled where that is asked for.
    settings
        Of the nets, the descriptors and the folds.
    work
        Folder of the working cache and of trained nets.
    permuted
        Whether labels were shuffled.
    runs
        Repeats with other folds and other seeds.
    failures
        Clip id to why it could not be used; `media` fills it.
    """

    manifest: Manifest
    settings: Settings
    work: Path
    permuted: bool = False
    runs: int = 1
    failures: dict[str, str] = field(default_factory=dict, compare=False)

    def folds(self, run: int = 0) -> Ints:
        """int64 (clips,): the fold of each clip in a repeat; groups are whole."""
        extract = self.settings.extract
        return folds_of(self.manifest, extract.folds, extract.fold_seed + run).assignment

    def plan(self, net: str, **train: object) -> NetPlan:
        """A net's plan from the settings, with some of its training changed."""
        plan = net_plan(net, self.settings)
        changed: TrainSettings = replace(plan.train, **train)  # type: ignore[arg-type]
        return replace(plan, train=changed)

    def media(self, plans: Sequence[NetPlan] = (), descriptors: Sequence[str] = ()) -> StudyMedia:
        """The working cache of these clips, filled with what is asked for."""
        media = StudyMedia(
            self.manifest, self.settings, self.work, plans=plans, descriptors=descriptors
        )
        self.failures.update(media.problems)
        return media


def open_study(
    path: Path,
    settings: Settings,
    *,
    work: Path,
    root: Path | None = None,
    permute_labels: bool = False,
    runs: int = 1,
    fold_file: Path | None = None,
) -> Study:
    """Read the manifest of a study.

    Parameters
    ----------
    path, root
        Of the manifest, and of its media where that is not the manifest's own.
    settings, work, runs
        As in `Study`.
    permute_labels
        Shuffle the labels over clips.
    fold_file
        The folds, in place of those that the settings ask for; all runs have them.

    Raises
    ------
    BadOption
        Its task is not multiclass: the papers' tables are of classes.
    """
    manifest = manifest_with_media(path, root)
    if manifest.task != "multiclass":
        raise BadOption(
            f"{path}: the task is {manifest.task}; studies are of multiclass manifests, "
            "as the papers' tables are"
        )
    manifest, settings = with_fold_file(manifest, settings, fold_file)
    if permute_labels:
        manifest = with_permuted_labels(manifest, settings.extract.seed)
    return Study(manifest, settings, work, permute_labels, runs)


def with_permuted_labels(manifest: Manifest, seed: int) -> Manifest:
    """The manifest with its labels shuffled over clips; all else is as it was."""
    order = np.random.default_rng(seed).permutation(len(manifest))
    clips = tuple(
        replace(clip, label=manifest.clips[int(other)].label)
        for clip, other in zip(manifest.clips, order, strict=True)
    )
    return replace(manifest, clips=clips)


@dataclass(frozen=True)
class NetRun:
    """A net under cross-fitting.

    Parameters
    ----------
    probabilities
        float64 (clips, classes), each clip's by the net trained without its fold; NaN
        rows for clips that could not be decoded, and for folds that were not run.
    train_accuracy
        Of each fold's net on the clips that it was trained on, those held out for early
        stopping among them; empty where it was not asked for.
    curves
        Losses by epoch of each fold's training.
    parameters
        Numbers that are learnt.
    """

    probabilities: Floats
    train_accuracy: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = field(default=(), repr=False)
    parameters: int = 0


def cross_fit(
    study: Study,
    media: StudyMedia,
    plan: NetPlan,
    folds: Ints,
    *,
    run: int = 0,
    title: str = "",
    train_accuracy: bool = False,
    only_first: bool = False,
) -> NetRun:
    """Train a net without each fold in turn, and predict that fold's clips.

    Parameters
    ----------
    study
        Seed, device and precision are its settings'.
    media
        Of the manifest that is predicted, which may be the study's cut into segments.
    plan
        The net.
    folds
        int64 (clips,), for the rows of `media`.
    run
        Repeat; changes the seed of weights, batches and dropout.
    title
        For the progress bar.
    train_accuracy
        Also predict the clips that each net was trained on.
    only_first
        Train and predict without the first fold alone.
    """
    manifest, settings = media.manifest, study.settings.extract
    usable = media.usable(plan)
    if not usable.any():
        raise BadOption(f"{plan.name}: no clip has what this net is given")
    labels = _labels(manifest)
    probabilities = np.full((len(manifest), len(manifest.classes)), np.nan)
    on_train: list[float] = []
    curves: list[Curve] = []
    parameters = 0
    run_settings = RunSettings("crossfit", settings.seed + run, settings.device, settings.precision)
    total = 1 if only_first else len(np.unique(folds))
    with Progress(title or plan.name, total, "net") as bar:
        for trained in trained_nets(
            plan,
            manifest,
            folds,
            usable,
            media.content,
            media.batches,
            run_settings,
            study.work / "nets",
            on_epoch=lambda label, epoch, epochs, loss: bar.note(
                f"{label} epoch {epoch}/{epochs}, validation loss {loss:.3f}"
            ),
            on_report=lambda text: click.echo(text, err=True),
        ):
            test = np.flatnonzero(usable & (folds == trained.spec.fold))
            probabilities[test] = predict(trained.net, media, test, study.settings)
            if train_accuracy:
                seen = np.flatnonzero(usable & (folds != trained.spec.fold))
                said = predict(trained.net, media, seen, study.settings).argmax(axis=1)
                on_train.append(accuracy(labels[seen], said))
            curves.append(trained.curve)
            parameters = sum(p.numel() for p in trained.net.parameters() if p.requires_grad)
            bar.step()
            if only_first:
                break
    return NetRun(probabilities, tuple(on_train), tuple(curves), parameters)


def predict(net: Net, media: StudyMedia, rows: Ints, settings: Settings) -> Floats:
    """float64 (rows, classes): the net's own classifier on its embeddings, dropout off."""
    device = pick_device(settings.extract.device)
    last = net.classifier
    out = np.empty((len(rows), last.out_features))
    done = 0
    for chosen, values in embed_rows(
        net,
        media.batches(net),
        rows.tolist(),
        batch_size=settings.extract.embed_batch,
        device=device,
        precision=settings.extract.precision,
    ):
        with torch.inference_mode():
            logits = last(torch.from_numpy(values).to(device)).cpu().numpy().astype(np.float64)
        out[done : done + len(chosen)] = softmax(logits, axis=1)
        done += len(chosen)
    return out


@dataclass(frozen=True)
class Scores:
    """How well clips were predicted out of fold.

    Parameters
    ----------
    accuracy
        Share of all predicted clips that are right; with repeats, the mean over them.
    low, high
        Its 95 % interval by bootstrapping groups.
    sd
        Standard deviation of the accuracy: over repeats where there are any, else over
        folds.
    f1, auc
        Macro F1, and macro one-vs-rest area under the ROC curve of the pooled predictions.
    majority
        Accuracy of always saying the commonest class of the training folds.
    clips
        How many were predicted.
    """

    accuracy: float
    low: float
    high: float
    sd: float
    f1: float
    auc: float
    majority: float
    clips: int


def score(
    labels: Ints,
    probabilities: Sequence[Floats],
    folds: Sequence[Ints],
    groups: Sequence[str],
) -> Scores:
    """Scores of out-of-fold probabilities.

    Parameters
    ----------
    labels
        int64 (clips,).
    probabilities
        One float64 (clips, classes) for each repeat; NaN rows were not predicted.
    folds
        int64 (clips,) for each repeat.
    groups
        One a clip.
    """
    there = np.asarray(np.isfinite(np.stack(probabilities)).all(axis=(0, 2)))
    truth = labels[there]
    held = [p[there] for p in probabilities]
    said = [p.argmax(axis=1).astype(np.int64) for p in held]
    each = [accuracy(truth, s) for s in said]
    if len(held) > 1:
        sd = float(np.std(each, ddof=1))
    else:
        of_fold = [accuracy(truth[f], said[0][f]) for f in _members(folds[0][there])]
        sd = float(np.std(of_fold, ddof=1)) if len(of_fold) > 1 else float("nan")
    resamples = resample_groups([g for g, kept in zip(groups, there, strict=True) if kept])
    correct = np.stack(said) == truth
    shares = resamples.shares(correct, np.ones_like(correct))
    interval = percentile_interval(shares.mean(axis=0))
    n_classes = probabilities[0].shape[1]
    return Scores(
        accuracy=float(np.mean(each)),
        low=float(interval[0]),
        high=float(interval[1]),
        sd=sd,
        f1=float(np.mean([f1_macro(confusion_matrix(truth, s, n_classes)) for s in said])),
        auc=float(np.mean([roc_auc_macro_ovr(truth, p) for p in held])),
        majority=float(np.mean([majority_accuracy(truth, f[there]) for f in folds])),
        clips=int(there.sum()),
    )


def majority_accuracy(labels: Ints, folds: Ints) -> float:
    """Accuracy of saying, for each fold, the commonest class of the others."""
    right = 0
    for test in _members(folds):
        train = labels[~test]
        if len(train):
            right += int((labels[test] == np.bincount(train).argmax()).sum())
    return right / max(len(labels), 1)


def _members(folds: Ints) -> list[NDArray[np.bool_]]:
    return [folds == fold for fold in np.unique(folds)]


def _labels(manifest: Manifest) -> Ints:
    return np.asarray(manifest.labels, dtype=np.int64)


def labels_of(media: StudyMedia) -> Ints:
    """int64 (clips,): classes of the rows of a study's media."""
    return _labels(media.manifest)

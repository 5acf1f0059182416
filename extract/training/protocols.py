"""Training protocols, which define the clips that a net may see.

docs/protocols.md explains ``crossfit``, ``frozen``, ``shared`` and ``holdout``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from mvemo.cache.spec import LAYERS, STORAGE, FeatureSpec, Protocol, digest_of
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import registry, sequences
from mvemo.extract.nets.parts.base import Net, weights_digest
from mvemo.extract.nets.parts.encoder_names import EncoderName
from mvemo.extract.nets.parts.weights import WeightReport, load_weights
from mvemo.extract.pretrained.store import pretrained_path
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings
from mvemo.extract.training import data, devices, recipe, steps, trainer
from mvemo.manifests import Manifest
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.plugins import plugin_record, plugins

# Version of the training; it is raised whenever the same settings give a different net.
TRAINING_VERSION = 2


@dataclass(frozen=True)
class TrainedNet:
    """Net that is ready to embed."""

    net: Net  # with its final weights, in evaluation mode
    spec: FeatureSpec  # specification of its feature, including `trained_on`
    curve: steps.Curve  # losses by epoch; empty for a frozen net


def require_weights(settings: NetSettings) -> None:
    """Raise `BadOption` for a net that is not trained and has no pretrained weights."""
    name, kind = settings.name, registry.NETS[settings.name]
    if not (settings.weights or kind.brings_weights):
        fetch = f"download them with 'mvemo weights get {name}', " if kind.package else ""
        raise BadOption(
            f"{name}: the frozen protocol needs pretrained weights: {fetch}give "
            f"--weights {name}=FILE, or leave the net out with --nets"
        )


def weight_file(settings: NetSettings) -> Path:
    if settings.weights == FETCHED:
        return pretrained_path(settings.name)
    return Path(settings.weights)


def make_net(
    settings: NetSettings, n_outputs: int, run: RunSettings
) -> tuple[Net, WeightReport | None]:
    """Build a net with its pretrained weights, if any; under ``frozen`` it needs all of them."""
    torch.manual_seed(run.seed)
    # For clips without labels the classifier is not used.
    options = {"width": settings.width, **settings.options}
    net = registry.build_net(settings.name, n_outputs or 1, **options)
    if settings.name in plugins("nets"):
        _try_net(plugins("nets")[settings.name].failure, net)
    elif isinstance(settings.name, EncoderName) and settings.name.facts.source in ("hear", "onnx"):
        entry = settings.name.entry
        _try_net(lambda problem: BadWeights(f"{entry}: {' '.join(problem.split())}"), net)
    if not settings.weights:
        return net, None
    report = load_weights(net, weight_file(settings))
    if run.protocol == "frozen" and not report.complete:
        lost = (*report.missing, *report.mismatched)
        missing = [name for name in lost if not name.startswith("classifier.")]
        raise BadWeights(
            f"{report.path}: does not contain all of {settings.name} ({len(missing)} tensors are "
            f"missing or have another shape, for example {missing[0]}), which the frozen protocol "
            "needs"
        )
    return net, report


@torch.no_grad()
def _try_net(failure: Callable[[str], MvemoError], net: Net) -> None:
    """Test a net from another source on a silent, black clip; raise `failure` if it fails."""
    try:
        net.preprocessing()
        raw = sequences.empty_input(net.input, "cpu", DescriptorSettings())
        embedding = net.eval().embed(net.prepare(raw))
    except MvemoError:
        raise
    except Exception as error:
        raise failure(f"{type(error).__name__}: {error}") from error
    shape = 1, net.embedding_dim
    if embedding.shape != shape or not embedding.isfinite().all():
        found = f"{tuple(embedding.shape)} with {int((~embedding.isfinite()).sum())} that are not"
        raise failure(f"expected finite embeddings of shape {shape}, got {found}")
    net.train()


def embedding_spec(
    settings: NetSettings,
    net: Net,
    run: RunSettings,
    *,
    fold: int | None = None,
    trained_on: Sequence[str] = (),
) -> FeatureSpec:
    """Return the specification of a net's embedding, which contains the digest of its weights."""
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
            **({"level": run.level} if net.modality == "audio" else {}),
            **({"view": settings.view.record()} if settings.view.record() else {}),
            **({LAYERS: list(net.layers), STORAGE: "float16"} if net.layers else {}),
            **plugin_record("nets", settings.name),
        },
        weights=weights_digest(net),
        protocol=cast(Protocol, run.protocol),
        fold=fold,
        trained_on=tuple(trained_on),
    )


def frozen_net(settings: NetSettings, n_outputs: int, run: RunSettings) -> TrainedNet:
    """Return the net that embeds under ``frozen``; for the parameters see `train_nets`."""
    return _frozen(settings, make_net(settings, n_outputs, run)[0], run)


def _frozen(settings: NetSettings, net: Net, run: RunSettings) -> TrainedNet:
    require_weights(settings)
    spec = embedding_spec(settings, net, run)
    return TrainedNet(devices.place(net, devices.pick_device(run.device)).eval(), spec, {})


def outputs_spec(trained: TrainedNet, manifest: Manifest) -> FeatureSpec:
    """Return the specification of a net's outputs, which are meaningful only after training."""
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
    clips: data.TrainingClips,
    run: RunSettings,
    *,
    batches: Callable[[Net], data.RawBatches],
    jobs: Path,
    on_epoch: Callable[[str, int, int, float], None] | None = None,
    on_report: Callable[[WeightReport], None] | None = None,
) -> Iterator[TrainedNet]:
    """Train the nets of the protocol, or load those already trained; yield one per fold.

    Parameters
    ----------
    settings, run
        Settings of the net, and of the run: protocol, seed, device, precision.
    clips
        All clips, and their folds or splits.
    batches
        Function that makes the reader of a net's input.
    jobs
        Folder of the jobs' checkpoints.
    on_epoch
        Function called with the job's label, the epoch, the maximum number of epochs and the
        validation loss (NaN without validation clips).
    on_report
        Function called with the report on a pretrained weight file.

    Raises
    ------
    BadOption
        ``frozen`` has no weight file, ``holdout`` has no splits, or there are too few usable
        clips to train on.
    TrainingDiverged
        A training had no finite loss.
    """
    device = devices.pick_device(run.device)
    n_outputs = len(clips.manifest.classes)
    start, report = make_net(settings, n_outputs, run)
    if report is not None and on_report is not None:
        on_report(report)
    if run.protocol == "frozen":
        yield _frozen(settings, start, run)
        return
    steps.set_determinism(run.deterministic)
    reader = data.batches_for(batches(start), np.flatnonzero(clips.usable).tolist(), device)
    for split, facts, folder in _jobs(settings, clips, run, jobs, start):
        trained_on = [clips.manifest.clip_ids[row] for row in split.rows]
        net = devices.place(make_net(settings, n_outputs, run)[0], device)
        result = folder.result()
        if result is None:
            summary = {k: v for k, v in facts.items() if k not in ("clips", "labels", "groups")}
            folder.begin({**summary, "fold": split.fold, "trained_on": trained_on})
            job = steps.TrainingJob(
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
            curve = trainer.fine_tune(net, reader, job, folder, on_epoch=on_epoch)
            folder.finish({k: v.cpu() for k, v in net.state_dict().items()}, curve)
        else:
            weights, curve = result
            net.load_state_dict(weights)
        spec = embedding_spec(settings, net, run, fold=split.fold, trained_on=trained_on)
        yield TrainedNet(net.eval(), spec, curve)


class KnownNet(NamedTuple):
    split: data.TrainingSplit | None  # training clips; None if nothing is trained
    spec: FeatureSpec | None  # specification of its feature; None if it must be trained first
    folder: Path | None  # folder of the job, equal for equal jobs; None if nothing is trained


def known_nets(
    settings: NetSettings, clips: data.TrainingClips, run: RunSettings, jobs: Path
) -> list[KnownNet]:
    """Return the facts about the nets of `train_nets`, without training any."""
    n_outputs = len(clips.manifest.classes)
    start, _ = make_net(settings, n_outputs, run)
    if run.protocol == "frozen":
        return [KnownNet(None, embedding_spec(settings, start, run), None)]
    nets = []
    for split, _, folder in _jobs(settings, clips, run, jobs, start):
        result, spec = folder.result(), None
        if result is not None:
            start.load_state_dict(result[0])
            spec = embedding_spec(settings, start, run, fold=split.fold)
        nets.append(KnownNet(split, spec, folder.path))
    return nets


def _jobs(
    settings: NetSettings, clips: data.TrainingClips, run: RunSettings, jobs: Path, start: Net
) -> list[tuple[data.TrainingSplit, dict[str, Any], trainer.JobFolder]]:
    """Return each training of a protocol, all that determines its weights, and its folder."""
    found, manifest = [], clips.manifest
    for split in data.training_splits(settings, clips, run):
        facts = {
            "training": TRAINING_VERSION,
            # Windows are pooled after the training, so the pooling does not matter.
            "plan": {k: v for k, v in settings.record().items() if k != "pooling"},
            "preprocessing": start.preprocessing(),
            **({"level": run.level} if start.modality == "audio" else {}),
            "version": start.version,
            "initial": weights_digest(start),
            "task": manifest.task,
            "classes": list(manifest.classes),
            "clips": [
                [clips.content[clip.clip_id], clip.start, clip.duration]
                for clip in (manifest.clips[row] for row in split.rows)
            ],
            "labels": np.asarray(manifest.labels)[split.rows].tolist(),
            "groups": [manifest.groups[row] for row in split.rows],
            # Positions in `clips`.
            "held_out": np.flatnonzero(split.validation).tolist(),
            "seed": split.seed,
            "precision": run.precision,
            # Facts that matter for few nets only; all other nets keep their digest.
            **({"rmsprop": recipe.RMSPROP} if settings.train.optimizer == "rmsprop" else {}),
            **({"probe_C": recipe.PROBE_C} if settings.train.recipe.probe else {}),
            **plugin_record("losses", settings.train.loss),
            **({"targets": "standardised"} if manifest.task == "regression" else {}),
        }
        found.append(
            (split, facts, trainer.JobFolder(jobs, split.label.replace("@", "-"), digest_of(facts)))
        )
    return found

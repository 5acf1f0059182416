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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec, Protocol, digest_of
from mvemo.cache.table import TEST, VALIDATION
from mvemo.extract.errors import BadSetting, BadWeights
from mvemo.extract.nets import build_net
from mvemo.extract.nets.base import Net, weights_digest
from mvemo.extract.nets.weights import load_weights
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.checkpoints import JobFolder
from mvemo.extract.training.fine_tuning import Curve, fine_tune, n_epochs, pick_device, place
from mvemo.extract.training.plan import PRECISIONS, PROTOCOLS, NetPlan
from mvemo.manifests import Manifest, inner_split

# Rises whenever the same settings would train another net.
TRAINING_VERSION = 1


@dataclass(frozen=True)
class RunSettings:
    """What all nets of a run share.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`.
    seed
        Of initial weights, inner splits, batch order and dropout.
    device
        ``auto``, ``cpu`` or ``cuda``.
    precision
        One of `PRECISIONS`.
    """

    protocol: str = "crossfit"
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise BadSetting(
                f"protocol {self.protocol!r} is not known: one of {', '.join(PROTOCOLS)}"
            )
        if self.precision not in PRECISIONS:
            raise BadSetting(
                f"precision {self.precision!r} is not known: one of {', '.join(PRECISIONS)}"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadSetting("device is 'cuda', but torch finds none here: use 'auto' or 'cpu'")
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise BadSetting(f"device {self.device!r} is not known: auto, cpu or cuda")


@dataclass(frozen=True)
class Trained:
    """A net that is ready to embed.

    Parameters
    ----------
    net
        With its final weights, on its device, in evaluation mode.
    spec
        Of its feature, `trained_on` filled in.
    curve
        Losses by epoch; empty for a frozen net.
    """

    net: Net
    spec: FeatureSpec
    curve: Curve


def need_weights(plan: NetPlan, run: RunSettings) -> None:
    """Refuse a net that nothing trained.

    Raises
    ------
    BadSetting
        ``frozen`` without a weight file.
    """
    if run.protocol == "frozen" and not plan.weights:
        raise BadSetting(
            f"{plan.name}: the frozen protocol embeds with pretrained weights: give "
            f"--weights {plan.name}=FILE, or leave the net out with --nets"
        )


def make_net(plan: NetPlan, outputs: int, run: RunSettings) -> tuple[Net, str]:
    """Build a net from its plan, with its pretrained weights where the plan names a file.

    Returns
    -------
    The net, and the report of the weight file (empty without one).

    Raises
    ------
    BadWeights
        The file does not fit; under ``frozen``, where what it lacks would stay random, also
        one that lacks a tensor of the net before its classifier.
    """
    torch.manual_seed(run.seed)
    net = build_net(plan.name, outputs, width=plan.width, **plan.options)
    if not plan.weights:
        return net, ""
    report = load_weights(net, Path(plan.weights))
    if run.protocol == "frozen" and not report.complete:
        lacking = [
            name
            for name in (*report.missing, *report.mismatched)
            if not name.startswith("classifier.")
        ]
        raise BadWeights(
            f"{report.path}: has not all of {plan.name} ({len(lacking)} tensors are missing or of "
            f"another shape, as {lacking[0]}): under frozen they would stay random"
        )
    return net, report.text()


def embedding_spec(
    plan: NetPlan,
    net: Net,
    protocol: str,
    precision: str,
    *,
    fold: int | None,
    trained_on: Sequence[str],
) -> FeatureSpec:
    """The record of a net's embedding; its weights are part of it by their digest."""
    named: dict[str, Protocol] = {
        "crossfit": "crossfit",
        "frozen": "frozen",
        "shared": "shared",
        "holdout": "holdout",
    }
    return FeatureSpec(
        name=plan.name,
        modality=net.modality,
        kind="vector",
        dim=net.embedding_dim,
        extractor=f"net:{plan.name}",
        version=net.version,
        params={
            "preprocessing": net.preprocessing(),
            "width": plan.width,
            "options": dict(plan.options),
            "precision": precision,
        },
        weights=weights_digest(net),
        protocol=named[protocol],
        fold=fold,
        trained_on=tuple(trained_on),
    )


def trained_nets(
    plan: NetPlan,
    manifest: Manifest,
    folds: NDArray[np.int64],
    usable: NDArray[np.bool_],
    content: Mapping[str, str],
    batches: Callable[[Net], RawBatches],
    run: RunSettings,
    jobs: Path,
    *,
    splits: NDArray[np.int64] | None = None,
    on_epoch: Callable[[str, int, int, float], None] | None = None,
    on_report: Callable[[str], None] | None = None,
) -> Iterator[Trained]:
    """All nets of one plan under the run's protocol, trained or found trained, in turn.

    Parameters
    ----------
    plan
        The net and its settings.
    manifest
        All clips.
    folds
        int64 (clips,), each clip's fold; used under ``crossfit`` alone.
    usable
        bool (clips,): rows whose modality was decoded.
    content
        Clip id to the digest of its media.
    batches
        Makes the reader of a net's input.
    run
        Protocol, seed, device, precision.
    jobs
        Folder of the jobs' checkpoints.
    splits
        int64 (clips,), 0 training, 1 validation, 2 test; needed under ``holdout``.
    on_epoch
        Told the job's label, the epoch, the epochs at most and the validation loss (NaN
        where no clips are held out).
    on_report
        Told what a pretrained weight file gave and did not give.

    Raises
    ------
    BadSetting
        ``frozen`` without a weight file, ``holdout`` without splits, or too few usable
        clips to train on.
    """
    device = pick_device(run.device)
    start, report = make_net(plan, len(manifest.classes), run)
    if report and on_report is not None:
        on_report(report)
    if run.protocol == "frozen":
        need_weights(plan, run)
        spec = embedding_spec(plan, start, "frozen", run.precision, fold=None, trained_on=())
        yield Trained(place(start, device).eval(), spec, {})
        return
    initial = weights_digest(start)
    reader = batches(start)
    wanted: list[int | None] = [None]
    if run.protocol == "crossfit":
        wanted = [int(fold) for fold in np.unique(folds)]
    for fold in wanted:
        which = "all" if fold is None else f"fold{fold}"
        seen = usable if fold is None else usable & (folds != fold)
        if run.protocol == "holdout":
            if splits is None:
                raise BadSetting(f"{plan.name}: the holdout protocol needs a split of the clips")
            which, seen = "holdout", usable & (splits != TEST)
        rows = np.flatnonzero(seen)
        label = f"{plan.name}@{which}"
        seed = job_seed(run.seed, fold)
        held = held_out(plan, manifest, rows, splits if run.protocol == "holdout" else None, seed)
        if len(rows) < 2 or held.all():
            raise BadSetting(
                f"{label}: {(~held).sum()} usable training clips, at least 2 are needed"
            )
        ids = [manifest.clip_ids[row] for row in rows]
        facts: dict[str, Any] = {
            "training": TRAINING_VERSION,
            "plan": plan.record(),
            "preprocessing": start.preprocessing(),
            "version": start.version,
            "initial": initial,
            "task": manifest.task,
            "classes": list(manifest.classes),
            "clips": [
                [content[m], manifest.clips[r].start, manifest.clips[r].duration]
                for m, r in zip(ids, rows, strict=True)
            ],
            "labels": np.asarray(manifest.labels)[rows].tolist(),
            "groups": [manifest.groups[row] for row in rows],
            # Positions in `clips`.
            "held_out": np.flatnonzero(held).tolist(),
            "seed": seed,
            "precision": run.precision,
        }
        folder = JobFolder(jobs, label.replace("@", "-"), digest_of(facts))
        net = place(make_net(plan, len(manifest.classes), run)[0], device)
        result = folder.result()
        if result is not None:
            weights, curve = result
            net.load_state_dict(weights)
        else:
            summary = {k: v for k, v in facts.items() if k not in ("clips", "labels", "groups")}
            folder.begin({**summary, "fold": fold, "trained_on": ids})
            epochs = n_epochs(plan.train, int((~held).sum()))
            curve = fine_tune(
                net,
                reader,
                manifest.labels,
                task=manifest.task,
                train_rows=rows[~held].tolist(),
                val_rows=rows[held].tolist(),
                settings=plan.train,
                seed=seed,
                device=device,
                precision=run.precision,
                folder=folder,
                on_epoch=None
                if on_epoch is None
                else lambda e, v, label=label, n=epochs: on_epoch(label, e, n, v),  # type: ignore[misc]
            )
            folder.finish({k: v.cpu() for k, v in net.state_dict().items()}, curve)
        spec = embedding_spec(plan, net, run.protocol, run.precision, fold=fold, trained_on=ids)
        yield Trained(net.eval(), spec, curve)


def job_seed(seed: int, fold: int | None) -> int:
    """Seed of the training without a fold, or of that on all clips."""
    return seed * 1000 + (0 if fold is None else fold + 1)


def held_out(
    plan: NetPlan,
    manifest: Manifest,
    rows: NDArray[np.int64],
    splits: NDArray[np.int64] | None,
    seed: int,
) -> NDArray[np.bool_]:
    """bool (rows,): clips that early stopping decides by, and no gradient comes from."""
    if splits is not None:
        held: NDArray[np.bool_] = splits[rows] == VALIDATION
        if plan.train.patience and not held.any():
            raise BadSetting(f"{plan.name}: no usable validation clip to stop training by")
        return held
    if not plan.train.patience or len(rows) < 2:
        return np.zeros(len(rows), dtype=np.bool_)
    return inner_split(
        np.asarray(manifest.labels)[rows],
        [manifest.groups[row] for row in rows],
        plan.train.val_fraction,
        seed,
        manifest.task,
    )

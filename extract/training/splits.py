"""Clips for the training of a net and for its early stopping."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mvemo.cache.table import TEST, VALIDATION
from mvemo.extract.array_types import I64, Mask
from mvemo.extract.errors import BadSetting
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.manifests import Manifest, inner_split


@dataclass(frozen=True)
class TrainingClips:
    """Clips for the training of nets, and their division.

    Parameters
    ----------
    manifest
        All clips.
    content
        Digest of the media of each clip, by clip id.
    usable
        Rows whose modality was decoded, bool (clips,).
    folds
        Fold of each clip, int64 (clips,); used under ``crossfit`` only.
    splits
        Split of each clip, int64 (clips,): 0 training, 1 validation, 2 test. Needed under
        ``holdout``.
    trained_folds
        Folds whose nets are trained here, under ``crossfit``; None for all.
    """

    manifest: Manifest
    content: Mapping[str, str]
    usable: Mask
    folds: I64
    splits: I64 | None = None
    trained_folds: Collection[int] | None = None


@dataclass(frozen=True)
class TrainingSplit:
    """Clips for the training of one net."""

    label: str  # ``i3d@fold0``, ``i3d@all`` or ``i3d@holdout``
    fold: int | None  # fold that the net never sees; None without folds
    rows: I64  # manifest rows that the net sees
    validation: Mask  # bool (rows,): rows for early stopping, which give no gradient
    seed: int

    @property
    def train_rows(self) -> list[int]:
        """Return the manifest rows for the gradients."""
        rows: list[int] = self.rows[~self.validation].tolist()
        return rows

    @property
    def val_rows(self) -> list[int]:
        """Return the manifest rows for early stopping."""
        rows: list[int] = self.rows[self.validation].tolist()
        return rows


def training_splits(
    settings: NetSettings, clips: TrainingClips, run: RunSettings
) -> list[TrainingSplit]:
    """Return the training clips of each net of a protocol: one per fold, or only one."""
    if run.protocol == "crossfit":
        folds = [int(fold) for fold in np.unique(clips.folds)]
        if clips.trained_folds is not None:
            folds = [fold for fold in folds if fold in clips.trained_folds]
        return [
            _split(settings, clips, clips.folds != fold, job_seed(run.seed, fold), fold)
            for fold in folds
        ]
    seed = job_seed(run.seed, None)
    if run.protocol != "holdout":
        return [_split(settings, clips, np.ones_like(clips.usable), seed)]
    if clips.splits is None:
        raise BadSetting(f"{settings.name}: the holdout protocol needs a split of the clips")
    return [_split(settings, clips, clips.splits != TEST, seed, splits=clips.splits)]


def _split(
    settings: NetSettings,
    clips: TrainingClips,
    visible: Mask,
    seed: int,
    fold: int | None = None,
    splits: I64 | None = None,
) -> TrainingSplit:
    """Return the clips of one net: the usable ones among those that it may see."""
    which = "all" if fold is None else f"fold{fold}"
    label = f"{settings.name}@{which if splits is None else 'holdout'}"
    rows = np.flatnonzero(clips.usable & visible)
    validation = _validation_mask(settings, clips.manifest, rows, splits, seed)
    if len(rows) < 2 or validation.all():
        raise BadSetting(
            f"{label}: {(~validation).sum()} usable training clips, at least 2 are needed"
        )
    return TrainingSplit(label, fold, rows, validation, seed)


def _validation_mask(
    settings: NetSettings,
    manifest: Manifest,
    rows: I64,
    splits: I64 | None,
    seed: int,
) -> Mask:
    """Return the mask of the clips for early stopping, bool (rows,)."""
    if splits is not None:
        validation: Mask = splits[rows] == VALIDATION
        if settings.train.patience and not validation.any():
            raise BadSetting(f"{settings.name}: no usable validation clip to stop training by")
        return validation
    if not settings.train.patience or len(rows) < 2:
        return np.zeros(len(rows), dtype=np.bool_)
    return inner_split(
        np.asarray(manifest.labels)[rows],
        [manifest.groups[row] for row in rows],
        settings.train.val_fraction,
        seed,
        manifest.task,
    )


def job_seed(seed: int, fold: int | None) -> int:
    """Return the seed of the training without `fold`, or on all clips if that is None."""
    return seed * 1000 + (0 if fold is None else fold + 1)

"""Copy of a manifest in the cache, with the facts that stage two needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.text_table import listed

# Values of `ClipTable.splits`.
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class ClipTable:
    """Clips in the order of every cached row, without the paths of their files.

    Parameters
    ----------
    name
        Name of the manifest.
    task
        ``multiclass``, ``multilabel``, ``regression`` or ``unlabelled``.
    classes
        Class names, tags or targets, in fixed order.
    clip_ids, groups
        Id and group of each clip.
    labels
        Labels by task: int64 (clips,), int64 (clips, classes) or float64 (clips, classes).
    folds
        Fold of each clip, int64 (clips,), from 0; all -1 without folds.
    k
        Number of folds; 0 without folds.
    fold_seed
        Random seed of the folds or splits; 0 without either.
    digest
        Digest of the manifest.
    synthetic
        True for generated data.
    splits
        Part of each clip, int64 (clips,): 0 training, 1 validation, 2 test, under the
        ``holdout`` protocol; otherwise None. Clips with splits have no folds.
    scale
        Lowest and highest value of the valence and arousal scale, as ``1..9``; empty if not
        stated.
    predicted_by
        Model whose predictions the labels are; empty for labels by people.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64] | NDArray[np.float64]
    folds: NDArray[np.int64]
    k: int
    fold_seed: int
    digest: str
    synthetic: bool = False
    splits: NDArray[np.int64] | None = None
    scale: str = ""
    predicted_by: str = ""

    def __repr__(self) -> str:
        """Return one line, for any number of clips."""
        folds = f"{self.k} folds" if self.k else "no folds" if self.splits is None else "one split"
        return (
            f"<ClipTable {self.name!r}: {len(self)} clips in {len(set(self.groups))} groups, "
            f"{folds}, {self.task}: {listed(self.classes)}>"
        )

    def __len__(self) -> int:
        return len(self.clip_ids)

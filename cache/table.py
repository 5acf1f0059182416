"""The cached copy of a manifest: what stage two needs to know of the clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.text_table import listed

# What `ClipTable.splits` holds.
TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class ClipTable:
    """Clips in the order of every cached row, without the paths of their files.

    Parameters
    ----------
    name
        The manifest's name.
    task
        ``multiclass``, ``multilabel``, ``regression``, or ``unlabelled``.
    classes
        Class names, tags or targets, in fixed order.
    clip_ids, groups
        One string a clip.
    labels
        int64 (clips,), int64 (clips, classes) or float64 (clips, classes), by task.
    folds
        int64 (clips,), 0-based; -1 for every clip where there are no folds.
    k, fold_seed
        Number of folds and the seed they were made with; 0 and 0 where there are none, 0 and
        the split's seed where there are splits.
    digest
        The manifest's digest.
    synthetic
        True for generated data.
    scale
        Lowest and highest value of the scale of valence and arousal, as ``1..9``; empty if it
        is not stated.
    predicted_by
        The model whose predictions the labels are; empty for labels by people.
    splits
        int64 (clips,): 0 training, 1 validation, 2 test, under the ``holdout`` protocol;
        None where the clips are not split so. Clips with splits have no folds.
    predicted_by
        The model whose predictions the labels are; empty if they are a truth.
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
        """One line, whatever the number of clips."""
        folds = f"{self.k} folds" if self.k else "no folds" if self.splits is None else "one split"
        return (
            f"<ClipTable {self.name!r}: {len(self)} clips in {len(set(self.groups))} groups, "
            f"{folds}, {self.task}: {listed(self.classes)}>"
        )

    def __len__(self) -> int:
        return len(self.clip_ids)

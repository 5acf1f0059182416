"""The leak guard: a clip must not be scored by a net that saw it, or a clip of its group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import ClipTable
from mvemo.fuse.errors import LeakError
from mvemo.fuse.features import Features


def find_leaks(
    features: Features, names: Sequence[str], table: ClipTable, folds: NDArray[np.int64]
) -> list[tuple[str, int, int]]:
    """Find scores that would rest on a net that saw the clips it is tested on.

    Return (feature, fold, number of the fold's clips that the net saw, or whose group it saw)
    for each leak. The record of training clips decides, not the name of the protocol.
    """
    row = {clip: i for i, clip in enumerate(table.clip_ids)}
    _, group = np.unique(np.array(table.groups, dtype=np.str_), return_inverse=True)
    leaks = []
    for name in names:
        for fold in np.unique(folds[folds >= 0]).tolist():
            seen = [row[c] for c in features.spec(name, fold).trained_on if c in row]
            if not seen:
                continue
            seen_groups = np.zeros(int(group.max()) + 1, dtype=np.bool_)
            seen_groups[group[seen]] = True
            count = int(seen_groups[group[folds == fold]].sum())
            if count:
                leaks.append((name, fold, count))
    return leaks


def refuse_leaks(
    leaks: Sequence[tuple[str, int, int]], folds: NDArray[np.int64], where: str
) -> None:
    """Raise `LeakError` if there is a leak."""
    if not leaks:
        return
    name, fold, count = leaks[0]
    tested = int((folds == fold).sum())
    split = bool((folds < 0).any())
    part, honest = ("the test split", "holdout") if split else (f"fold {fold}", "crossfit")
    more = f" (and {len(leaks) - 1} more such cases)" if len(leaks) > 1 else ""
    raise LeakError(
        f"{where}: the net of {name} was trained on {count} of the {tested} clips of "
        f"{part}, or on clips of their groups{more}: its scores would be too good. Extract "
        f"with --protocol {honest}, or accept optimistic scores with --protocol shared"
    )

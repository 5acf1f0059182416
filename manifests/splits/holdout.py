"""One split into training, validation and test clips: groups whole, classes in even shares.

J22 section 3 divides its songs at random by 7:2:1. Here the songs (groups) stay whole, so
that segments of one song are never on two sides, and every class has its share of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.model import Manifest, Task
from mvemo.manifests.splits.folds import assign_groups, group_counts, inner_split, keep_in_training

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")
# J22 section 3.
FRACTIONS = (0.7, 0.2, 0.1)
# What manifests call the three.
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval"), TEST),
}


@dataclass(frozen=True, eq=False)
class Holdout:
    """On which side of one split each clip is.

    Parameters
    ----------
    assignment
        int64 (clips,): 0 training, 1 validation, 2 test.
    seed
        That it was made with; -1 where the manifest prescribes it.
    notes
        What the user should know of it, a line each.
    """

    assignment: NDArray[np.int64]
    seed: int
    notes: tuple[str, ...] = ()


def holdout_split(
    labels: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    fractions: Sequence[float],
    seed: int,
    task: Task,
) -> NDArray[np.int64]:
    """Split clips in three: groups whole, classes in even shares.

    The same search as for folds, towards unequal shares. A class whose clips are all in
    one group goes to training where that is possible.

    Parameters
    ----------
    labels, groups, task
        As for `make_folds`.
    fractions
        Of training, validation and test; any three positive numbers, as ``(7, 2, 1)``,
        whose ratios count.
    seed
        Any integer from 0.

    Returns
    -------
    int64 (clips,): 0 training, 1 validation, 2 test. Each has a group at least.

    Raises
    ------
    BadManifest
        Fewer than three groups, fractions that are not three positive numbers, or arrays
        that do not fit together.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or not np.isfinite(shares).all() or not (shares > 0).all():
        raise BadManifest(
            f"the split is {list(fractions)}: it takes three numbers above 0, for training, "
            "validation and test, as 7:2:1"
        )
    counts, member = group_counts(labels, groups, task)
    if len(counts) < 3:
        raise BadManifest(
            f"{len(counts)} group(s) cannot fill training, validation and test: 3 are needed"
        )
    side = assign_groups(counts, shares / shares.sum(), seed)
    keep_in_training(counts, side)
    return side[member]


def parse_fractions(text: str) -> tuple[float, float, float]:
    """``7:2:1`` as fractions of sum 1.

    Raises
    ------
    BadManifest
        It is no such text.
    """
    try:
        train, validation, test = (float(part) for part in text.split(":"))
    except ValueError:
        train = validation = test = math.nan
    if not all(math.isfinite(x) and x > 0 for x in (train, validation, test)):
        raise BadManifest(f"split {text!r}: write it as three numbers above 0, as 7:2:1")
    total = train + validation + test
    return train / total, validation / total, test / total


def holdout_of(
    manifest: Manifest, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> Holdout:
    """The split that the manifest prescribes, else a stratified group-disjoint one.

    A prescribed split without validation clips has some taken from its training clips,
    in the ratio of the fractions.

    Raises
    ------
    BadManifest
        Too few groups, or a prescribed split that is not whole: clips without one, unknown
        names, groups on two sides, no training or no test clips.
    """
    given = [clip.split for clip in manifest.clips]
    if not any(given):
        assignment = holdout_split(manifest.labels, manifest.groups, fractions, seed, manifest.task)
        return Holdout(assignment, seed, _notes(manifest, assignment))
    lacking = sum(name is None for name in given)
    if lacking:
        raise BadManifest(f"{manifest.name}: {lacking} clips have no split, though others have")
    names = [str(name).strip().lower() for name in given]
    unknown = sorted(set(names) - set(_NAMES))
    if unknown:
        raise BadManifest(
            f"{manifest.name}: split {unknown[0]!r} is not known; call them train, val and test"
        )
    assignment = np.array([_NAMES[name] for name in names], dtype=np.int64)
    first: dict[str, int] = {}
    for group, side in zip(manifest.groups, assignment.tolist(), strict=True):
        if first.setdefault(group, side) != side:
            raise BadManifest(
                f"{manifest.name}: group {group!r} straddles the splits "
                f"{SPLITS[first[group]]} and {SPLITS[side]}"
            )
    for side in (TRAIN, TEST):
        if not (assignment == side).any():
            raise BadManifest(f"{manifest.name}: no clip is in split {SPLITS[side]!r}")
    notes: tuple[str, ...] = ()
    if not (assignment == VALIDATION).any():
        rows = np.flatnonzero(assignment == TRAIN)
        share = fractions[VALIDATION] / (fractions[TRAIN] + fractions[VALIDATION])
        held = inner_split(
            np.asarray(manifest.labels)[rows],
            [manifest.groups[row] for row in rows],
            share,
            seed,
            manifest.task,
        )
        assignment[rows[held]] = VALIDATION
        notes = (
            f"the manifest prescribes no validation clips: {held.sum()} of its "
            f"{len(rows)} training clips were taken",
        )
    return Holdout(assignment, -1, (*notes, *_notes(manifest, assignment)))


def _notes(manifest: Manifest, assignment: NDArray[np.int64]) -> tuple[str, ...]:
    """Classes and tags that a side lacks."""
    if manifest.task == "regression":
        return ()
    labels = np.asarray(manifest.labels)
    notes = []
    for i, name in enumerate(manifest.classes):
        has = labels == i if manifest.task == "multiclass" else labels[:, i] > 0
        lacking = [SPLITS[s] for s in (TRAIN, VALIDATION, TEST) if not (assignment[has] == s).any()]
        if lacking:
            notes.append(f"class {name!r} has no clips in {' and '.join(lacking)}")
    return tuple(notes)

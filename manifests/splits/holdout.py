"""Split of clips into training, validation and test, with whole groups and even class shares.

J22 section 3 divides its songs at random by 7:2:1. Here songs (groups) stay whole, so that the
segments of a song are in one part, and every part has its share of each class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import Ints, label_kind
from mvemo.manifests.model import Manifest
from mvemo.manifests.splits.folds import holdout_split, inner_split

# J22 section 3.
FRACTIONS = (0.7, 0.2, 0.1)
TRAIN, VALIDATION, TEST = 0, 1, 2
# Names in messages, in the order of the numbers.
PARTS = ("train", "validation", "test")
# Names that data sets use.
_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}


def part_of(word: str) -> int | None:
    """Return the part that a word names, in any case; None for any other word."""
    return _WORDS.get(word.strip().lower())


@dataclass(frozen=True, eq=False)
class Holdout:
    """Assignment of clips to training, validation and test."""

    assignment: Ints  # part of each clip, (clips,): 0 training, 1 validation, 2 test
    seed: int  # random seed of the split; -1 if the manifest prescribes it
    notes: tuple[str, ...] = ()  # for the user, one line each


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Parse a ratio into three fractions of sum 1; raise `BadManifest` if it is not one.

    Examples
    --------
    >>> parse_fractions("2:1:1")
    (0.5, 0.25, 0.25)
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
    """Return the split that the manifest prescribes, or a new stratified group-disjoint split.

    Nets are trained on this split, so it has all three parts. If the manifest prescribes no
    validation clips, they are taken from its training clips, in the ratio of the fractions. If it
    prescribes no test clips, its validation clips are tested. Parameters are those of
    `holdout_split`.

    Raises
    ------
    BadManifest
        There are too few groups, or the prescribed split is not valid: clips without a split,
        unknown names, groups in two parts, no training clips, or only training clips.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mvemo.manifests import Clip, Manifest
    >>> clips = [Clip(f"c{i}", f"{i}.wav", ("ab"[i % 2],), f"song {i}") for i in range(20)]
    >>> songs = Manifest("songs", "multiclass", ("a", "b"), tuple(clips), Path())
    >>> np.bincount(holdout_of(songs).assignment)
    array([14,  4,  2])
    """
    assignment = _read_split(manifest)
    if assignment is None:
        assignment = holdout_split(manifest.labels, manifest.groups, fractions, seed, manifest.task)
        return Holdout(assignment, seed, _class_notes(manifest, assignment))
    if problem := _straddling(manifest, assignment):
        raise BadManifest(f"{manifest.name}: {problem}")
    notes = _move_to_test(assignment)
    for part in (TRAIN, TEST):
        if part not in assignment:
            raise BadManifest(f"{manifest.name}: no clip is in split {PARTS[part]!r}")
    if VALIDATION not in assignment:
        rows = np.flatnonzero(assignment == TRAIN)
        share = fractions[VALIDATION] / (fractions[TRAIN] + fractions[VALIDATION])
        labels, groups = np.asarray(manifest.labels)[rows], np.asarray(manifest.groups)[rows]
        validation = inner_split(labels, groups, share, seed, manifest.task)
        assignment[rows[validation]] = VALIDATION
        notes.append(
            f"the manifest prescribes no validation clips: {validation.sum()} of its "
            f"{len(rows)} training clips were taken"
        )
    return Holdout(assignment, -1, (*notes, *_class_notes(manifest, assignment)))


def prescribed_split(manifest: Manifest) -> tuple[Holdout | None, tuple[str, ...]]:
    """Return the split that the manifest prescribes, for features that need no training.

    Frozen and imported features are scored on the test clips (without any, on the validation
    clips), by heads that are trained on all other clips. Prescribed folds take precedence.

    Returns
    -------
    The split, and notes for the user, one line each. The split is None if the manifest has none,
    or if the clips are cross-validated instead: the manifest prescribes folds, groups are in two
    parts, or all clips are in one part.

    Raises
    ------
    BadManifest
        Some clips have no split, or a name is unknown.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mvemo.manifests import Clip, Manifest
    >>> clips = [
    ...     Clip(f"c{i}", f"{i}.wav", ("ab"[i % 2],), f"song {i}", split=("train", "val")[i > 3])
    ...     for i in range(6)
    ... ]
    >>> songs = Manifest("songs", "multiclass", ("a", "b"), tuple(clips), Path())
    >>> prescribed_split(songs)[0].assignment
    array([0, 0, 0, 0, 2, 2])
    """
    assignment = _read_split(manifest)
    if assignment is None:
        return None, ()
    instead = "the clips are cross-validated instead"
    if any(clip.fold is not None for clip in manifest.clips):
        return None, ("the manifest prescribes folds and a split: the folds are used",)
    parts = sorted(set(assignment.tolist()))
    if len(parts) == 1:
        return None, (f"all clips are in split {PARTS[parts[0]]!r}: {instead}",)
    if problem := _straddling(manifest, assignment):
        return None, (f"the manifest's split is not used, for {problem}: {instead}",)
    notes = _move_to_test(assignment)
    if TRAIN not in assignment:
        # Validation clips choose nothing here, so heads are trained on them, too.
        notes.append("the manifest prescribes no training clips: heads have the validation's")
    split = Holdout(assignment, -1, (*notes, *_class_notes(manifest, assignment)))
    return split, split.notes


def _read_split(manifest: Manifest) -> Ints | None:
    """Return the part of each clip in the prescribed split, int64 (clips,), or None."""
    names = [clip.split for clip in manifest.clips]
    if not any(names):
        return None
    missing = [c.clip_id for c in manifest.clips if c.split is None]
    if missing:
        raise BadManifest(
            f"{manifest.name}: {len(missing)} clips have no split, though others have; first "
            f"{missing[0]!r}"
        )
    parts = [part_of(str(name)) for name in names]
    unknown = sorted(str(name) for name, part in zip(names, parts, strict=True) if part is None)
    if unknown:
        raise BadManifest(
            f"{manifest.name}: split {unknown[0]!r} is not known; call them train, val and test"
        )
    return np.array(parts, dtype=np.int64)


def _straddling(manifest: Manifest, assignment: Ints) -> str:
    """Return a clause that names the groups in two parts, or an empty text."""
    parts: dict[str, set[int]] = {}
    for group, part in zip(manifest.groups, assignment.tolist(), strict=True):
        parts.setdefault(group, set()).add(part)
    both = [group for group, found in parts.items() if len(found) > 1]
    if not both:
        return ""
    names = " and ".join(PARTS[part] for part in sorted(parts[both[0]]))
    text = f"group {both[0]!r} straddles the splits {names}"
    return text if len(both) == 1 else f"{text}, and {len(both) - 1} more groups straddle"


def _move_to_test(assignment: Ints) -> list[str]:
    """If there are no test clips, turn the validation clips into test clips, with a note."""
    validation = assignment == VALIDATION
    if TEST in assignment or not validation.any():
        return []
    assignment[validation] = TEST
    return [
        f"the manifest prescribes no test clips: its {validation.sum()} validation clips are "
        "the tested ones"
    ]


def _class_notes(manifest: Manifest, assignment: Ints) -> tuple[str, ...]:
    """Return a note for each class or tag that is missing from a part."""
    members = label_kind(manifest.task).members(manifest.labels, manifest.classes)
    parts = [part for part in (TRAIN, VALIDATION, TEST) if part in assignment]
    notes = []
    for name, member in members.items():
        missing = [PARTS[p] for p in parts if p not in assignment[member]]
        if missing:
            notes.append(f"class {name!r} has no clips in {' and '.join(missing)}")
    return tuple(notes)

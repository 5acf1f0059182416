"""Folds of a manifest's clips, their file format, and splits into three parts.

J22 section 3 splits its songs at random by 7:2:1. Here songs (groups) stay whole, so that all
segments of a song are in one part, and every part has its share of each class.
"""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests import files, tables
from mvemo.manifests.array_types import Ints
from mvemo.manifests.cells import to_whole
from mvemo.manifests.errors import BadManifest, Problems
from mvemo.manifests.labels import label_kind
from mvemo.manifests.model import Manifest
from mvemo.manifests.splits.folds import fold_notes, holdout_split, inner_split, make_folds

VERSION = "1"
# Shares of training, validation and test in J22 section 3.
FRACTIONS = (0.7, 0.2, 0.1)
TRAIN, VALIDATION, TEST = 0, 1, 2
# Names of parts 0, 1 and 2 in messages.
PARTS = ("train", "validation", "test")
# Names of the parts in data sets.
_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}


class GroupedClips(Protocol):
    """Clip ids and groups to check folds against: a `Manifest`, or a cache's table."""

    @property
    def clip_ids(self) -> tuple[str, ...]: ...

    @property
    def groups(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Folds:
    """Assignment of clips to folds."""

    assignment: Ints  # fold of each clip, (clips,), from 0 to k - 1
    k: int  # number of folds
    seed: int  # random seed of the folds; -1 for folds that the manifest prescribes
    clip_ids: tuple[str, ...]  # in the order of `assignment`
    manifest_digest: str = ""  # digest of the manifest the folds were made for, or empty
    notes: tuple[str, ...] = ()  # for the user, one line each

    def test(self, fold: int) -> NDArray[np.bool_]:
        """Return bool (clips,), True for the clips of this fold."""
        if not 0 <= fold < self.k:
            raise BadManifest(f"there is no fold {fold}; folds are 0 to {self.k - 1}")
        return np.equal(self.assignment, fold)

    def train(self, fold: int) -> NDArray[np.bool_]:
        """Return bool (clips,), True for the clips of all other folds."""
        return ~self.test(fold)


def folds_of(
    manifest: Manifest, k: int = 6, seed: int = 0, *, earlier: Folds | None = None
) -> Folds:
    """Return the folds that the manifest prescribes, or new stratified group-disjoint folds.

    Parameters
    ----------
    manifest
        Manifest of the clips.
    k, seed
        Same as for `make_folds`; prescribed folds override `k`, with a note.
    earlier
        Folds of an earlier set of clips. A group whose clips were all in one fold keeps that fold,
        unless `k` or the seed differs.

    Raises
    ------
    BadManifest
        There are fewer groups than folds, or prescribed folds are incomplete.

    Examples
    --------
    >>> from mvemo.manifests import Clip
    >>> clips = [Clip(f"c{i}", f"{i}.wav", ("ab"[i % 2],), f"song {i}") for i in range(6)]
    >>> songs = Manifest("songs", "multiclass", ("a", "b"), tuple(clips), Path())
    >>> folds = folds_of(songs, k=3)
    >>> [int(folds.test(fold).sum()) for fold in range(folds.k)]
    [2, 2, 2]
    """
    given = [clip.fold for clip in manifest.clips if clip.fold is not None]
    labels, groups, task = manifest.labels, manifest.groups, manifest.task
    notes: list[str] = []
    if given:
        assignment = np.array(given, dtype=np.int64)
        used = sorted(set(given))
        if len(given) != len(manifest):
            raise BadManifest(f"{manifest.name}: {len(manifest) - len(given)} clips have no fold")
        if problem := straddling(groups, assignment):
            raise BadManifest(f"{manifest.name}: {problem}")
        if len(used) < 2 or used != list(range(len(used))):
            raise BadManifest(f"{manifest.name}: expected at least two folds 0, 1, ..., got {used}")
        if len(used) != k:
            notes = [f"the manifest prescribes {len(used)} folds; these are used instead of {k}"]
        k, seed = len(used), -1
    else:
        kept = {}
        if earlier is not None and (earlier.k, earlier.seed) == (k, seed):
            fold_of = dict(zip(earlier.clip_ids, earlier.assignment.tolist(), strict=True))
            places = ((clip.group, fold_of.get(clip.clip_id)) for clip in manifest.clips)
            folds = parts_of_groups(place for place in places if place[1] is not None)
            kept = {group: each.pop() for group, each in folds.items() if len(each) == 1}
            if kept and earlier.clip_ids != manifest.clip_ids:
                end = "groups keep their earlier folds; the others are assigned again"
                notes = [f"{len(kept)} of {len(set(groups))} {end}"]
        assignment = make_folds(labels, groups, k, seed, task, earlier=kept)
    notes += fold_notes(labels, groups, k, task, manifest.classes)
    return Folds(assignment, k, seed, manifest.clip_ids, manifest.digest, tuple(notes))


def write_folds(folds: Folds, path: str | Path) -> None:
    """Write folds as CSV: clip_id and fold, with k, seed and digest above the table."""
    settings = {"k": folds.k, "seed": folds.seed, "manifest": folds.manifest_digest}
    stated = {key: value for key, value in settings.items() if value != ""}
    rows = zip(folds.clip_ids, folds.assignment.tolist(), strict=True)
    tables.write_table(Path(path), "folds", VERSION, stated, [("clip_id", "fold"), *rows])


def read_folds(path: str | Path, clips: GroupedClips | None = None) -> Folds:
    """Read a fold file, or any CSV with columns ``clip_id`` and ``fold``.

    Parameters
    ----------
    path
        Path of the file.
    clips
        Manifest or table of a cache. The folds are matched to its clip ids and put in its order;
        they must have exactly its clips, with each group in one fold. Labels may have been
        corrected since the file was written.

    Returns
    -------
    The folds; their seed is -1 if the file does not state one.

    Raises
    ------
    MissingFile
        The file does not exist.
    BadManifest
        The file has problems; the message lists all of them.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "folds.csv"
    >>> write_folds(Folds(np.array([0, 1, 0]), 2, 7, ("a", "b", "c")), path)
    >>> read_folds(path).assignment
    array([0, 1, 0])
    """
    path = Path(path)
    problems = Problems(path)
    table = tables.read_table(path)
    if table.kind not in ("", "folds"):
        raise BadManifest(f"{path}: expected a fold file, got a file of mvemo {table.kind}")
    if table.kind and table.version != VERSION:
        raise BadManifest(f"{path}: version of folds: expected {VERSION}, got {table.version}")
    fold_of = _parse_rows(table, problems)
    seed, stated_k = (_whole_number(table, key, problems) for key in ("seed", "k"))
    used = sorted(set(fold_of.values()))
    k = len(used)
    if used != list(range(k)) or k < 2:
        problems.add(0, f"expected at least two folds 0, 1, ..., got {used}")
    elif stated_k not in (-1, k):
        problems.add(table.line("k"), f"k is {stated_k}, but there are {k} folds")
    problems.raise_any()
    clip_ids = tuple(fold_of) if clips is None else clips.clip_ids
    missing = [clip_id for clip_id in clip_ids if clip_id not in fold_of]
    unknown = sorted({*fold_of}.difference(clip_ids))
    if missing or unknown:
        what = "no fold is given for clip" if missing else "there is no clip"
        raise BadManifest(
            f"{path}: {what} {(missing or unknown)[0]!r} ({len(missing)} of {len(clip_ids)} clips "
            f"have no fold, {len(unknown)} ids are unknown): use the fold file of these clips"
        )
    assignment = np.array([fold_of[clip_id] for clip_id in clip_ids], dtype=np.int64)
    if clips is not None and (problem := straddling(clips.groups, assignment)):
        raise BadManifest(f"{path}: {problem}")
    return Folds(assignment, k, seed, clip_ids, table.setting("manifest", ""))


def _parse_rows(table: tables.TableRows, problems: Problems) -> dict[str, int]:
    header = table.header
    if not {"clip_id", "fold"} <= {*header}:
        raise BadManifest(f"{problems.path}: expected columns clip_id and fold, got {header}")
    fold_of = {}
    for line, cells in table.full_rows(problems):
        clip_id, fold = (cells[header.index(name)].strip() for name in ("clip_id", "fold"))
        if clip_id in fold_of:
            problems.add(line, f"clip_id {clip_id!r} occurs twice")
        with suppress(ValueError):
            if 0 <= to_whole(fold) < 10**9:
                fold_of[clip_id] = to_whole(fold)
                continue
        problems.add(line, f"fold: expected a whole number from 0, got {files.shown(fold)}")
    return fold_of


def _whole_number(table: tables.TableRows, key: str, problems: Problems) -> int:
    """Return the value of a setting, or -1 if it is missing."""
    text = table.setting(key, "-1")
    with suppress(ValueError):
        return to_whole(text)
    problems.add(table.line(key), f"{key} {files.shown(text)} is not a whole number")
    return -1


def straddling(groups: Sequence[str], assignment: Ints, parts: Sequence[str] = ()) -> str:
    """Return a text about groups in several folds (or `parts` of a split), empty if none."""
    found = parts_of_groups(zip(groups, assignment.tolist(), strict=True))
    divided = [group for group, of_group in found.items() if len(of_group) > 1]
    if not divided:
        return ""
    names = " and ".join(parts[i] if parts else str(i) for i in sorted(found[divided[0]]))
    more = f" ({len(divided) - 1} more groups are in several)" if divided[1:] else ""
    what = "the splits" if parts else "folds"
    return f"group {divided[0]!r} is in {what} {names}{more}"


def parts_of_groups(places: Iterable[tuple[str, Any]]) -> dict[str, set[int]]:
    """Map each group to the folds or parts in its (group, fold or part) pairs."""
    found: dict[str, set[int]] = {}
    for group, part in places:
        found.setdefault(group, set()).add(part)
    return found


def part_of(word: str) -> int | None:
    """Return the part that a word names (upper or lower case); None for any other word."""
    return _WORDS.get(word.strip().lower())


@dataclass(frozen=True, eq=False)
class Holdout:
    """Assignment of clips to training, validation and test."""

    assignment: Ints  # part of each clip, (clips,): 0 training, 1 validation, 2 test
    seed: int  # random seed of the split; -1 if the manifest prescribes it
    notes: tuple[str, ...] = ()  # for the user, one line each


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Parse a ratio into three fractions with sum 1; raise `BadManifest` if it is invalid.

    Examples
    --------
    >>> parse_fractions("2:1:1")
    (0.5, 0.25, 0.25)
    """
    with suppress(ValueError):
        train, validation, test = map(float, text.split(":"))
        total = train + validation + test
        if min(train, validation, test) > 0 and math.isfinite(total):
            return train / total, validation / total, test / total
    raise BadManifest(f"split {text!r}: expected three numbers above 0, such as 7:2:1")


def holdout_of(
    manifest: Manifest, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> Holdout:
    """Return the split that the manifest prescribes, or a new stratified group-disjoint split.

    Nets are trained on this split, so it has all three parts. If the manifest prescribes no
    validation clips, they are taken from its training clips, in the ratio of the fractions. If it
    prescribes no test clips, its validation clips become the test clips. For the parameters see
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
    if problem := straddling(manifest.groups, assignment, PARTS):
        raise BadManifest(f"{manifest.name}: {problem}")
    notes = _move_to_test(assignment)
    for part in (TRAIN, TEST):
        if part not in assignment:
            raise BadManifest(f"{manifest.name}: no clip is in split {PARTS[part]!r}")
    if VALIDATION not in assignment:
        rows = np.flatnonzero(assignment == TRAIN)
        share = fractions[VALIDATION] / (fractions[TRAIN] + fractions[VALIDATION])
        groups = np.asarray(manifest.groups)[rows]
        validation = inner_split(manifest.labels[rows], groups, share, seed, manifest.task)
        assignment[rows[validation]] = VALIDATION
        notes.append(
            f"the manifest prescribes no validation clips: {validation.sum()} of its "
            f"{len(rows)} training clips are used instead"
        )
    return Holdout(assignment, -1, (*notes, *_class_notes(manifest, assignment)))


def prescribed_split(manifest: Manifest) -> tuple[Holdout | None, tuple[str, ...]]:
    """Return the split that the manifest prescribes, for features that need no training.

    Frozen and imported features are scored on the test clips (if there are none, on the validation
    clips), with heads that are trained on all other clips. Prescribed folds take precedence.

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
    if problem := straddling(manifest.groups, assignment, PARTS):
        return None, (f"the manifest's split is not used because {problem}: {instead}",)
    notes = _move_to_test(assignment)
    if TRAIN not in assignment:
        # Validation clips are not used to choose anything here, so heads can be trained on them.
        instead = "heads are trained on its validation clips"
        notes.append(f"the manifest prescribes no training clips: {instead}")
    split = Holdout(assignment, -1, (*notes, *_class_notes(manifest, assignment)))
    return split, split.notes


def _read_split(manifest: Manifest) -> Ints | None:
    """Return the part of each clip in the prescribed split, int64 (clips,), or None."""
    names = [clip.split for clip in manifest.clips]
    if not any(names):
        return None
    if missing := [c.clip_id for c in manifest.clips if c.split is None]:
        raise BadManifest(
            f"{manifest.name}: {len(missing)} clips, such as {missing[0]!r}, have no split, but "
            "others have one"
        )
    if unknown := sorted(name for name in map(str, names) if part_of(name) is None):
        text = f"unknown split {unknown[0]!r}; expected train, val or test"
        raise BadManifest(f"{manifest.name}: {text}")
    return np.array([*map(part_of, map(str, names))], dtype=np.int64)


def _move_to_test(assignment: Ints) -> list[str]:
    """If there are no test clips, turn the validation clips into test clips, with a note."""
    validation = assignment == VALIDATION
    if TEST in assignment or not validation.any():
        return []
    assignment[validation] = TEST
    used = f"its {validation.sum()} validation clips are used for the test"
    return [f"the manifest prescribes no test clips: {used}"]


def _class_notes(manifest: Manifest, assignment: Ints) -> tuple[str, ...]:
    """Return a note for each class or tag that is missing from a part."""
    members = label_kind(manifest.task).members(manifest.labels, manifest.classes)
    notes = []
    for name, member in members.items():
        missing = sorted({*assignment.tolist()}.difference(assignment[member].tolist()))
        if missing:
            listed = " and ".join(PARTS[part] for part in missing)
            notes.append(f"class {name!r} has no clips in {listed}")
    return tuple(notes)

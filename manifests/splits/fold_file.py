"""Folds of a manifest's clips, and the file that stores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.errors import BadManifest, MissingManifest, Problems
from mvemo.manifests.files import shown
from mvemo.manifests.model import Manifest
from mvemo.manifests.splits.folds import fold_notes, make_folds
from mvemo.manifests.tables import Table, read_table, write_table

VERSION = "1"


class GroupedClips(Protocol):
    """Clip ids and groups that folds are checked against: a `Manifest`, or a cache's table."""

    @property
    def clip_ids(self) -> tuple[str, ...]: ...

    @property
    def groups(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Folds:
    """Assignment of clips to folds."""

    assignment: NDArray[np.int64]  # fold of each clip, (clips,), from 0 to k - 1
    k: int  # number of folds
    seed: int  # random seed of the folds; -1 for folds that the manifest prescribes
    clip_ids: tuple[str, ...]  # in the order of `assignment`
    manifest_digest: str = ""  # of the manifest that the folds were made for, or empty
    notes: tuple[str, ...] = ()  # for the user, one line each

    def test(self, fold: int) -> NDArray[np.bool_]:
        """Return bool (clips,), True for the clips of this fold."""
        if not 0 <= fold < self.k:
            raise BadManifest(f"fold {fold}; there are folds 0 to {self.k - 1}")
        mask: NDArray[np.bool_] = self.assignment == fold
        return mask

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
        Folds of an earlier set of clips. A group whose clips were all in one fold keeps that fold.
        Folds with another `k` or seed are not kept.

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
    labels, groups = manifest.labels, manifest.groups
    task, classes = manifest.task, manifest.classes
    if not given:
        kept = _kept_folds(manifest, earlier, k, seed)
        assignment = make_folds(labels, groups, k, seed, task, earlier=kept)
        notes = fold_notes(labels, groups, k, task, classes)
        if kept and earlier is not None and earlier.clip_ids != manifest.clip_ids:
            how = "groups keep the folds that they had; the others are divided anew"
            notes = (f"{len(kept)} of {len(set(groups))} {how}", *notes)
        return Folds(assignment, k, seed, manifest.clip_ids, manifest.digest, notes)
    if len(given) != len(manifest):
        raise BadManifest(f"{manifest.name}: {len(manifest) - len(given)} clips have no fold")
    assignment = np.array(given, dtype=np.int64)
    _check_groups(manifest.name, groups, assignment)
    prescribed = len(set(given))
    if prescribed < 2 or set(given) != set(range(prescribed)):
        raise BadManifest(f"{manifest.name}: folds must be 0, 1, ...; found {sorted(set(given))}")
    notes = fold_notes(labels, groups, prescribed, task, classes)
    if prescribed != k:
        notes = (f"the manifest prescribes {prescribed} folds, which are kept; not {k}", *notes)
    return Folds(assignment, prescribed, -1, manifest.clip_ids, manifest.digest, notes)


def _kept_folds(manifest: Manifest, earlier: Folds | None, k: int, seed: int) -> dict[str, int]:
    """Map each group to its earlier fold, for groups that were in only one."""
    if earlier is None or (earlier.k, earlier.seed) != (k, seed):
        return {}
    fold_of = dict(zip(earlier.clip_ids, earlier.assignment.tolist(), strict=True))
    folds: dict[str, set[int]] = {}
    for clip_id, group in zip(manifest.clip_ids, manifest.groups, strict=True):
        if clip_id in fold_of:
            folds.setdefault(group, set()).add(fold_of[clip_id])
    return {group: each.pop() for group, each in folds.items() if len(each) == 1}


def write_folds(folds: Folds, path: str | Path) -> None:
    """Write folds as CSV: clip_id and fold, with k, seed and digest above the table."""
    settings: dict[str, object] = {"k": folds.k, "seed": folds.seed}
    if folds.manifest_digest:
        settings["manifest"] = folds.manifest_digest
    rows = zip(folds.clip_ids, folds.assignment.tolist(), strict=True)
    write_table(Path(path), f"mvemo folds {VERSION}", settings, [("clip_id", "fold"), *rows])


def read_folds(path: str | Path, clips: GroupedClips | None = None) -> Folds:
    """Read a fold file, or any CSV with columns ``clip_id`` and ``fold``.

    Parameters
    ----------
    path
        Path of the file.
    clips
        Manifest or table of a cache. The folds are matched to its clip ids and put in its order;
        they must cover exactly its clips and keep its groups whole. The digest may differ, so that
        folds can be kept when labels are corrected.

    Returns
    -------
    The folds; their seed is -1 if the file does not state one.

    Raises
    ------
    MissingManifest
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
    table = read_table(path, error=BadManifest, missing=MissingManifest)
    if table.kind not in ("", "folds"):
        raise BadManifest(f"{path}: this is a mvemo {table.kind}, not a file of folds")
    if table.kind and table.version != VERSION:
        raise BadManifest(f"{path}: folds version {table.version}; this reads version {VERSION}")
    fold_of = _parse_rows(table, problems)
    seed = _whole_number(table, "seed", problems)
    stated_k = _whole_number(table, "k", problems)
    used = sorted(set(fold_of.values()))
    k = len(used)
    if used != list(range(k)) or k < 2:
        problems.add(0, f"folds must be 0, 1, ... and two at least; found {used}")
    elif stated_k not in (-1, k):
        problems.add(table.line("k"), f"k is {stated_k}, but there are {k} folds")
    problems.raise_any()
    clip_ids = tuple(fold_of)
    if clips is not None:
        _check_clips(str(path), fold_of, clips.clip_ids)
        clip_ids = clips.clip_ids
    assignment = np.array([fold_of[clip_id] for clip_id in clip_ids], dtype=np.int64)
    if clips is not None:
        _check_groups(str(path), clips.groups, assignment)
    return Folds(assignment, k, seed, clip_ids, table.setting("manifest", ""))


def _parse_rows(table: Table, problems: Problems) -> dict[str, int]:
    """Map clip ids to folds, in the order of the rows."""
    header = table.header
    if "clip_id" not in header or "fold" not in header:
        raise BadManifest(
            f"{problems.path}: the header must have clip_id and fold; it has {header}"
        )
    fold_of: dict[str, int] = {}
    for line, cells in table.rows[1:]:
        if len(cells) != len(header):
            problems.add(line, f"{len(cells)} cells; the header has {len(header)}")
            continue
        clip_id = cells[header.index("clip_id")].strip()
        fold = cells[header.index("fold")].strip()
        if clip_id in fold_of:
            problems.add(line, f"clip_id {clip_id!r} occurs twice")
        if not fold.isdecimal() or len(fold) > 9:
            problems.add(line, f"fold {shown(fold)} is not a whole number from 0")
            continue
        fold_of[clip_id] = int(fold)
    return fold_of


def _whole_number(table: Table, key: str, problems: Problems) -> int:
    """Return the value of a setting, or -1 if it is missing."""
    text = table.setting(key, "-1")
    try:
        return int(text)
    except ValueError:
        problems.add(table.line(key), f"{key} {shown(text)} is not a whole number")
        return -1


def _check_clips(where: str, fold_of: dict[str, int], clip_ids: Sequence[str]) -> None:
    """Check that folds and clips have the same ids."""
    missing = [clip_id for clip_id in clip_ids if clip_id not in fold_of]
    unknown = sorted(set(fold_of).difference(clip_ids))
    if missing or unknown:
        what = "no fold is given for clip" if missing else "there is no clip"
        raise BadManifest(
            f"{where}: {what} {(missing or unknown)[0]!r} ({len(missing)} clips without a fold, "
            f"{len(unknown)} unknown ones, of {len(clip_ids)}); made for other clips?"
        )


def _check_groups(where: str, groups: Sequence[str], assignment: NDArray[np.int64]) -> None:
    """Check that each group is in one fold."""
    first: dict[str, int] = {}
    divided: dict[str, tuple[int, int]] = {}
    for group, fold in zip(groups, assignment.tolist(), strict=True):
        if first.setdefault(group, fold) != fold:
            divided.setdefault(group, (first[group], fold))
    if divided:
        group, (one, other) = next(iter(divided.items()))
        more = f", and {len(divided) - 1} more groups straddle" if len(divided) > 1 else ""
        raise BadManifest(f"{where}: group {group!r} straddles folds {one} and {other}{more}")

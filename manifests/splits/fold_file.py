"""Folds of a manifest's clips as an object, and as a file that fixes them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.model import Manifest
from mvemo.manifests.problems import Problems
from mvemo.manifests.splits.folds import fold_notes, make_folds
from mvemo.manifests.tables import read_table, write_table

VERSION = "1"


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each clip is in.

    Parameters
    ----------
    assignment
        int64 (clips,), from 0 to k - 1.
    k
        Number of folds.
    seed
        That they were made with; -1 for folds that the manifest prescribes.
    clip_ids
        In the order of `assignment`.
    manifest_digest
        Of the manifest that they were made for, where known.
    notes
        What the user should know of them, a line each.
    """

    assignment: NDArray[np.int64]
    k: int
    seed: int
    clip_ids: tuple[str, ...]
    manifest_digest: str = ""
    notes: tuple[str, ...] = ()

    def test(self, fold: int) -> NDArray[np.bool_]:
        """bool (clips,): True for the clips of this fold."""
        if not 0 <= fold < self.k:
            raise BadManifest(f"fold {fold}; there are folds 0 to {self.k - 1}")
        there: NDArray[np.bool_] = self.assignment == fold
        return there

    def train(self, fold: int) -> NDArray[np.bool_]:
        """bool (clips,): True for the clips of all other folds."""
        return ~self.test(fold)


def folds_of(manifest: Manifest, k: int = 6, seed: int = 0) -> Folds:
    """The folds that the manifest prescribes, else stratified group-disjoint ones.

    Prescribed folds override `k`; a note says so where they differ.

    Raises
    ------
    BadManifest
        Fewer groups than folds, or prescribed folds that are not whole.
    """
    given = [clip.fold for clip in manifest.clips if clip.fold is not None]
    if not given:
        assignment = make_folds(manifest.labels, manifest.groups, k, seed, manifest.task)
        notes = fold_notes(manifest.labels, manifest.groups, k, manifest.task, manifest.classes)
        return Folds(assignment, k, seed, manifest.clip_ids, manifest.digest, notes)
    if len(given) != len(manifest):
        raise BadManifest(f"{manifest.name}: {len(manifest) - len(given)} clips have no fold")
    assignment = np.array(given, dtype=np.int64)
    _check_groups(manifest.name, manifest, assignment)
    prescribed = len(set(given))
    if prescribed < 2 or set(given) != set(range(prescribed)):
        raise BadManifest(f"{manifest.name}: folds must be 0, 1, ...; found {sorted(set(given))}")
    notes = fold_notes(
        manifest.labels, manifest.groups, prescribed, manifest.task, manifest.classes
    )
    if prescribed != k:
        notes = (f"the manifest prescribes {prescribed} folds, which are kept; not {k}", *notes)
    return Folds(assignment, prescribed, -1, manifest.clip_ids, manifest.digest, notes)


def write_folds(folds: Folds, path: str | Path) -> None:
    """Write folds as CSV: clip_id and fold, with k, seed and digest above.

    Raises
    ------
    BadManifest
        The file cannot be written.
    """
    buffer = io.StringIO()
    buffer.write(f"# mvemo folds {VERSION}\n# k: {folds.k}\n# seed: {folds.seed}\n")
    if folds.manifest_digest:
        buffer.write(f"# manifest: {folds.manifest_digest}\n")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["clip_id", "fold"])
    writer.writerows(zip(folds.clip_ids, folds.assignment.tolist(), strict=True))
    write_table(Path(path), buffer.getvalue())


def read_folds(path: str | Path, manifest: Manifest | None = None) -> Folds:
    """Read a fold file, or any CSV with columns ``clip_id`` and ``fold``.

    Parameters
    ----------
    path
        The file.
    manifest
        The folds are put in its order, and must cover its clips exactly and keep its
        groups whole. Its digest may differ from the file's: labels may be corrected
        and the folds kept.

    Raises
    ------
    MissingManifest
        No such file.
    BadManifest
        With all problems of the file.
    """
    path = Path(path)
    problems = Problems(path)
    table = read_table(path, problems)
    problems.raise_any()
    if table.kind not in ("", "folds"):
        raise BadManifest(f"{path}: this is a mvemo {table.kind}, not a file of folds")
    if table.kind and table.version != VERSION:
        raise BadManifest(f"{path}: folds version {table.version}; this reads version {VERSION}")
    head = [cell.strip() for cell in table.rows[0][1]] if table.rows else []
    if "clip_id" not in head or "fold" not in head:
        raise BadManifest(f"{path}: the header must have clip_id and fold; it has {head}")
    found: dict[str, int] = {}
    for line, cells in table.rows[1:]:
        if len(cells) != len(head):
            problems.add(line, f"{len(cells)} cells; the header has {len(head)}")
            continue
        clip_id, fold = cells[head.index("clip_id")].strip(), cells[head.index("fold")].strip()
        if clip_id in found:
            problems.add(line, f"clip_id {clip_id!r} is there twice")
        if not fold.isdecimal():
            problems.add(line, f"fold {fold!r} is not a whole number from 0")
            continue
        found[clip_id] = int(fold)
    numbers = {}
    for key in ("k", "seed"):
        line, text = table.settings.get(key, (0, ""))
        try:
            numbers[key] = int(text) if text else -1
        except ValueError:
            problems.add(line, f"{key} {text!r} is not a whole number")
    k = len(set(found.values()))
    if (found and set(found.values()) != set(range(k))) or k < 2:
        problems.add(0, f"folds must be 0, 1, ... and two at least; found {set(found.values())}")
    elif numbers.get("k", -1) not in (-1, k):
        problems.add(table.settings["k"][0], f"k is {numbers['k']}, but there are {k} folds")
    problems.raise_any()
    clip_ids = tuple(found)
    if manifest is not None:
        missing = [c for c in manifest.clip_ids if c not in found]
        extra = sorted(set(found) - set(manifest.clip_ids))
        if missing or extra:
            what = "lacks clip" if missing else "has an unknown clip"
            raise BadManifest(
                f"{path}: {what} {(missing or extra)[0]!r} ({len(missing)} lacking, "
                f"{len(extra)} unknown); made for another manifest?"
            )
        clip_ids = manifest.clip_ids
    assignment = np.array([found[clip_id] for clip_id in clip_ids], dtype=np.int64)
    if manifest is not None:
        _check_groups(str(path), manifest, assignment)
    return Folds(
        assignment, k, numbers["seed"], clip_ids, table.settings.get("manifest", (0, ""))[1]
    )


def _check_groups(where: str, manifest: Manifest, assignment: NDArray[np.int64]) -> None:
    first: dict[str, int] = {}
    for group, fold in zip(manifest.groups, assignment.tolist(), strict=True):
        if first.setdefault(group, fold) != fold:
            raise BadManifest(f"{where}: group {group!r} straddles folds {first[group]} and {fold}")

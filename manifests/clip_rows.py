"""Rows of a manifest's table: parsing of each row, checks across rows and of their media files."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path

from mvemo.manifests.errors import Problems, Report
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Label, LabelKind, Names, parse_number
from mvemo.manifests.model import Clip
from mvemo.manifests.tables import plain_text

# Eleven days: longer than any audio or video file.
MAX_SECONDS = 1e6
# Cells that rows share (label, start, duration, fold, split) are parsed once, up to this number.
_MOST_KNOWN = 10_000
_OF_ROW = ("path", "clip_id", "group")
# Paths that need no normalisation; other paths take the slower way.
_TIDY = re.compile(r"(?:[^./\\][^/\\]*/)*[^./\\][^/\\]*")
_MISSING, _FOLDER = "no such file", "is a folder"
_clip_fields = attrgetter(*(each.name for each in fields(Clip)))


@dataclass(slots=True)
class Row:
    """Row of a manifest while it is read; empty text stands for unknown values."""

    line: int
    path: str
    label: Label
    clip_id: str = ""
    group: str = ""
    start: float = 0.0
    duration: float | None = None
    fold: int | None = None
    split: str | None = None
    bad_fold: bool = False
    extra: tuple[tuple[str, str], ...] = ()

    def clip(self) -> Clip:
        return Clip(*_clip_fields(self))


# Label, start, duration, fold, split, and True if the fold is not valid.
_Shared = tuple[Label, float, float | None, int | None, str | None, bool]


@dataclass
class RowParser:
    """Parser of the rows of a table, which parses equal cells of rows only once."""

    place: Mapping[str, int]
    exact_paths: bool
    kind: LabelKind
    classes: Names | None
    problems: Problems
    _known: dict[tuple[str, ...], _Shared] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shared = {key: i for key, i in self.place.items() if key not in _OF_ROW}
        self._needed = "path" if "path" in self.place else "clip_id"

    def parse(self, cells: Sequence[str], line: int) -> Row:
        """Return the row of a line's cells; a valid value replaces a bad one."""
        stripped = [*map(str.strip, cells)]
        place = self.place
        path = (cells if self.exact_paths else stripped)[place["path"]] if "path" in place else ""
        clip_id = stripped[place["clip_id"]] if "clip_id" in place else ""
        group = plain_text(stripped[place["group"]]) if "group" in place else ""
        if not stripped[place[self._needed]]:
            self.problems.add(line, f"empty {self._needed}")
            path = ""
        if not group and "group" in place:
            self.problems.add(line, "empty group; name the source, or leave the column out")
        texts = tuple([stripped[i] for i in self._shared.values()])
        shared = self._known.get(texts) or self._parse_shared(texts, line)
        label, start, duration, fold, split, bad_fold = shared
        return Row(line, path, label, clip_id, group, start, duration, fold, split, bad_fold)

    def _parse_shared(self, texts: tuple[str, ...], line: int) -> _Shared:
        cells = {key: plain_text(text) for key, text in zip(self._shared, texts, strict=True)}
        report = self.problems.at(line)
        n_problems = len(self.problems.found)
        if len(cells.get("label", "").splitlines()) > 1:
            report(f"label {shown(cells['label'])} has a line break: write it on one line")
        label = self.kind.parse(cells, self.classes, report)
        stretch = parse_stretch(cells, report)
        fold, bad_fold = _parse_fold(cells.get("fold", ""), report)
        shared = (label, *stretch, fold, cells.get("split") or None, bad_fold)
        if len(self.problems.found) == n_problems and len(self._known) < _MOST_KNOWN:
            self._known[texts] = shared
        return shared


def parse_stretch(cells: Mapping[str, str], report: Report) -> tuple[float, float | None]:
    """Return ``start`` (default 0) and ``duration`` (None) of a row in seconds; report bad ones."""
    found = {"start": 0.0, "duration": 0.0}
    for name in found:
        if not (cell := cells.get(name)):
            continue
        value = parse_number(cell, name, report)
        if name == "start" and value < 0:
            report(f"start {cell} is negative; seconds from 0")
        elif name == "duration" and value <= 0:
            report(f"duration {cell} is not above 0 seconds")
        elif value > MAX_SECONDS:
            most = f"{MAX_SECONDS:.0f} seconds, eleven days, at most"
            report(f"{name} {cell} is longer than any file: {most}")
        elif value > 0:
            found[name] = value
    return found["start"], found["duration"] or None


def _parse_fold(cell: str, report: Report) -> tuple[int | None, bool]:
    """Return the fold in a cell, or None; and True if the cell has no valid fold."""
    if not cell:
        return None, False
    try:
        fold = int(cell)
    except ValueError:
        report(f"fold {shown(cell)} is not a whole number")
        return None, True
    if fold < 0:
        report(f"fold {fold} is negative; folds count from 0")
        return None, True
    return fold, False


def inside_root(cell: str, root: Path) -> str | None:
    """Return the normalised path relative to the root, or None if it is not below it."""
    if _TIDY.fullmatch(cell):
        return cell
    if os.path.isabs(cell):
        cell = os.path.relpath(cell, os.path.abspath(root))
    tidy = posixpath.normpath(cell.replace(os.sep, "/"))
    return None if tidy in (".", "..") or tidy.startswith(("../", "/")) else tidy


# --- checks across rows


def finish_rows(rows: Sequence[Row], problems: Problems) -> None:
    """Fill in missing ids and groups, and check rows against each other."""
    per_path = Counter(map(attrgetter("path"), rows))
    # If two files differ only in their suffix, their ids include it. The id of a row depends
    # on the set of files, not on the order of the rows.
    stem_of = {path: posixpath.splitext(path)[0] for path in per_path}
    per_stem = Counter(stem_of.values())
    for row in rows:
        stem = stem_of[row.path]
        source = (stem if per_stem[stem] == 1 else row.path).strip()
        several = bool(row.path) and per_path[row.path] > 1
        if not row.clip_id:
            start = repr(row.start).removesuffix(".0")
            row.clip_id = f"{source}@{start}" if several else source
        if not row.group:
            row.group = source if several else row.clip_id

    _check_ids(rows, problems)
    _agree(
        (row for row in rows if row.path),
        attrgetter("path"),
        attrgetter("group"),
        "segments of {!r} must be in one group, but this is in {!r} and line {} in {!r}",
        problems,
    )
    _check_folds(rows, problems)


def _check_ids(rows: Sequence[Row], problems: Problems) -> None:
    """Report each row that has the id of an earlier row."""
    first: dict[str, Row] = {}
    paths: dict[str, set[str]] = {}  # repeated id -> paths of its rows
    for row in rows:
        other = first.setdefault(plain_text(row.clip_id), row)
        if other is row:
            continue
        known = paths.setdefault(row.clip_id, {other.path})
        if row.clip_id:
            same = " and so is its path" if row.path and row.path in known else ""
            if row.clip_id != other.clip_id:
                same = f" in another form of Unicode, {other.clip_id!a}: name one otherwise"
            problems.add(row.line, f"clip_id {row.clip_id!r} is that of line {other.line}{same}")
        known.add(row.path)


def _agree(
    rows: Iterable[Row],
    key: Callable[[Row], str],
    value: Callable[[Row], Hashable],
    message: str,
    problems: Problems,
) -> None:
    """Report each row whose value differs from that of the first row with the same key."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(key(row), row)
        if other is not row and value(row) != value(other):
            problems.add(row.line, message.format(key(row), value(row), other.line, value(other)))


def _check_folds(rows: Sequence[Row], problems: Problems) -> None:
    given = {row.fold for row in rows if row.fold is not None}
    if not given:
        return
    for row in rows:
        if row.fold is None and not row.bad_fold:
            problems.add(row.line, "no fold, though other rows have one")
    if given != set(range(len(given))) or len(given) < 2:
        listed = ", ".join(map(str, sorted(given)[:10]))
        problems.add(0, f"folds must be 0, 1, ... without a gap and two at least; found {listed}")
    _agree(
        (row for row in rows if row.fold is not None),
        attrgetter("group"),
        attrgetter("fold"),
        "group {!r} straddles folds: this is in fold {} and line {} in fold {}",
        problems,
    )


# --- media files


def check_media(
    root: Path, rows: Sequence[Row], problems: Problems, *, links: bool, empty: bool = False
) -> None:
    """Add a problem for each row whose media file is missing, not a file, or with `empty` empty."""
    if not root.is_dir() or (
        len(rows) > 1 and all(inside_root(row.path, root) is None for row in rows)
    ):
        return
    named = [row for row in rows if row.path]
    inside = None if links else _RealFolders(root)
    faults = {path: _fault(root, path, inside, empty) for path in {row.path for row in named}}
    if len(faults) > 1 and all(fault in (_MISSING, _FOLDER) for fault in faults.values()):
        problems.add(
            0,
            f"none of the {len(faults)} media files is below {str(root)!r}, as {named[0].path!r} "
            f"in line {named[0].line}; wrong root? Give the folder with --root",
        )
        return
    for row in named:
        if fault := faults[row.path]:
            problems.add(row.line, f"{fault}: {str(root / row.path)!r}")


class _RealFolders(dict[str, bool]):
    """Map from folders below a root to True if links do not lead out; each is resolved once."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = os.path.join(root, "")
        self._real = os.path.join(os.path.realpath(root), "")

    def __missing__(self, path: str) -> bool:
        real = os.path.join(os.path.realpath(self._root + path), "")
        self[path] = inside = real.startswith(self._real)
        return inside


def _fault(root: Path, path: str, inside: _RealFolders | None, empty: bool) -> str:
    """Return the problem with a path below the root, or an empty text if it is a file."""
    place = os.path.join(root, path)
    try:
        facts = os.lstat(place)
        linked = stat.S_ISLNK(facts.st_mode)
        if linked:
            facts = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except (OSError, ValueError) as error:
        return f"cannot be looked at ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(facts.st_mode):
        return _FOLDER
    if not stat.S_ISREG(facts.st_mode):
        return "a pipe, socket or device, no file"
    if empty and not facts.st_size:
        return "the file is empty"
    if inside is not None and not inside[path if linked else path.rpartition("/")[0]]:
        return "a link out of the media root (give --root if it is meant)"
    return ""

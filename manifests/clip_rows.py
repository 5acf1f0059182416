"""Columns and rows of a manifest's table: parsing, and checks of rows and of their media files."""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import compress, repeat
from math import nan
from operator import attrgetter, not_
from pathlib import Path
from typing import Any

from mvemo.manifests.cells import parse_number, to_whole
from mvemo.manifests.errors import Problems, Report
from mvemo.manifests.files import shown
from mvemo.manifests.labels import UNLABELLED, Label, LabelKind, Names
from mvemo.manifests.model import Clip, inside_root
from mvemo.manifests.tables import RESERVED, TableRows, is_missing, plain_text

# Maximum length of a media file: eleven days.
MAX_SECONDS = 1e6
_OF_ROW = ("path", "clip_id", "group")
_MISSING, _FOLDER = "no such file", "is a folder"
_clip_fields = attrgetter(*(each.name for each in fields(Clip)))


@dataclass(slots=True)
class Row:
    """Row of a manifest that is being read; an empty text stands for an unknown value."""

    line: int
    path: str
    clip_id: str = ""
    group: str = ""
    label: Label = ()
    start: float = 0.0
    duration: float | None = None
    fold: int | None = None
    split: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def clip(self) -> Clip:
        return Clip(*_clip_fields(self))


@dataclass
class RowParser:
    """Parser of a table's rows; equal combinations of cells are parsed only once."""

    table: TableRows
    kind: LabelKind
    spread: bool  # True if each target or tag has a column
    classes: Names | None
    mapped: Mapping[str, str]  # our names of columns -> the file's
    recognised: Mapping[str, str]  # our names of recognised columns -> the file's
    root: Path
    media: bool
    problems: Problems
    blanks: bool = False  # True if a clip has several rows, some of which may lack a label

    def parse(self) -> list[Row]:
        """Return the rows; errors are added to `problems`."""
        self._place = self._find_columns()
        if not self._place:
            return []
        self._shared = [key for key in self._place if key not in _OF_ROW]
        # Texts of the cells of label, start, duration, fold and split -> their values.
        self._known: dict[tuple[str, ...], tuple[Any, ...]] = {}
        used = set(self._place.values())
        # Other columns are kept only if their meaning is known, as in our own files.
        extra = [
            (i, name)
            for i, name in enumerate(self.table.header)
            if (self.table.kind or name in self.recognised) and i not in used
        ]
        full = [*self.table.full_rows(self.problems)]
        lines = [line for line, _ in full]
        if len(full) < len(self.table.rows) - 1:
            self.table = replace(self.table, rows=(self.table.rows[0], *full))
        columns = {key: self.table.cells(key) for key in self._place}
        if "path" in columns and self.table.kind:
            # Paths of mvemo may begin or end with a space; other files have spaces after commas.
            raw = [cells[self._place["path"]] for _, cells in full]
            columns["path"] = [path if path.strip() else "" for path in raw]
        name = "path" if "path" in columns else "clip_id"
        group = "empty group: name the source, or leave the column out"
        for key, message in ((name, f"empty {name}"), ("group", group)):
            for line in compress(lines, map(not_, columns.get(key, ()))):
                self.problems.add(line, message)
        paths, ids, groups = (columns.get(key) or [""] * len(full) for key in _OF_ROW)
        texts = zip(*(columns[key] for key in self._shared), strict=True)
        shared = [
            self._known.get(cells) or self._parse_shared(cells, line)
            for line, cells in zip(lines, texts if self._shared else repeat(()), strict=False)
        ]
        parts = zip(lines, paths, ids, map(plain_text, groups), shared, strict=True)
        rows = [Row(line, path, clip, group, *rest) for line, path, clip, group, rest in parts]
        for i, name in extra:
            for row, (_, cells) in zip(rows, full, strict=True):
                row.extra += ((name, cells[i].strip()),)
        self._tidy_paths(rows)
        return rows

    def _tidy_paths(self, rows: Sequence[Row]) -> None:
        """Normalise the paths of rows; report those that are not below the media root."""
        tidy = {path: path and inside_root(path, self.root) for path in {row.path for row in rows}}
        outside = [row for row in rows if tidy[row.path] is None]
        for row in rows:
            row.path = tidy[row.path] or row.path
        root = f"below the media root {str(self.root)!r}"
        cure = "give their folder with --root"
        if len(outside) == len(rows) > 1:
            first = f"{outside[0].path!r} in line {outside[0].line}"
            message = f"none of the {len(rows)} paths is {root} (the first is {first}): {cure}"
            self.problems.add(0, message, count=len(rows))
            return
        for row in outside:
            self.problems.add(row.line, f"path {row.path!r} is not {root}: {cure}")

    def _parse_shared(self, texts: tuple[str, ...], line: int) -> tuple[Any, ...]:
        cells = {key: plain_text(text) for key, text in zip(self._shared, texts, strict=True)}
        report = self.problems.at(line)
        n_problems = len(self.problems.found)
        if len(cells.get("label", "").splitlines()) > 1:
            report(f"label {shown(cells['label'])} has a line break: write it on one line")
        label = self._parse_label(cells, report)
        stretch = parse_stretch(cells, report)
        fold = _parse_fold(cells.get("fold", ""), report)
        shared = (label, *stretch, fold, cells.get("split") or None)
        if len(self.problems.found) == n_problems:
            self._known[texts] = shared
        return shared

    def _parse_label(self, cells: Mapping[str, str], report: Report) -> Label:
        """Return the label; if it may be blank, () for a class and NaN for a rating."""
        numeric = self.kind.numeric
        names = [*(self.classes or ())] if numeric else ["label"] * self.blanks
        blank = [name for name in names if is_missing(cells[name], not numeric)]
        if not self.blanks or not blank:
            return self.kind.parse(cells, self.classes, report)
        if not numeric:
            return ()
        return tuple(nan if n in blank else parse_number(cells[n], n, report) for n in names)

    def _find_columns(self) -> dict[str, int]:
        """Return the index of each column in the table; {} if a required one is missing."""
        (line, _), names = self.table.rows[0], self.table.header
        labels = [*(self.classes or ())] if self.spread else ["label"]
        known = [*RESERVED[1:], *labels] if self.spread else [*RESERVED]
        known += ["end"] * ("duration" not in names and "end" not in labels)
        if unknown := [key for key in self.mapped if key not in known]:
            named = ", ".join(map(repr, unknown))
            message = f"unknown column to map {named}; expected one of {', '.join(known)}"
            self.problems.add(0, message)
        for key in known:
            if names.count(key) > 1:
                self.problems.add(line, f"column {key!r} occurs twice")
        required = ["path" if self.media or "clip_id" not in names else "clip_id"]
        required += labels if self.kind.task != UNLABELLED else []
        if missing := [key for key in required if key not in names]:
            hint = ""
            if len(names) == 1 and "|" in names[0]:
                hint = "; cells must be separated by commas"
            elif "path" in missing:
                hint = (
                    "; run 'mvemo manifest import' with --column path=NAME, or, if there are no "
                    "media files, with --no-media --column clip_id=NAME"
                )
            if "label" in missing:
                hint += (
                    "; name it with --column label=NAME, or give --task unlabelled for clips "
                    "without labels"
                )
            listed = ", ".join(map(repr, missing))
            theirs = [self.recognised.get(name, name) for name in names]
            self.problems.add(line, f"the header has no column {listed}; it has {theirs}{hint}")
        place = {key: names.index(key) for key in known if names.count(key) == 1}
        return place if place.keys() >= {*required} else {}


def parse_stretch(cells: Mapping[str, str], report: Report) -> tuple[float, float | None]:
    """Return start (default 0) and duration (default None) in seconds; report bad values."""
    found = {"start": 0.0, "duration": 0.0, "end": 0.0}
    for name in found:
        if not (cell := cells.get(name)):
            continue
        value = parse_number(cell, name, report)
        if name == "start" and value < 0:
            report(f"start {cell} is negative: it must be at least 0 seconds")
        elif name != "start" and value <= found["start"] * (name == "end"):
            least = found["start"] * (name == "end")
            report(f"{name} {cell}: it must be above {least:g} seconds")
        elif value > MAX_SECONDS:
            most = f"it must be at most {MAX_SECONDS:.0f} seconds (eleven days)"
            report(f"{name} {cell} is longer than any file: {most}")
        elif value > 0:
            found[name] = value
    if found["end"] > found["start"] and not found["duration"]:
        found["duration"] = round(found["end"] - found["start"], 6)
    return found["start"], found["duration"] or None


def _parse_fold(cell: str, report: Report) -> int | None:
    """Return the fold in a cell, None for an empty cell; report any other cell and return -1."""
    if not cell:
        return None
    try:
        fold = to_whole(cell)
    except ValueError:
        report(f"fold {shown(cell)} is not a whole number")
        return -1
    if fold < 0:
        report(f"fold {fold} is negative: folds are numbered from 0")
    return max(fold, -1)


def finish_rows(rows: Sequence[Row], problems: Problems) -> None:
    """Fill in missing ids and groups, and check rows against each other."""
    per_path = Counter(map(attrgetter("path"), rows))
    # If two files differ only in their suffix, their ids include the suffix. The id of a row
    # depends on the set of files, not on the order of the rows.
    stem_of = {path: posixpath.splitext(path)[0] for path in per_path}
    per_stem = Counter(stem_of.values())
    source_of = {p: (s if per_stem[s] == 1 else p).strip() for p, s in stem_of.items()}
    starts = {start: repr(start).removesuffix(".0") for start in {row.start for row in rows}}
    for row in rows:
        source, several = source_of[row.path], row.path and per_path[row.path] > 1
        if not row.clip_id:
            row.clip_id = f"{source}@{starts[row.start]}" if several else source
        if not row.group:
            row.group = source if several else row.clip_id

    _check_ids(rows, problems)
    must_agree(
        [row for row in rows if row.path],
        attrgetter("path"),
        "group",
        "segments of {row.path!r} must be in one group, but this row is in {row.group!r} and "
        "line {other.line} is in {other.group!r}",
        problems,
    )
    _check_folds(rows, problems)


def _check_ids(rows: Sequence[Row], problems: Problems) -> None:
    """Report each row that repeats the id of an earlier row."""
    first, seen = dict[str, Row](), set[tuple[str, str]]()
    for row in rows:
        at, other = (row.clip_id, row.path), first.setdefault(plain_text(row.clip_id), row)
        if other is not row and row.clip_id:
            message = f"clip_id {row.clip_id!r} repeats line {other.line}"
            if row.clip_id != other.clip_id:
                message += f" in another Unicode form, {other.clip_id!a}: rename one of them"
            elif row.path and at in seen:
                message += ", and so does the path"
            problems.add(row.line, message)
        seen.add(at)


def must_agree(
    rows: Sequence[Row], key: Callable[[Row], str], name: str, message: str, problems: Problems
) -> None:
    """Report each row whose field `name` differs from the first row with the same key."""
    value, first = attrgetter(name), dict[str, Row]()
    for row in rows:
        other = first.setdefault(key(row), row)
        if other is not row and value(row) != value(other):
            problems.add(row.line, message.format(row=row, other=other))


def _check_folds(rows: Sequence[Row], problems: Problems) -> None:
    given = {row.fold for row in rows if row.fold is not None and row.fold >= 0}
    if not given:
        return
    for row in rows:
        if row.fold is None:
            problems.add(row.line, "the row has no fold, but other rows have one")
    if given != set(range(len(given))) or len(given) < 2:
        listed = ", ".join(map(str, sorted(given)[:10]))
        problems.add(0, f"expected at least two folds 0, 1, ... without a gap, got {listed}")
    must_agree(
        [row for row in rows if row.fold in given],
        attrgetter("group"),
        "fold",
        "group {row.group!r} is in several folds: this row is in fold {row.fold}, and line "
        "{other.line} is in fold {other.fold}",
        problems,
    )


def with_absolute_paths(table: TableRows, folder: Path) -> TableRows:
    """Return the table with absolute paths if some leave the folder, and all files exist."""
    cells = table.cells("path")
    starts = {cell[:1] for cell in cells}
    outside = len({*map(os.path.isabs, starts)}) > 1 or any(".." in cell for cell in cells)
    if table.kind or not outside:
        return table
    paths = [os.path.abspath(os.path.join(folder, cell)) for cell in cells]
    if len(paths) != len(table.rows) - 1 or not all(map(os.path.isfile, paths)):
        return table
    return table.with_cells("path", dict(zip(cells, paths, strict=True)))


def check_media(
    root: Path, rows: Sequence[Row], problems: Problems, *, links: bool, empty: bool = False
) -> None:
    """Report each media file that is missing, not a file, or (with `empty`) empty.

    Links out of the media root are reported unless `links` is True.
    """
    if not root.is_dir() or (
        len(rows) > 1 and all(inside_root(row.path, root) is None for row in rows)
    ):
        return
    named = [row for row in rows if row.path]
    real_root = os.path.join(os.path.realpath(root), "")

    @cache  # clips share folders
    def inside(path: str) -> bool:
        return links or os.path.join(os.path.realpath(root / path), "").startswith(real_root)

    faults = {path: _fault(root, path, inside, empty) for path in {row.path for row in named}}
    if len(faults) > 1 and {*faults.values()} <= {_MISSING, _FOLDER}:
        problems.add(
            0,
            f"none of the {len(faults)} media files is below {str(root)!r} (the first is "
            f"{named[0].path!r} in line {named[0].line}): give their folder with --root",
        )
        return
    for row in named:
        if fault := faults[row.path]:
            problems.add(row.line, f"{fault}: {str(root / row.path)!r}")


def _fault(root: Path, path: str, inside: Callable[[str], bool], empty: bool) -> str:
    """Return the problem of a path below the root, or an empty text if there is none."""
    place = os.path.join(root, path)
    try:
        facts = os.lstat(place)
        linked = stat.S_ISLNK(facts.st_mode)
        if linked:
            facts = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except (OSError, ValueError) as error:
        return f"cannot be accessed ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISDIR(facts.st_mode):
        return _FOLDER
    if not stat.S_ISREG(facts.st_mode):
        return "a pipe, socket or device, not a file"
    if empty and not facts.st_size:
        return "the file is empty"
    if not inside(path if linked else path.rpartition("/")[0]):
        return "a link that leads out of the media root (give --root to allow it)"
    return ""

"""Rows of a manifest's table: parsing of each row, and checks across rows."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from mvemo.manifests.cells import parse_stretch, plain_text
from mvemo.manifests.files import shown
from mvemo.manifests.labels import LabelKind
from mvemo.manifests.model import Clip
from mvemo.manifests.problems import Problems

# Cells that rows share (label, start, duration, fold, split) are parsed once, up to this number.
_MOST_KNOWN = 10_000
_OF_ROW = ("path", "clip_id", "group")
# Paths that need no normalisation; other paths take the slower way.
_TIDY = re.compile(r"(?:[^./\\][^/\\]*/)*[^./\\][^/\\]*")


@dataclass(slots=True)
class Row:
    """Row of a manifest while it is read; empty text stands for unknown values."""

    line: int
    path: str
    label: tuple[str, ...] | tuple[float, ...]
    clip_id: str = ""
    group: str = ""
    start: float = 0.0
    duration: float | None = None
    fold: int | None = None
    split: str | None = None
    extra: tuple[tuple[str, str], ...] = ()
    bad_fold: bool = False

    def clip(self) -> Clip:
        """Return the finished row as a clip."""
        return Clip(
            self.clip_id,
            self.path,
            self.label,
            self.group,
            self.start,
            self.duration,
            self.fold,
            self.split,
            self.extra,
        )


def _parse_row(
    fields: Mapping[str, str],
    line: int,
    kind: LabelKind,
    classes: Sequence[str] | None,
    problems: Problems,
) -> Row:
    """Parse the cells of one row, by column; a valid value replaces a bad one.

    Labels must be among `classes`; None allows any label.
    """
    path = fields.get("path", "")
    needed = "path" if "path" in fields else "clip_id"
    if not fields[needed].strip():
        problems.add(line, f"empty {needed}")
        path = ""
    row = Row(line, path, (), fields.get("clip_id", ""), fields.get("group", ""))
    if len(fields.get("label", "").splitlines()) > 1:
        problems.add(line, f"label {shown(fields['label'])} has a line break: write it on one line")
    if "group" in fields and not row.group:
        problems.add(line, "empty group; name the source, or leave the column out")
    row.label = kind.parse(fields, classes, line, problems)

    row.start, row.duration = parse_stretch(fields, line, problems)
    if fields.get("fold"):
        try:
            row.fold = int(fields["fold"])
        except ValueError:
            problems.add(line, f"fold {shown(fields['fold'])} is not a whole number")
            row.bad_fold = True
        if row.fold is not None and row.fold < 0:
            problems.add(line, f"fold {row.fold} is negative; folds count from 0")
            row.fold, row.bad_fold = None, True
    row.split = fields.get("split") or None
    return row


@dataclass
class RowParser:
    """Fast `_parse_row` for all rows of a table: shared cells are parsed once.

    This halves the time of a large file. With `exact_paths`, blanks around a path are part of it.
    """

    place: Mapping[str, int]
    exact_paths: bool
    kind: LabelKind
    classes: Sequence[str] | None
    problems: Problems
    _known: dict[tuple[str, ...], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._shared = [i for key, i in self.place.items() if key not in _OF_ROW]

    def parse(self, cells: Sequence[str], line: int) -> Row:
        """Return the row of a line's cells."""
        stripped = [*map(str.strip, cells)]
        place = self.place
        path = (cells if self.exact_paths else stripped)[place["path"]] if "path" in place else ""
        shared = tuple([stripped[i] for i in self._shared])
        known = self._known.get(shared)
        clip_id = stripped[place["clip_id"]] if "clip_id" in place else ""
        group = plain_text(stripped[place["group"]]) if "group" in place else ""
        named = path.strip() if "path" in place else clip_id
        if known is not None and named and (group or "group" not in place):
            return Row(
                line,
                path,
                known.label,
                clip_id,
                group,
                known.start,
                known.duration,
                known.fold,
                known.split,
            )
        fields = {key: plain_text(stripped[i]) for key, i in place.items()}
        exact = {"path": path, "clip_id": clip_id}
        fields |= {key: cell for key, cell in exact.items() if key in place}
        n_problems = len(self.problems.found)
        row = _parse_row(fields, line, self.kind, self.classes, self.problems)
        if len(self.problems.found) == n_problems and len(self._known) < _MOST_KNOWN:
            # A copy, because `finish_rows` changes the row.
            self._known[shared] = replace(row)
        return row


def finish_rows(rows: Sequence[Row], problems: Problems) -> None:
    """Fill in missing ids and groups, and check rows against each other."""
    per_path = Counter(map(attrgetter("path"), rows))
    # If two files differ only in their suffix, their ids include it. The id of a row depends
    # on the set of files, not on the order of the rows.
    stems: dict[str, set[str]] = {}
    for path in per_path:
        stems.setdefault(posixpath.splitext(path)[0], set()).add(path)
    stem_of = {path: stem for stem, paths in stems.items() for path in paths}
    for row in rows:
        stem = stem_of[row.path]
        source = (stem if len(stems[stem]) == 1 else row.path).strip()
        several = bool(row.path) and per_path[row.path] > 1
        if not row.clip_id:
            row.clip_id = f"{source}@{_seconds(row.start)}" if several else source
        if not row.group:
            row.group = source if several else row.clip_id

    _check_ids(rows, problems)
    _agree(
        [row for row in rows if row.path],
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
    rows: Sequence[Row],
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
        [row for row in rows if row.fold is not None],
        attrgetter("group"),
        attrgetter("fold"),
        "group {!r} straddles folds: this is in fold {} and line {} in fold {}",
        problems,
    )


def _seconds(start: float) -> str:
    """Return the shortest decimal that reads back as the same number, without ``.0``."""
    text = repr(start)
    return text[:-2] if text.endswith(".0") else text


def inside_root(cell: str, root: Path) -> str | None:
    """Return the normalised path relative to the root, or None if it is not below it."""
    if _TIDY.fullmatch(cell):
        return cell
    if os.path.isabs(cell):
        cell = os.path.relpath(cell, os.path.abspath(root))
    tidy = posixpath.normpath(cell.replace(os.sep, "/"))
    return None if tidy in (".", "..") or tidy.startswith(("../", "/")) else tidy

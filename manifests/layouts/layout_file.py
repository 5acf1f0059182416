"""Layouts of published data sets as TOML files, and the clips that they describe in a folder.

A layout names the annotation tables of a data set and the meaning of their columns; the files in
this folder are examples, and users write their own::

    name = "deam"
    task = "regression"
    scale = "1..9"

    [[table]]                       # the first table has the clips, further ones add columns by id
    path = ["static_annotations.csv", "annotations/**/*averaged_songs*.csv"]
    id = "song_id"

    [targets.valence]
    column = "valence_mean"
    deviation = "valence_std"

    [media]
    path = ["MEMD_audio/{song_id}.mp3"]

    [split]
    train = "train.txt"

In a path of media ``{COLUMN}`` is a cell, ``{COLUMN:3}`` the cell with leading zeros, and
``{COLUMN:-2}`` its last two characters; ``{COLUMN:stem}`` leaves out a suffix.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from mvemo.manifests.clip_rows import Row
from mvemo.manifests.errors import BadManifest, MissingManifest, Problems
from mvemo.manifests.files import parse_toml
from mvemo.manifests.labels import TASKS, Label, Task, parse_number, parse_scale
from mvemo.manifests.layouts.file_names import FoundClips
from mvemo.manifests.relabel import ANNOTATORS, DEVIATION
from mvemo.manifests.schemes import find_scheme
from mvemo.manifests.splits.assignment import part_of
from mvemo.manifests.tables import plain_text, read_lines, read_table

SPLITS = ("train", "val", "test")
_PLACE = re.compile(r"\{([^{}:]+)(?::(-?\d+|stem))?\}")


def _tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One annotation table, or several files with the same columns."""

    # Patterns; the files of the first one that matches are read. {n} is the number of the split.
    path: tuple[str, ...]
    id: str  # column with the id of a clip
    columns: tuple[str, ...] = ()  # names of the columns of files without a header
    rest: str = ""  # column that takes the further cells of a row, too
    where: Mapping[str, str] = field(default_factory=dict)  # column -> the only value that is used
    split: Mapping[str, str] = field(default_factory=dict)  # part of a file's name -> split


@dataclass(frozen=True, kw_only=True)
class Column:
    """Column of a target, of its deviation between annotators, or of classes or tags."""

    column: str
    deviation: str = ""
    prefix: str = ""  # left out of tags
    separator: str = ""  # between the tags of a cell
    lower: bool = False  # read classes in lower case


@dataclass(frozen=True, kw_only=True)
class Media:
    """Paths of media files, in order of preference."""

    path: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Column of groups; with a pattern, what its parentheses hold, or the whole cell."""

    column: str
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Part of a media file, in seconds: numbers or columns."""

    start: str | float = 0.0
    duration: str | float | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Declaration of a data set."""

    name: str
    title: str
    task: Task
    table: tuple[TableFile, ...] = ()
    media: Media | None = None
    folders: bool = False  # no tables: the clips are in a folder for each class
    size: str = ""
    scale: str = ""
    scheme: str = ""  # maps the labels to a paper's classes; clips without a class are left out
    licence: str = ""
    citation: str = ""
    published: tuple[str, ...] = ()
    targets: Mapping[str, Column] = field(default_factory=dict)
    label: Column | None = None
    tags: Column | None = None
    average: bool = False  # average the rows of a clip: one for each annotator
    group: Group | None = None
    segment: Segment = field(default_factory=Segment)
    split: Mapping[str, str] = field(default_factory=dict)  # split -> file of ids; {n} is a number
    extra: tuple[str, ...] = ()  # further columns of the manifest


# --- reading a layout


def read_layout(path: Path) -> Layout:
    """Read a user's layout; raise `BadManifest` for unknown keys and values."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingManifest(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"{path}: cannot be read: {error}") from None
    return parse_layout(text, str(path))


def parse_layout(text: str, where: str) -> Layout:
    """Parse a layout; `where` is the name of the file, for messages."""
    try:
        stated = parse_toml(text)
        if isinstance(stated.get("table"), dict):
            stated["table"] = [stated["table"]]
        layout: Layout = _build(Layout, stated, "")
        _check(layout)
    except ValueError as error:
        raise BadManifest(f"{where}: {error}") from None
    return layout


_PARTS: dict[str, Any] = {
    "table": [TableFile], "targets": {"": Column}, "label": Column, "tags": Column,
    "media": Media, "group": Group, "segment": Segment,
}  # fmt: skip


def _build(kind: type[Any], stated: Any, at: str) -> Any:
    """Build a dataclass from a TOML table; raise ValueError for a wrong key or type."""
    if not isinstance(stated, dict):
        raise ValueError(f"[{at}]: expected a table, got {stated!r}")
    known, hints = {each.name: each for each in fields(kind)}, get_type_hints(kind)
    place = f"{at}." if at else ""
    values: dict[str, Any] = {}
    for key, value in stated.items():
        if key not in known:
            raise ValueError(f"unknown key {place}{key}; expected some of {', '.join(known)}")
        part = _PARTS.get(key) if not at else None
        if isinstance(part, list) and isinstance(value, list):
            values[key] = tuple(_build(part[0], one, f"{place}{key}") for one in value)
        elif isinstance(part, dict) and isinstance(value, dict):
            values[key] = {
                name: _build(part[""], _column(one), f"{place}{key}.{name}")
                for name, one in value.items()
            }
        elif is_dataclass(part):
            values[key] = _build(part, _column(value), f"{place}{key}")  # type: ignore[arg-type]
        else:
            values[key] = _value(value, str(hints[key]), f"{place}{key}")
    missing = [
        name
        for name, each in known.items()
        if name not in values and each.default is each.default_factory
    ]
    if missing:
        raise ValueError(f"{place}{missing[0]} is missing")
    return kind(**values)


def _column(value: Any) -> Any:
    """Return the table for a short form: a target's column, or the pattern of media."""
    return {"column": value} if isinstance(value, str) else value


def _value(value: Any, hint: str, at: str) -> Any:
    if "tuple[str" in hint:
        value = _tuple(value) if isinstance(value, (str, list)) else value
        allowed = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    elif "Mapping" in hint:
        allowed = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    elif "float" in hint:
        allowed = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    elif "bool" in hint:
        allowed = isinstance(value, bool)
    else:
        allowed = isinstance(value, str)
    if not allowed:
        raise ValueError(f"{at}: unexpected value {value!r}")
    return value


def _check(layout: Layout) -> None:
    if layout.task not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {layout.task!r}")
    needed = {"multiclass": "label", "multilabel": "tags", "regression": "targets"}[layout.task]
    if layout.folders:
        needed, layout = "folders", replace(layout, media=Media(path=()))
    if not getattr(layout, needed):
        raise ValueError(f"[{needed}] is missing: the task is {layout.task}")
    if not layout.folders and not layout.table:
        raise ValueError("[[table]] is missing")
    if layout.media is None:
        raise ValueError("[media] is missing")
    if layout.scheme:
        find_scheme(layout.scheme)
    if layout.scale:
        parse_scale(layout.scale)
    for key in layout.split:
        if part_of(key) is None:
            raise ValueError(f"split.{key}: expected one of {', '.join(SPLITS)}")
    patterns = [p for table in layout.table for p in table.path]
    for pattern in (*patterns, *layout.media.path, *layout.split.values()):
        if posixpath.isabs(pattern) or ".." in pattern.split("/") or "\\" in pattern:
            raise ValueError(f"{pattern!r} leads out of the folder of the data set")
    if layout.group and layout.group.pattern:
        try:
            re.compile(layout.group.pattern)
        except re.error as error:
            raise ValueError(f"group.pattern {layout.group.pattern!r}: {error}") from None


def layouts() -> dict[str, Layout]:
    """Return the layouts that come with mvemo, by name."""
    found = {}
    for file in resources.files(__package__).iterdir():
        text = file.read_text(encoding="utf-8") if file.name.endswith(".toml") else ""
        if "[fields]" not in text and text:
            layout = parse_layout(text, file.name)
            found[layout.name] = layout
    return dict(sorted(found.items()))


# --- finding clips


@dataclass
class _Record:
    """Row of an annotation table: its place, and its cells by column, those of joined rows too."""

    problems: Problems
    line: int
    id: str
    cells: dict[str, str]
    split: str | None = None

    def report(self, message: str) -> None:
        self.problems.add(self.line, message)

    def cell(self, column: str) -> str:
        if column not in self.cells:
            known = ", ".join(map(repr, self.cells))
            raise BadManifest(f"{self.problems.path}: has no column {column!r}, only {known}")
        return self.cells[column]

    def number(self, column: str) -> float:
        return parse_number(self.cell(column), column, self.report)


def find_by_layout(
    layout: Layout, folder: Path, media: Sequence[str] | None, number: int = 0
) -> FoundClips:
    """Return the clips of a data set's folder.

    Parameters
    ----------
    layout, folder
        Declaration, and folder of the data set.
    media
        Paths of the media files below the folder; None to take all clips, without media.
    number
        Number of the split, if the data set has several.
    """
    known = frozenset(media or ())
    by_id: dict[str, list[_Record]] = {}
    for record in _joined(layout, folder, number):
        by_id.setdefault(record.id, []).append(record)
    split_of = _splits(layout, folder, number)
    rows: list[Row] = []
    left_out: list[tuple[str, str]] = []
    for name, records in by_id.items():
        first = records[0]
        if len(records) > 1 and not layout.average:
            records[1].report(f"clip {name!r} repeats line {first.line}")
            continue
        path = _media_path(layout, first, known)
        if media is not None and path not in known:
            left_out.append((name, "its media file is missing"))
            continue
        rows.append(_row(layout, records, path, split_of.get(name, first.split)))
    for problems in {id(r.problems): r.problems for rs in by_id.values() for r in rs}.values():
        problems.raise_any()
    classes = [*layout.targets] or sorted({str(name) for row in rows for name in row.label})
    return FoundClips(rows, classes, layout.task, left_out)


def _files(layout: Layout, folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of the first pattern that matches."""
    root = folder.resolve()
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        for path in found:
            if not path.resolve().is_relative_to(root):
                raise BadManifest(f"{path}: is a link that leads out of {folder}")
        if found:
            return found
    raise BadManifest(
        f"{folder}: has no file {' or '.join(patterns)}; the layout {layout.name} needs one"
    )


def _joined(layout: Layout, folder: Path, number: int) -> list[_Record]:
    """Return the records of the first table with the cells of the further tables."""
    main, *others = [
        _records(table, _files(layout, folder, _numbered(table.path, number)))
        for table in layout.table
    ]
    further: dict[str, dict[str, str]] = {}
    for records in others:
        for record in records:
            further.setdefault(record.id, {}).update(record.cells)
    for record in main:
        record.cells = {**further.get(record.id, {}), **record.cells}
    return main


def _numbered(patterns: Sequence[str], number: int) -> list[str]:
    """Return the patterns of a split; without its number only those of split 0 may be missing."""
    of_splits = [pattern for pattern in patterns if "{n}" in pattern]
    return [
        p.replace("{n}", str(number)) for p in (of_splits if number and of_splits else patterns)
    ]


def _records(table: TableFile, paths: Sequence[Path]) -> list[_Record]:
    records = []
    for path in paths:
        content, problems = read_table(path, error=BadManifest), Problems(path)
        header = [*table.columns] or content.header
        for column in (table.id, *table.where, *filter(None, [table.rest])):
            if column not in header:
                listing = ", ".join(map(repr, header))
                raise BadManifest(f"{path}: has no column {column!r}, only {listing}")
        split = next((name for part, name in table.split.items() if part in path.name), None)
        for line, row in content.rows[0 if table.columns else 1 :]:
            cells = [cell.strip() for cell in row]
            if table.rest and len(cells) > len(header):
                last = header.index(table.rest)
                cells = [*cells[:last], "\t".join(cells[last:])]
            if len(cells) != len(header):
                problems.add(line, f"the row has {len(cells)} cells, the header {len(header)}")
                continue
            values = dict(zip(header, cells, strict=True))
            if all(values[key] == value for key, value in table.where.items()):
                name = plain_text(values[table.id])
                records.append(_Record(problems, line, name, values, split))
                if not name:
                    problems.add(line, f"{table.id} is empty")
        problems.raise_any()
    return records


def _splits(layout: Layout, folder: Path, number: int) -> dict[str, str]:
    """Return the split of each id that a file of a split names."""
    split_of: dict[str, str] = {}
    for part, pattern in layout.split.items():
        pattern = pattern.replace("{n}", str(number))
        if not number and not any(folder.glob(pattern)):
            continue  # A copy without its splits.
        for path in _files(layout, folder, [pattern]):
            for line in read_lines(path, error=BadManifest):
                name = plain_text(re.split("[,\t;]", line)[0].strip())
                split_of.setdefault(name, SPLITS[part_of(part) or 0])
    return split_of


def _media_path(layout: Layout, record: _Record, known: Collection[str]) -> str:
    """Return the first path of the layout's that exists, otherwise the first one."""

    def cell(match: re.Match[str]) -> str:
        value, form = record.cell(match[1]), match[2] or "0"
        if form == "stem":
            return posixpath.splitext(value)[0]
        return value[int(form) :] if form.startswith("-") else value.zfill(int(form))

    assert layout.media is not None
    paths = [posixpath.normpath(_PLACE.sub(cell, template)) for template in layout.media.path]
    path = next((path for path in paths if path in known), paths[0])
    if path.startswith(("/", "..")):
        record.report(f"path {path!r} leads out of the folder of the data set")
    return path


def _row(layout: Layout, records: Sequence[_Record], path: str, split: str | None) -> Row:
    first = records[0]
    label, extra = _label(layout, records)
    group = plain_text(first.cell(layout.group.column)) if layout.group else ""
    if layout.group and (match := re.search(layout.group.pattern, group)):
        group = next(filter(None, match.groups()), group)
    start, duration = (
        first.number(value) if isinstance(value, str) else value
        for value in (layout.segment.start, layout.segment.duration)
    )
    extra += [(column, first.cell(column)) for column in layout.extra]
    return Row(
        first.line, path, first.id, group, label, start or 0.0, duration, None, split, tuple(extra)
    )


def _label(layout: Layout, records: Sequence[_Record]) -> tuple[Label, list[tuple[str, str]]]:
    """Return the label of a clip, and the deviations of its targets."""
    first = records[0]
    if layout.label:
        name = plain_text(first.cell(layout.label.column))
        return (name.lower() if layout.label.lower else name,), []
    if layout.tags:
        marks = f"[\t{re.escape(layout.tags.separator)}]"
        names = re.split(marks, first.cell(layout.tags.column))
        plain = {plain_text(name.strip().removeprefix(layout.tags.prefix)) for name in names}
        return tuple(sorted(plain - {""})), []
    values, extra = [], []
    for name, target in layout.targets.items():
        numbers = [record.number(target.column) for record in records]
        values.append(float(np.mean(numbers)))
        if target.deviation:
            extra.append((DEVIATION.format(name), first.cell(target.deviation)))
        elif len(numbers) > 1:
            extra.append((DEVIATION.format(name), f"{np.std(numbers, ddof=1):.4g}"))
    if layout.average:
        extra.append((ANNOTATORS, str(len(records))))
    return tuple(values), extra

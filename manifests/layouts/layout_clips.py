"""Clips of a data set, found in its folder by the layout that declares it."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.annotators import DEVIATION, Extra, majority_label, mean_label
from mvemo.manifests.cells import parse_number
from mvemo.manifests.clip_rows import Row, parse_stretch
from mvemo.manifests.errors import BadManifest, Problems
from mvemo.manifests.labels import Label
from mvemo.manifests.layouts.file_names import FoundClips, search
from mvemo.manifests.layouts.layout_file import SPLITS, Layout, TableFile
from mvemo.manifests.splits.assignment import part_of
from mvemo.manifests.tables import is_missing, plain_text, read_lines, read_table

_PLACE = re.compile(r"\{([^{}:]+)(?::(-?\d+|stem))?\}")


@dataclass
class _Record:
    """Row of an annotation table: its place, and its cells by column, those of joined rows too."""

    problems: Problems
    line: int
    id: str
    cells: dict[str, str]
    points: Callable[[Sequence[str]], Sequence[str]]
    split: str | None = None

    def report(self, message: str) -> None:
        self.problems.add(self.line, message)

    def cell(self, column: str) -> str:
        if column not in self.cells:
            known = ", ".join(map(repr, self.cells))
            raise BadManifest(f"{self.problems.path}: has no column {column!r}, only {known}")
        return self.cells[column]

    def number_cell(self, column: str) -> str:
        """Return the cell of a number, with a decimal point."""
        return self.points([self.cell(column)])[0]

    def number(self, column: str, blank: bool = False) -> float:
        """Return the number in a column; NaN for an empty cell if it may be `blank`."""
        cell = self.number_cell(column)
        return math.nan if blank and is_missing(cell) else parse_number(cell, column, self.report)


def find_by_layout(
    layout: Layout, folder: Path, media: Sequence[str] | None, number: int = 0
) -> FoundClips:
    """Return the clips of a data set's folder.

    `media` are the paths of its media files, None to take all clips without media. `number` is
    that of the split, if there are several.
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
        path = _media_path(layout, first, known, folder)
        if media is not None and path not in known:
            left_out.append((name, "its media file is missing"))
            continue
        rows.append(_row(layout, records, path, split_of.get(name, first.split)))
    for problems in {id(r.problems): r.problems for rs in by_id.values() for r in rs}.values():
        problems.raise_any()
    classes = [*layout.targets] or sorted({str(name) for row in rows for name in row.label})
    return FoundClips(rows, classes, layout.task, left_out)


def _files(
    layout: Layout, folder: Path, patterns: Sequence[str], needed: bool = True
) -> list[Path]:
    """Return the files of the first pattern that matches."""
    root = folder.resolve()
    for pattern in patterns:
        try:
            found = sorted(path for path in folder.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError, OSError) as error:
            text = f"{folder}: the pattern {pattern!r} of the layout {layout.name}: {error}"
            raise BadManifest(text) from None
        for path in found:
            if not path.resolve().is_relative_to(root):
                raise BadManifest(f"{path}: is a link that leads out of {folder}")
            if copies := [other for other in found if other.name == path.name and other != path]:
                raise BadManifest(
                    f"{folder}: has copies of {path.name}: scan only {path.parent} or "
                    f"{copies[0].parent}"
                )
        if found:
            return found
    if not needed:
        return []
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
        content, problems = read_table(path), Problems(path)
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
                records.append(_Record(problems, line, name, values, content.points, split))
                if not name:
                    problems.add(line, f"{table.id} is empty")
        problems.raise_any()
    return records


def _splits(layout: Layout, folder: Path, number: int) -> dict[str, str]:
    """Return the split of each id that a file of a split names."""
    split_of: dict[str, str] = {}
    for part, pattern in layout.split.items():
        pattern = pattern.replace("{n}", str(number))
        # A copy may lack its splits.
        for path in _files(layout, folder, [pattern], needed=number > 0):
            for line in read_lines(path):
                name = plain_text(re.split("[,\t;]", line)[0].strip())
                split_of.setdefault(name, SPLITS[part_of(part) or 0])
    return split_of


def _media_path(layout: Layout, record: _Record, known: Collection[str], folder: Path) -> str:
    """Return the first path that exists below the folder or next to the table, or the first."""

    def cell(match: re.Match[str]) -> str:
        value, form = record.cell(match[1]), match[2] or "0"
        if form == "stem":
            return posixpath.splitext(value)[0]
        return value[int(form) :] if form.startswith("-") else value.zfill(int(form))

    assert layout.media is not None
    here = record.problems.path.parent.relative_to(folder).as_posix()
    names = [_PLACE.sub(cell, template) for template in layout.media.path]
    paths = [posixpath.normpath(posixpath.join(at, name)) for at in ("", here) for name in names]
    path = next((path for path in paths if path in known), paths[0])
    if path.startswith(("/", "..")):
        record.report(f"path {path!r} leads out of the folder of the data set")
    return path


def _row(layout: Layout, records: Sequence[_Record], path: str, split: str | None) -> Row:
    first = records[0]
    label, extra = _label(layout, records)
    group = plain_text(first.cell(layout.group.column)) if layout.group else ""
    if layout.group and (match := search(re.compile(layout.group.pattern), group)):
        group = next(filter(None, match.groups()), group)
    stretch = {"start": layout.segment.start, "duration": layout.segment.duration}
    cells = {
        name: first.number_cell(value) if isinstance(value, str) else str(value)
        for name, value in stretch.items()
        if value is not None
    }
    start, duration = parse_stretch(cells, first.report)
    extra += [(column, first.cell(column)) for column in layout.extra]
    return Row(first.line, path, first.id, group, label, start, duration, None, split, tuple(extra))


def _label(layout: Layout, records: Sequence[_Record]) -> tuple[Label, Extra]:
    """Return the label of a clip, and the disagreement of its annotators."""
    first = records[0]
    if layout.label:
        names = [plain_text(record.cell(layout.label.column)) for record in records]
        names = [name.lower() if layout.label.lower else name for name in names]
        names = [n for n in names if not is_missing(n, label=True)] if layout.average else names
        if not any(names):
            first.report(f"{layout.label.column} is empty")
            return ("",), []
        return majority_label(names) if layout.average else ((names[0],), [])
    if layout.tags:
        marks = f"[\t{re.escape(layout.tags.separator)}]"
        tags = re.split(marks, first.cell(layout.tags.column))
        plain = {plain_text(tag.strip().removeprefix(layout.tags.prefix)) for tag in tags}
        return tuple(sorted(plain - {""})), []
    columns = layout.targets.values()
    blank = layout.average
    ratings = [[record.number(target.column, blank) for target in columns] for record in records]
    label, extra = mean_label([*layout.targets], ratings)
    if blank and any(value != value for value in label):
        first.report(f"nobody rated clip {first.id!r} in all of {', '.join(layout.targets)}")
    stated = {DEVIATION.format(n): t.deviation for n, t in layout.targets.items() if t.deviation}
    if not layout.average:
        extra = []
    extra = [item for item in extra if item[0] not in stated]
    return label, [*((name, first.cell(column)) for name, column in stated.items()), *extra]

"""Clips of a data set, found in its folder by the layout that declares it."""

import csv
import math
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo.manifests.annotators import DEVIATION, Extra, majority_label, mean_label
from mvemo.manifests.cells import parse_number, to_number
from mvemo.manifests.clip_rows import Row, parse_stretch
from mvemo.manifests.errors import BadManifest, Problems
from mvemo.manifests.labels import Label
from mvemo.manifests.layouts.file_names import FoundClips, search
from mvemo.manifests.layouts.layout_file import SPLITS, Layout, TableFile, TagColumns
from mvemo.manifests.splits.assignment import part_of
from mvemo.manifests.tables import bare_name, is_missing, plain_text, read_lines, read_table

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

    def has_tag(self, tag: str, column: str) -> bool:
        """Return True for 1 and False for 0; report other cells."""
        with suppress(ValueError):
            if (value := to_number(self.cell(column))) in (0.0, 1.0):
                return value == 1.0
        self.report(f"tag {tag!r}: expected 0 or 1, got {self.cell(column).strip()!r}")
        return False


def find_by_layout(
    layout: Layout,
    folder: Path,
    media: Sequence[str] | None,
    number: int = 0,
    tags: str | None = None,
) -> FoundClips:
    """Return the clips of a data set's folder.

    `media` are the paths of its media files, None to take all clips without media. `number` is
    the number of the split, if there are several. `tags` chooses among tags with a column each:
    their names, ``all``, or by default the tags with the layout's prefix.
    """
    assert layout.media is not None
    every = _joined(layout, folder, number)
    chosen = _chosen_tags(layout, every, tags)
    by_id: dict[str, list[_Record]] = {}
    for record in every:
        name, start = record.id, layout.segment.start
        if layout.segment.end:
            name = f"{name}@{round(record.number(str(start)), 6):g}"
        by_id.setdefault(name, []).append(record)
    split_of = _splits(layout, folder, number)
    rows: list[Row] = []
    left_out: list[tuple[str, str]] = []
    by_name: dict[str, str] | None = None
    if layout.media.by_name:
        by_name, left_out = _files_by_name([record.id for record in every], media)
    known, missing = frozenset(media or ()), {}
    for name, records in by_id.items():
        first = records[0]
        if len(records) > 1 and not layout.average:
            records[1].report(f"clip {name!r} repeats line {first.line}")
            continue
        if by_name is None:
            path = _media_path(layout, first, known, folder)
        else:
            path = by_name.get(first.id, "" if media else first.id)
        row = _row(layout, records, path, chosen, split_of.get(name, first.split))
        if media is not None and path not in known:
            missing[first.id if by_name is not None else name] = "its media file is missing"
        else:
            rows.append(replace(row, clip_id=name))
    for problems in {id(r.problems): r.problems for rs in by_id.values() for r in rs}.values():
        problems.raise_any()
    order = {record.id: i for i, record in enumerate(every)} if layout.segment.end else {}
    rows.sort(key=lambda row: (order[row.group], row.start) if order else (0, 0.0))
    classes = [*layout.targets] or [*chosen]
    classes = classes or sorted({str(name) for row in rows for name in row.label})
    remarks = _remarks(layout, every, chosen, asked=tags is not None)
    return FoundClips(rows, classes, layout.task, [*missing.items(), *left_out], remarks)


def _remarks(
    layout: Layout, records: Sequence[_Record], chosen: Mapping[str, str], *, asked: bool
) -> tuple[str, ...]:
    """Return sentences on differences from the published data set."""
    if not layout.counts or layout.tag_columns is None:
        return ()
    counts, n_tags = layout.counts, len(_tag_names(layout, records[0]))
    remarks = []
    if (len(records), n_tags) != (counts["clips"], counts["tags"]):
        remarks.append(
            f"the published {layout.name} has {counts['clips']:,} clips and {counts['tags']} tags; "
            f"this copy has {len(records):,} and {n_tags}"
        )
    if not asked and len(chosen) != counts["chosen"]:
        kind = _keyword(layout.tag_columns)
        remarks.append(
            f"this copy has {len(chosen)} of the {counts['chosen']} published {kind} tags"
        )
    return tuple(remarks)


def _keyword(columns: TagColumns) -> str:
    """Return the word for tags with the prefix, such as ``emotion`` for ``Emotion-``."""
    return columns.prefix.strip("-_ ").casefold()


def _tag_names(layout: Layout, record: _Record) -> list[str]:
    """Return the columns of a table that are tags."""
    others = {layout.segment.start, layout.segment.end, *(table.id for table in layout.table)}
    return [name for name in record.cells if name not in others]


def _chosen_tags(layout: Layout, records: Sequence[_Record], tags: str | None) -> dict[str, str]:
    """Map each requested tag, in readable form, to its column; {} without columns of tags."""
    columns = layout.tag_columns
    if columns is None or not records:
        return {}
    first, path = records[0], records[0].problems.path
    names = _tag_names(layout, first)
    for record in records:
        if [*record.cells] != [*first.cells]:
            other = sorted({*record.cells} ^ {*first.cells})
            where = f"in {', '.join(map(repr, other[:3]))}" if other else "in their order"
            raise BadManifest(f"{record.problems.path}:1: its columns differ from {path} {where}")
    every = {_plain(name): name for name in names}
    prefix, keyword = columns.prefix, _keyword(columns)
    special = {_plain(n.removeprefix(prefix)): n for n in names if n.startswith(prefix)}
    if tags == "all":
        return every
    if tags in (None, keyword):
        if not special:
            raise BadManifest(f"{path}: no tag starts with {prefix!r}: give --tags all")
        return special
    known = {tag.casefold(): (names.index(n), tag) for tag, n in (every | special).items()}
    chosen = []
    for name in filter(None, map(str.strip, str(tags).split(","))):
        if _plain(name).casefold() not in known:
            raise BadManifest(
                f"{path}: unknown tag {name!r}; expected {keyword}, all, or some of "
                f"{', '.join(special or names)}"
            )
        chosen.append(known[_plain(name).casefold()])
    if not chosen:
        raise BadManifest(f"--tags {tags!r}: expected {keyword}, all, or names of tags")
    return {tag: names[i] for i, tag in sorted(chosen)}


def _plain(name: str) -> str:
    """Return a name in readable form: ``Angry_/_Agressive`` becomes ``Angry / Agressive``."""
    return " ".join(name.replace("_", " ").split())


def _files_by_name(
    ids: Sequence[str], media: Sequence[str] | None
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Map ids to the media files named like them; also return the files that no id names."""
    stems = {posixpath.splitext(posixpath.basename(path))[0]: path for path in media or ()}
    alike = {bare_name(stem): path for stem, path in stems.items()}
    found = {name: stems.get(name) or alike.get(bare_name(name), "") for name in ids}
    used = {*found.values()}
    return found, [(p, "no clip has this name") for p in media or () if p not in used]


def has_tables(layout: Layout, folder: Path) -> bool:
    """Return True if a folder has files of the layout's first table."""
    table = layout.table[0]
    return any(_belongs(path, table) for pattern in table.path for path in folder.glob(pattern))


def _belongs(path: Path, table: TableFile | None) -> bool:
    """Return True for a file outside the folder `without` that begins with the columns `starts`."""
    without = table.without.casefold() if table is not None else ""
    if without and without in map(str.casefold, path.parts):
        return False
    if table is None or not table.starts:
        return path.is_file()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            cells = next(csv.reader(file), [])
    except (OSError, csv.Error):
        return False
    starts = [name.casefold() for name in table.starts]
    return [cell.strip().casefold() for cell in cells[: len(starts)]] == starts


def _files(
    layout: Layout,
    folder: Path,
    patterns: Sequence[str],
    table: TableFile | None = None,
    needed: bool = True,
) -> list[Path]:
    """Return the files of the first pattern that matches."""
    root = folder.resolve()
    for pattern in patterns:
        try:
            found = sorted(path for path in folder.glob(pattern) if _belongs(path, table))
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
        _records(table, _files(layout, folder, _numbered(table.path, number), table))
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
    """Return the patterns of a split by its number; patterns without ``{n}`` stand for split 0."""
    of_splits = [pattern for pattern in patterns if "{n}" in pattern]
    return [
        p.replace("{n}", str(number)) for p in (of_splits if number and of_splits else patterns)
    ]


def _records(table: TableFile, paths: Sequence[Path]) -> list[_Record]:
    records = []
    for path in paths:
        content, problems = read_table(path), Problems(path)
        header = [*table.columns] or content.header
        if len(header) == 1 and (names := _names_next_to(path, header[0])) is not None:
            header = names
        ids = [path.stem] * len(content.rows) if table.id == "{stem}" else None
        ids = ids or _names_next_to(path, table.id)
        for column in (*[table.id] * (ids is None), *table.where, *filter(None, [table.rest])):
            if column not in header:
                listing = ", ".join(map(repr, header))
                raise BadManifest(f"{path}: has no column {column!r}, only {listing}")
        split = next((name for part, name in table.split.items() if part in path.name), None)
        rows = content.rows[0 if table.columns else 1 :]
        if ids is not None and len(ids) < len(rows):
            problems.add(0, f"it has {len(rows)} rows, but {table.id[1:-1]} has {len(ids)} names")
        for number, (line, row) in enumerate(rows):
            cells = [cell.strip() for cell in row]
            if table.rest and len(cells) > len(header):
                last = header.index(table.rest)
                cells = [*cells[:last], "\t".join(cells[last:])]
            if len(cells) != len(header):
                problems.add(line, f"the row has {len(cells)} cells, the header {len(header)}")
                continue
            values = dict(zip(header, cells, strict=True))
            if all(values[key] == value for key, value in table.where.items()):
                place = ids[number : number + 1] if ids is not None else [values[table.id]]
                name = plain_text("".join(place))
                records.append(_Record(problems, line, name, values, content.points, split))
                if not name:
                    problems.add(line, f"{table.id} is empty")
        problems.raise_any()
    return records


def _names_next_to(path: Path, name: str) -> list[str] | None:
    """If `name` is ``{FILE}``, return the lines of this file next to the table; otherwise None."""
    if not (name.startswith("{") and name.endswith("}")) or name == "{stem}":
        return None
    file = path.with_name(name[1:-1])
    names = read_lines(file)
    if twice := [each for i, each in enumerate(names) if each in names[:i]]:
        raise BadManifest(f"{file}: {twice[0]!r} occurs twice")
    return names


def _splits(layout: Layout, folder: Path, number: int) -> dict[str, str]:
    """Map each id in the files of the splits to its split."""
    split_of: dict[str, str] = {}
    for part, pattern in layout.split.items():
        pattern = pattern.replace("{n}", str(number))
        # Some copies of a data set lack the files of its splits.
        for path in _files(layout, folder, [pattern], needed=number > 0):
            for line in read_lines(path):
                name = plain_text(re.split("[,\t;]", line)[0].strip())
                split_of.setdefault(name, SPLITS[part_of(part) or 0])
    return split_of


def _media_path(layout: Layout, record: _Record, known: Collection[str], folder: Path) -> str:
    """Return the first media path that exists, or the first path of all if none exists."""

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


def _row(
    layout: Layout,
    records: Sequence[_Record],
    path: str,
    tags: Mapping[str, str],
    split: str | None,
) -> Row:
    first = records[0]
    label, extra = _label(layout, records, tags)
    group = plain_text(first.cell(layout.group.column)) if layout.group else ""
    if layout.group and (match := search(re.compile(layout.group.pattern), group)):
        group = next(filter(None, match.groups()), group)
    stretch = {"start": layout.segment.start, "duration": layout.segment.duration}
    cells = {
        name: first.number_cell(value) if isinstance(value, str) else str(value)
        for name, value in stretch.items()
        if value is not None
    }
    if layout.segment.end:
        # It is rounded to microseconds because a difference of decimals has rounding errors.
        begin, end = (
            first.number(str(name)) for name in (layout.segment.start, layout.segment.end)
        )
        group, cells["duration"] = first.id, f"{round(end - begin, 6)}"
    start, duration = parse_stretch(cells, first.report)
    extra += [(column, first.cell(column)) for column in layout.extra]
    return Row(first.line, path, first.id, group, label, start, duration, None, split, tuple(extra))


def _label(
    layout: Layout, records: Sequence[_Record], tags: Mapping[str, str]
) -> tuple[Label, Extra]:
    """Return the label of a clip, and the disagreement of its annotators."""
    first = records[0]
    if tags:
        return tuple(tag for tag, column in tags.items() if first.has_tag(tag, column)), []
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
        given = re.split(marks, first.cell(layout.tags.column))
        plain = {plain_text(tag.strip().removeprefix(layout.tags.prefix)) for tag in given}
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

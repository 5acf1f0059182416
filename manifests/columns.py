"""Columns of a table: recognition of label columns by names and cells, and parsing of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.clip_rows import Row, RowParser, inside_root
from mvemo.manifests.errors import Problems
from mvemo.manifests.labels import UNLABELLED, LabelKind, Names, Task, is_flag
from mvemo.manifests.tables import RESERVED, Table, are_numbers

# Possible separators of tags in one cell; the first that occurs is used.
_MARKS = (";", "|", ",")
# Targets that are recognised without the prefix ``label_`` if valence or arousal is present.
_DIMENSIONS = ("valence", "arousal", "energy", "tension", "dominance")
_PREFIX = "label_"


def value_columns(table: Table) -> dict[str, str]:
    """Map targets to columns of numbers: ``label_NAME``, otherwise valence, arousal and others."""
    numeric = [name for name in table.header if are_numbers(table.cells(name))]
    if stated := _with_prefix(numeric):
        return stated
    plain = {n.casefold().removeprefix("mean_").removesuffix("_mean"): n for n in numeric}
    found = {target: plain[target] for target in _DIMENSIONS if target in plain}
    return found if {*_DIMENSIONS[:2]} & found.keys() else {}


def tag_columns(table: Table) -> dict[str, str]:
    """Map tags to columns of 0 and 1: ``label_NAME``, otherwise all that are not reserved."""
    names = [
        name
        for name in table.header
        if name not in RESERVED and table.cells(name) and all(map(is_flag, table.cells(name)))
    ]
    return _with_prefix(names) or {name: name for name in names}


def _with_prefix(names: Names) -> dict[str, str]:
    return {name.removeprefix(_PREFIX): name for name in names if name.startswith(_PREFIX)}


def tag_separator(cells: Sequence[str]) -> str:
    """Return the separator of the tags in the cells of a column."""
    return next((mark for mark in _MARKS if holds_mark(mark, cells)), _MARKS[0])


def holds_mark(mark: str, cells: Sequence[str]) -> bool:
    """Return True if a cell that is not a JSON list contains the separator."""
    return any(mark in cell and not cell.startswith("[") for cell in cells)


def _hold_tags(cells: Sequence[str]) -> bool:
    """Return True if cells join names, and most of these names also occur in other cells."""
    different = set(cells)
    mark = tag_separator(cells)
    counts = Counter(part.strip() for cell in different for part in cell.split(mark))
    joined = {part.strip() for cell in different if mark in cell for part in cell.split(mark)}
    return 2 * sum(counts[part] > 1 for part in joined) > len(joined)


def recognised_task(table: Table, problems: Problems) -> Task:
    """Return the task of a table that does not state one; multilabel only if cells join tags."""
    labels = table.cells("label")
    if table.kind:
        tags = False
    else:
        tags = "label" in table.header and _hold_tags(labels)
        if are_numbers(labels) and not all(float(cell).is_integer() for cell in labels if cell):
            problems.add(
                0,
                f"its labels are numbers, as {labels[0]!r}: ratings are read with --task "
                "regression --column NAME=COLUMN, and --task multiclass takes numbers as classes",
            )
    if tags:
        return "multilabel"
    return UNLABELLED if set(table.header) <= {"", *RESERVED[1:]} else "multiclass"


@dataclass(frozen=True)
class Columns:
    """Columns that are read, and the labels in them."""

    kind: LabelKind
    spread: bool
    classes: Names | None
    mapped: Mapping[str, str]
    root: Path
    media: bool = True

    def parse_rows(self, table: Table, problems: Problems) -> list[Row]:
        """Parse the rows of a table; errors are added to `problems`."""
        place = self._place(table, problems)
        if place is None:
            return []
        header = table.header
        # The meaning of other columns is known only in our own files.
        used = set(place.values())
        extra = [(i, name) for i, name in enumerate(header) if table.kind and i not in used]
        # Blanks around a path count in our own files; other programs put blanks after commas.
        parser = RowParser(place, bool(table.kind), self.kind, self.classes, problems)
        rows: list[Row] = []
        outside: list[Row] = []
        for line, cells in table.rows[1:]:
            if len(cells) != len(header):
                problems.add(line, f"{len(cells)} cells; the header has {len(header)}")
                continue
            row = parser.parse(cells, line)
            if extra:
                row.extra = tuple((name, cells[i].strip()) for i, name in extra)
            tidy = inside_root(row.path, self.root) if row.path else ""
            if tidy is None:
                outside.append(row)
            row.path = tidy or row.path
            rows.append(row)
        self._report_outside(outside, len(rows), problems)
        return rows

    def _place(self, table: Table, problems: Problems) -> dict[str, int] | None:
        """Return the index of each column in the table, or None if a required one is missing."""
        line, names = table.rows[0][0], table.header
        labels: tuple[str, ...] = () if self.kind.task == UNLABELLED else ("label",)
        if self.spread:
            labels = tuple(self.classes or ())
        known = [*RESERVED[1:], *labels] if self.spread else [*RESERVED]
        if unknown := [key for key in self.mapped if key not in known]:
            problems.add(
                0, f"no such column to map: {', '.join(unknown)}; one of {', '.join(known)}"
            )
        for key in known:
            if names.count(key) > 1:
                problems.add(line, f"column {key!r} occurs twice")
        required = ["path" if self.media or "clip_id" not in names else "clip_id"]
        required += labels
        missing = [key for key in required if key not in names]
        if missing:
            hint = ""
            if len(names) == 1 and "|" in names[0]:
                hint = "; cells must be separated by commas"
            elif "path" in missing:
                hint = (
                    "; name it with --column path=NAME of 'mvemo manifest import', or, if there "
                    "are no media, --no-media --column clip_id=NAME"
                )
            if "label" in missing:
                hint += f"; {_label_hint(table)}"
            listed = ", ".join(map(repr, missing))
            problems.add(line, f"the header has no column {listed}; it has {names}{hint}")
        place = {key: names.index(key) for key in known if names.count(key) == 1}
        return place if all(key in place for key in required) else None

    def _report_outside(self, outside: Sequence[Row], n_rows: int, problems: Problems) -> None:
        """Report paths outside the media root, or the root itself if all paths are outside."""
        root = f"below the media root {str(self.root)!r}"
        cure = "give the folder of the media files with --root"
        if len(outside) == n_rows > 1:
            first = f"{outside[0].path!r} in line {outside[0].line}"
            message = f"none of the {n_rows} paths is {root}, as {first}: {cure}"
            problems.add(0, message, count=n_rows)
            return
        for row in outside:
            problems.add(row.line, f"path {row.path!r} is not {root}: {cure}")


def _label_hint(table: Table) -> str:
    """Return a hint on how to read a table without a column ``label``."""
    otherwise = "another column is named with --column label=NAME"
    values, tags = list(value_columns(table).values()), list(tag_columns(table).values())
    if not set(values) <= set(tags):
        return f"{', '.join(values)}: ratings are read with --task regression; {otherwise}"
    if tags:
        return f"{', '.join(tags)}: 0 and 1 are read with --task multilabel; {otherwise}"
    return "name it with --column label=NAME, or read clips without labels with --task unlabelled"

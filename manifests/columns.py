"""Columns of a manifest's table, and the rows parsed by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.label_columns import label_hint
from mvemo.manifests.labels import UNLABELLED, LabelKind
from mvemo.manifests.problems import Problems
from mvemo.manifests.rows import Row, RowParser, inside_root
from mvemo.manifests.tables import RESERVED, Table


@dataclass(frozen=True)
class Columns:
    """Settings for reading the columns of a table."""

    kind: LabelKind
    spread: bool
    classes: Sequence[str] | None
    mapped: Mapping[str, str]
    root: Path
    media: bool = True

    @property
    def known(self) -> list[str]:
        """Names of all columns that are read."""
        return [*RESERVED[1:], *(self.classes or ())] if self.spread else [*RESERVED]

    def required(self, names: Sequence[str]) -> list[str]:
        """Return the columns that the table must have; without media, an id is enough."""
        first = "path" if self.media or "clip_id" not in names else "clip_id"
        labels = () if self.kind.task == UNLABELLED else ("label",)
        return [first, *((self.classes or ()) if self.spread else labels)]


def _place_columns(table: Table, columns: Columns, problems: Problems) -> dict[str, int] | None:
    """Return the index of each column in the table, or None if a required one is missing."""
    line, names = table.rows[0][0], table.header
    unknown = [key for key in columns.mapped if key not in columns.known]
    if unknown:
        problems.add(
            0, f"no such column to map: {', '.join(unknown)}; one of {', '.join(columns.known)}"
        )
    place: dict[str, int] = {}
    for key in columns.known:
        if names.count(key) > 1:
            problems.add(line, f"column {key!r} occurs twice")
        elif key in names:
            place[key] = names.index(key)
    required = columns.required(names)
    missing = [key for key in required if key not in names]
    if missing:
        hint = ""
        if len(names) == 1 and "|" in names[0]:
            hint = "; cells must be separated by commas"
        elif "path" in missing:
            hint = (
                "; name it with --column path=NAME of 'mvemo manifest import', or, if there are no "
                "media, --no-media --column clip_id=NAME"
            )
        if "label" in missing:
            hint += f"; {label_hint(table)}"
        listed = ", ".join(map(repr, missing))
        problems.add(line, f"the header has no column {listed}; it has {names}{hint}")
    return place if all(key in place for key in required) else None


def parse_rows(table: Table, columns: Columns, problems: Problems) -> list[Row]:
    """Parse the rows of a table; errors are added to `problems`."""
    place = _place_columns(table, columns, problems)
    if place is None:
        return []
    header = table.header
    n_columns = len(header)
    # The meaning of other columns is known only in our own files.
    used = set(place.values()) if table.kind else set(range(n_columns))
    extra = [(i, name) for i, name in enumerate(header) if i not in used]
    # Blanks around a path count in our own files; other programs put blanks after commas.
    parser = RowParser(place, bool(table.kind), columns.kind, columns.classes, problems)
    rows: list[Row] = []
    outside: list[Row] = []
    for line, cells in table.rows[1:]:
        if len(cells) != n_columns:
            problems.add(line, f"{len(cells)} cells; the header has {n_columns}")
            continue
        row = parser.parse(cells, line)
        if extra:
            row.extra = tuple((name, cells[i].strip()) for i, name in extra)
        tidy = inside_root(row.path, columns.root) if row.path else ""
        if tidy is None:
            outside.append(row)
        row.path = tidy or row.path
        rows.append(row)
    _report_outside(outside, len(rows), columns.root, problems)
    return rows


def _report_outside(outside: Sequence[Row], n_rows: int, root: Path, problems: Problems) -> None:
    """Report paths outside the media root, or the root itself if all paths are outside."""
    cure = "give the folder of the media files with --root"
    if len(outside) == n_rows > 1:
        first = outside[0]
        problems.add(
            0,
            f"none of the {n_rows} paths is below the media root {str(root)!r}, as {first.path!r} "
            f"in line {first.line}: {cure}",
            count=n_rows,
        )
        return
    for row in outside:
        problems.add(
            row.line, f"path {row.path!r} is not below the media root {str(root)!r}: {cure}"
        )

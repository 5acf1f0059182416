"""Recognition of label columns in a user's own table, by names and cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mvemo.manifests.labels import UNLABELLED, Task, is_flag
from mvemo.manifests.tables import RESERVED, Table

# Possible separators of tags in one cell; the first that occurs is used.
MARKS = (";", "|", ",")
# Targets that are recognised without the prefix ``label_`` if valence or arousal is present.
_DIMENSIONS = ("valence", "arousal", "energy", "tension", "dominance")
_PREFIX = "label_"


def value_columns(table: Table) -> dict[str, str]:
    """Map targets to columns of numbers: ``label_NAME``, otherwise valence, arousal and others.

    Examples
    --------
    >>> rows = ((1, ["path", "Valence_mean", "tempo"]), (2, ["a.mp3", "0.5", "90"]))
    >>> value_columns(Table(rows=rows))
    {'valence': 'Valence_mean'}
    """
    numeric = [name for name in table.header if _are_numbers(table.cells(name))]
    if stated := {n.removeprefix(_PREFIX): n for n in numeric if n.startswith(_PREFIX)}:
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
    stated = {name.removeprefix(_PREFIX): name for name in names if name.startswith(_PREFIX)}
    return stated or {name: name for name in names}


def tag_separator(cells: Sequence[str]) -> str:
    """Return the separator of the tags in the cells of a column."""
    return next((mark for mark in MARKS if holds_mark(mark, cells)), MARKS[0])


def holds_mark(mark: str, cells: Sequence[str]) -> bool:
    """Return True if a cell that is not a JSON list contains the separator."""
    return any(mark in cell and not cell.startswith("[") for cell in cells)


def hold_tags(cells: Sequence[str]) -> bool:
    """Return True if cells join names, and most of these names also occur in other cells.

    Examples
    --------
    >>> hold_tags(["happy, energetic", "calm", "calm, happy"]), hold_tags(["sad, blue", "calm"])
    (True, False)
    """
    different = set(cells)
    mark = tag_separator(cells)
    counts = Counter(part.strip() for cell in different for part in cell.split(mark))
    joined = {part.strip() for cell in different if mark in cell for part in cell.split(mark)}
    return 2 * sum(counts[part] > 1 for part in joined) > len(joined)


def recognised_task(table: Table) -> Task:
    """Return the task of a table that does not state one; multilabel only if cells join tags."""
    if "label" in table.header:
        return "multilabel" if not table.kind and hold_tags(table.cells("label")) else "multiclass"
    return UNLABELLED if set(table.header) <= {"", *RESERVED} else "multiclass"


def label_hint(table: Table) -> str:
    """Return a hint on how to read a table without a column ``label``."""
    otherwise = "another column is named with --column label=NAME"
    values, tags = list(value_columns(table).values()), list(tag_columns(table).values())
    if not set(values) <= set(tags):
        return f"{', '.join(values)}: ratings are read with --task regression; {otherwise}"
    if tags:
        return f"{', '.join(tags)}: 0 and 1 are read with --task multilabel; {otherwise}"
    return "name it with --column label=NAME, or read clips without labels with --task unlabelled"


def are_ratings(cells: Sequence[str]) -> bool:
    """Return True if all labels are numbers and at least one is not whole."""
    return _are_numbers(cells) and not all(float(cell).is_integer() for cell in cells if cell)


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells if cell])
    except ValueError:
        return False

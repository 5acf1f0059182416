"""Comparison of clip tables, of which clips are matched by id."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.table import ClipTable
from mvemo.manifests.array_types import Bools, Ints
from mvemo.manifests.text_table import listed

# Maximum number of names in a list; further names are counted.
SHOWN = 3
# Compared parts of a clip table: single values, and values of each clip.
SINGLE = ("task", "classes", "k", "fold_seed", "digest", "synthetic", "scale", "predicted_by")
FIELDS = (*SINGLE, "labels", "groups", "folds", "splits", "disagreement")


def table_differences(
    a: ClipTable,
    b: ClipTable,
    fields: Iterable[str] = FIELDS,
    names: tuple[str, str] = ("first", "second"),
) -> list[str]:
    """Return the differences of two clip tables, one sentence each; clips are matched by id."""
    lines = []
    for one, other, where in ((a, b, names[0]), (b, a, names[1])):
        clips = sorted({*one.clip_ids}.difference(other.clip_ids))
        if clips:
            lines.append(f"only in the {where}: clips {listed([*map(repr, clips)], SHOWN)}")
    return lines + contradictions(a, b, fields)


def contradictions(a: ClipTable, b: ClipTable, fields: Iterable[str] = FIELDS) -> list[str]:
    """Return what two clip tables state differently about all clips or about common ones."""
    lines = []
    rows_a, rows_b = common_rows(a, b)
    for what in fields:
        one, other = getattr(a, what), getattr(b, what)
        name = what.replace("_", " ")
        if what in SINGLE:
            lines += [f"different {name}: {one!r} and {other!r}"] if one != other else []
        elif one is None or other is None:
            lines += [f"only one of the caches has {name}"] if one is not other else []
        else:
            same = _equal_rows(np.array(one)[rows_a], np.array(other)[rows_b])
            if not same.all():
                lines.append(f"{name} differ for clips {names_of(a, rows_a[~same])}")
    return lines


def common_rows(a: ClipTable, b: ClipTable) -> tuple[Ints, Ints]:
    """Return the rows of the clips that both tables have, in `a` and in `b`."""
    (places,) = rows_in(b, [a])
    rows = np.flatnonzero(places >= 0)
    return rows, places[rows]


def names_of(table: ClipTable, rows: Iterable[int]) -> str:
    """Return the ids of some clips as text."""
    return listed([repr(table.clip_ids[i]) for i in rows], SHOWN)


def _equal_rows(a: NDArray[Any], b: NDArray[Any]) -> Bools:
    """Return True for each row that is equal in both arrays; NaN equals NaN."""
    if a.shape != b.shape:
        return np.zeros(len(a), np.bool_)
    same = a == b
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return np.asarray(same.all(axis=tuple(range(1, a.ndim))), np.bool_)


def rows_in(table: ClipTable, parts: Sequence[ClipTable]) -> list[Ints]:
    """Return for each table in `parts` int64 (clips,), the rows of its clips in `table`, or -1."""
    others = any(part is not table for part in parts)
    position = {clip: i for i, clip in enumerate(table.clip_ids)} if others else {}
    return [
        np.arange(len(table))
        if part is table
        else np.array([position.get(c, -1) for c in part.clip_ids], np.int64)
        for part in parts
    ]

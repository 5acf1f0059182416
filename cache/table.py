"""Clips of a cache, copied from the manifest, their differences, and their failures."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.labels import label_kind
from mvemo.manifests.text_table import listed

# Series of each training curve: ``{"music1d@fold0": {"train_loss": [...]}}``.
Curves = dict[str, dict[str, list[float]]]

# Maximum number of names in a list; further names are counted.
SHOWN = 3
# Compared parts of a clip table: single values, and values of each clip.
SINGLE = ("task", "classes", "k", "fold_seed", "digest", "synthetic", "scale", "predicted_by")
OPTIONAL = ("splits", "disagreement")  # arrays that may be None
FIELDS = (*SINGLE, "labels", "groups", "folds", *OPTIONAL)
# Values of `ClipTable.splits`.
TRAIN, VALIDATION, TEST = 0, 1, 2
# Numbers; failures of one kind may differ in them.
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class ClipTable:
    """Clips in the order of every cached row, without the paths of their files.

    Parameters
    ----------
    name
        Name of the manifest.
    task
        ``multiclass``, ``multilabel``, ``regression`` or ``unlabelled``.
    classes
        Class names, tags or targets, in fixed order.
    clip_ids, groups
        Id and group of each clip.
    labels
        Labels by task: int64 (clips,), int64 (clips, classes) or float64 (clips, classes).
    folds, k
        Fold of each clip, int64 (clips,), from 0, and number of folds; -1 and 0 if there are none.
    fold_seed
        Random seed of the folds or splits; 0 if there are none.
    digest
        Digest of the manifest.
    synthetic
        True for generated data.
    splits
        Part of each clip under the ``holdout`` protocol, int64 (clips,): 0 training, 1
        validation, 2 test; otherwise None. Clips with splits have no folds.
    scale
        Lowest and highest value of the valence and arousal scale, such as ``1..9``, or empty.
    predicted_by
        Model that predicted the labels; empty if people gave them.
    disagreement
        float64 (clips, 1 + n): number of annotators; then for each target the standard deviation
        of one annotator, or for classes the share of annotators who do not agree with the
        majority, and if known the votes for each class (`mvemo.manifests.annotators`). NaN if
        unknown; None if nothing is known.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Ints | F64
    folds: Ints
    k: int
    fold_seed: int = 0
    digest: str = ""
    synthetic: bool = False
    splits: Ints | None = None
    scale: str = ""
    predicted_by: str = ""
    disagreement: F64 | None = None

    def __repr__(self) -> str:
        """Return one line with name, clips, folds and classes."""
        folds = f"{self.k} folds" if self.k else "no folds" if self.splits is None else "one split"
        return (
            f"<ClipTable {self.name!r}: {len(self)} clips in {len(set(self.groups))} groups, "
            f"{folds}, {self.task}: {listed(self.classes)}>"
        )

    def __len__(self) -> int:
        return len(self.clip_ids)


def subset(table: ClipTable, rows: Sequence[int]) -> ClipTable:
    """Return a table of the given rows, in the given order."""
    taken: dict[str, Any] = {n: getattr(table, n) for n in ("labels", "folds", *OPTIONAL)}
    taken = {name: values[list(rows)] for name, values in taken.items() if values is not None}
    for name in ("clip_ids", "groups"):
        taken[name] = tuple(getattr(table, name)[i] for i in rows)
    return replace(table, **taken)


def check_table(table: ClipTable, where: str) -> None:
    """Raise BadCache for a table that a file cannot hold."""
    n = len(table)
    try:
        shape = label_kind(table.task).shape(n, len(table.classes))
    except ValueError as error:
        raise BadCache(f"{where}: {error}") from None
    shapes = {"groups": (n,), "folds": (n,), "labels": shape}
    if table.splits is not None:
        shapes["splits"] = (n,)
        if table.k:
            raise BadCache(
                f"{where}: the clips have both splits and {table.k} folds: give only one"
            )
    if table.disagreement is not None:
        width = 1 + math.prod(shape[1:])
        # Further columns have votes for classes, or residual deviations of ratings.
        if np.shape(table.disagreement) == (n, width + len(table.classes)):
            width += len(table.classes)
        shapes["disagreement"] = (n, width)
    for name, expected in shapes.items():
        if np.shape(getattr(table, name)) != expected:
            raise BadCache(
                f"{where}: {name} of {n} clips of task {table.task}: expected shape {expected}, "
                f"got {np.shape(getattr(table, name))}"
            )
    if len(set(table.clip_ids)) != n:
        twice = next(clip for clip, times in Counter(table.clip_ids).items() if times > 1)
        raise BadCache(f"{where}: duplicate clip id {twice!r}")
    check_texts((*table.clip_ids, *table.groups, *table.classes), where)


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raise BadCache for strings that HDF5 cannot hold: with a NUL, or invalid Unicode."""
    if bad := next(filter(_UNSTORABLE.search, texts), None):
        raise BadCache(f"{where}: {bad!r} has a NUL or is not valid Unicode: rename the clip")


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


@dataclass(frozen=True, order=True)
class Failure:
    """Failure of one clip."""

    clip_id: str
    stage: str  # step that failed, such as ``decode:audio``
    reason: str  # in one line
    time: str = ""  # ISO 8601 in UTC
    version: str = ""  # of mvemo


# (clip id, stage) -> failure; None if an earlier failure was cleared.
Failures = dict[tuple[str, str], Failure | None]


@dataclass(frozen=True)
class FailureKind:
    """Failures of one stage with one reason."""

    stage: str
    reason: str  # of the first clip; the others may differ in numbers
    clip_ids: tuple[str, ...]

    def text(self, most: int = 3) -> str:
        """Return one line with the first `most` clips."""
        more = ", …" if len(self.clip_ids) > most else ""
        clips = ", ".join(self.clip_ids[:most])
        return f"{len(self.clip_ids)} x {self.stage}: {self.reason} ({clips}{more})"


def failures_by_reason(failures: Iterable[tuple[str, str, str]]) -> list[FailureKind]:
    """Group failures (clip id, stage, reason) by stage and reason, the most frequent first.

    Examples
    --------
    >>> first, second = ("a", "decode:audio", "ends at 3.5 s"), ("b", "decode:audio", "ends at 7 s")
    >>> failures_by_reason([first, second])[0].text()
    '2 x decode:audio: ends at 3.5 s (a, b)'
    """
    kinds: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for failure in failures:
        kinds.setdefault((failure[1], _NUMBERS.sub("…", failure[2])), []).append(failure)
    found = [FailureKind(*alike[0][1:], tuple(f[0] for f in alike)) for alike in kinds.values()]
    return sorted(found, key=lambda kind: -len(kind.clip_ids))

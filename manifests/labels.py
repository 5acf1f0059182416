"""Kinds of labels, one per task: their form in manifests, arrays, folds and summaries.

Manifests and caches call the methods of a `LabelKind` and never compare the task itself.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mvemo.manifests import cells, files, tables
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.errors import BadManifest, Report

Task = Literal["multiclass", "multilabel", "regression", "unlabelled"]
TASKS: tuple[Task, ...] = ("multiclass", "multilabel", "regression")
UNLABELLED: Task = "unlabelled"
Label = tuple[str, ...] | tuple[float, ...]
Names = Sequence[str]

# Allowed cells in the column of a tag.
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True}
_FLAGS |= {word: word[0] in "tT" for word in ("False", "True", "false", "true", "FALSE", "TRUE")}
# Numeric labels are stratified by quantile bins of the first targets.
_BINS = 5
_TARGETS = 2
# Targets of the valence-arousal plane, in lower case.
PLANE = ("valence", "arousal")


@dataclass(frozen=True)
class LabelKind:
    """Labels of one task; arrays have a row per clip, and a column per tag or target."""

    task: Task
    numeric: bool = False  # each target is a column of numbers
    exclusive: bool = False  # each clip has exactly one label
    named_by_columns: bool = False  # without ``label``, each tag is a column of 0 and 1
    separator: str = ";"  # of the tags in a cell

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in an array of labels."""
        return np.dtype(np.float64 if self.numeric else np.int64)

    def columns(self, classes: Names) -> list[str]:
        """Return the label columns of a written manifest."""
        clash = not self.numeric and bool({*classes} & {*tables.RESERVED})
        return ["label"] if self.exclusive or clash else [*classes]

    def parse(self, fields: Mapping[str, str], classes: Names | None, report: Report) -> Label:
        """Return the label in a row's cells (by column); report names that are not in `classes`."""
        if self.task == UNLABELLED:
            return ()
        if self.numeric:
            return tuple(cells.parse_number(fields[name], name, report) for name in classes or ())
        if "label" not in fields:
            return tuple(tag for tag in classes or () if _flag(fields[tag], tag, report))
        if not self.exclusive:
            try:
                return _known(tables.parse_names(fields["label"], self.separator), classes, report)
            except ValueError as error:
                report(str(error))
        elif fields["label"]:
            return _known([fields["label"]], classes, report)
        else:
            report("empty label: leave the row out with 'mvemo manifest import --skip-unlabelled'")
        return ()

    def format(self, label: Label, classes: Names) -> list[str]:
        """Return the cells of a label, one for each column of `columns`."""
        if self.exclusive or self.numeric:
            return [*map(str, label)]
        if self.columns(classes) == ["label"]:
            return [tables.format_names([*map(str, label)], ";")]
        return [str(int(name in label)) for name in classes]

    def array(self, labels: Sequence[Label], classes: Names) -> Ints | F64:
        """Return the labels of clips as one array."""
        rows: Sequence[Any] = labels
        index = {name: i for i, name in enumerate(classes)}
        if self.exclusive:
            rows = [index[str(label[0])] for label in labels]
        elif not self.numeric:
            places = [{index[str(name)] for name in label} for label in labels]
            rows = [[i in of_clip for i in index.values()] for of_clip in places]
        array: Any = np.array(rows, self.dtype)
        return array.reshape(self.shape(len(labels), len(classes)))

    def shape(self, n_clips: int, n_classes: int) -> tuple[int, ...]:
        """Return the shape of an array of labels."""
        return (n_clips,) if self.exclusive else (n_clips, n_classes)

    def invalid(self, labels: Ints | F64, n_classes: int) -> Bools:
        """Return bool (clips,), True for rows that are not a valid label."""
        allowed = range(n_classes if self.exclusive else 2)
        valid = np.isfinite(labels) if self.numeric else np.isin(labels, allowed)
        return np.logical_not(valid if self.exclusive else valid.all(axis=1))

    def members(self, labels: ArrayLike, classes: Names) -> dict[str, Bools]:
        """Map each class or tag to bool (clips,), True if a clip has it; empty for numbers."""
        values = np.asarray(labels)
        if self.numeric:
            return {}
        if self.exclusive:
            values = values[:, None] == np.arange(len(classes))
        return dict(zip(classes, values.T > 0, strict=True))

    def strata(self, labels: ArrayLike) -> F64:
        """Return float64 (clips, strata), 1 if a clip is in a stratum that folds share equally."""
        if self.exclusive:
            return _one_hot(np.unique(labels, return_inverse=True)[1])
        if not self.numeric:
            tags = np.asarray(labels) > 0
            return np.column_stack([tags, ~tags.any(axis=1)]).astype(np.float64)
        values = np.asarray(labels, np.float64)
        if not np.isfinite(values).all():
            raise BadManifest("labels of a regression task must be finite numbers")
        quantiles = np.linspace(0, 1, _BINS + 1)[1:-1]
        columns = values.reshape(len(values), -1).T[:_TARGETS]
        bins = [np.searchsorted(np.quantile(column, quantiles), column) for column in columns]
        return np.column_stack([*map(_one_hot, bins)])

    def counts(self, labels: Ints | F64, classes: Names) -> list[str]:
        """Return texts: the number of clips of each class, or the range of each target."""
        if self.numeric:
            return [f"{v.min():g} to {v.max():g}, mean {v.mean():.4g}" for v in labels.T]
        return [str(int(member.sum())) for member in self.members(labels, classes).values()]


def parse_scale(text: str) -> tuple[float, float]:
    """Return the lowest and highest value of a rating scale in the form ``1..9``."""
    low, _, high = text.partition("..")
    with suppress(ValueError):
        ends = cells.to_number(low), cells.to_number(high)
        if math.isfinite(ends[0] + ends[1]) and ends[0] < ends[1]:
            return ends
    raise ValueError(f"scale {files.shown(text)}: expected lowest and highest value, such as 1..9")


def is_flag(cell: str) -> bool:
    """Return True if a cell is 0, 1, false or true."""
    return cell.strip() in _FLAGS


def _flag(cell: str, tag: str, report: Report) -> bool:
    """Return True if a tag's cell is 1; report a cell that is neither 0 nor 1."""
    if not is_flag(cell):
        report(f"tag {tag!r}: expected 1 (the clip has the tag) or 0, got {cell!r}")
    return _FLAGS.get(cell.strip(), False)


def _known(names: Names, classes: Names | None, report: Report) -> tuple[str, ...]:
    """Return the names that are among the classes, and report the others."""
    if classes is None:
        return tuple(names)
    if unknown := [name for name in names if name not in classes]:
        listing = ", ".join(classes)
        report(f"unknown label {', '.join(map(repr, unknown))}; expected one of {listing}")
    return tuple(name for name in names if name in classes)


def _one_hot(index: Ints) -> F64:
    return np.eye(int(index.max()) + 1)[index]


_KINDS = {
    "multiclass": LabelKind("multiclass", exclusive=True),
    "multilabel": LabelKind("multilabel", named_by_columns=True),
    "regression": LabelKind("regression", numeric=True),
    # Clips without labels; nothing is trained on them or scored.
    UNLABELLED: LabelKind(UNLABELLED),
}


def label_kind(task: str) -> LabelKind:
    """Return the kind of a task's labels; raise `BadManifest` for an unknown task."""
    if task not in _KINDS:
        raise BadManifest(f"unknown task {task!r}; expected one of {', '.join(_KINDS)}")
    return _KINDS[task]

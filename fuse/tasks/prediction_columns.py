"""Columns of truth and predictions in prediction files of other programs, by task."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mvemo.fuse.errors import BadFeatures
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Label
from mvemo.manifests.tables import parse_names

# Columns with a fixed meaning in files of every task.
RESERVED = ("repeat", "clip_id", "label", "group", "fold", "model", "predicted")
# A row of probabilities is divided by its sum if that differs from 1 by more than this.
TOLERANCE = 1e-3
# Probabilities with at least this many decimals may be rounded values.
_DECIMALS = 2


class PredictionColumns(ABC):
    """Columns of one file.

    The argument `names` has the outputs if they are known beforehand, otherwise None. The
    attribute `names` has the classes, tags or targets. `has_truth` is True if the file has their
    true values.
    """

    task: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]] = ("p_",)
    noun: ClassVar[str] = "probability"
    nouns: ClassVar[str] = "probabilities"

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        names: Sequence[str] | None,
    ) -> None:
        self.path, self.header = path, list(header)
        self.columns = self._value_columns(names, rows)
        self.names = tuple(self.columns)
        self.has_truth = "label" in self.header

    def _value_columns(
        self, names: Sequence[str] | None, rows: Sequence[Sequence[str]]
    ) -> dict[str, int]:
        """Map each output to the index of its column."""
        marked = self._marked()
        if names is not None:
            found = {n: marked.get(n, self._index(n)) for n in names}
            for name, column in found.items():
                if column is None:
                    raise BadFeatures(
                        f"{self.path}: no column of {name!r}; there are {', '.join(self.header)}"
                    )
            return {name: column for name, column in found.items() if column is not None}
        if marked:
            return marked
        return {n: i for i, n in enumerate(self.header) if n and not self._is_reserved(n)}

    def _marked(self) -> dict[str, int]:
        """Map each output to its column, for columns named by a prefix."""
        for prefix in self.prefixes:
            marked = {
                name[len(prefix) :]: i
                for i, name in enumerate(self.header)
                if name.startswith(prefix) and name != prefix
            }
            if marked:
                return marked
        return {}

    def _is_reserved(self, name: str) -> bool:
        return name in RESERVED

    def _index(self, name: str) -> int | None:
        return self.header.index(name) if name in self.header else None

    @abstractmethod
    def truth(self, place: str, cells: Sequence[str]) -> Label:
        """Return the label of a row, as in a manifest's `Clip`; only valid if `has_truth`."""

    def values(self, place: str, cells: Sequence[str]) -> tuple[list[float], bool]:
        """Return a row's outputs in the order of `names`, and True if they were normalised.

        The outputs are all NaN if the row was not predicted.
        """
        numbers = [self._number(place, cells[i]) for i in self.columns.values()]
        n_missing = sum(map(math.isnan, numbers))
        if n_missing not in (0, len(numbers)):
            raise BadFeatures(
                f"{place}: {n_missing} of {len(numbers)} {self.nouns} are missing: give all, "
                "or none where nothing was predicted"
            )
        if n_missing:
            return numbers, False
        return self._checked(place, numbers, cells)

    def _checked(
        self, place: str, numbers: list[float], cells: Sequence[str]
    ) -> tuple[list[float], bool]:
        for value in numbers:
            if not 0.0 <= value <= 1.0 + TOLERANCE:
                raise BadFeatures(f"{place}: {value:g} is no probability, which is from 0 to 1")
        return [min(value, 1.0) for value in numbers], False

    def _number(self, place: str, cell: str) -> float:
        try:
            return float(cell) if cell.strip() else math.nan
        except ValueError:
            raise BadFeatures(f"{place}: {self.noun} {shown(cell)} is no number") from None


class ClassColumns(PredictionColumns):
    """``label`` and a probability of each class, or only ``predicted``, a class."""

    task = "multiclass"

    def _value_columns(
        self, names: Sequence[str] | None, rows: Sequence[Sequence[str]]
    ) -> dict[str, int]:
        self.hard = False
        predicted = self._index("predicted")
        if predicted is not None and not self._marked():
            classes = {
                row[i].strip()
                for row in rows
                for i in (self._index("label"), predicted)
                if i is not None and row[i].strip()
            }
            if not classes & set(self.header):
                self.hard = True
                return dict.fromkeys(names if names is not None else sorted(classes), predicted)
        columns = super()._value_columns(names, rows)
        if len(columns) < 2:
            raise BadFeatures(
                f"{self.path}: {len(columns)} columns of probabilities: one for each class is "
                "needed, named like the class, or p_ and the class; or a column 'predicted' with "
                "the class (--column predicted=NAME)"
            )
        return columns

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        label = cells[self.header.index("label")].strip()
        self._require_class(place, "label", label)
        return (label,)

    def _require_class(self, place: str, column: str, name: str) -> None:
        if name not in self.names:
            raise BadFeatures(
                f"{place}: {column} {shown(name)} is none of the classes {', '.join(self.names)}"
            )

    def values(self, place: str, cells: Sequence[str]) -> tuple[list[float], bool]:
        if not self.hard:
            return super().values(place, cells)
        predicted = cells[self.header.index("predicted")].strip()
        if not predicted:
            return [math.nan] * len(self.names), False
        self._require_class(place, "predicted", predicted)
        return [float(name == predicted) for name in self.names], False

    def _checked(
        self, place: str, numbers: list[float], cells: Sequence[str]
    ) -> tuple[list[float], bool]:
        numbers, _ = super()._checked(place, numbers, cells)
        total = math.fsum(numbers)
        if abs(total - 1.0) <= TOLERANCE:
            return numbers, False
        # Rounding shifts each probability by at most half of its last decimal.
        decimals = max(_decimals(cells[i]) for i in self.columns.values())
        if decimals < _DECIMALS or abs(total - 1.0) > len(numbers) * 0.5 * 10.0**-decimals + 1e-9:
            raise BadFeatures(f"{place}: the probabilities sum to {total:.6g}, not to 1")
        return [value / total for value in numbers], True


class TagColumns(PredictionColumns):
    """``label`` (tags joined by ``;``) or ``true_TAG``, and a probability of each tag."""

    task = "multilabel"
    prefixes = ("predicted_", "p_")

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        names: Sequence[str] | None,
    ) -> None:
        super().__init__(path, header, rows, names)
        if not self.columns:
            raise BadFeatures(
                f"{path}: no columns of scores: one for each tag is needed, named like the tag, "
                "or p_ and the tag"
            )
        self.has_truth |= all(f"true_{name}" in self.header for name in self.names)

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        if "label" not in self.header:
            flags = {n: cells[self.header.index(f"true_{n}")].strip() for n in self.names}
            for name, flag in flags.items():
                if flag not in ("0", "1"):
                    raise BadFeatures(f"{place}: true_{name} is {shown(flag)}, which is not 0 or 1")
            return tuple(name for name, flag in flags.items() if flag == "1")
        try:
            tags = parse_names(cells[self.header.index("label")], ";")
        except (ValueError, BadManifest) as error:
            raise BadFeatures(f"{place}: {error}") from None
        for tag in tags:
            if tag not in self.names:
                hint = next((f": join tags by ';', not {s!r}" for s in "|," if s in tag), "")
                raise BadFeatures(
                    f"{place}: tag {shown(tag)} has no column of scores; there are "
                    f"{', '.join(self.names)}{hint}"
                )
        return tuple(name for name in self.names if name in tags)


class ValueColumns(PredictionColumns):
    """``label_NAME`` or ``true_NAME``, and the predicted value ``NAME``, of each target."""

    task = "regression"
    prefixes = ("predicted_",)
    noun = "value"
    nouns = "values"

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        names: Sequence[str] | None,
    ) -> None:
        stated = [name[len("label_") :] for name in header if name.startswith("label_")]
        super().__init__(path, header, rows, names if names is not None else stated or None)
        if names is None and not stated and not self._marked():
            raise BadFeatures(
                f"{path}: no columns label_NAME with the true value of a target NAME, beside a "
                f"column NAME with the predicted one; there are {', '.join(header)}"
            )
        self._true = {
            n: self._index(f"label_{n}") if f"label_{n}" in header else self._index(f"true_{n}")
            for n in self.names
        }
        self.has_truth = all(column is not None for column in self._true.values())

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        values = []
        for name, column in self._true.items():
            value = math.nan if column is None else self._number(place, cells[column])
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: the true {name} is no finite number")
            values.append(value)
        return tuple(values)

    def _checked(
        self, place: str, numbers: list[float], cells: Sequence[str]
    ) -> tuple[list[float], bool]:
        for value in numbers:
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: {value:g} is no finite number")
        return numbers, False


def _decimals(cell: str) -> int:
    """Count the digits after the point; 17, as for an exact number, if there is an exponent."""
    cell = cell.strip().lower()
    return 17 if "e" in cell else len(cell.partition(".")[2])


_KINDS: dict[str, type[PredictionColumns]] = {
    kind.task: kind for kind in (ClassColumns, TagColumns, ValueColumns)
}


def prediction_columns(
    task: str,
    path: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
) -> PredictionColumns:
    """Return the columns of a file of a task's predictions: see `PredictionColumns`."""
    return _KINDS[task](path, header, rows, names)

"""Columns of truth and predictions in prediction files, by task."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from mvemo.fuse.errors import BadFeatures
from mvemo.manifests.cells import to_number, to_numbers
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Label
from mvemo.manifests.tables import Table, parse_names

# Columns that have the same meaning for every task.
RESERVED = ("repeat", "clip_id", "label", "group", "fold", "model", "predicted")
# A row of probabilities is divided by its sum if the sum differs from 1 by more than this.
TOLERANCE = 1e-3
# Probabilities with at least this many decimals may be rounded values.
_DECIMALS = 2


class Columns(ABC):
    """Columns of one file; `names` are the expected classes, tags or targets, if known."""

    prefixes: tuple[str, ...] = ("p_",)
    nouns = ("probability", "probabilities")

    def __init__(self, path: Path, table: Table, names: Sequence[str] | None) -> None:
        self.path, self.table, self.header = path, table, table.header
        self.places = {name: i for i, name in enumerate(self.header)}
        self.plain = {n: i for n, i in self.places.items() if n and n not in RESERVED}
        # Each output to its column's index, for columns with the first prefix that occurs.
        self.marked: dict[str, int] = {}
        for prefix in reversed(self.prefixes):
            marked = {
                name.removeprefix(prefix): i
                for name, i in self.places.items()
                if name.startswith(prefix) and name != prefix
            }
            self.marked = marked or self.marked
        self.columns = self._value_columns(names)  # name of each output to the index of its column
        self.names = tuple(self.columns)
        self.has_truth = "label" in self.header

    def _value_columns(self, names: Sequence[str] | None) -> dict[str, int]:
        if names is None:
            return self.marked or self.plain
        columns = self.places | self.marked
        for name in names:
            if name not in columns:
                raise BadFeatures(
                    f"{self.path}: has no column for {name!r}, only {', '.join(self.header)}"
                )
        return {name: columns[name] for name in names}

    def _cell(self, name: str, cells: Sequence[str]) -> str:
        return cells[self.places[name]].strip()

    @abstractmethod
    def truth(self, place: str, cells: Sequence[str]) -> Label:
        """Return the label of a row, as in a manifest's `Clip`; only valid if `has_truth`."""

    def outputs(self, place: str, cells: Sequence[str]) -> tuple[list[float], bool]:
        """Return a row's outputs (all NaN if not predicted), and True if they were normalised."""
        texts = [cells[i] for i in self.columns.values()]
        try:
            numbers = to_numbers(texts)
        except ValueError:
            numbers = [self._number(place, text) for text in texts]
        n_missing = sum(map(math.isnan, numbers))
        if not n_missing:
            return self._checked(place, numbers), False
        if n_missing < len(numbers):
            raise BadFeatures(
                f"{place}: {n_missing} of {len(numbers)} {self.nouns[1]} are missing: give all, "
                "or none if the clip was not predicted"
            )
        return numbers, False

    def _checked(self, place: str, numbers: list[float]) -> list[float]:
        for value in numbers:
            if not 0.0 <= value <= 1.0 + TOLERANCE:
                raise BadFeatures(f"{place}: expected a probability from 0 to 1, got {value:g}")
        return [min(value, 1.0) for value in numbers]

    def _number(self, place: str, cell: str) -> float:
        try:
            return to_number(cell) if cell.strip() else math.nan
        except ValueError:
            raise BadFeatures(
                f"{place}: {self.nouns[0]}: expected a number, got {shown(cell)}"
            ) from None


class ClassColumns(Columns):
    """``label``, and a probability of each class or only the class ``predicted``."""

    hard = False

    def _value_columns(self, names: Sequence[str] | None) -> dict[str, int]:
        if "predicted" in self.header and not self.marked:
            cells = [*self.table.cells("label"), *self.table.cells("predicted")]
            classes = set(filter(None, cells))
            if not classes & set(self.header):
                self.hard = True
                names = sorted(classes) if names is None else names
                return dict.fromkeys(names, self.header.index("predicted"))
        columns = super()._value_columns(names)
        if len(columns) < 2:
            raise BadFeatures(
                f"{self.path}: expected a column of probabilities for each class, got "
                f"{len(columns)}: name each like its class, or p_ and the class; or give a column "
                "'predicted' with the class (--column predicted=NAME)"
            )
        return columns

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        return (self._class(place, "label", cells),)

    def _class(self, place: str, column: str, cells: Sequence[str]) -> str:
        name = self._cell(column, cells)
        if name not in self.names:
            raise BadFeatures(
                f"{place}: {column}: expected one of the classes {', '.join(self.names)}, got "
                f"{shown(name)}"
            )
        return name

    def outputs(self, place: str, cells: Sequence[str]) -> tuple[list[float], bool]:
        if self.hard:
            if not self._cell("predicted", cells):
                return [math.nan] * len(self.names), False
            predicted = self._class(place, "predicted", cells)
            return [float(name == predicted) for name in self.names], False
        numbers, _ = super().outputs(place, cells)
        total = math.fsum(numbers)
        if math.isnan(total) or abs(total - 1.0) <= TOLERANCE:
            return numbers, False
        # Rounding shifts each probability by at most half of its last decimal.
        texts = [cells[i].strip().lower() for i in self.columns.values()]
        # A number with an exponent counts as exact.
        decimals = max(17 if "e" in text else len(text.partition(".")[2]) for text in texts)
        if decimals < _DECIMALS or abs(total - 1.0) > len(numbers) * 0.5 * 10.0**-decimals + 1e-9:
            raise BadFeatures(
                f"{place}: the probabilities sum to {total:.6g}, not 1{self._left_out(cells)}"
            )
        return [value / total for value in numbers], True

    def _left_out(self, cells: Sequence[str]) -> str:
        """Return the end of a message: columns that may be classes missing in the manifest."""
        others = ", ".join(
            repr(name)
            for name, i in (self.marked or self.plain).items()
            if name not in self.columns and _is_probability(cells[i])
        )
        if not others:
            return ""
        return (
            f": {others} may be missing from the manifest, whose classes are "
            f"{', '.join(self.names)}: list all classes in its line '# classes:'"
        )


class TagColumns(Columns):
    """``label`` (tags joined by ``;``) or ``true_TAG``, and a probability of each tag."""

    prefixes = ("predicted_", "p_")

    def __init__(self, path: Path, table: Table, names: Sequence[str] | None) -> None:
        super().__init__(path, table, names)
        if not self.columns:
            raise BadFeatures(
                f"{path}: has no columns of scores: give one for each tag, named like the tag, "
                "or p_ and the tag"
            )
        self.has_truth |= all(f"true_{name}" in self.header for name in self.names)

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        if "label" not in self.header:
            flags = {name: self._cell(f"true_{name}", cells) for name in self.names}
            for name, flag in flags.items():
                if flag not in ("0", "1"):
                    raise BadFeatures(f"{place}: true_{name}: expected 0 or 1, got {shown(flag)}")
            return tuple(name for name, flag in flags.items() if flag == "1")
        try:
            tags = parse_names(self._cell("label", cells), ";")
        except (ValueError, BadManifest) as error:
            raise BadFeatures(f"{place}: {error}") from None
        for tag in tags:
            if tag not in self.names:
                hint = next((f": join tags with ';', not {s!r}" for s in "|," if s in tag), "")
                raise BadFeatures(
                    f"{place}: tag {shown(tag)} has no column of scores; expected one of "
                    f"{', '.join(self.names)}{hint}"
                )
        return tuple(name for name in self.names if name in tags)


class ValueColumns(Columns):
    """``label_NAME`` or ``true_NAME``, and the predicted value ``NAME``, of each target."""

    prefixes = ("predicted_",)
    nouns = ("value", "values")

    def __init__(self, path: Path, table: Table, names: Sequence[str] | None) -> None:
        stated = [name[len("label_") :] for name in table.header if name.startswith("label_")]
        super().__init__(path, table, names if names is not None else stated or None)
        if names is None and not stated and not self.marked:
            raise BadFeatures(
                f"{path}: expected columns label_NAME (true value of a target NAME) and NAME "
                f"(predicted value), got {', '.join(self.header)}"
            )
        # Name of each target's column with the true values.
        self._true = {
            name: column
            for name in self.names
            for column in (f"true_{name}", f"label_{name}")
            if column in self.header
        }
        self.has_truth = len(self._true) == len(self.names)

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        values = []
        for name, column in self._true.items():
            value = self._number(place, self._cell(column, cells))
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: the true {name}: expected a finite number")
            values.append(value)
        return tuple(values)

    def _checked(self, place: str, numbers: list[float]) -> list[float]:
        for value in numbers:
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: expected a finite number, got {value:g}")
        return numbers


COLUMNS: dict[str, type[Columns]] = {
    "multiclass": ClassColumns,
    "multilabel": TagColumns,
    "regression": ValueColumns,
}


def _is_probability(cell: str) -> bool:
    try:
        return 0.0 <= to_number(cell) <= 1.0
    except ValueError:
        return False

"""Columns of truth and predictions in prediction files, by task."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from mvemo.fuse.errors import BadFeatures
from mvemo.manifests.cells import are_numbers, to_number, to_numbers
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Label
from mvemo.manifests.tables import TableRows, is_missing, parse_names, plain_text
from mvemo.manifests.text_table import listed

# Columns that have the same meaning for every task.
RESERVED = ("repeat", "clip_id", "label", "group", "fold", "model", "predicted")
# A row of probabilities is divided by its sum if the sum differs from 1 by more than this.
TOLERANCE = 1e-3
# Probabilities with at least this many decimals may be rounded values.
_DECIMALS = 2
# End of a whole number that was written as a float.
_WHOLE = re.compile(r"\.0+$")


class Columns(ABC):
    """Columns of one file; `names` are the expected classes, tags or targets, if known."""

    task = "multiclass"
    prefixes: tuple[str, ...] = ("p_",)

    def __init__(self, path: Path, table: TableRows, names: Sequence[str] | None) -> None:
        self.notes: list[str] = []  # how the file was read
        self.path = path
        self.table = table
        self.header: list[str] = table.header
        self.places: dict[str, int] = {name: i for i, name in enumerate(self.header)}
        self.plain: dict[str, int] = {
            name: i for name, i in self.places.items() if name and name not in RESERVED
        }
        # Each output to its column's index, for columns with the first prefix that occurs.
        self.marked: dict[str, int] = {}
        for prefix in reversed(self.prefixes):
            marked = {
                name.removeprefix(prefix): i
                for name, i in self.places.items()
                if name.startswith(prefix) and name != prefix
            }
            self.marked = marked or self.marked
        # Name of each output to the index of its column.
        self.columns: dict[str, int] = self._value_columns(names)
        self.names: tuple[str, ...] = tuple(self.columns)
        self.has_truth: bool = "label" in self.header

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

    def outputs(
        self, place: str, cells: Sequence[str], from_logits: bool = False
    ) -> tuple[list[float], bool]:
        """Return a row's outputs as `check_outputs` does."""
        texts = [cells[i] for i in self.columns.values()]
        return check_outputs(self.task, place, texts, from_logits, lambda: self.hint(cells))

    def hint(self, cells: Sequence[str]) -> str:
        """Return the end of the message on probabilities of a row that do not sum to 1."""
        return ""

    def number_columns(self) -> list[str]:
        """Return the names of the columns of numbers."""
        return [self.header[i] for i in self.columns.values()]


class ClassColumns(Columns):
    """``label``, and a probability of each class or only the class ``predicted``."""

    hard: bool = False

    def __init__(self, path: Path, table: TableRows, names: Sequence[str] | None) -> None:
        super().__init__(path, table, names)
        labels = [*table.cells("label"), *(table.cells("predicted") if self.hard else ())]
        self._spelled = _spellings(labels, self.names)
        if self._spelled:
            pairs = [f"{name!r} as {ours!r}" for name, ours in sorted(self._spelled.items())]
            self.notes.append(f"In {path.name}, classes are read: {listed(pairs, 5)}.")

    def _value_columns(self, names: Sequence[str] | None) -> dict[str, int]:
        if "predicted" in self.header and not self.marked:
            labels, predicted = (
                {cell for cell in self.table.cells(column) if not is_missing(cell, label=True)}
                for column in ("label", "predicted")
            )
            if not (labels | predicted) & set(self.header):
                self.hard = True
                if names is None:
                    names = self._predicted_classes(labels, predicted)
                return dict.fromkeys(names, self.header.index("predicted"))
        columns = super()._value_columns(names)
        if len(columns) < 2:
            raise BadFeatures(
                f"{self.path}: expected a column of probabilities for each class, got "
                f"{len(columns)}: name each like its class, or p_ and the class; or give a column "
                "'predicted' with the class (--column predicted=NAME)"
            )
        return columns

    def _predicted_classes(self, labels: set[str], predicted: set[str]) -> list[str]:
        """Return the classes of labels, and those that are only predicted."""
        known = labels - _spellings(labels, [n for n in labels if not _WHOLE.search(n)]).keys()
        others = sorted(predicted - known - _spellings(predicted, sorted(known)).keys())
        if labels and others and predicted <= {*others}:
            raise BadFeatures(
                f"{self.path}: none of the predicted classes ({listed([*map(repr, others)], 5)}) "
                f"is a label ({listed([*map(repr, sorted(known))], 5)})"
            )
        if labels and others:
            names = listed([*map(repr, others)], 5)
            self.notes.append(f"In {self.path.name}, {names} is predicted, but never a label.")
        return sorted({*known, *others})

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        return (self._class(place, "label", cells),)

    def _class(self, place: str, column: str, cells: Sequence[str]) -> str:
        name = self._cell(column, cells)
        name = self._spelled.get(name, name)
        if name not in self.names:
            raise BadFeatures(
                f"{place}: {column}: expected one of the classes {', '.join(self.names)}, got "
                f"{shown(name)}"
            )
        return name

    def outputs(
        self, place: str, cells: Sequence[str], from_logits: bool = False
    ) -> tuple[list[float], bool]:
        if not self.hard:
            return super().outputs(place, cells, from_logits)
        if is_missing(self._cell("predicted", cells), label=True):
            return [math.nan] * len(self.names), False
        predicted = self._class(place, "predicted", cells)
        return [float(name == predicted) for name in self.names], False

    def number_columns(self) -> list[str]:
        return [] if self.hard else super().number_columns()

    def hint(self, cells: Sequence[str]) -> str:
        """Return the end of a message: columns that may be classes missing in the manifest."""
        others = ", ".join(
            repr(name)
            for name, i in (self.marked or self.plain).items()
            if name not in self.columns and are_numbers([cells[i]]) and 0 <= float(cells[i]) <= 1
        )
        if not others:
            return ""
        return (
            f": {others} may be missing from the manifest, whose classes are "
            f"{', '.join(self.names)}: list all classes in its line '# classes:'"
        )


class TagOutputColumns(Columns):
    """``label`` (tags joined by ``;``) or ``true_TAG``, and a probability of each tag."""

    task = "multilabel"
    prefixes: tuple[str, ...] = ("predicted_", "p_")

    def __init__(self, path: Path, table: TableRows, names: Sequence[str] | None) -> None:
        super().__init__(path, table, names)
        if not self.columns:
            raise BadFeatures(
                f"{path}: has no columns of scores: give one for each tag, named like the tag, "
                "or p_ and the tag"
            )
        tagged = all(f"true_{name}" in self.header for name in self.names)
        self.has_truth: bool = self.has_truth or tagged

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

    task = "regression"
    prefixes: tuple[str, ...] = ("predicted_",)

    def __init__(self, path: Path, table: TableRows, names: Sequence[str] | None) -> None:
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
        self.has_truth: bool = len(self._true) == len(self.names)

    def truth(self, place: str, cells: Sequence[str]) -> Label:
        values = []
        for name, column in self._true.items():
            value = _number("value", place, self._cell(column, cells))
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: the true {name}: expected a finite number")
            values.append(value)
        return tuple(values)

    def number_columns(self) -> list[str]:
        return [*super().number_columns(), *self._true.values()]


COLUMNS: dict[str, type[Columns]] = {
    "multiclass": ClassColumns,
    "multilabel": TagOutputColumns,
    "regression": ValueColumns,
}


def _spellings(found: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Map other spellings of known names to these names: 1.0 to 1, happy to Happy."""
    by_form: dict[str, list[str]] = {}
    for name in known:
        by_form.setdefault(_form(name), []).append(name)
    alike = {name: by_form.get(_form(name), []) for name in {*found}.difference(known)}
    return {name: names[0] for name, names in alike.items() if len(names) == 1}


def _form(name: str) -> str:
    try:
        return repr(to_number(name))
    except ValueError:
        return plain_text(name).casefold()


# --- one row of outputs


def check_outputs(
    task: str,
    place: str,
    texts: Sequence[str],
    from_logits: bool = False,
    hint: Callable[[], str] = str,
) -> tuple[list[float], bool]:
    """Return a row's outputs, and True if they were divided by their sum.

    A clip that was not predicted has only NaN. `place` names the row in messages,
    and `hint` ends the one on a wrong sum. With `from_logits`, probabilities are the softmax of the
    numbers, or for tags their logistic function.
    """
    nouns = ("value", "values") if task == "regression" else ("probability", "probabilities")
    try:
        numbers = to_numbers(texts)
    except ValueError:
        numbers = [_number(nouns[0], place, text) for text in texts]
    n_missing = sum(map(math.isnan, numbers))
    if n_missing == len(numbers):
        return numbers, False
    if n_missing:
        raise BadFeatures(
            f"{place}: {n_missing} of {len(numbers)} {nouns[1]} are missing: give all, "
            "or none if the clip was not predicted"
        )
    if task == "regression" and from_logits:
        raise BadFeatures(f"{place}: ratings are not logits")
    if task == "regression" or from_logits:
        for value in numbers:
            if not math.isfinite(value):
                raise BadFeatures(f"{place}: expected a finite number, got {value:g}")
    if task == "regression":
        return numbers, False
    if from_logits:
        function = softmax if task == "multiclass" else expit
        return function(np.array(numbers)).tolist(), False
    for value in numbers:
        if not 0.0 <= value <= 1.0 + TOLERANCE:
            raise BadFeatures(
                f"{place}: expected a probability from 0 to 1, got {value:g} (for logits: "
                "from_logits=True, or --from-logits)"
            )
    numbers = [min(value, 1.0) for value in numbers]
    total = math.fsum(numbers)
    if task != "multiclass" or abs(total - 1.0) <= TOLERANCE:
        return numbers, False
    # Rounding shifts each probability by at most half of its last decimal. A number with an
    # exponent counts as exact.
    stripped = [text.strip().lower() for text in texts]
    decimals = max(17 if "e" in text else len(text.partition(".")[2]) for text in stripped)
    if decimals < _DECIMALS or abs(total - 1.0) > len(numbers) * 0.5 * 10.0**-decimals + 1e-9:
        raise BadFeatures(f"{place}: the probabilities sum to {total:.6g}, not 1{hint()}")
    return [value / total for value in numbers], True


def _number(noun: str, place: str, cell: str) -> float:
    try:
        return to_number(cell) if cell.strip() else math.nan
    except ValueError:
        raise BadFeatures(f"{place}: {noun}: expected a number, got {shown(cell)}") from None

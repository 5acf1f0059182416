"""Scores and table columns that tasks return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Ints


@dataclass(frozen=True)
class Scores:
    """Result of `Task.score`; the fields are those of `mvemo.fuse.ModelResult`."""

    y_pred: NDArray[Any]
    scores: Mapping[str, float]
    per_fold: Mapping[str, F64]
    per_output: Mapping[str, F64]
    per_output_fold: Mapping[str, F64]
    confusion: Ints | None = None


@dataclass(frozen=True)
class Measures:
    """Scores of one set of clips."""

    overall: Mapping[str, float]  # score's name to its value over all outputs
    per_output: Mapping[str, F64] = field(default_factory=dict)  # name to float64 (outputs,)


@dataclass(frozen=True)
class Column:
    """A score as a column of a table of models."""

    title: str
    score: str  # key of `ModelResult.scores`, or with `output` of `ModelResult.per_output`
    output: int | None = None  # index of the class, tag or target; None for all
    terminal: bool = True  # True if the terminal's table shows it

    @property
    def interval(self) -> str:
        """Key of the score's interval in `ModelResult.intervals`."""
        return self.score if self.output is None else f"{self.score}:{self.output}"


# Titles of the columns, and the cells of each output.
LabelColumns = tuple[list[str], list[list[str]]]

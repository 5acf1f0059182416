"""What tasks give to those that evaluate and report: scores, and columns of tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Ints


@dataclass(frozen=True)
class Scores:
    """What `Task.score` gives; the fields of `mvemo.fuse.ModelResult` of these names."""

    y_pred: NDArray[Any]
    scores: Mapping[str, float]
    per_fold: Mapping[str, F64]
    per_output: Mapping[str, F64]
    per_output_fold: Mapping[str, F64]
    confusion: Ints | None = None


@dataclass(frozen=True)
class Measures:
    """Scores of one set of clips."""

    overall: Mapping[str, float]  # Name to its value over all outputs
    per_output: Mapping[str, F64] = field(default_factory=dict)  # Name to float64 (outputs,)


@dataclass(frozen=True)
class Column:
    """A column of a table of models: one of their scores."""

    title: str
    score: str  # Its name in `ModelResult.scores`; with `output`, in `ModelResult.per_output`
    # Index of the class, tag or target that it is of; None for a score over all
    output: int | None = None
    terminal: bool = True  # True if a terminal's table has room for it

    @property
    def interval(self) -> str:
        """Its name in `ModelResult.intervals`."""
        return self.score if self.output is None else f"{self.score}:{self.output}"


# Heads of columns, and for each output its cells.
LabelColumns = tuple[list[str], list[list[str]]]

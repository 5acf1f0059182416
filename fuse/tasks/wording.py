"""Words, columns and figures of a task's report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from mvemo.fuse.numeric import F64


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


class Wording(ABC):
    """Presentation of a task's labels, decisions and scores."""

    output_nouns: ClassVar[tuple[str, str]]  # noun for an output, singular and plural
    primary_title: ClassVar[str]  # name of the primary metric for a reader
    in_percent: ClassVar[bool] = False  # True if the primary metric is shown as a percentage
    csv_prefix: ClassVar[str] = "predicted_"  # prefix of output columns in ``predictions.csv``
    findings: ClassVar[tuple[str, ...]] = ()  # keys of `mvemo.fuse.report.findings.FINDINGS`
    figures: ClassVar[tuple[str, ...]] = ()  # keys of `mvemo.fuse.report.figures`, in order
    averaged_over: ClassVar[str] = ""  # suffix for a score that is a mean: ", mean over tags"
    axis_from: ClassVar[float] = 0.0  # usual start of the axis of the primary metric
    baseline_words: ClassVar[str]  # description of the baseline within a sentence
    baseline_note: ClassVar[str] = ""  # description of the baseline as a sentence
    baseline_scored: ClassVar[bool] = True  # False if other scores mean nothing for the baseline
    hard_clips: ClassVar[str] = "furthest_off"  # key of `mvemo.fuse.report.hard_clips.LISTINGS`
    error_title: ClassVar[str] = "error"  # title of the column of `clip_errors`
    error_note: ClassVar[str] = ""  # sentence that explains `clip_errors`
    # Parts of sentences on calibration.
    probability_of: ClassVar[str] = ""  # event that a probability is stated for
    probable_words: ClassVar[str] = ""  # items that are given a probability
    right_words: ClassVar[str] = ""  # predicate of the items that are counted as right
    published: ClassVar[str] = ""  # paper whose figures may be shown; '' for none
    glossary: ClassVar[tuple[tuple[str, str], ...]] = ()  # terms of the report, with explanations

    def facts(self) -> dict[str, Any]:
        """Return further facts on the scores, as JSON values."""
        return {}

    @abstractmethod
    def columns(self, names: Sequence[str]) -> tuple[Column, ...]:
        """Return the scores shown next to the primary metric; `names` are those of the outputs."""

    @abstractmethod
    def columns_note(self) -> str:
        """Explain the columns of the main table."""

    @abstractmethod
    def output_columns(self) -> tuple[Column, ...]:
        """Return the columns of the table of classes, tags or targets, without `output`."""

    @abstractmethod
    def prediction(self, names: Sequence[str]) -> str:
        """Return the prediction for a clip in words: ``one of 2 classes (calm or tense)``."""

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        """Return one more sentence for the summary, from `ModelResult.scores`; may be empty."""
        return ""

    @abstractmethod
    def label_columns(self, y_true: NDArray[Any], n_outputs: int) -> LabelColumns:
        """Return columns that describe the labels of each output: titles and cells."""

    def label_facts(self, names: Sequence[str], y_true: NDArray[Any]) -> list[tuple[str, str]]:
        """Return rows (name, text) on the labels for the page's table of settings."""
        return []

    def label_texts(self, names: Sequence[str], y: NDArray[Any]) -> list[str]:
        """Format the labels or decisions of clips, (clips, outputs), as text."""
        raise NotImplementedError

    def clip_errors(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return the error of each prediction, float64 (clips,); NaN if not predicted."""
        raise NotImplementedError

    @abstractmethod
    def csv_columns(self, names: Sequence[str]) -> list[str]:
        """Return the columns of ``predictions.csv`` after clip, group and fold."""

    @abstractmethod
    def csv_cells(
        self,
        names: Sequence[str],
        model: str,
        y_true: NDArray[Any],
        outputs: F64,
        y_pred: NDArray[Any],
    ) -> list[list[object]]:
        """Return the cells of these columns, one row per clip."""

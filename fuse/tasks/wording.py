"""What a report says of a task: its words, columns and figures, apart from any score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from mvemo.fuse.arrays import F64
from mvemo.fuse.tasks.values import Column, LabelColumns


class Wording(ABC):
    """How a task's labels, decisions and scores are told to a reader."""

    output_nouns: ClassVar[tuple[str, str]]  # what one and many of the outputs are called
    primary_title: ClassVar[str]  # the primary metric's name for a reader
    in_percent: ClassVar[bool] = False  # whether the primary metric is shown as a percentage
    csv_prefix: ClassVar[str] = "predicted_"  # of the columns of outputs in ``predictions.csv``
    # Names of the sentences on what a model does badly (`mvemo.fuse.report.findings`).
    findings: ClassVar[tuple[str, ...]] = ()
    # Names of the figures of a report, in order (`mvemo.fuse.report.figures`).
    figures: ClassVar[tuple[str, ...]] = ()
    # What the primary metric of a fold is a mean over, for a sentence.
    averaged_over: ClassVar[str] = ""
    axis_from: ClassVar[float] = 0.0  # where the axis of the primary metric usually starts
    baseline_words: ClassVar[str]  # what the baseline is, within a sentence and as one
    baseline_note: ClassVar[str] = ""  # what the baseline is, within a sentence and as one
    # Whether the other columns of the main table mean something for the baseline.
    baseline_scored: ClassVar[bool] = True
    # How a report finds the clips that are hardest (`mvemo.fuse.report.hard_clips`).
    hard_clips: ClassVar[str] = "furthest_off"
    # What `clip_errors` is, as a column's title and as a sentence.
    error_title: ClassVar[str] = "error"
    error_note: ClassVar[str] = ""  # what `clip_errors` is, as a column's title and as a sentence
    # What a probability is of; what is given one; and what it is the share of, for sentences
    # on calibration.
    probability_of: ClassVar[str] = ""
    # What a probability is of; what is given one; and what it is the share of, for sentences
    # on calibration.
    probable_words: ClassVar[str] = ""
    # What a probability is of; what is given one; and what it is the share of, for sentences
    # on calibration.
    right_words: ClassVar[str] = ""
    # Which printed figures may stand beside the scores (`mvemo.fuse.report.published`).
    published: ClassVar[str] = ""
    glossary: ClassVar[tuple[tuple[str, str], ...]] = ()  # terms of the report, and what they mean

    def facts(self) -> dict[str, Any]:
        """What else a reader must know of the scores, as JSON values."""
        return {}

    @abstractmethod
    def columns(self, names: Sequence[str]) -> tuple[Column, ...]:
        """Columns of the main table beside the primary metric; `names` are the outputs'."""

    @abstractmethod
    def columns_note(self) -> str:
        """What these columns are."""

    @abstractmethod
    def output_columns(self) -> tuple[Column, ...]:
        """Columns of the table of classes, tags or targets; `Column.output` is None."""

    @abstractmethod
    def prediction(self, names: Sequence[str]) -> str:
        """What is predicted for a clip: ``one of 2 classes (calm or tense)``."""

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        """One more sentence of the summary, from `ModelResult.scores`; may be empty."""
        return ""

    @abstractmethod
    def label_columns(self, y_true: NDArray[Any], n_outputs: int) -> LabelColumns:
        """Heads, and for each output cells, that tell of its labels."""

    def label_facts(self, names: Sequence[str], y_true: NDArray[Any]) -> list[tuple[str, str]]:
        """What the page's table of settings says of the labels: rows of name and text."""
        return []

    def label_texts(self, names: Sequence[str], y: NDArray[Any]) -> list[str]:
        """Labels or decisions of clips, (clips, outputs), as a reader knows them."""
        raise NotImplementedError

    def clip_errors(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """float64 (clips,): how far predictions are off, `error_title`; NaN where there is none."""
        raise NotImplementedError

    @abstractmethod
    def csv_columns(self, names: Sequence[str]) -> list[str]:
        """Columns of ``predictions.csv`` after clip, group and fold."""

    @abstractmethod
    def csv_cells(
        self,
        names: Sequence[str],
        model: str,
        y_true: NDArray[Any],
        outputs: F64,
        y_pred: NDArray[Any],
    ) -> list[list[object]]:
        """Their cells, one row a clip."""

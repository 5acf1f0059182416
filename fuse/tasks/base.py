"""Interface between an evaluation and its task, with three implementations.

Every difference between classes, tags and values is a method or an attribute here, so code
outside this package never needs to check the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from mvemo.fuse.bootstrap import Resamples
from mvemo.fuse.metrics.scores import plugged_metrics, plugged_scores
from mvemo.fuse.numeric import Labels, Link, Measures, complete, mean_finite, mean_of_finite
from mvemo.manifests.array_types import F32, F64, Bools, Ints


@dataclass(frozen=True)
class ScoreColumn:
    """A score as a column of a table of models."""

    title: str
    score: str  # key of `ModelResult.scores`; if `output` is given, of `ModelResult.per_output`
    output: int | None = None  # index of the class, tag or target; None for all
    terminal: bool = True  # True if the terminal's table shows it

    @property
    def interval(self) -> str:
        """Return the key of the score's interval in `ModelResult.intervals`."""
        return self.score if self.output is None else f"{self.score}:{self.output}"


@dataclass(frozen=True)
class Outcome:
    """Labels with the predictions of one model, or of several along a first axis."""

    y_true: Labels
    outputs: F64
    y_pred: Labels
    folds: Ints
    k: int


# Titles of the columns, and a list of cells for each output.
LabelColumns = tuple[list[str], list[list[str | int]]]


class Task(ABC):
    """Reading, fitting, prediction, scoring and presentation of labels.

    Labels `y_true` are int64 (clips,) for classes, int64 (clips, tags) of 0 and 1 for tags, and
    float64 (clips, targets) for values. Outputs are float64 (clips, outputs); rows with NaN have
    no prediction. Folds are int64 (clips,), -1 for clips that no fold tests.

    Attributes
    ----------
    name
        ``multiclass``, ``multilabel`` or ``regression``.
    link
        Function that turns a head's scores into outputs (`mvemo.fuse.Head`).
    primary_metric
        Key in `ModelResult.per_fold` of the score that ranks and compares models. It is
        computed in every fold and averaged over folds, because predictions of different folds
        come from different heads and need not share a scale.
    baseline_name
        Name of the model that uses no features.
    """

    name: str
    link: ClassVar[Link]
    primary_metric: ClassVar[str]
    baseline_name: str
    exclusive: bool = False  # True if each clip has exactly one of the outputs, its class
    needs_inner: bool = False  # True if `fit_thresholds` needs inner predictions
    too_few = "(at least two are needed)"  # end of the message on too few clips
    pooled_interval: bool = False  # True if the primary interval is of pooled predictions
    # Key in `ModelResult.intervals` of the primary metric's interval, and its description.
    primary_interval: ClassVar[tuple[str, str]]
    field_score: ClassVar[tuple[str, str]]  # score by which meta-analyses compare: key and title
    # The same task with this score as its primary metric. None if it is already the primary metric,
    # or if it needs thresholds.
    by_field_score: ClassVar[Task | None] = None
    primary_output = ""  # key of `ModelResult.per_output_fold` shown over folds

    # Words of the report.
    output_nouns: ClassVar[tuple[str, str]]  # noun for an output, singular and plural
    primary_title: ClassVar[str]  # name of the primary metric for a reader
    in_percent = False  # True if the primary metric is shown as a percentage
    findings: ClassVar[tuple[str, ...]] = ()  # keys of `mvemo.fuse.report.findings.FINDINGS`
    figures: ClassVar[tuple[str, ...]] = ()  # keys of `mvemo.fuse.report.figures`, in order
    axis_from: ClassVar[float] = 0.0  # usual start of the axis of the primary metric
    baseline_words: str  # description of the baseline within a sentence
    ceiling_name = "one annotator"  # row of the scores that annotators' disagreement allows
    error_title = "error"  # title of the column of `clip_errors`
    probability_of = ""  # event whose probability is predicted
    probable_words = ""  # items that are given a probability
    right_words = ""  # verb phrase for correct items
    columns_note: ClassVar[str]  # explanation of the columns of the main table
    page_note = ""  # explanation of the columns that only the page shows
    output_columns: ClassVar[tuple[ScoreColumn, ...]]  # of the table of outputs; `output` unset

    # Labels.

    def for_labels(self, names: Sequence[str], y_true: Labels, scale: str = "") -> Task:
        """Return the task adapted to these labels; regression adds the plane of quadrants."""
        return self

    def read_labels(self, labels: Labels) -> Labels:
        """Convert labels to the shape and type of `y_true` in all other methods."""
        return np.asarray(labels, np.int64)

    def target(self, y_true: Labels, n_outputs: int) -> F32:
        """Return the targets of a head's outputs, float32 (outputs, clips)."""
        return np.ascontiguousarray(y_true.T, np.float32)

    # Choices on inner folds.

    def losses(self, y_true: Labels, outputs: F64) -> F64:
        """Return the loss of each clip, float64 (clips,); NaN if it was not predicted."""
        losses, valid = np.full(len(y_true), np.nan), complete(outputs)
        if valid.any():
            losses[valid] = self._losses(y_true[valid], outputs[valid])
        return losses

    @abstractmethod
    def _losses(self, y_true: Labels, outputs: F64) -> F64:
        """Return the loss of each of one or more clips, all with predictions."""

    def choice_loss(self, y_true: Labels, outputs: F64) -> float:
        """Return the mean loss for choosing heads and models; NaN without predictions."""
        return mean_of_finite(self.losses(y_true, outputs))

    def primary(self, y_true: Labels, outputs: F64) -> float:
        """Return the primary metric of some clips; NaN if none of them was predicted."""
        valid = complete(outputs)
        return self._primary(y_true[valid], outputs[valid]) if valid.any() else np.nan

    @abstractmethod
    def _primary(self, y_true: Labels, outputs: F64) -> float:
        """Return the primary metric of one or more clips, all with predictions."""

    def primary_per_fold(self, y_true: Labels, outputs: F64, folds: Ints, k: int) -> F64:
        """Return the primary metric of each fold, float64 (k,)."""
        rows = [folds == fold for fold in range(k)]
        return np.array([self.primary(y_true[r], outputs[r]) for r in rows], float)

    # Decisions.

    def fit_thresholds(self, y_true: Labels, outputs: F64) -> F64 | None:
        """Fit decision thresholds on inner out-of-fold predictions; None if the task has none."""
        return None

    @abstractmethod
    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Labels:
        """Return `ModelResult.y_pred` of outputs; thresholds broadcast against them."""

    def baseline(
        self, y_true: Labels, folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Predict outputs and thresholds from only the labels of the training folds."""
        outputs = np.full((len(y_true), n_outputs), np.nan)
        thresholds = np.full((k, n_outputs), np.nan)
        for fold in range(k):
            test = folds == fold
            if test.any() and not test.all():
                train = y_true[~test]
                outputs[test] = train.mean(axis=0)
                if self.needs_inner:
                    constant = np.broadcast_to(train.mean(axis=0), train.shape)
                    thresholds[fold] = self.fit_thresholds(train, constant)
        return outputs, thresholds if self.needs_inner else None

    # Scores.

    @abstractmethod
    def measure(self, y_true: Labels, outputs: F64, y_pred: Labels) -> Measures:
        """Score clips, all with predictions; if there are no clips, all scores are NaN."""

    def scores(
        self, y_true: Labels, outputs: F64, y_pred: Labels, *, whole: bool = True
    ) -> Measures:
        """Return the scores of `measure` and of plug-ins; `whole` is False for one fold's clips."""
        measures = self.measure(y_true, outputs, y_pred)
        plugged = plugged_scores(self.name, y_true, outputs, y_pred, whole=whole)
        return measures._replace(overall={**measures.overall, **plugged})

    def summarise(
        self, pooled: Mapping[str, float], per_fold: Mapping[str, F64]
    ) -> dict[str, float]:
        """Return `ModelResult.scores`; by default the pooled scores."""
        return dict(pooled)

    def confusion(self, y_true: Labels, y_pred: Labels, n_outputs: int) -> Ints | None:
        """Return `ModelResult.confusion` of predicted clips; None if the task has none."""
        return None

    def calibration(self, y_true: Labels, outputs: F64) -> dict[str, float]:
        """Return `ModelResult.calibration` of the outputs; empty unless they are probabilities."""
        return {}

    def label_scale(self, names: Sequence[str], y_true: Labels) -> dict[str, dict[str, float]]:
        """Return ``minimum``, ``maximum``, ``mean`` and ``deviation`` of each regression target."""
        return {}

    # Intervals.

    @abstractmethod
    def resample(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        """Map names in `ModelResult.intervals` to float64 (models, resamples)."""

    def resample_primary(
        self, y_true: Labels, outputs: F64, folds: Ints, k: int, resamples: Resamples
    ) -> F64:
        """Return the primary metric, mean over folds, float64 (models, resamples)."""
        by_fold = [
            self._resample_primary(y_true[rows], outputs[:, rows], resamples.select(rows))
            for rows in (folds == fold for fold in range(k))
            if rows.any()
        ]
        return mean_finite(np.stack(by_fold), axis=0)

    @abstractmethod
    def _resample_primary(self, y_true: Labels, outputs: F64, resamples: Resamples) -> F64:
        """Return the primary metric of one set of clips, float64 (models, resamples)."""

    def indicators(self, y_true: Labels, n_outputs: int) -> Bools:
        """Return the classes or tags of each clip, bool (clips, outputs)."""
        return y_true[:, None] == np.arange(n_outputs) if y_true.ndim == 1 else y_true == 1

    def share_masks(
        self, y_true: Labels, y_pred: Labels, valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        """Map each score that is a share of clips to a mask of these clips, bool (clips,)."""
        return {}

    # Presentation.

    def facts(self) -> dict[str, Any]:
        """Return additional facts about the scores, as JSON values."""
        return {}

    def field_columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        """Return the columns of the scores by which meta-analyses compare."""
        key, title = self.field_score
        return (ScoreColumn(title, key),)

    def columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        """Return the scores shown next to the primary metric; `names` are those of the outputs."""
        plugged = plugged_metrics(self.name).items()
        return (*self._columns(names), *(ScoreColumn(m.title, name) for name, m in plugged))

    @abstractmethod
    def _columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        """Return the columns of the task's own metrics."""

    @abstractmethod
    def prediction(self, names: Sequence[str]) -> str:
        """Describe what the task predicts, such as ``one of 2 classes (calm or tense)``."""

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        """Return an extra sentence for the summary, from `ModelResult.scores`, or ''."""
        return ""

    @abstractmethod
    def label_columns(self, y_true: Labels, n_outputs: int) -> LabelColumns:
        """Return columns that describe the labels of each output: titles and cells."""

    def label_facts(self, names: Sequence[str], y_true: Labels) -> list[tuple[str, str]]:
        """Return rows (name, text) that describe the labels in the page's table of settings."""
        return []

    def label_texts(self, names: Sequence[str], y: Labels) -> list[str]:
        """Format the labels or decisions of clips, (clips, outputs), as text."""
        raise NotImplementedError

    def clip_errors(self, y_true: Labels, outputs: F64) -> F64:
        """Return the error of each prediction, float64 (clips,); NaN without a prediction."""
        raise NotImplementedError

    def csv_columns(self, names: Sequence[str]) -> list[str]:
        """Return the columns of ``predictions.csv`` after clip, group and fold."""
        kinds = ("true", "predicted", *["decided"] * self.needs_inner)
        return ["model", *(f"{kind}_{name}" for name in names for kind in kinds)]

    def csv_cells(self, names: Sequence[str], model: str, one: Outcome) -> list[list[object]]:
        """Return the cells of these columns, one row per clip."""
        values = [one.y_true.tolist(), one.outputs.tolist()]
        if self.needs_inner:
            values.append(one.y_pred.astype(int).tolist())
        rows: list[list[object]] = []
        for predicted, *cells in zip(complete(one.outputs).tolist(), *values, strict=True):
            if not predicted:
                cells[1:] = [[""] * len(names) for _ in cells[1:]]
            rows.append([model, *chain.from_iterable(zip(*cells, strict=True))])
        return rows

"""Interface between an evaluation and its task, with three implementations.

Every difference between classes, tags and values is a method or an attribute here, so code
outside this package never asks which task it has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.bootstrap import Resamples
from mvemo.fuse.metrics.averages import complete, mean_finite, mean_of_finite
from mvemo.fuse.metrics.calibration import (
    brier_score,
    calibration_terms,
    expected_calibration_error,
    log_loss,
)
from mvemo.fuse.numeric import F64, Bools, Ints, Link
from mvemo.fuse.tasks.wording import Wording


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


class Task(Wording):
    """Reading, fitting, prediction and scoring of labels; `Wording` has their presentation.

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
    needs_inner
        True if decisions rest on predictions inside the training folds (`fit_thresholds`).
    fits_temperature
        True if a temperature can scale the probabilities (`scaled_calibration`).
    decides_songs
        True if the segments of a song can decide its class.
    too_few
        End of the message for folds with too few clips to train a head.
    pooled_interval
        True if the interval of the primary metric is that of the pooled predictions.
    primary_interval
        Key in `ModelResult.intervals` of the interval shown with the primary metric, and a
        description of it for a sentence.
    primary_output
        Key in `ModelResult.per_output_fold` of the score that a report shows over folds.
    brier_max
        Largest possible Brier score.
    """

    name: ClassVar[str]
    link: ClassVar[Link]
    primary_metric: ClassVar[str]
    baseline_name: ClassVar[str]
    needs_inner: ClassVar[bool] = False
    fits_temperature: ClassVar[bool] = False
    decides_songs: ClassVar[bool] = False
    too_few: ClassVar[str] = "(two at least)"
    pooled_interval: ClassVar[bool] = False
    primary_interval: ClassVar[tuple[str, str]]
    primary_output: ClassVar[str] = ""
    brier_max: ClassVar[int] = 1

    # Labels.

    def for_labels(self, names: Sequence[str], y_true: NDArray[Any], scale: str = "") -> Task:
        """Return the task adapted to these labels; regression adds the plane of quadrants."""
        return self

    @abstractmethod
    def read_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Convert labels to the shape and type that all methods here take as `y_true`.

        This is int64 (clips,) for classes, int64 (clips, tags) of 0 and 1 for tags, or float64
        (clips, targets) for values.
        """

    def parse_labels(self, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> NDArray[Any]:
        """Return `y_true` from rows of ``predictions.csv``, one per clip.

        Parameters
        ----------
        rows
            Mappings of column names to cells.
        names
            Names of the outputs.

        Raises
        ------
        KeyError, ValueError
            A column is missing, or a cell is not a label.
        """
        cells = [[float(row[f"true_{name}"]) for name in names] for row in rows]
        return self.read_labels(np.array(cells, dtype=np.float64))

    @abstractmethod
    def target(self, y_true: NDArray[Any], n_outputs: int) -> NDArray[np.float32]:
        """Return the targets of a head's outputs, float32 (outputs, clips)."""

    # Choices on inner folds.

    @abstractmethod
    def losses(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return the loss of each clip, float64 (clips,); NaN if it was not predicted."""

    def choice_loss(self, y_true: NDArray[Any], outputs: F64) -> float:
        """Return the mean loss, by which heads and models are chosen; NaN without predictions."""
        return mean_of_finite(self.losses(y_true, outputs))

    def primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        """Return the primary metric of some clips; NaN if none of them was predicted.

        Parameters
        ----------
        y_true
            Labels, as `read_labels` returns them.
        outputs
            Predictions, float64 (clips, outputs); rows with NaN are left out.
        """
        valid = complete(outputs)
        return self._primary(y_true[valid], outputs[valid]) if valid.any() else float("nan")

    @abstractmethod
    def _primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        """Return the primary metric of at least one clip, all of them predicted."""

    def primary_per_fold(self, y_true: NDArray[Any], outputs: F64, folds: Ints, k: int) -> F64:
        """Return the primary metric of each fold, float64 (k,)."""
        rows = [folds == fold for fold in range(k)]
        return np.array([self.primary(y_true[r], outputs[r]) for r in rows], dtype=np.float64)

    # Decisions.

    def fit_thresholds(self, y_true: NDArray[Any], outputs: F64) -> F64 | None:
        """Fit the thresholds that outputs must reach for a decision; None if there are none.

        `outputs` must be out-of-fold predictions inside the training folds.
        """
        return None

    @abstractmethod
    def decide(self, outputs: F64, thresholds: F64 | None = None) -> NDArray[Any]:
        """Return `ModelResult.y_pred` for outputs (clips, outputs); NaN rows were not predicted.

        `thresholds`, from `fit_thresholds`, broadcast against `outputs`.
        """

    # Scores.

    @abstractmethod
    def measure(self, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any]) -> Measures:
        """Score clips that are all predicted; without clips all scores are NaN."""

    def score(
        self,
        y_true: NDArray[Any],
        outputs: F64,
        folds: Ints,
        k: int,
        thresholds: F64 | None = None,
    ) -> Scores:
        """Return all scores of out-of-fold outputs, over all clips and for each fold.

        Parameters
        ----------
        y_true
            Labels, as `read_labels` returns them.
        outputs
            Predictions, float64 (clips, outputs); rows with NaN are left out.
        folds, k
            Fold of each clip, int64 (clips,), -1 if no fold tests it; number of folds.
        thresholds
            Thresholds of each clip for `decide`, float64 (clips, tags).

        Returns
        -------
        Decisions and scores.
        """
        y_pred = self.decide(outputs, thresholds)
        valid = complete(outputs)
        pooled = self.measure(y_true[valid], outputs[valid], y_pred[valid])
        per_fold = {name: np.full(k, np.nan) for name in pooled.overall}
        per_output_fold = {
            name: np.full((k, len(values)), np.nan) for name, values in pooled.per_output.items()
        }
        for fold in range(k):
            rows = valid & (folds == fold)
            if not rows.any():
                continue
            of_fold = self.measure(y_true[rows], outputs[rows], y_pred[rows])
            for name, value in of_fold.overall.items():
                per_fold[name][fold] = value
            for name, values in of_fold.per_output.items():
                per_output_fold[name][fold] = values
        return Scores(
            y_pred=y_pred,
            scores=self.summarise(pooled.overall, per_fold),
            per_fold=per_fold,
            per_output=pooled.per_output,
            per_output_fold=per_output_fold,
            confusion=self.confusion(y_true[valid], y_pred[valid], outputs.shape[1]),
        )

    def summarise(
        self, pooled: Mapping[str, float], per_fold: Mapping[str, F64]
    ) -> dict[str, float]:
        """Return `ModelResult.scores`; by default the pooled scores."""
        return dict(pooled)

    def confusion(self, y_true: NDArray[Any], y_pred: NDArray[Any], n_outputs: int) -> Ints | None:
        """Return `ModelResult.confusion` of predicted clips; None if the task has none."""
        return None

    def calibration(self, y_true: NDArray[Any], outputs: F64) -> dict[str, float]:
        """Return `ModelResult.calibration` of the outputs; empty unless they are probabilities."""
        return {}

    def scaled_calibration(
        self, y_true: NDArray[Any], outputs: F64, folds: Ints, inner: Sequence[F64]
    ) -> dict[str, float]:
        """Return the calibration at temperatures fitted on inner predictions; only for classes.

        `inner` has an array float64 (clips, outputs) for each fold: predictions of its training
        clips by heads that never saw them. All other rows are NaN.
        """
        return {}

    def residual_ends(
        self, y_true: NDArray[Any], outputs: F64, share: float
    ) -> tuple[tuple[float, float], ...]:
        """Return for each target (low, high), the central interval of a share of the errors.

        Only regression has such intervals. An error is the label minus the output of a clip that
        the model was not fitted on; rows with NaN are left out.
        """
        return ()

    def label_scale(
        self, names: Sequence[str], y_true: NDArray[Any]
    ) -> dict[str, dict[str, float]]:
        """Return ``minimum``, ``maximum``, ``mean`` and ``deviation`` of each regression target."""
        return {}

    @abstractmethod
    def baseline(
        self, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Predict (clips, outputs) and thresholds from only the labels of the training folds."""

    # Intervals.

    @abstractmethod
    def resample(
        self,
        y_true: NDArray[Any],
        outputs: F64,
        y_pred: NDArray[Any],
        folds: Ints,
        k: int,
        resamples: Resamples,
    ) -> dict[str, F64]:
        """Return every score that gets an interval, in each resample of groups.

        Parameters
        ----------
        y_true
            Labels, as `read_labels` returns them.
        outputs
            Predictions, float64 (models, clips, outputs); NaN rows were not predicted.
        y_pred
            Decisions (models, clips) or (models, clips, outputs), as `decide` returns them.
        folds, k
            Fold of each clip, int64 (clips,), and the number of folds.
        resamples
            Resamples of the clips' groups.

        Returns
        -------
        Mapping of a name in `ModelResult.intervals` to float64 (models, resamples).
        """

    def resample_primary(
        self, y_true: NDArray[Any], outputs: F64, folds: Ints, k: int, resamples: Resamples
    ) -> F64:
        """Return the primary metric, mean over folds, float64 (models, resamples).

        Shapes are those of `resample`. Models that share `resamples` are paired.
        """
        valid = complete(outputs)
        by_fold = []
        for fold in range(k):
            rows = folds == fold
            if not rows.any():
                continue
            of_fold = resamples.select(rows)
            by_fold.append(
                self._resample_primary(y_true[rows], outputs[:, rows], valid[:, rows], of_fold)
            )
        return mean_finite(np.stack(by_fold), axis=0)

    @abstractmethod
    def _resample_primary(
        self, y_true: NDArray[Any], outputs: F64, valid: Bools, resamples: Resamples
    ) -> F64:
        """Return the primary metric of one set of clips, float64 (models, resamples)."""

    def indicators(self, y_true: NDArray[Any], n_outputs: int) -> Bools:
        """Return the classes or tags of each clip, bool (clips, outputs)."""
        raise NotImplementedError

    def share_masks(
        self, y_true: NDArray[Any], y_pred: NDArray[Any], valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        """Return for each score that is a share of clips a mask of these clips, bool (clips,).

        If a resampled share is always 0 or always 1, its interval depends on the number of groups
        of these clips. `valid` is True for clips with a prediction.
        """
        return {}


class ProbabilityTask(Task):
    """Task whose outputs are probabilities, of classes or of tags."""

    def calibration(self, y_true: NDArray[Any], outputs: F64) -> dict[str, float]:
        return {
            "ece": expected_calibration_error(y_true, outputs),
            "brier": brier_score(y_true, outputs),
            "log_loss": log_loss(y_true, outputs),
        }

    def resample_calibration(
        self, y_true: Ints, outputs: F64, resamples: Resamples
    ) -> dict[str, F64]:
        """Return `calibration` in each resample of groups; shapes are those of `resample`."""
        drawn: dict[str, list[F64]] = {"ece": [], "brier": [], "log_loss": []}
        for proba in outputs:
            brier, loss, gaps, weight = calibration_terms(y_true, proba)
            sums = resamples.sums(np.column_stack([brier, loss, weight, gaps]))
            n = np.where(sums[:, 2] > 0, sums[:, 2], np.nan)
            drawn["brier"].append(sums[:, 0] / n)
            drawn["log_loss"].append(sums[:, 1] / n)
            drawn["ece"].append(np.abs(sums[:, 3:]).sum(axis=1) / n)
        return {name: np.array(values) for name, values in drawn.items()}

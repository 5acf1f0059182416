"""What an evaluation asks of a task: one interface, three implementations.

Nothing outside this package asks which task it is: what differs between classes, tags and
values is a method or an attribute here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.bootstrap import Resamples
from mvemo.fuse.links import Link
from mvemo.fuse.metrics.averages import complete, mean_finite, mean_of_finite
from mvemo.fuse.tasks.values import Measures, Scores
from mvemo.fuse.tasks.wording import Wording


class Task(Wording):
    """How labels are read, fitted, predicted and scored; `Wording` is how they are reported.

    Attributes
    ----------
    name
        ``multiclass``, ``multilabel`` or ``regression``.
    link
        What makes outputs of a head's scores (`mvemo.fuse.Head`).
    primary_metric
        Name of the score that models are ranked and compared by, in
        `ModelResult.per_fold`: it is taken in every fold and averaged over folds, because
        predictions of different folds come from different heads and need not be on one
        scale.
    baseline_name
        Of what knows no features.
    needs_inner
        Whether decisions rest on predictions inside the training folds (`fit_thresholds`).
    fits_temperature
        Whether its probabilities can be scaled by a temperature (`scaled_calibration`).
    decides_songs
        Whether a song can be decided from its segments.
    too_few
        What is missing where no head can be trained, for a message.
    pooled_interval
        Whether the interval of the primary metric is of the pooled predictions.
    primary_interval
        Name in `ModelResult.intervals` of the interval beside the primary metric, and what
        it is of, for a sentence.
    primary_output
        The score in `ModelResult.per_output_fold` that a report shows over folds.
    brier_max
        The largest Brier score.
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
        """Return the task as these labels make it: of values, with their plane of quadrants."""
        return self

    @abstractmethod
    def read_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels in the shape and type that all methods here take as `y_true`.

        int64 (clips,) of classes, int64 (clips, tags) of 0 and 1, or float64
        (clips, targets).
        """

    def parse_labels(self, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> NDArray[Any]:
        """`y_true` of rows of ``predictions.csv``, one a clip; `names` are the outputs'.

        Raises
        ------
        KeyError, ValueError
            A column is missing, or a cell is no label.
        """
        cells = [[float(row[f"true_{name}"]) for name in names] for row in rows]
        return self.read_labels(np.array(cells, dtype=np.float64))

    @abstractmethod
    def target(self, y_true: NDArray[Any], n_outputs: int) -> NDArray[np.float32]:
        """float32 (outputs, clips): what a head's outputs are fitted to."""

    # Choices on inner folds.

    @abstractmethod
    def losses(self, y_true: NDArray[Any], outputs: F64) -> F64:
        """Return each clip's part of `choice_loss`, float64 (clips,); NaN where not predicted."""

    def choice_loss(self, y_true: NDArray[Any], outputs: F64) -> float:
        """Return what a choice among heads and models makes small; NaN of no prediction."""
        return mean_of_finite(self.losses(y_true, outputs))

    def primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        """The primary metric of some clips.

        Parameters
        ----------
        y_true
            As `read_labels` gives them.
        outputs
            float64 (clips, outputs); NaN rows are left out. NaN of none.
        """
        valid = complete(outputs)
        return self._primary(y_true[valid], outputs[valid]) if valid.any() else float("nan")

    @abstractmethod
    def _primary(self, y_true: NDArray[Any], outputs: F64) -> float:
        """`primary` of clips that are all predicted, one at least."""

    def primary_per_fold(self, y_true: NDArray[Any], outputs: F64, folds: Ints, k: int) -> F64:
        """float64 (k,): `primary` of the clips of each fold."""
        rows = [folds == fold for fold in range(k)]
        return np.array([self.primary(y_true[r], outputs[r]) for r in rows], dtype=np.float64)

    # Decisions.

    def fit_thresholds(self, y_true: NDArray[Any], outputs: F64) -> F64 | None:
        """What outputs must reach for a decision; None where nothing is decided so.

        To be fitted on out-of-fold predictions inside the training folds.
        """
        return None

    @abstractmethod
    def decide(self, outputs: F64, thresholds: F64 | None = None) -> NDArray[Any]:
        """`ModelResult.y_pred` of outputs (clips, outputs), whose NaN rows were not predicted.

        `thresholds`, of `fit_thresholds`, broadcast against `outputs`.
        """

    # Scores.

    @abstractmethod
    def measure(self, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any]) -> Measures:
        """Scores of clips that are all predicted; of none, all NaN."""

    def score(
        self,
        y_true: NDArray[Any],
        outputs: F64,
        folds: Ints,
        k: int,
        thresholds: F64 | None = None,
    ) -> Scores:
        """All scores of out-of-fold outputs, over all clips and of each fold.

        Parameters
        ----------
        y_true
            As `read_labels` gives them.
        outputs
            float64 (clips, outputs); NaN rows are left out.
        folds, k
            int64 (clips,), -1 for clips that no fold tests, and the number of folds.
        thresholds
            As in `decide`, of each clip: float64 (clips, tags).
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
        """`ModelResult.scores`: the pooled ones, where a task has no other rule."""
        return dict(pooled)

    def confusion(self, y_true: NDArray[Any], y_pred: NDArray[Any], n_outputs: int) -> Ints | None:
        """`ModelResult.confusion` of predicted clips."""
        return None

    def calibration(self, y_true: NDArray[Any], outputs: F64) -> dict[str, float]:
        """`ModelResult.calibration` of outputs as they are; empty but for probabilities."""
        return {}

    def scaled_calibration(
        self, y_true: NDArray[Any], outputs: F64, folds: Ints, inner: Sequence[F64]
    ) -> dict[str, float]:
        """The same at temperatures fitted on inner predictions; empty but for classes.

        `inner`, of each fold, float64 (clips, outputs), has predictions of its training clips
        by heads that never saw them; NaN rows elsewhere.
        """
        return {}

    def residual_ends(
        self, y_true: NDArray[Any], outputs: F64, share: float
    ) -> tuple[tuple[float, float], ...]:
        """For each target (low, high), between which a share of the errors lies.

        Empty but for values. Errors are labels minus outputs, of clips that the model was
        not fitted on; NaN rows are left out.
        """
        return ()

    def label_scale(
        self, names: Sequence[str], y_true: NDArray[Any]
    ) -> dict[str, dict[str, float]]:
        """Target to ``minimum``, ``maximum``, ``mean`` and ``deviation``; empty but for values."""
        return {}

    @abstractmethod
    def baseline(
        self, y_true: NDArray[Any], folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Outputs (clips, outputs) and thresholds from the training folds' labels alone."""

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
        """Every figure that gets an interval, in each resample of groups.

        Parameters
        ----------
        outputs
            float64 (models, clips, outputs); NaN rows were not predicted.
        y_pred
            (models, clips) or (models, clips, outputs), as `decide` gives them.
        resamples
            Of the clips' groups.

        Returns
        -------
        Name, as in `ModelResult.intervals`, to float64 (models, resamples).
        """

    def resample_primary(
        self, y_true: NDArray[Any], outputs: F64, folds: Ints, k: int, resamples: Resamples
    ) -> F64:
        """float64 (models, resamples): the primary metric, mean over folds.

        Shapes as in `resample`; models that share `resamples` are paired.
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
        """float64 (models, resamples): the primary metric of one set of clips."""

    def indicators(self, y_true: NDArray[Any], n_outputs: int) -> Bools:
        """bool (clips, outputs): which classes or tags a clip has."""
        raise NotImplementedError

    def share_masks(
        self, y_true: NDArray[Any], y_pred: NDArray[Any], valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        """Name of each score that is a share to bool (clips,), the clips that it is of.

        Where a resampled share is always 0 or always 1, its interval depends on their number
        of groups. `valid` says which of all clips have a prediction.
        """
        return {}

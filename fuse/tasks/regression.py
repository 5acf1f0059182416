"""Task of one or more target values per clip, such as valence and arousal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from mvemo.fuse.bootstrap import Resamples, bootstrap_regression
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.scores import confusion_matrix, regression_scores
from mvemo.fuse.numeric import Labels, Link, Measures, complete, mean_finite, mean_of_finite, ratio
from mvemo.fuse.tasks.base import LabelColumns, Outcome, ScoreColumn, Task
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.labels import PLANE, parse_scale

# Names of the quadrants.
QUADRANTS = (
    "valence+ arousal+",
    "valence- arousal+",
    "valence- arousal-",
    "valence+ arousal-",
)
# Maximum number of targets for which the main table shows the score of each.
FEW_TARGETS = 3


@dataclass(frozen=True)
class Plane:
    """Valence-arousal plane of two targets."""

    valence: int  # index of the target valence
    arousal: int  # index of the target arousal
    centre: tuple[float, float]  # valence and arousal where the quadrants meet
    scale: str = ""  # scale around the centre, such as ``1..9``; empty if the centre is the median

    def __str__(self) -> str:
        point = f"valence {self.centre[0]:.3g}, arousal {self.centre[1]:.3g}"
        if self.scale:
            return f"around {point}, the middle of the scale {self.scale}"
        return f"around the median ({point}), as no scale is stated with --scale"

    def quadrants(self, values: F64) -> Ints:
        """Return indices in `QUADRANTS` of values, -1 for NaN; the centre counts as high."""
        point = values[:, [self.valence, self.arousal]]
        pleasant, excited = (point >= self.centre).T
        index = np.where(excited, np.where(pleasant, 0, 1), np.where(pleasant, 3, 2))
        return np.where(complete(point), index, -1)


def plane_of(names: Sequence[str], y_true: F64, scale: str = "") -> Plane | None:
    """Return the plane of labels (clips, targets) on a scale such as ``1..9``, or None."""
    lower = [name.lower() for name in names]
    if not set(PLANE) <= set(lower):
        return None
    v, a = (lower.index(name) for name in PLANE)
    both = y_true[:, [v, a]]
    if not scale:
        valence, arousal = np.median(both, axis=0).tolist()
        return Plane(v, a, (valence, arousal))
    low, high = parse_scale(scale)
    if both.min() < low or both.max() > high:
        raise BadFeatures(
            f"scale {scale}: valence and arousal must lie on it, got {both.min():g} to "
            f"{both.max():g}"
        )
    return Plane(v, a, ((low + high) / 2, (low + high) / 2), scale)


@dataclass(frozen=True)
class Regression(Task):
    """Values of one or more targets for each clip; `y_pred` equals the outputs.

    The interval of the primary metric is computed from pooled predictions: in a resample of n clips
    the R2 of a fold is too low by about 1 / n.
    """

    name = "regression"
    output_nouns: ClassVar[tuple[str, str]] = ("target", "targets")
    link: ClassVar[Link] = "identity"
    primary_metric = "r2_macro"
    primary_title = "R2"
    pooled_interval = True
    baseline_name = "training mean"
    findings: ClassVar[tuple[str, ...]] = ("weakest_target", "shrinkage")
    figures: ClassVar[tuple[str, ...]] = ("folds", "scatter", "quadrants")
    primary_interval: ClassVar[tuple[str, str]] = ("primary", "the pooled R2, mean over targets")
    primary_output = "r2"
    field_score: ClassVar[tuple[str, str]] = ("pearson_r_macro", "r, mean")
    ceiling_name = "annotators' ceiling"
    baseline_words = "each target's mean over the training clips for every clip"
    columns_note = "R2 and r (Pearson's) of the targets: pooled over folds."
    output_columns: ClassVar[tuple[ScoreColumn, ...]] = (
        ScoreColumn("R2", "r2"),
        ScoreColumn("r", "pearson_r"),
        ScoreColumn("CCC", "ccc"),
        ScoreColumn("RMSE", "rmse"),
        ScoreColumn("MAE", "mae"),
    )

    # Plane of valence and arousal, whose quadrants are scored; None without these targets.
    plane: Plane | None = None

    def for_labels(self, names: Sequence[str], y_true: Labels, scale: str = "") -> Regression:
        return replace(self, plane=plane_of(names, y_true, scale))

    def read_labels(self, labels: Labels) -> F64:
        return np.asarray(labels, float)

    def _losses(self, y_true: Labels, outputs: F64) -> F64:
        """Return squared errors divided by the targets' variances; their mean is 1 - R2."""
        return mean_finite(ratio(np.square(outputs - y_true), y_true.var(axis=0)), axis=1)

    def _primary(self, y_true: Labels, outputs: F64) -> float:
        # A target without variance in a fold has no R2 and is left out of the mean.
        return regression_scores(y_true, outputs).overall[self.primary_metric]

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> F64:
        return outputs

    def measure(self, y_true: Labels, outputs: F64, y_pred: Labels) -> Measures:
        overall, per_output = regression_scores(y_true, outputs)
        if self.plane is not None:
            correct = self.plane.quadrants(y_true) == self.plane.quadrants(outputs)
            overall = {**overall, "quadrant_accuracy": mean_of_finite(correct.astype(float))}
        return Measures(overall, per_output)

    def confusion(self, y_true: Labels, y_pred: Labels, n_outputs: int) -> Ints | None:
        if self.plane is None:
            return None
        true, predicted = self.plane.quadrants(y_true), self.plane.quadrants(y_pred)
        return confusion_matrix(true, predicted, len(QUADRANTS))

    def label_scale(self, names: Sequence[str], y_true: Labels) -> dict[str, dict[str, float]]:
        return {
            name: {
                "minimum": float(values.min()),
                "maximum": float(values.max()),
                "mean": float(values.mean()),
                "deviation": float(values.std()),
            }
            for name, values in zip(names, y_true.T, strict=True)
        }

    def resample(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        drawn = {}
        scores = bootstrap_regression(models.y_true, models.outputs, resamples)
        for name, values in scores.items():
            drawn[f"{name}_macro"] = mean_finite(values, axis=1)
            drawn.update({f"{name}:{i}": values[:, i] for i in range(values.shape[1])})
        drawn["primary"] = drawn["r2_macro"]
        if self.plane is not None:
            true = self.plane.quadrants(models.y_true)
            predicted = np.stack([self.plane.quadrants(values) for values in models.outputs])
            drawn["quadrant_accuracy"] = resamples.shares(predicted == true, predicted >= 0)
        return drawn

    def resample_primary(
        self, y_true: Labels, outputs: F64, folds: Ints, k: int, resamples: Resamples
    ) -> F64:
        """Return the R2 of the pooled predictions, float64 (models, resamples)."""
        return self._resample_primary(y_true, outputs, resamples)

    def _resample_primary(self, y_true: Labels, outputs: F64, resamples: Resamples) -> F64:
        score = self.primary_metric.removesuffix("_macro")
        return mean_finite(bootstrap_regression(y_true, outputs, resamples)[score], axis=1)

    def facts(self) -> dict[str, Any]:
        if self.plane is None:
            return {}
        centre, scale = self.plane.centre, self.plane.scale or None
        return {"quadrants": {"names": QUADRANTS, "centre": centre, "scale": scale}}

    def _columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        few = len(names) <= FEW_TARGETS
        # The other scores of each target are in the table of targets.
        columns = [
            ScoreColumn(f"{c.title} {output}", c.score, i)
            for c in self.output_columns[:2]
            for i, output in enumerate(names)
            if few
        ]
        for c in self.output_columns:
            # With few targets, R2 and r have columns per target; only the mean of r is added.
            if not few or (c.score != "r2" and (c.score != "pearson_r" or len(names) > 1)):
                title = f"{c.title}, mean" if len(names) > 1 else c.title
                terminal = not few and c.score == "pearson_r"
                columns.append(ScoreColumn(title, f"{c.score}_macro", terminal=terminal))
        if self.plane is not None:
            columns.append(ScoreColumn("quadrants", "quadrant_accuracy", terminal=False))
        return tuple(columns)

    def field_columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        of_targets = tuple(c for c in self.columns(names) if c.score == "pearson_r")
        return of_targets or super().field_columns(names)

    @property
    def page_note(self) -> str:  # type: ignore[override]
        note = "CCC, RMSE and MAE: pooled, too."
        if self.plane is None:
            return note
        return f"{note} Quadrants: share of clips in the correct one, {self.plane}."

    def prediction(self, names: Sequence[str]) -> str:
        *others, last = names
        return f"values of {', '.join(others)} and {last}" if others else f"values of {last}"

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        if "quadrant_accuracy" not in best:
            return ""
        correct, by_chance = (100 * scores["quadrant_accuracy"] for scores in (best, baseline))
        return (
            f"The model puts {correct:.1f} % of the clips into the correct quadrant of valence and "
            f"arousal, the baseline {by_chance:.1f} %."
        )

    def label_columns(self, y_true: Labels, n_outputs: int) -> LabelColumns:
        rows: list[list[str | int]] = [
            [f"{y.min():.3g} to {y.max():.3g}", f"{y.mean():.3g}"] for y in y_true.T
        ]
        return ["labels", "mean"], rows

    def label_facts(self, names: Sequence[str], y_true: Labels) -> list[tuple[str, str]]:
        return [] if self.plane is None else [("quadrants", str(self.plane))]

    def label_texts(self, names: Sequence[str], y: Labels) -> list[str]:
        return [
            ", ".join(f"{n} {value:.3g}" for n, value in zip(names, values, strict=True))
            for values in y
        ]

    def clip_errors(self, y_true: Labels, outputs: F64) -> F64:
        """Return root mean squared errors, in units of the labels' standard deviations."""
        scale = y_true.std(axis=0)
        errors = (outputs - y_true) / np.where(scale > 0, scale, 1.0)
        return np.sqrt(np.square(errors).mean(axis=1))


class RatingsByR(Regression):
    """Values whose primary metric is Pearson's r, the mean over targets."""

    primary_metric: ClassVar[str] = "pearson_r_macro"
    primary_title: ClassVar[str] = "mean r"
    by_field_score: ClassVar[Task | None] = None


Regression.by_field_score = RatingsByR()

"""Tasks whose outputs are probabilities: one class per clip, or any number of tags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mvemo.fuse import bootstrap
from mvemo.fuse.bootstrap import Resamples
from mvemo.fuse.metrics import calibration, scores
from mvemo.fuse.numeric import Labels, Link, Measures, complete, mean_finite, mean_of_finite
from mvemo.fuse.tasks.base import LabelColumns, Outcome, ScoreColumn, Task
from mvemo.manifests.array_types import F32, F64, Bools, Ints


class ProbabilityTask(Task):
    """Task whose outputs are probabilities, of classes or of tags."""

    def target(self, y_true: Labels, n_outputs: int) -> F32:
        return super().target(self.indicators(y_true, n_outputs), n_outputs)

    def label_columns(self, y_true: Labels, n_outputs: int) -> LabelColumns:
        n_clips = self.indicators(y_true, n_outputs).sum(axis=0)
        return ["clips"], [[n] for n in n_clips.tolist()]

    def calibration(self, y_true: Labels, outputs: F64) -> dict[str, float]:
        diagram = calibration.reliability(y_true, outputs)
        return {
            "ece": diagram.ece,
            "ece_by_chance": diagram.ece_by_chance,
            "brier": calibration.brier_score(y_true, outputs),
            "log_loss": calibration.log_loss(y_true, outputs),
        }

    def resample(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        drawn: dict[str, list[F64]] = {"ece": [], "brier": [], "log_loss": []}
        for proba in models.outputs:
            brier, loss, gaps, weight = calibration.calibration_terms(models.y_true, proba)
            sums = resamples.sums(np.column_stack([brier, loss, weight, gaps]))
            n = np.where(sums[:, 2] > 0, sums[:, 2], np.nan)
            drawn["brier"].append(sums[:, 0] / n)
            drawn["log_loss"].append(sums[:, 1] / n)
            drawn["ece"].append(np.abs(sums[:, 3:]).sum(axis=1) / n)
        of_folds = models.y_true, models.outputs, models.folds, models.k
        return {
            "primary": self.resample_primary(*of_folds, resamples),
            **{name: np.array(values) for name, values in drawn.items()},
        }


@dataclass(frozen=True)
class Multiclass(ProbabilityTask):
    """One of several classes for each clip; `y_pred` is the most probable class."""

    name = "multiclass"
    output_nouns: ClassVar[tuple[str, str]] = ("class", "classes")
    link: ClassVar[Link] = "softmax"
    primary_metric = "accuracy"
    primary_title = "accuracy"
    in_percent = True
    baseline_name = "majority class"
    exclusive = True
    too_few = "(at least two classes are needed)"
    findings: ClassVar[tuple[str, ...]] = ("weakest_class", "confusion", "confidence")
    figures: ClassVar[tuple[str, ...]] = ("folds", "roc", "class_roc", "confusion", "reliability")
    field_score: ClassVar[tuple[str, str]] = ("mcc", "MCC")
    primary_interval: ClassVar[tuple[str, str]] = ("accuracy", "the pooled accuracy")
    baseline_words = "always predicting the most common class of the training clips"
    probability_of = "the predicted class"
    probable_words = "clips"
    right_words = "is correct"
    output_columns: ClassVar[tuple[ScoreColumn, ...]] = (
        ScoreColumn("recall", "recall"),
        ScoreColumn("precision", "precision"),
        ScoreColumn("F1", "f1"),
    )
    columns_note = (
        "MCC and macro F1: of the pooled predictions. AUC: macro one-vs-rest, mean over folds."
    )
    page_note = "Balanced accuracy and Cohen's kappa: of the pooled predictions, too."

    def _losses(self, y_true: Labels, outputs: F64) -> F64:
        """Return log losses at the temperature that minimises their mean.

        With few clips, plain log loss would prefer a penalty so strong that only the most common
        class is predicted.
        """
        temperature = calibration.fit_temperature(calibration.log_probabilities(outputs), y_true)
        return calibration.log_losses(y_true, calibration.apply_temperature(outputs, temperature))

    def _primary(self, y_true: Labels, outputs: F64) -> float:
        return float(np.mean(outputs.argmax(axis=1) == y_true))

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Ints:
        return np.where(complete(outputs), np.nan_to_num(outputs).argmax(axis=-1), -1).astype(
            np.int64
        )

    def measure(self, y_true: Labels, outputs: F64, y_pred: Labels) -> Measures:
        return scores.multiclass_scores(y_true, outputs, y_pred)

    def summarise(
        self, pooled: Mapping[str, float], per_fold: Mapping[str, F64]
    ) -> dict[str, float]:
        auc = "roc_auc_macro_ovr"
        return {**pooled, auc: mean_of_finite(per_fold[auc]), f"{auc}_pooled": pooled[auc]}

    def confusion(self, y_true: Labels, y_pred: Labels, n_outputs: int) -> Ints:
        return scores.confusion_matrix(y_true, y_pred, n_outputs)

    def baseline(
        self, y_true: Labels, folds: Ints, k: int, n_outputs: int
    ) -> tuple[F64, F64 | None]:
        """Predict the most common training class (of all clips if one fold tests all of them)."""
        outputs = np.full((len(y_true), n_outputs), np.nan)
        for fold in range(k):
            test = folds == fold
            train = y_true if test.all() else y_true[~test]
            if test.any():
                outputs[test] = np.eye(n_outputs)[np.bincount(train).argmax()]
        return outputs, None

    def resample(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        # With one fold, the mean over folds is the pooled score.
        folds = models.folds if models.k > 1 else None
        scores = bootstrap.bootstrap_multiclass(models.y_true, models.outputs, resamples, folds)
        return {**scores, **super().resample(models, resamples)}

    def _resample_primary(self, y_true: Labels, outputs: F64, resamples: Resamples) -> F64:
        correct = np.nan_to_num(outputs).argmax(axis=2) == y_true
        return resamples.shares(correct, complete(outputs))

    def _columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        return (
            ScoreColumn("balanced", "balanced_accuracy", terminal=False),
            ScoreColumn("kappa", "cohen_kappa", terminal=False),
            ScoreColumn("MCC", "mcc"),
            ScoreColumn("F1", "f1_macro"),
            ScoreColumn("AUC", "roc_auc_macro_ovr"),
        )

    def prediction(self, names: Sequence[str]) -> str:
        listed = f"{', '.join(names[:-1])} or {names[-1]}"
        return f"one of {len(names)} classes ({listed})"

    def remark(
        self, names: Sequence[str], best: Mapping[str, float], baseline: Mapping[str, float]
    ) -> str:
        return (
            f"Guessing among {len(names)} equally likely classes is correct for "
            f"{100 / len(names):.1f} % of the clips."
        )

    def label_facts(self, names: Sequence[str], y_true: Labels) -> list[tuple[str, str]]:
        n_clips = np.bincount(y_true, minlength=len(names))
        listed = ", ".join(f"{name} {n}" for name, n in zip(names, n_clips, strict=True))
        return [("clips of each class", listed)]

    def share_masks(
        self, y_true: Labels, y_pred: Labels, valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        masks: dict[str, Bools] = {}
        for c in range(n_outputs):
            true, predicted = valid & (y_true == c), valid & (y_pred == c)
            masks[f"recall:{c}"], masks[f"precision:{c}"] = true, predicted
            masks[f"f1:{c}"] = true | predicted
        return masks

    def csv_columns(self, names: Sequence[str]) -> list[str]:
        return ["label", "model", "predicted", *(f"p_{name}" for name in names)]

    def csv_cells(self, names: Sequence[str], model: str, one: Outcome) -> list[list[object]]:
        rows = zip(one.y_true.tolist(), one.y_pred.tolist(), one.outputs.tolist(), strict=True)
        empty = [""] * (1 + len(names))
        return [
            [names[true], model, *([names[c], *proba] if c >= 0 else empty)]
            for true, c, proba in rows
        ]


class ClassesByMCC(Multiclass):
    """Classes whose primary metric is MCC."""

    by_field_score: ClassVar[Task | None] = None
    primary_metric: ClassVar[str] = Multiclass.field_score[0]
    primary_title: ClassVar[str] = Multiclass.field_score[1]
    in_percent = False

    def _primary(self, y_true: Labels, outputs: F64) -> float:
        return scores.multiclass_scores(y_true, outputs, outputs.argmax(axis=1)).overall["mcc"]

    def _resample_primary(self, y_true: Labels, outputs: F64, resamples: Resamples) -> F64:
        counts = bootstrap.class_counts(y_true, outputs, resamples)
        return scores.mcc_of_counts(*counts)


Multiclass.by_field_score = ClassesByMCC()


@dataclass(frozen=True)
class Multilabel(ProbabilityTask):
    """Any number of tags for each clip; `y_pred` is True if a probability reaches its threshold.

    The threshold of each tag is fitted inside the training folds.
    """

    name = "multilabel"
    output_nouns: ClassVar[tuple[str, str]] = ("tag", "tags")
    link: ClassVar[Link] = "sigmoid"
    primary_metric = "roc_auc_macro"
    primary_title = "macro ROC-AUC"
    baseline_name = "training frequency"
    needs_inner = True
    findings: ClassVar[tuple[str, ...]] = ("weakest_tag", "confidence")
    figures: ClassVar[tuple[str, ...]] = ("folds", "per_output", "class_roc", "reliability")
    field_score: ClassVar[tuple[str, str]] = ("mcc_macro", "MCC")
    primary_interval: ClassVar[tuple[str, str]] = ("primary", "the mean over folds")
    primary_output = "roc_auc"
    axis_from: ClassVar[float] = 0.4
    baseline_words = "each tag's share of the training clips for every clip"
    error_title = "log loss"
    probability_of = "the tag"
    probable_words = "pairs of clip and tag"
    right_words = "has the tag"
    output_columns: ClassVar[tuple[ScoreColumn, ...]] = (
        ScoreColumn("AUC", "roc_auc"),
        ScoreColumn("AP", "average_precision"),
        ScoreColumn("MCC", "mcc"),
        ScoreColumn("F1", "f1"),
        ScoreColumn("precision", "precision"),
        ScoreColumn("recall", "recall"),
    )
    columns_note = (
        "MCC, F1, AUC and AP (average precision) of the pooled predictions: mean over tags. Heads "
        "decide by thresholds fitted inside the training folds; nets' own outputs and other "
        "programs' predictions are decided at 0.5."
    )
    page_note = "Micro: over all pairs of clip and tag."

    def _losses(self, y_true: Labels, outputs: F64) -> F64:
        return calibration.log_losses(y_true, outputs)

    def _primary(self, y_true: Labels, outputs: F64) -> float:
        return mean_of_finite(scores.roc_auc(y_true.astype(bool), outputs))

    def fit_thresholds(self, y_true: Labels, outputs: F64) -> F64:
        return scores.best_thresholds(outputs, y_true)

    def decide(self, outputs: F64, thresholds: F64 | None = None) -> Bools:
        # NaN never reaches a threshold.
        return outputs >= (scores.DEFAULT_THRESHOLD if thresholds is None else thresholds)

    def measure(self, y_true: Labels, outputs: F64, y_pred: Labels) -> Measures:
        return scores.multilabel_scores(y_true, outputs, y_pred)

    def resample(self, models: Outcome, resamples: Resamples) -> dict[str, F64]:
        decided = models.y_true, models.outputs, models.y_pred
        scores = bootstrap.bootstrap_multilabel(*decided, resamples)
        return {**scores, **super().resample(models, resamples)}

    def _resample_primary(self, y_true: Labels, outputs: F64, resamples: Resamples) -> F64:
        valid = complete(outputs)
        return mean_finite(bootstrap.areas(y_true.astype(bool), outputs, valid, resamples), axis=1)

    def _columns(self, names: Sequence[str]) -> tuple[ScoreColumn, ...]:
        titles = {"mcc": "MCC", "f1": "F1", "roc_auc": "AUC", "average_precision": "AP"}
        return tuple(
            # The terminal has no room for micro averages.
            ScoreColumn(f"{prefix}{title}", f"{name}_{kind}", terminal=kind == "macro")
            for prefix, kind in (("", "macro"), ("micro ", "micro"))
            for name, title in titles.items()
        )

    def prediction(self, names: Sequence[str]) -> str:
        return f"the probability of {len(names)} tags ({', '.join(names)})"

    def label_texts(self, names: Sequence[str], y: Labels) -> list[str]:
        return [
            ", ".join(n for n, tag in zip(names, tags, strict=True) if tag) or "none" for tags in y
        ]

    def clip_errors(self, y_true: Labels, outputs: F64) -> F64:
        likelihood = np.where(y_true == 1, outputs, 1.0 - outputs)
        tiny = np.finfo(np.float64).tiny
        return -np.log(np.maximum(likelihood, tiny)).mean(axis=1)

    def share_masks(
        self, y_true: Labels, y_pred: Labels, valid: Bools, n_outputs: int
    ) -> dict[str, Bools]:
        true, predicted = (y_true == 1) & valid[:, None], y_pred & valid[:, None]
        masks: dict[str, Bools] = {}
        for name, mask in (("recall", true), ("precision", predicted), ("f1", true | predicted)):
            masks[f"{name}_micro"] = np.asarray(mask.any(axis=1), bool)
            masks.update({f"{name}:{t}": mask[:, t] for t in range(n_outputs)})
        return masks

"""Scores of all models' out-of-fold predictions in every resample of groups."""

from __future__ import annotations

import numpy as np

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.metrics.averages import mean_finite, ratio
from mvemo.fuse.metrics.multiclass import kappa_of_counts
from mvemo.fuse.statistics.ranked import areas, average_precisions
from mvemo.fuse.statistics.resamples import Resamples


def bootstrap_multiclass(
    y_true: Ints, proba: F64, resamples: Resamples, folds: Ints | None = None
) -> dict[str, F64]:
    """Bootstrap the multiclass scores of all models at once.

    `proba` is (models, clips, classes); NaN rows are left out. Return each score, as
    `mvemo.fuse.metrics.multiclass` defines it, float64 (models, resamples); the entry ``f1:c`` is
    that of class c. With `folds` the AUC is also averaged over folds.
    """
    mask = _predicted(proba)
    result = _confusion_scores(y_true, proba, mask, resamples)
    positive = y_true[:, None] == np.arange(proba.shape[2])
    pooled = areas(positive, proba, mask, resamples)
    result["roc_auc_macro_ovr_pooled"] = mean_finite(pooled, axis=1)
    if folds is not None:
        in_fold = np.stack([mask & (folds == fold) for fold in range(int(folds.max()) + 1)])
        per_fold = mean_finite(areas(positive, proba, in_fold, resamples), axis=2)
        result["roc_auc_macro_ovr"] = mean_finite(per_fold, axis=0)
    return result


def bootstrap_multilabel(
    y_true: Ints, proba: F64, decisions: Bools, resamples: Resamples
) -> dict[str, F64]:
    """Bootstrap the multi-label scores of all models at once.

    `proba` and `decisions` are (models, clips, tags). Return each score, as
    `mvemo.fuse.metrics.multilabel` defines it, float64 (models, resamples); the entry ``f1:t`` is
    that of tag t.
    """
    mask = _predicted(proba)
    positive = y_true.astype(np.bool_)
    n_tags = positive.shape[1]
    by_model: dict[str, list[F64]] = {}
    for model, rows in enumerate(mask):
        scores, correct, chosen, true = _decision_scores(
            positive & rows[:, None], decisions[model] & rows[:, None], resamples
        )
        for name, values in scores.items():
            for t in range(n_tags):
                by_model.setdefault(f"{name}:{t}", []).append(values[:, t])
            by_model.setdefault(f"{name}_macro", []).append(mean_finite(values, axis=1))
        correct, chosen, true = correct.sum(axis=1), chosen.sum(axis=1), true.sum(axis=1)
        by_model.setdefault("precision_micro", []).append(ratio(correct, chosen))
        by_model.setdefault("recall_micro", []).append(ratio(correct, true))
        by_model.setdefault("f1_micro", []).append(ratio(2 * correct, chosen + true))
    result = {name: np.array(values) for name, values in by_model.items()}
    # Treat all pairs of clip and tag as one column.
    pairs = resamples.select(np.repeat(np.arange(len(positive)), n_tags))
    flat = proba.reshape(len(proba), -1, 1)
    flat_mask = np.repeat(mask, n_tags, axis=1)
    for name, score in (("roc_auc", areas), ("average_precision", average_precisions)):
        by_tag = score(positive, proba, mask, resamples)
        result[f"{name}_macro"] = mean_finite(by_tag, axis=1)
        result |= {f"{name}:{t}": by_tag[:, t] for t in range(n_tags)}
        result[f"{name}_micro"] = score(positive.reshape(-1, 1), flat, flat_mask, pairs)[:, 0]
    return result


def bootstrap_regression(y_true: F64, y_pred: F64, resamples: Resamples) -> dict[str, F64]:
    """Bootstrap the regression scores (F9), float64 (models, targets, resamples) each."""
    result: dict[str, list[F64]] = {"r2": [], "rmse": [], "ccc": [], "pearson_r": [], "mae": []}
    # Centred values keep the digits of their sums of squares; no score depends on the centre.
    centre = y_true.mean(axis=0)
    for predicted in y_pred:
        mask = np.isfinite(predicted).all(axis=1)[:, None]
        y = np.where(mask, y_true - centre, 0.0)
        p = np.where(mask, predicted - centre, 0.0)
        columns = np.concatenate([y, p, y * y, p * p, (y - p) ** 2, np.abs(y - p), mask], axis=1)
        sums = resamples.sums(columns)
        mean = ratio(sums[:, :-1], sums[:, -1:])
        mean_y, mean_p, mean_yy, mean_pp, squared, absolute = np.split(mean, 6, axis=1)
        var_y = np.maximum(mean_yy - mean_y * mean_y, 0.0)
        var_p = np.maximum(mean_pp - mean_p * mean_p, 0.0)
        result["r2"].append((1 - ratio(squared, var_y)).T)
        result["rmse"].append(np.sqrt(squared).T)
        # E (y - p)^2 = var y + var p - 2 cov + (mean y - mean p)^2.
        spread = var_y + var_p + (mean_y - mean_p) ** 2
        result["ccc"].append(ratio(spread - squared, spread).T)
        # A variance below rounding error means the column is constant.
        tiny = 1e-12 * (mean_yy + mean_pp)
        scale = np.where((var_y > tiny) & (var_p > tiny), np.sqrt(var_y * var_p), 0.0)
        result["pearson_r"].append(
            ratio((var_y + var_p - squared + (mean_y - mean_p) ** 2) / 2, scale).T
        )
        result["mae"].append(absolute.T)
    return {name: np.stack(values) for name, values in result.items()}


def _confusion_scores(
    y_true: Ints, proba: F64, mask: Bools, resamples: Resamples
) -> dict[str, F64]:
    """Return accuracy, macro F1 and the classes' scores, float64 (models, resamples) each."""
    classes = np.arange(proba.shape[2])
    by_model: dict[str, list[F64]] = {}
    positive = y_true[:, None] == classes
    for model, row in enumerate(mask):
        rows = row[:, None]
        y_pred = (np.nan_to_num(proba[model]).argmax(axis=1)[:, None] == classes) & rows
        scores, correct, chosen, true = _decision_scores(positive & rows, y_pred, resamples)
        for name, values in scores.items():
            for c in classes:
                by_model.setdefault(f"{name}:{c}", []).append(values[:, c])
        by_model.setdefault("accuracy", []).append(ratio(correct.sum(axis=1), true.sum(axis=1)))
        by_model.setdefault("f1_macro", []).append(mean_finite(scores["f1"], axis=1))
        recalls = mean_finite(ratio(correct, true), axis=1)
        by_model.setdefault("balanced_accuracy", []).append(recalls)
        kappas = kappa_of_counts(true, chosen, correct)
        by_model.setdefault("cohen_kappa", []).append(kappas)
    return {name: np.array(values) for name, values in by_model.items()}


def _decision_scores(
    y_true: Bools, y_pred: Bools, resamples: Resamples
) -> tuple[dict[str, F64], F64, F64, F64]:
    """Return precision, recall and F1 of decisions (clips, columns), (resamples, columns) each.

    0 / 0 counts as 0, but a column that is neither true nor predicted in a resample is NaN. Also
    return the sums behind them: correct, predicted, true.
    """
    columns = np.concatenate([y_pred & y_true, y_pred, y_true], axis=1)
    correct, predicted, true = np.split(resamples.sums(columns.astype(np.float64)), 3, axis=1)
    neither = predicted + true == 0
    scores = {}
    for name, numerator, denominator in (
        ("precision", correct, predicted),
        ("recall", correct, true),
        ("f1", 2 * correct, predicted + true),
    ):
        score = np.nan_to_num(ratio(numerator, denominator))
        score[neither] = np.nan
        scores[name] = score
    return scores, correct, predicted, true


def _predicted(outputs: F64) -> Bools:
    """Return bool (models, clips): True for rows without NaN."""
    return np.asarray(np.isfinite(outputs).all(axis=2), dtype=np.bool_)

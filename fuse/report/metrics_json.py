"""``metrics.json``: the scores of one evaluation for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvemo.fuse.outputs import OutputResults
from mvemo.fuse.report.summary import class_means, predicted_classes, spread
from mvemo.fuse.results import ModelResult, Results
from mvemo.manifests.files import to_json_values


def metrics_dict(results: Results) -> dict[str, Any]:
    """The results as strict JSON values: numbers that are not finite become None.

    Scores are fractions in [0, 1]. The keys that other programs rely on are ``task``,
    ``protocol``, ``synthetic``, ``folds``, ``clips``, ``classes``, ``baseline``,
    ``provenance`` and ``models``, a mapping of model name to ``modalities``, ``accuracy``
    (``min``, ``mean``, ``max``, ``per_fold``), ``f1_macro`` (of the pooled predictions),
    ``roc_auc_macro_ovr`` (mean over folds) and ``confusion`` (rows true, columns
    predicted). All others may grow. With ``repeats``, scores are of all of them.

    Raises
    ------
    TypeError
        The provenance holds something that JSON has no value for.
    """
    values: dict[str, Any] = {
        **outer_dict(results),
        "models": {model.name: _model(model, results) for model in results.models},
        "baseline": {
            "majority_accuracy": spread(results.majority_per_fold).mean,
            "majority_per_fold": results.majority_per_fold,
            "majority_interval": results.majority_interval,
            "chance_accuracy": 1.0 / len(results.classes),
        },
        **trust_dict(results),
        "missing": results.missing,
        "failures": len(results.failures),
        "provenance": results.provenance,
    }
    result: dict[str, Any] = to_json_values(values, "metrics")
    return result


def outer_dict(results: Results | OutputResults) -> dict[str, Any]:
    """What is known of the evaluation, whatever the task."""
    return {
        "name": results.name,
        "task": results.task,
        "protocol": results.protocol,
        "synthetic": results.synthetic,
        "leaky": results.leaky,
        "permuted": results.permuted,
        "folds": results.k,
        "k": results.k,
        "seed": results.seed,
        "clips": len(results.clip_ids),
        "groups": len(set(results.groups)),
        "classes": results.classes,
    }


def trust_dict(results: Results | OutputResults) -> dict[str, Any]:
    """``comparisons``, ``repeats`` and ``learning_curve``, of the headline of any task."""
    return {
        "comparisons": [
            {
                "model": c.model,
                "single": c.single,
                "mean": c.mean,
                "t": c.t,
                "p": c.p,
                "p_holm": c.p_holm,
                "interval": c.interval,
                "differences": c.differences,
            }
            for c in results.comparisons
        ],
        "repeats": [
            {model.name: model.headline_per_fold for model in repeat.models}
            for repeat in results.repeats
        ],
        "learning_curve": {
            name: [
                {"fraction": fraction, "clips": clips, results.headline: score}
                for fraction, clips, score in points
            ]
            for name, points in results.learning_curve.items()
        },
    }


def _model(model: ModelResult, results: Results) -> dict[str, Any]:
    held = spread(model.accuracy_per_fold)
    precision, recall, f1 = class_means(results, model.name)
    return {
        "modalities": model.modalities,
        "features": model.features,
        "predicted": int((predicted_classes(model) >= 0).sum()),
        "accuracy": {
            "min": held.min,
            "mean": held.mean,
            "max": held.max,
            "per_fold": model.accuracy_per_fold,
        },
        "f1_macro": model.f1_macro,
        "f1_macro_per_fold": model.f1_macro_per_fold,
        "roc_auc_macro_ovr": model.roc_auc_macro_ovr,
        "roc_auc_macro_ovr_per_fold": model.roc_auc_per_fold,
        "roc_auc_macro_ovr_pooled": model.roc_auc_macro_ovr_pooled,
        "confusion": model.confusion,
        "intervals": {name: v for name, v in model.intervals.items() if ":" not in name},
        "without": model.without,
        "stood_in": model.stood_in,
        "calibration": model.calibration,
        "per_class": {
            name: {
                "precision": precision[i],
                "recall": recall[i],
                "f1": f1[i],
                "intervals": intervals_of(model.intervals, i),
            }
            for i, name in enumerate(results.classes)
        },
    }


def intervals_of(
    intervals: Mapping[str, tuple[float, float]], output: int
) -> dict[str, tuple[float, float]]:
    """Those of one class or tag, by the names of its scores."""
    ending = f":{output}"
    return {n.removesuffix(ending): v for n, v in intervals.items() if n.endswith(ending)}

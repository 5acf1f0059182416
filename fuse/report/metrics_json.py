"""``metrics.json``: the scores of one evaluation for other programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvemo.fuse.report.summary import spread
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
            "majority_accuracy": spread(results.primary_per_fold(results.baseline)).mean,
            "majority_per_fold": results.primary_per_fold(results.baseline),
            "majority_interval": results.baseline.intervals.get("accuracy"),
            "chance_accuracy": 1.0 / len(results.classes),
        },
        **trust_dict(results),
        "missing": results.missing,
        "failures": len(results.failures),
        "provenance": results.provenance,
    }
    result: dict[str, Any] = to_json_values(values, "metrics")
    return result


def outer_dict(results: Results) -> dict[str, Any]:
    """What is known of the evaluation, whatever the task."""
    return {
        "name": results.name,
        "task": results.task.name,
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


def trust_dict(results: Results) -> dict[str, Any]:
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
            {model.name: results.primary_per_fold(model) for model in repeat.models}
            for repeat in results.repeats
        ],
        "learning_curve": {
            name: [
                {"fraction": fraction, "clips": clips, results.task.primary_metric: score}
                for fraction, clips, score in points
            ]
            for name, points in results.learning_curve.items()
        },
    }


def _model(model: ModelResult, results: Results) -> dict[str, Any]:
    held = spread(results.primary_per_fold(model))
    return {
        "modalities": model.modalities,
        "features": model.features,
        "predicted": int(model.valid.sum()),
        "accuracy": {
            "min": held.min,
            "mean": held.mean,
            "max": held.max,
            "per_fold": results.primary_per_fold(model),
        },
        "f1_macro": model.scores["f1_macro"],
        "f1_macro_per_fold": model.per_fold["f1_macro"],
        "roc_auc_macro_ovr": model.scores["roc_auc_macro_ovr"],
        "roc_auc_macro_ovr_per_fold": model.per_fold["roc_auc_macro_ovr"],
        "roc_auc_macro_ovr_pooled": model.scores["roc_auc_macro_ovr_pooled"],
        "confusion": model.confusion,
        "intervals": {name: v for name, v in model.intervals.items() if ":" not in name},
        "without": model.without_modality,
        "stood_in": model.n_fallback,
        "calibration": model.calibration,
        "per_class": {
            name: {
                "precision": model.per_output["precision"][i],
                "recall": model.per_output["recall"][i],
                "f1": model.per_output["f1"][i],
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

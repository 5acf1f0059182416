"""``metrics.json`` and ``predictions.csv`` of an evaluation of tags or of dimensions."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.report.metrics_json import intervals_of, outer_dict, trust_dict
from mvemo.fuse.report.summary import spread
from mvemo.fuse.results import ModelResult, Results
from mvemo.manifests.files import dump_json, to_json_values


def output_metrics_dict(results: Results) -> dict[str, Any]:
    """The results as strict JSON values: numbers that are not finite become None.

    The outer keys are those of `metrics_dict`; ``classes`` are tags or dimensions. A model
    has ``modalities``, ``features``, ``predicted``, the headline score under its name
    (``roc_auc`` or ``r2``: ``min``, ``mean``, ``max``, ``per_fold``), ``macro`` and, for
    tags, ``micro`` scores of the pooled predictions, ``per_output`` (pooled scores of each
    tag or dimension, with ``per_fold``), ``intervals`` (95 %, group bootstrap),
    ``without``, ``stood_in``, of tags ``thresholds`` and ``calibration``, and, where valence
    and arousal are predicted, ``quadrants``. ``baseline`` has the same for what knows no
    features. ``comparisons``, ``repeats`` and ``learning_curve`` are of the headline.
    """
    values: dict[str, Any] = {
        **outer_dict(results),
        "primary_metric": results.task.primary_metric,
        "models": {model.name: _model(model, results) for model in results.models},
        "baseline": {"name": results.baseline.name, **_model(results.baseline, results)},
        **trust_dict(results),
        "missing": results.missing,
        "failures": len(results.failures),
        "provenance": results.provenance,
    }
    result: dict[str, Any] = to_json_values(values, "metrics")
    return result


def output_metrics_json(results: Results) -> str:
    """`output_metrics_dict` as strict JSON text."""
    values = output_metrics_dict(results)
    return dump_json(values)


def _model(model: ModelResult, results: Results) -> dict[str, Any]:
    held = spread(results.primary_per_fold(model))
    values: dict[str, Any] = {
        "modalities": model.modalities,
        "features": model.features,
        "predicted": int(model.valid.sum()),
        results.task.primary_metric: {
            "min": held.min,
            "mean": held.mean,
            "max": held.max,
            "per_fold": results.primary_per_fold(model),
        },
        "macro": _of_kind(model, "_macro"),
        "intervals": {name: v for name, v in model.intervals.items() if ":" not in name},
        "without": model.without_modality,
        "stood_in": model.n_fallback,
        "calibration": model.calibration,
        "per_output": {
            output: {
                **{name: scores[i] for name, scores in model.per_output.items()},
                "intervals": intervals_of(model.intervals, i),
                "mean_over_folds": {
                    name: mean_of_finite(scores[:, i])
                    for name, scores in model.per_output_fold.items()
                },
                "per_fold": {name: scores[:, i] for name, scores in model.per_output_fold.items()},
            }
            for i, output in enumerate(results.classes)
        },
    }
    micro = _of_kind(model, "_micro")
    if micro:
        values["micro"] = micro
    if model.thresholds is not None:
        values["thresholds"] = model.thresholds
    if "quadrants" in results.task.facts():
        values["quadrants"] = {
            **results.task.facts()["quadrants"],
            "accuracy": model.scores["quadrant_accuracy"],
            "per_fold": model.per_fold["quadrant_accuracy"],
            "confusion": model.confusion,
        }
    return values


def _of_kind(model: ModelResult, ending: str) -> dict[str, float]:
    """Scores whose names have this ending, without it."""
    return {n.removesuffix(ending): v for n, v in model.scores.items() if n.endswith(ending)}


def output_predictions_csv(results: Results) -> str:
    """Out-of-fold predictions: a row for each clip and model, in the order of the clips.

    Columns: ``clip_id``, ``group``, ``fold`` (the one the clip was tested in), ``model``,
    then for each tag or dimension X ``true_X``, ``predicted_X`` (probability or value, the
    digits that give back the same float64) and, for tags, ``decided_X`` (0 or 1). The
    predicted ones are empty where a clip could not be predicted.
    """
    tags = results.task.needs_inner
    kinds = ("true", "predicted", "decided") if tags else ("true", "predicted")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["clip_id", "group", "fold", "model"]
        + [f"{kind}_{name}" for name in results.classes for kind in kinds]
    )
    truth = results.y_true.tolist()
    outputs = [
        (
            m.name,
            m.valid,
            m.outputs.tolist(),
            m.y_pred.astype(int) if tags else np.zeros(0),
        )
        for m in results.models
    ]
    for i, clip_id in enumerate(results.clip_ids):
        about = [clip_id, results.groups[i], int(results.folds[i])]
        for name, there, predicted, decided in outputs:
            cells: list[object] = []
            for j, true in enumerate(truth[i]):
                cells += [true, predicted[i][j] if there[i] else ""]
                if tags:
                    cells.append(int(decided[i][j]) if there[i] else "")
            writer.writerow([*about, name, *cells])
    return buffer.getvalue()

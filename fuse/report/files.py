"""The files of a run's folder: the page, ``metrics.json``, ``predictions.csv``, ``heads.npz``.

A folder has one run: what an older one left there is replaced or removed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvemo.fuse.crossval.saving import save_heads
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.report.page import report_html
from mvemo.fuse.report.summary import spread
from mvemo.fuse.results import ModelResult, Results
from mvemo.manifests.csv_files import CsvWriter
from mvemo.manifests.files import dump_json, replacing_together, to_json_values, write_text

# Every file that a run may have; `write_report` leaves none of an older one.
RUN_FILES = ("report.html", "metrics.json", "predictions.csv", "heads.npz")


def write_report(results: Results, out: str | Path, *, heads: bool = False) -> None:
    """Write a run's folder: ``report.html``, ``metrics.json``, ``predictions.csv``.

    An older run in the folder is replaced as one: it stays whole until all files of this one
    are written. Equal results give equal bytes.

    Parameters
    ----------
    results
        Of `mvemo.fuse.evaluate`.
    out
        Folder; made where it is absent. Files of an older run in it are replaced, or removed
        where this one has none; all others stay.
    heads
        Whether to save the fitted heads, too, as ``heads.npz``.

    Raises
    ------
    FuseError
        A file cannot be written.

    See Also
    --------
    mvemo.fuse.compare_runs.read_run : Reads the predictions back.
    """
    out = Path(out)
    texts = {
        "report.html": report_html(results),
        "metrics.json": dump_json(metrics_dict(results)),
        "predictions.csv": predictions_csv(results),
    }
    with replacing_together(out, error=FuseError, remove=RUN_FILES) as new:
        for name, text in texts.items():
            write_text(new / name, text, error=FuseError)
        if heads:
            save_heads(new / "heads.npz", results)


def require_other_folder(out: str | Path, sources: Iterable[str | Path]) -> None:
    """Refuse a folder that predictions are read from: their run would be overwritten."""
    for source in map(Path, sources):
        if source.resolve().parent == Path(out).resolve():
            raise BadFeatures(
                f"{out}: the report would overwrite the run that {source} is of: name another "
                "folder with --out"
            )


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write files into a folder, made where it is absent: all of them or none."""
    with replacing_together(out, error=FuseError) as new:
        for name, text in texts.items():
            write_text(new / name, text, error=FuseError)


# --- metrics.json


def metrics_dict(results: Results) -> dict[str, Any]:
    """The results as strict JSON values: numbers that are not finite become None.

    Scores are fractions or in the targets' unit, never percentages. The keys that other
    programs rely on are ``task``, ``protocol``, ``synthetic``, ``folds``, ``clips``,
    ``classes``, ``primary_metric``, ``baseline``, ``provenance`` and ``models``, a mapping of
    model name to ``modalities``, ``features``, the primary metric under its name (``min``,
    ``mean``, ``max`` over folds, ``per_fold``, ``pooled``), every other score under its own
    (``f1_macro``, ``roc_auc_macro_ovr``: see the task), ``per_fold`` and ``per_output`` of
    these, ``confusion`` (rows true, columns predicted) and ``intervals`` (95 %, from
    resampled groups). All others may grow. With ``repeats``, scores are of all of them.

    Raises
    ------
    TypeError
        The provenance has something that JSON has no value for.
    """
    values: dict[str, Any] = {
        "name": results.name,
        "task": results.task.name,
        "primary_metric": results.task.primary_metric,
        "protocol": results.protocol,
        "synthetic": results.synthetic,
        "predicted_by": results.predicted_by or None,
        "leaky": results.leaky,
        "permuted": results.permuted,
        "folds": results.k,
        "seed": results.seed,
        "clips": len(results.clip_ids),
        "groups": len(set(results.groups)),
        "classes": results.classes,
        **results.task.facts(),
        "models": {model.name: _model_dict(results, model) for model in results.models},
        "baseline": {"name": results.baseline.name, **_model_dict(results, results.baseline)},
        "comparisons": [
            {
                "model": c.model,
                "reference": c.reference,
                "clips": c.n_clips,
                "mean": c.mean,
                "interval": c.interval,
                "t": c.t,
                "p": c.p,
                "p_holm": c.p_holm,
                "differences": c.differences,
            }
            for c in results.comparisons
        ],
        "repeats": [
            {model.name: repeat.primary_per_fold(model) for model in repeat.models}
            for repeat in results.repeats
        ],
        "learning_curve": {
            name: [
                {
                    "fraction": fraction,
                    "clips": clips,
                    results.task.primary_metric: score,
                    "deviation": deviation,
                }
                for fraction, clips, score, deviation in points
            ]
            for name, points in results.learning_curve.items()
        },
        "choice": _choice_dict(results),
        "missing": results.missing,
        "outliers": dict(results.outliers),
        "failures": len(results.failures),
        "provenance": results.provenance,
    }
    result: dict[str, Any] = to_json_values(values, "metrics")
    return result


def _choice_dict(results: Results) -> dict[str, Any] | None:
    choice = results.choice
    if choice is None:
        return None
    nested = _model_dict(results, choice.nested)
    metric = results.task.primary_metric
    return {
        "model": choice.model,
        "inside": choice.inside,
        metric: nested[metric],
        "intervals": nested["intervals"],
    }


def _model_dict(results: Results, model: ModelResult) -> dict[str, Any]:
    per_fold = results.primary_per_fold(model)
    primary = spread(per_fold)
    return {
        "modalities": model.modalities,
        "features": model.features,
        "by_net": model.by_net,
        "predicted": int(model.valid.sum()),
        **model.scores,
        results.task.primary_metric: {
            "min": primary.min,
            "mean": primary.mean,
            "max": primary.max,
            "per_fold": per_fold,
            "pooled": model.scores[results.task.primary_metric],
        },
        "per_fold": model.per_fold,
        "intervals": {name: ends for name, ends in model.intervals.items() if ":" not in name},
        "per_output": {output: _output_dict(model, i) for i, output in enumerate(results.classes)},
        "confusion": model.confusion,
        "thresholds": model.thresholds,
        "calibration": model.calibration,
        "without_modality": model.without_modality,
        "n_fallback": model.n_fallback,
        "n_untrained": model.n_untrained,
    }


def _output_dict(model: ModelResult, output: int) -> dict[str, Any]:
    """Scores of one class, tag or target."""
    ending = f":{output}"
    return {
        **{name: values[output] for name, values in model.per_output.items()},
        "mean_over_folds": {
            name: mean_of_finite(values[:, output])
            for name, values in model.per_output_fold.items()
        },
        "per_fold": {name: values[:, output] for name, values in model.per_output_fold.items()},
        "intervals": {
            name.removesuffix(ending): ends
            for name, ends in model.intervals.items()
            if name.endswith(ending)
        },
    }


# --- predictions.csv


def predictions_csv(results: Results) -> str:
    """Out-of-fold predictions: a row for each clip and model, in the order of the clips.

    Columns: ``clip_id``, ``group``, ``fold`` (the one the clip was tested in, -1 where in
    none), ``model``, and those of the task (`Task.csv_columns`): of classes ``label``,
    ``predicted`` and ``p_CLASS``; of tags ``true_TAG``, ``predicted_TAG`` (the probability)
    and ``decided_TAG``; of targets ``true_TARGET`` and ``predicted_TARGET``. Outputs have
    the digits that give back the same float64, and are empty where a clip was not
    predicted. With repeats ``repeat`` comes first, from 0.
    """
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    names, task = results.classes, results.task
    head = ["clip_id", "group", "fold", *task.csv_columns(names)]
    repeated = bool(results.repeats)
    writer.writerow(["repeat", *head] if repeated else head)
    for number, one in enumerate(results.repeats or (results,)):
        rows = _prediction_rows(one)
        writer.writerows([number, *row] for row in rows) if repeated else writer.writerows(rows)
    return buffer.getvalue()


def _prediction_rows(results: Results) -> list[Sequence[object]]:
    task, names = results.task, results.classes
    cells = {
        model.name: task.csv_cells(names, model.name, results.y_true, model.outputs, model.y_pred)
        for model in results.models
    }
    return [
        [clip_id, results.groups[i], int(results.folds[i]), *cells[model.name][i]]
        for i, clip_id in enumerate(results.clip_ids)
        for model in results.models
    ]

"""Files of a run's folder: the page, ``metrics.json``, ``predictions.csv``, ``heads.npz``.

A folder holds one run: files of an older run are replaced or removed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mvemo.fuse.crossval.comparisons import Comparison
from mvemo.fuse.crossval.saving import save_heads
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.metrics.averages import mean_of_finite, spread
from mvemo.fuse.report.page import report_html
from mvemo.fuse.results import Choice, ModelResult, Results
from mvemo.fuse.tasks.base import Outcome
from mvemo.manifests.files import dump_json, replacing_together, to_json_values, write_text
from mvemo.manifests.tables import CsvWriter

# Every file that a run may have; `write_report` removes those of an older run.
RUN_FILES = ("report.html", "metrics.json", "predictions.csv", "heads.npz")


def write_report(results: Results, out: str | Path, *, heads: bool = False) -> None:
    """Write a run's folder: ``report.html``, ``metrics.json``, ``predictions.csv``.

    An older run in the folder stays whole until all files of this one are written. Equal results
    give equal bytes.

    Parameters
    ----------
    results
        Results of `mvemo.fuse.evaluate`.
    out
        Output folder, created if it does not exist. Files of an older run are replaced or
        removed; all other files stay.
    heads
        True to save the fitted heads as ``heads.npz``, too.

    Raises
    ------
    FuseError
        A file cannot be written.
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
    """Raise `BadFeatures` if a source lies in `out`, where its run would be overwritten."""
    for source in map(Path, sources):
        if source.resolve().parent == Path(out).resolve():
            raise BadFeatures(
                f"{out}: the report would overwrite the run that {source} is of: name another "
                "folder with --out"
            )


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write all files into a folder or none; the folder is created if it does not exist."""
    with replacing_together(out, error=FuseError) as new:
        for name, text in texts.items():
            write_text(new / name, text, error=FuseError)


# --- metrics.json


def metrics_dict(results: Results) -> dict[str, Any]:
    """Return the results as strict JSON values: numbers that are not finite become None.

    Scores are fractions or in the targets' unit, never percentages; with ``repeats`` they cover all
    repeats. Other programs can rely on the keys ``task``, ``protocol``, ``synthetic``, ``folds``,
    ``clips``, ``classes``, ``primary_metric``, ``baseline``, ``provenance`` and ``models``. It
    maps a model's name to ``modalities``, ``features``, the primary metric under its name (``min``,
    ``mean``, ``max`` over folds, ``per_fold``, ``pooled``), every other score under its name
    (``f1_macro``, ``roc_auc_macro_ovr``: see the task), ``per_fold`` and ``per_output`` of these,
    ``confusion`` (rows true, columns predicted) and ``intervals`` (95 %, from resampled groups).
    Other keys may change.

    Parameters
    ----------
    results
        Results of `mvemo.fuse.evaluate`.
    """
    metric = results.task.primary_metric
    values: dict[str, Any] = {
        "name": results.name,
        "task": results.task.name,
        "primary_metric": metric,
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
                **comparison_facts(c),
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
                dict(zip(("fraction", "clips", metric, "deviation"), point, strict=True))
                for point in points
            ]
            for name, points in results.learning_curve.items()
        },
        "choice": None if results.choice is None else _choice_dict(results, results.choice),
        "missing": results.missing,
        "outliers": dict(results.outliers),
        "failures": len(results.failures),
        "provenance": results.provenance,
    }
    result: dict[str, Any] = to_json_values(values, "metrics")
    return result


def comparison_facts(c: Comparison) -> dict[str, Any]:
    """Return the figures of a comparison, as they are written to files."""
    names = ("mean", "interval", "t", "p", "p_holm")
    return {"clips": c.n_clips, **{name: getattr(c, name) for name in names}}


def _choice_dict(results: Results, choice: Choice) -> dict[str, Any]:
    nested, metric = _model_dict(results, choice.nested), results.task.primary_metric
    return {
        "model": choice.model,
        "inside": choice.inside,
        metric: nested[metric],
        "intervals": nested["intervals"],
    }


def _model_dict(results: Results, model: ModelResult) -> dict[str, Any]:
    per_fold = results.primary_per_fold(model)
    return {
        "modalities": model.modalities,
        "features": model.features,
        "by_net": model.by_net,
        "predicted": int(model.valid.sum()),
        **model.scores,
        results.task.primary_metric: {
            **spread(per_fold)._asdict(),
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
    """Return the scores of one class, tag or target."""
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
    """Return the out-of-fold predictions as CSV: a row per clip and model, in clip order."""
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    names, task = results.classes, results.task
    head = ["clip_id", "group", "fold", *task.csv_columns(names)]
    repeated = bool(results.repeats)
    writer.writerow(["repeat", *head] if repeated else head)
    for number, one in enumerate(results.repeats or (results,)):
        repeat = [number] if repeated else []
        cells = [
            task.csv_cells(
                names, m.name, Outcome(one.y_true, m.outputs, m.y_pred, one.folds, one.k)
            )
            for m in one.models
        ]
        for i, clip_id in enumerate(one.clip_ids):
            start = [*repeat, clip_id, one.groups[i], int(one.folds[i])]
            writer.writerows([*start, *of_model[i]] for of_model in cells)
    return buffer.getvalue()

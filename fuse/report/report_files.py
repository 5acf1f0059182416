"""Files of a run's folder: the page, ``metrics.json``, ``predictions.csv``, ``heads.npz``.

A folder holds one run: the files of an older run are replaced or removed.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from mvemo.fuse.audit import FindingRecord
from mvemo.fuse.crossval import evaluation, saving
from mvemo.fuse.crossval.comparisons import Comparison
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import mean_of_finite, spread
from mvemo.fuse.report import figures, findings, published, score_tables, summary, tables
from mvemo.fuse.report.methods import methods_facts
from mvemo.fuse.report.text import TEMPLATES, count, page_templates
from mvemo.fuse.results import ModelResult, Results, recommended_model, without_twin
from mvemo.fuse.tasks.base import Outcome
from mvemo.manifests.files import dump_json, replacing_together, to_json_values, write_text
from mvemo.manifests.tables import CsvWriter

# All files that a run may have; `write_report` removes those of an older run.
RUN_FILES = ("report.html", "metrics.json", "predictions.csv", "heads.npz")
# With more classes, ``metrics.json`` has no confusion matrix, and only pooled scores of a class.
MOST_CLASSES = 200
# Settings that are already in the first table of the page.
_IN_FACTS = ("folds", "seed", "permute_labels")


class _EveryRun(TypedDict):
    """Keys that the ``metrics.json`` of all runs have."""

    name: str
    task: str
    primary_metric: str
    protocol: str
    synthetic: bool
    predicted_by: str | None
    leaky: bool
    permuted: bool
    folds: int
    seed: int
    clips: int
    groups: int
    classes: list[str]
    models: dict[str, dict[str, Any]]
    baseline: dict[str, Any]
    ceilings: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    repeats: list[dict[str, list[float | None]]]
    learning_curve: dict[str, list[dict[str, float | None]]]
    choice: dict[str, Any] | None
    layers: dict[str, dict[str, Any]]
    chance: dict[str, dict[str, float | None]]
    coverage: dict[str, Any] | None
    missing: dict[str, int]
    outliers: dict[str, list[str]]
    failures: int
    audit: list[FindingRecord]
    provenance: dict[str, Any]


class MetricsRecord(_EveryRun, total=False):
    """Values of ``metrics.json``, see `metrics_dict`; docs/outputs.md has their meaning."""

    left_out: list[str]  # with more than `MOST_CLASSES` classes
    quadrants: dict[str, Any]  # of valence and arousal


def write_report(results: Results, out: str | Path, *, heads: bool = False) -> None:
    """Write a run's folder: ``report.html``, ``metrics.json``, ``predictions.csv``.

    An older run in the folder is not changed until all files of this one are written. Equal
    results give equal bytes.

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
    MvemoError
        A file cannot be written.
    """
    covered = findings.coverage_facts(results)
    texts = {
        "report.html": report_html(results, covered),
        "metrics.json": dump_json(metrics_dict(results, covered)),
        "predictions.csv": predictions_csv(results),
    }
    with replacing_together(Path(out), remove=RUN_FILES) as new:
        for name, text in texts.items():
            write_text(new / name, text)
        if heads:
            saving.save_heads(new / "heads.npz", results)


def require_other_folder(out: str | Path, sources: Iterable[str | Path]) -> None:
    """Raise `BadFeatures` if a source is in `out`, where its run would be overwritten."""
    for source in map(Path, sources):
        if source.resolve().parent == Path(out).resolve():
            raise BadFeatures(
                f"{out}: the report would overwrite the run that {source} belongs to: give "
                "another folder with --out"
            )


def write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write all files or none into a folder, which is created if it does not exist."""
    with replacing_together(out) as new:
        for name, text in texts.items():
            write_text(new / name, text)


# --- page


def report_html(results: Results, covered: dict[str, Any] | None = None) -> str:
    """Render the report as one HTML page without external files; all text is escaped.

    `covered` are the facts of `coverage_facts`, if they are known.
    """
    covered = covered or findings.coverage_facts(results)
    methods = methods_facts(metrics_dict(results, covered)) if results.models else None
    results, note = without_twin(results), summary.scoring_note(results)
    top = recommended_model(results)
    if covered and top:
        covered = {**covered, "model": top.name}  # the twin's name
    provenance = _told_once(to_json_values(results.provenance, "provenance"))
    page = page_templates(TEMPLATES).get_template("report.html")
    return page.render(
        findings=findings,
        published=published,
        summary=summary,
        tables=score_tables,
        results=results,
        task=results.task,
        best=top,
        covered=covered,
        label=tables.LABEL,
        count=count,
        scoring_note=note,
        figures=figures.draw_figures(results, top),
        learning_svg=figures.learning_curve_figure(results) if results.learning_curve else None,
        losses=figures.loss_figures(results.curves),
        layers=figures.layer_figures(results),
        sections=provenance_sections(provenance),
        methods=methods,
    )


def _told_once(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance without entries that the page already shows."""
    told = dict(provenance)
    if settings := told.get("settings"):
        told["settings"] = {k: v for k, v in settings.items() if k not in _IN_FACTS}
        if "n_resamples" in settings:
            told.pop("n_resamples", None)
    if stage_one := told.get("stage_one"):
        same = told.get("versions", {}).items()
        other = {k: v for k, v in stage_one.get("versions", {}).items() if (k, v) not in same}
        told["stage_one"] = {**stage_one, "versions": other}
    return told


def provenance_sections(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return JSON values as text tables with ``title``, ``header`` (may be empty) and ``rows``."""
    nested = {k: v for k, v in provenance.items() if isinstance(v, dict | list)}
    single = {k: v for k, v in provenance.items() if k not in nested}
    sections = []
    for title, value in {"": single, **nested}.items():
        header: list[str] = []
        rows: list[tuple[str, ...]]
        if isinstance(value, list):
            rows = [(str(i), _text(v)) for i, v in enumerate(value)]
        elif all(
            isinstance(listed, list) and listed and all(isinstance(item, dict) for item in listed)
            for listed in value.values()
        ):
            keys = dict.fromkeys(k for specs in value.values() for s in specs for k in s)
            header = ["name", *keys]
            rows = [
                (name, *(_text(spec.get(k)) for k in keys))
                for name, specs in value.items()
                for spec in specs
            ]
        else:
            rows = list(_flat(value))
        if rows:
            sections.append({"title": title, "header": header, "rows": rows})
    return sections


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (keys joined by dots, text) for each value in nested mappings."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and not any(isinstance(v, dict | list) for v in value):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- metrics.json


def metrics_dict(results: Results, covered: dict[str, Any] | None = None) -> MetricsRecord:
    """Return the results as strict JSON values; numbers that are not finite become None.

    docs/outputs.md has the meaning of the keys. Scores are fractions or in the targets' unit, never
    percentages; with ``repeats`` they cover all repeats. Other programs can rely on the keys
    ``task``, ``protocol``, ``synthetic``, ``folds``, ``clips``, ``classes``, ``primary_metric``,
    ``baseline``, ``provenance`` and ``models``. Other keys may change.

    Parameters
    ----------
    results
        Results of `mvemo.fuse.evaluate`.
    covered
        Value of ``coverage``, if it is known.
    """
    metric, chosen = results.task.primary_metric, None
    point_names = ("fraction", "clips", metric, "deviation")
    if choice := results.choice:
        nested = _model_dict(results, choice.nested)
        chosen = {"model": choice.model, "inside": choice.inside}
        chosen |= {
            name: nested[name] for name in (*choice.nested.scores, "intervals", "per_output")
        }
    left_out = {}
    if len(results.classes) > MOST_CLASSES:
        left_out = {"left_out": ["confusion", "per_output.per_fold", "per_output.intervals"]}
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
        **left_out,
        **results.task.facts(),
        "models": {model.name: _model_dict(results, model) for model in results.models},
        "baseline": {"name": results.baseline.name, **_model_dict(results, results.baseline)},
        "ceilings": [ceiling.record() for ceiling in results.ceilings],
        "comparisons": [
            {"model": c.model, "reference": c.reference, **comparison_facts(c)}
            | {"differences": c.differences}
            for c in results.comparisons
        ],
        "repeats": [
            {model.name: repeat.primary_per_fold(model) for model in repeat.models}
            for repeat in results.repeats
        ],
        "learning_curve": {
            name: [dict(zip(point_names, point, strict=True)) for point in points]
            for name, points in results.learning_curve.items()
        },
        "choice": chosen,
        "layers": {name: asdict(choice) for name, choice in results.layers.items()},
        "chance": chance_facts(results),
        "coverage": covered or findings.coverage_facts(results),
        "missing": results.missing,
        "outliers": results.outliers,
        "failures": len(results.failures),
        "audit": results.audit,
        "provenance": results.provenance,
    }
    return to_json_values(values, "metrics")


def chance_facts(results: Results) -> dict[str, Any]:
    """Return scores on random labels, and p-values, as JSON values; empty without such scores."""
    scored = {model.name: model for model in results.models}
    if results.choice is not None:
        scored[""] = results.choice.nested
    facts = {}
    for name, model in scored.items():
        if name in results.chance:
            drawn = results.chance[name]
            p = evaluation.chance_p(results.primary_mean(model), drawn)
            facts[name or "choice"] = {**spread(drawn)._asdict(), "p": p, "draws": len(drawn)}
    return facts


def comparison_facts(c: Comparison) -> dict[str, Any]:
    """Return a comparison, and the same by MCC or r as ``by_field``, as JSON values."""
    names = ("mean", "interval", "t", "p", "p_holm")
    by_field = None if c.by_field is None else comparison_facts(c.by_field)
    facts = {name: getattr(c, name) for name in names}
    return {"clips": c.n_clips, **facts, "by_field": by_field}


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
        "confusion": model.confusion if len(results.classes) <= MOST_CLASSES else None,
        "thresholds": model.thresholds,
        "calibration": model.calibration,
        "without_modality": model.without_modality,
        "n_fallback": model.n_fallback,
        "n_untrained": model.n_untrained,
    }


def _output_dict(model: ModelResult, output: int) -> dict[str, Any]:
    pooled = {name: values[output] for name, values in model.per_output.items()}
    if len(next(iter(model.per_output.values()), ())) > MOST_CLASSES:
        return pooled
    per_fold = {name: values[:, output] for name, values in model.per_output_fold.items()}
    means = {name: mean_of_finite(values) for name, values in per_fold.items()}
    ending, ends = f":{output}", model.intervals.items()
    intervals = {n.removesuffix(ending): pair for n, pair in ends if n.endswith(ending)}
    return {**pooled, "mean_over_folds": means, "per_fold": per_fold, "intervals": intervals}


# --- predictions.csv


def predictions_csv(results: Results) -> str:
    """Return the out-of-fold predictions as CSV: a row per clip and model, in clip order."""
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    names, task, repeated = results.classes, results.task, bool(results.repeats)
    head = ["clip_id", "group", "fold", *task.csv_columns(names)]
    writer.writerow([*["repeat"] * repeated, *head])
    for repeat, one in enumerate(results.evaluations):
        cells = []
        for m in one.models:
            outcome = Outcome(one.y_true, m.outputs, m.y_pred, one.folds, one.k)
            cells.append(task.csv_cells(names, m.name, outcome))
        by_clip = zip(one.clip_ids, one.groups, one.folds, *cells, strict=True)
        for clip_id, group, fold, *rows in by_clip:
            start = [*[repeat] * repeated, clip_id, group, fold]
            writer.writerows([*start, *row] for row in rows)
    return buffer.getvalue()

"""The report: ``report.html``, ``metrics.json`` and ``predictions.csv`` of one evaluation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.fuse.errors import FuseError
from mvemo.fuse.report import figures
from mvemo.fuse.report.metrics_json import metrics_dict
from mvemo.fuse.report.published import LABEL, SOURCES, all_published_for, comparable, published_for
from mvemo.fuse.report.summary import (
    PROTOCOLS,
    banners,
    best,
    describe,
    fraction,
    hardest_clips,
    percent,
    seen_text,
    spread,
    summarise,
)
from mvemo.fuse.report.trust import (
    interval_text,
    learning_curve_figure,
    reliability_figure,
    trust_values,
)
from mvemo.fuse.results import ModelResult, Results
from mvemo.manifests.files import dump_json, write_text

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).with_name("templates")
_MANY_FAILURES = 500


def write_report(results: Results, out: Path) -> None:
    """Write ``report.html``, ``metrics.json`` and ``predictions.csv`` into a folder.

    All three are made before the first is written, and each appears whole or not at all.
    Equal results give equal bytes.

    Parameters
    ----------
    results
        Of `evaluate`.
    out
        Folder; made where it is absent. Other files in it stay.

    Raises
    ------
    FuseError
        It cannot be written.
    """
    out = Path(out)
    texts = {
        "report.html": report_html(results),
        "metrics.json": metrics_json(results),
        "predictions.csv": predictions_csv(results),
    }
    write_files(out, texts)


def write_files(out: Path, texts: Mapping[str, str]) -> None:
    """Put texts into a folder, made where it is absent; each file in one step.

    Raises
    ------
    FuseError
        It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FuseError(f"{out}: no folder can be made here: {error.strerror}") from None
    for name, text in texts.items():
        write_text(out / name, text, error=FuseError)


def metrics_json(results: Results) -> str:
    """`metrics_dict` as strict JSON text."""
    return dump_json(metrics_dict(results))


def predictions_csv(results: Results) -> str:
    """Out-of-fold predictions: a row for each clip and model, in the order of the clips.

    Columns: ``clip_id``, ``group``, ``fold`` (the one the clip was tested in), ``label``
    (true), ``model``, ``predicted``, and ``p_CLASS`` for each class, the digits that give
    back the same float64. The last ones are empty where a clip could not be predicted.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["clip_id", "group", "fold", "label", "model", "predicted"]
        + [f"p_{name}" for name in results.classes]
    )
    outputs = [(m.name, m.y_pred, m.outputs.tolist()) for m in results.models]
    nothing = [""] * len(results.classes)
    for i, clip_id in enumerate(results.clip_ids):
        about = [clip_id, results.groups[i], int(results.folds[i])]
        about.append(results.classes[int(results.y_true[i])])
        for name, predicted, probabilities in outputs:
            said = int(predicted[i])
            if said < 0:
                writer.writerow([*about, name, "", *nothing])
            else:
                writer.writerow([*about, name, results.classes[said], *probabilities[i]])
    return buffer.getvalue()


def report_html(results: Results) -> str:
    """One page with everything in it: it loads nothing, and all text is escaped."""
    from markupsafe import Markup

    environment = page_environment()
    top = best(results)
    # Of a page's models the integrated one is the papers' subject; without it, the best.
    shown = next((m for m in results.models if m.name == "integrated"), top)
    beside = comparable(results.classes) and not results.permuted
    page = environment.get_template("report.html").render(
        **page_values(results),
        summary=summarise(results),
        chance=1.0 / len(results.classes),
        baseline=spread(results.primary_per_fold(results.baseline)),
        rows=[_row(results, model, beside) for model in results.models],
        partial=any((m.y_pred < 0).any() for m in results.models),
        published_label=LABEL,
        sources=SOURCES,
        published=[(m.name, p) for m in results.models for p in all_published_for(m.name)]
        if beside
        else [],
        beside=beside,
        accuracy_svg=Markup(figures.accuracy_figure(results)),
        roc_svg=Markup(figures.roc_figure(results)),
        class_roc_svg=Markup(figures.class_roc_figure(results, shown)) if shown else None,
        shown=shown,
        confusions=[
            (m.name, Markup(figures.confusion_figure(m, results.classes))) for m in results.models
        ],
        best=top,
        per_class=_per_class(top, results) if top else [],
        hardest=hardest_clips(results),
        reliability_svg=Markup(reliability_figure(results, shown)) if shown else None,
        settings=_settings(results),
        sections=provenance_sections(metrics_dict(results)["provenance"]),
    )
    return page


def page_values(results: Results) -> dict[str, Any]:
    """What the templates that all pages share are given."""
    from markupsafe import Markup

    curves = results.learning_curve
    return {
        "results": results,
        "banners": banners(results),
        "subtitle": describe(results),
        "protocol": PROTOCOLS.get(results.protocol, ""),
        "trust": trust_values(results),
        "learning_svg": Markup(learning_curve_figure(curves, results.task)) if curves else None,
        "losses": [(n, Markup(svg)) for n, svg in figures.loss_figures(results.curves).items()],
        "missing": list(results.missing.items()),
        "failures": results.failures[:_MANY_FAILURES],
        "more_failures": max(len(results.failures) - _MANY_FAILURES, 0),
        "failed_clips": len({clip_id for clip_id, _, _ in results.failures}),
    }


def page_environment() -> jinja2.Environment:
    """The templates, with all text escaped and no name forgotten."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, fraction=fraction)
    return environment


def _row(results: Results, model: ModelResult, beside: bool) -> dict[str, Any]:
    """A model's line in the main table."""
    known = published_for(model.name) if beside else None
    return {
        "model": model,
        "accuracy": spread(results.primary_per_fold(model)),
        "interval": interval_text(model),
        "predicted": int(model.valid.sum()),
        "published": known,
    }


def _per_class(model: ModelResult, results: Results) -> list[dict[str, Any]]:
    precision, recall, f1 = (model.per_output[name] for name in ("precision", "recall", "f1"))
    assert model.confusion is not None
    return [
        {
            "name": name,
            "clips": int(model.confusion[c].sum()),
            "precision": float(precision[c]),
            "recall": float(recall[c]),
            "f1": float(f1[c]),
            "f1_interval": interval_text(model, f"f1:{c}", percents=False),
        }
        for c, name in enumerate(results.classes)
    ]


def _settings(results: Results) -> list[tuple[str, str]]:
    of_class = np.bincount(results.y_true, minlength=len(results.classes))
    listed = ", ".join(f"{c} {n}" for c, n in zip(results.classes, of_class, strict=True))
    return page_facts(results, ("clips of each class", listed))


def page_facts(results: Results, *of_clips: tuple[str, str]) -> list[tuple[str, str]]:
    """Rows of the table of settings; `of_clips` are more of them, after the groups."""
    sizes = np.bincount(results.folds[results.folds >= 0], minlength=results.k)
    return [
        ("data set", results.name),
        ("task", results.task.name),
        ("protocol", results.protocol),
        ("folds", str(results.k)),
        ("clips in each fold", ", ".join(str(n) for n in sizes)),
        ("clips", str(len(results.clip_ids))),
        ("groups", str(len(set(results.groups)))),
        *of_clips,
        ("seed", str(results.seed)),
        ("synthetic data", "yes" if results.synthetic else "no"),
        ("labels permuted", "yes" if results.permuted else "no"),
        ("clips scored by a net that saw them", seen_text(results)),
    ]


def provenance_sections(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """JSON values as tables of text: ``title``, ``header`` (may be empty), ``rows``.

    Single values come first, together; a mapping of single values is a table of two
    columns; a mapping of lists of mappings, such as the feature specs, one with their keys
    as columns; anything else stands as JSON.
    """
    single = [(k, _text(v)) for k, v in provenance.items() if not isinstance(v, (dict, list))]
    sections: list[dict[str, Any]] = []
    if single:
        sections.append({"title": "", "header": [], "rows": single})
    for key, value in provenance.items():
        if not isinstance(value, (dict, list)) or not value:
            continue
        section: dict[str, Any] = {"title": key, "header": [], "rows": []}
        if isinstance(value, dict) and _are_specs(value):
            header = list(dict.fromkeys(k for specs in value.values() for s in specs for k in s))
            section["header"] = ["name", *header]
            section["rows"] = [
                [name, *(_text(spec.get(k)) for k in header)]
                for name, specs in value.items()
                for spec in specs
            ]
        elif isinstance(value, dict):
            section["rows"] = [(k, _text(v)) for k, v in value.items()]
        else:
            section["rows"] = [(str(i), _text(v)) for i, v in enumerate(value)]
        sections.append(section)
    return sections


def _are_specs(value: Mapping[str, Any]) -> bool:
    return all(
        isinstance(listed, list) and listed and all(isinstance(item, dict) for item in listed)
        for listed in value.values()
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

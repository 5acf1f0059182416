"""Report page: one self-contained HTML file for any task."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.cache import failures_by_reason
from mvemo.fuse.report import score_tables as tables
from mvemo.fuse.report.figures import draw_figures, learning_curve_figure, loss_figures
from mvemo.fuse.report.published import LABEL, SOURCES, sentence_beside
from mvemo.fuse.report.summary import banners, describe, opening, scoring_note
from mvemo.fuse.report.text import count
from mvemo.fuse.results import Results, recommended_model, without_twin
from mvemo.manifests.files import to_json_values

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).with_name("templates")
_REASONS = 5
# Settings that the first table of the page already shows.
_IN_FACTS = ("folds", "seed", "permute_labels")


def report_html(results: Results) -> str:
    """Render the whole report as one HTML page that loads nothing; all text is escaped."""
    results, note = without_twin(results), scoring_note(results)
    top = recommended_model(results)
    clips, groups = tables.hard_clips(results, top)
    provenance = _told_once(to_json_values(results.provenance, "provenance"))
    return (
        _environment()
        .get_template("report.html")
        .render(
            results=results,
            task=results.task,
            count=count,
            banners=banners(results),
            subtitle=describe(results),
            opening=opening(results),
            best=top,
            figures=draw_figures(results, top),
            tables={
                "scores": tables.scores_table(results, top),
                "outputs": None if top is None else tables.outputs_table(results, top),
                **{name: build(results) for name, build in tables.OF_RESULTS.items()},
            },
            hard_clips=clips,
            hard_groups=groups,
            scoring_note=note,
            fused=any(model.features for model in results.models),
            scaled=any("temperature" in model.calibration for model in results.models),
            published_label=LABEL,
            sources=SOURCES,
            beside=sentence_beside(results),
            learning_svg=learning_curve_figure(results) if results.learning_curve else None,
            losses=loss_figures(results.curves),
            n_failed=len({clip_id for clip_id, _, _ in results.failures}),
            n_unlisted=max(0, len(results.failures) - tables.MANY_FAILURES),
            reasons=[kind.text() for kind in failures_by_reason(results.failures)[:_REASONS]],
            fold_sizes=np.bincount(results.folds[results.tested], minlength=results.k).tolist(),
            label_facts=results.task.label_facts(results.classes, results.y_true),
            sections=provenance_sections(provenance),
        )
    )


def _told_once(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance without entries that the page shows elsewhere or twice."""
    told = dict(provenance)
    settings, stage_one = told.get("settings"), told.get("stage_one")
    if isinstance(settings, dict):
        told["settings"] = {k: v for k, v in settings.items() if k not in _IN_FACTS}
        if "n_resamples" in settings:
            told.pop("n_resamples", None)
    if isinstance(stage_one, dict):
        versions = told.get("versions", {})
        other = {k: v for k, v in (stage_one.get("versions") or {}).items() if versions.get(k) != v}
        told["stage_one"] = {**stage_one, "versions": other}
    return told


@functools.cache
def _environment() -> jinja2.Environment:
    """Return the template environment; it escapes all text and refuses undefined names."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def provenance_sections(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return JSON values as tables of text with ``title``, ``header`` (may be empty), ``rows``."""
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
            section["rows"] = list(_flat(value))
        else:
            section["rows"] = [(str(i), _text(v)) for i, v in enumerate(value)]
        sections.append(section)
    return sections


def _are_specs(value: Mapping[str, Any]) -> bool:
    return all(
        isinstance(listed, list) and listed and all(isinstance(item, dict) for item in listed)
        for listed in value.values()
    )


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield a row for each value of nested mappings: the keys joined by dots, and the value."""
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
    if isinstance(value, list) and not any(isinstance(v, (dict, list)) for v in value):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""Files of a study: JSON, page, CSV of each table, PNG and SVG of each plot."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvemo.fuse.report import tables
from mvemo.fuse.report.findings import Banner, data_banners
from mvemo.fuse.report.text import page_templates
from mvemo.manifests.files import replacing_together, write_bytes, write_json, write_text
from mvemo.manifests.labels import label_kind
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.studies.comparison import Draft
from mvemo.pipeline.studies.study import Study

TEMPLATES = Path(__file__).with_name("templates")


def write_study(draft: Draft, settings: Mapping[str, Any], out: Path) -> None:
    """Write NAME.json, NAME.html, a CSV for each table, and a PNG and an SVG for each plot."""
    study, name = draft.study, draft.file.name
    facts, origin = _facts(study, trains=draft.file.trains), provenance(settings=settings)
    failures = dict(sorted(study.failures.items()))
    notes = [*study.notes, *draft.notes]
    title, warnings = draft.text(draft.file.title), banners(study)
    record = {
        "study": name,
        "title": title,
        "data": facts,
        "permuted_labels": study.permuted,
        "tables": {table.name: table.record() for table in draft.tables},
        "notes": [*(banner.text for banner in warnings), *notes],
        "failures": failures,
        **({"curves": draft.curves} if draft.curves else {}),
        "sources": draft.sources,
        "provenance": origin,
    }
    reasons = [tables.Column("clip", tables.ID), tables.Column("reason", tables.ID)]
    page = page_templates(TEMPLATES).get_template("study.html")
    with replacing_together(out) as new:
        for plot in draft.plots:
            write_text(new / f"{name}-{plot.name}.svg", plot.svg)
            write_bytes(new / f"{name}-{plot.name}.png", plot.png)
        for table in draft.tables:
            write_text(new / f"{name}-{table.name}.csv", table.csv())
        write_json(new / f"{name}.json", record)
        text = page.render(
            draft=draft,
            title=title,
            facts=facts,
            notes=notes,
            banners=warnings,
            tables=[table.with_intervals() for table in draft.tables],
            failures=tables.table(reasons, list(failures.items())),
            origin=origin,
            settings=json.dumps(settings, indent=1, ensure_ascii=False),
        )
        write_text(new / f"{name}.html", text)


def write_papers(
    draft: Draft, latex: Path | None, markdown: Path | None, style: tables.TableStyle
) -> None:
    """Write the tables as LaTeX and Markdown, with warnings and notes in their captions."""
    facts = " ".join([*(banner.text for banner in banners(draft.study)), *draft.notes])
    titled = [
        replace(table.with_intervals(), title=f"{table.title}. {facts}") for table in draft.tables
    ]
    tables.write_paper(titled, latex, markdown, style)


def banners(study: Study) -> list[Banner]:
    """Return warnings about the data and the nets that a reader needs before any score."""
    manifest = study.manifest
    small = list(study.small_nets)
    return data_banners(study.permuted, manifest.predicted_by, manifest.synthetic, small)


def _facts(study: Study, *, trains: bool) -> dict[str, Any]:
    manifest = study.manifest
    counts = label_kind(manifest.task).counts(manifest.labels, manifest.classes)
    n_folds = len(set(study.folds().tolist())) if trains else 0
    division = f"{n_folds} folds that keep groups whole, {study.runs} run{'s' * (study.runs != 1)}"
    if study.split is not None:
        division = f"one split, {study.settings.extract.split}, that keeps songs whole"
    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "clips": len(manifest),
        "groups": len(set(manifest.groups)),
        "folds": n_folds,
        "division": division if trains else "nothing is trained",
        "runs": study.runs,
        "task": manifest.task,
        "labels": dict(zip(manifest.classes, counts, strict=True)),
        "synthetic": manifest.synthetic,
    }

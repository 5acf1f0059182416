"""The report of an evaluation of tags or of dimensions: page, metrics, predictions, table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.report import figures_outputs
from mvemo.fuse.report.figures import matrix_figure
from mvemo.fuse.report.outputs_metrics import (
    output_metrics_dict,
    output_metrics_json,
    output_predictions_csv,
)
from mvemo.fuse.report.outputs_summary import (
    HEADS,
    format_output_table,
    furthest_clips,
    furthest_groups,
    interval_text,
    partly_predicted,
    pooled_cells,
    published_beside,
    quadrant_centre,
    scored_how,
    summarise_outputs,
)
from mvemo.fuse.report.page import (
    page_environment,
    page_facts,
    page_values,
    provenance_sections,
    write_files,
)
from mvemo.fuse.report.summary import banners, best, fraction, spread
from mvemo.fuse.report.trust import reliability_figure
from mvemo.fuse.results import ModelResult, Results

# `mvemo.fuse.metrics.regression.QUADRANTS` in the little room of a figure.
_SHORT_QUADRANTS = ("V+ A+", "V\u2212 A+", "V\u2212 A\u2212", "V+ A\u2212")
# Scatter plots of more dimensions than these would make the page too long.
_MANY_DIMENSIONS = 6
HEADS_PRIMARY = {"roc_auc_macro": "roc_auc", "r2_macro": "r2"}


def write_output_report(results: Results, out: Path) -> None:
    """Write ``report.html``, ``metrics.json`` and ``predictions.csv`` into a folder.

    As `mvemo.fuse.write_report` does for classes: all three are made before the first is
    written, each appears whole or not at all, and equal results give equal bytes.

    Raises
    ------
    FuseError
        It cannot be written.
    """
    write_files(
        Path(out),
        {
            "report.html": output_report_html(results),
            "metrics.json": output_metrics_json(results),
            "predictions.csv": output_predictions_csv(results),
        },
    )


def output_table(results: Results) -> str:
    """The terminal's table: the headline over folds, pooled scores, and the baseline."""
    return format_output_table(results, [(b.title, b.text) for b in banners(results)])


def output_report_html(results: Results) -> str:
    """One page with everything in it: it loads nothing, and all text is escaped."""
    from markupsafe import Markup

    top = best(results)
    tags = results.task.name == "multilabel"
    scatters = []
    if top is not None and not tags:
        scatters = [
            Markup(
                figures_outputs.scatter_figure(
                    results.y_true[:, i].astype(np.float64), top.outputs[:, i], name, top.name
                )
            )
            for i, name in enumerate(results.classes[:_MANY_DIMENSIONS])
        ]
    quadrants = None
    if top is not None and top.confusion is not None:
        quadrants = Markup(matrix_figure(top.confusion, _SHORT_QUADRANTS, f"quadrants, {top.name}"))
    return (
        page_environment()
        .get_template("outputs.html")
        .render(
            **page_values(results),
            tags=tags,
            summary=summarise_outputs(results),
            how=scored_how(results),
            beside=published_beside(results),
            title=results.task.primary_title,
            rows=[_row(results, model) for model in results.models],
            base=_row(results, results.baseline),
            partial=partly_predicted(results),
            best=top,
            outputs_header=[HEADS[name] for name in HEADS if name in results.baseline.per_output],
            outputs=_outputs(results, top) if top is not None else [],
            primary_svg=Markup(figures_outputs.primary_figure(results)),
            output_svg=Markup(figures_outputs.output_figure(results, top))
            if top and tags
            else None,
            scatters=scatters,
            quadrants=quadrants,
            furthest=furthest_clips(results, top) if top is not None else [],
            groups=furthest_groups(results, top) if top is not None else [],
            roc_svg=Markup(figures_outputs.tag_roc_figure(results, top)) if top and tags else None,
            shown=top,
            reliability_svg=Markup(reliability_figure(results, top)) if top and tags else None,
            settings=_settings(results),
            sections=provenance_sections(output_metrics_dict(results)["provenance"]),
        )
    )


def _row(results: Results, model: ModelResult) -> dict[str, Any]:
    """A model's line in the tables over all outputs."""
    return {
        "model": model,
        "primary": spread(results.primary_per_fold(model)),
        "interval": interval_text(model, "primary"),
        "predicted": int(model.valid.sum()),
        "cells": pooled_cells(results, model),
    }


def _outputs(results: Results, model: ModelResult) -> list[dict[str, Any]]:
    """A line for each tag or dimension: pooled scores, headline over folds, label facts."""
    found = []
    for i, name in enumerate(results.classes):
        labels = results.y_true[:, i]
        about = (
            [str(int(labels.sum()))]
            if results.task.name == "multilabel"
            else [f"{labels.min():.3g} to {labels.max():.3g}", f"{labels.mean():.3g}"]
        )
        ending = f":{i}"
        cells = [
            (fraction(float(model.per_output[s][i])), interval_text(model, f"{s}{ending}"))
            for s in HEADS
            if s in model.per_output
        ]
        over = spread(model.per_output_fold[HEADS_PRIMARY[results.task.primary_metric]][:, i])
        found.append({"name": name, "about": about, "cells": cells, "folds": over})
    return found


def _settings(results: Results) -> list[tuple[str, str]]:
    facts = page_facts(results)
    centre = quadrant_centre(results)
    if centre is not None:
        v, a = centre
        facts.append(("neutral point of quadrants", f"valence {v:g}, arousal {a:g}"))
    return facts

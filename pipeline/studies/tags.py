"""Study of nets with an output for each emotion tag, scored without heads (L17)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvemo.fuse.metrics.averages import mean_finite, mean_of_finite
from mvemo.fuse.models import Model
from mvemo.fuse.results import ModelResult, score_baseline, score_model
from mvemo.pipeline.studies.comparison import (
    INTERVAL_NOTE,
    OTHERS,
    Compared,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import NUMBER, Cell, Column, Table

NETS = ("speccnn",)
SOURCE = (
    "X. Liu, Q. Chen, X. Wu, Y. Liu and Y. Liu, CNN based music emotion classification, "
    "arXiv:1704.05665, 2017"
)
MEASURES = (
    *(("precision", "precision"), ("recall", "recall"), ("F1", "f1")),
    *(("ROC-AUC", "roc_auc"), ("AP", "average_precision")),
)


def run_tags(study: Study, *, nets: Sequence[str] = NETS) -> StudyResult:
    """Cross-fit nets with a sigmoid for each tag, and score their own predictions.

    No head is fitted: a tag is predicted if its probability is 0.5 or more. L17's figures
    are not shown, since only its abstract is available, which has no figures.
    """
    plans = [study.plan(net) for net in nets]
    media = study.media(plans)
    labels = Labels.of(media.manifest)
    folds = study.folds_of_runs()
    variants = [
        Variant(plan.name, NetPredictor(study, media, plan), cells=(plan.name,)) for plan in plans
    ]
    compared = compare(study, variants, media.manifest, folds)
    table = comparison_table(
        "scores",
        "Scores of nets with an output for each tag, out of fold (after Liu et al. 2017)",
        compared,
        labels=labels,
        first=(Column("net"),),
        measures=("score", "low", "high", "sd", OTHERS, "baseline"),
        published=(),
    )
    by_net = {
        each.variant.name: [
            _scored(labels, run.outputs, assignment)
            for run, assignment in zip(each.runs, folds, strict=True)
        ]
        for each in compared
        if not each.divergence
    }
    baseline = [_baseline(labels, assignment) for assignment in folds]
    bars = [each.bar() for each in compared]
    return StudyResult(
        name="tags",
        title="Nets with an output for each tag",
        tables=(
            table,
            _averages(by_net, baseline),
            *(_by_tag(net, labels, results) for net, results in by_net.items()),
        ),
        plots=(score_plot("scores", "Macro ROC-AUC by net", bars, compared, labels),),
        notes=(
            INTERVAL_NOTE,
            "Macro: mean over tags; micro: over all pairs of clip and tag; both of the pooled "
            "predictions. A tag is decided at a probability of 0.5, by the net alone.",
            *_left_out(study, compared),
            *media.left_out(media.usable(plans[0])),
            *divergence_notes(compared),
        ),
        sources=(SOURCE,),
    )


def _scored(labels: Labels, outputs: np.ndarray, folds: np.ndarray) -> ModelResult:
    k = int(folds.max()) + 1
    return score_model(labels.task, Model("", (), ()), outputs, labels.y_true, folds, k)


def _baseline(labels: Labels, folds: np.ndarray) -> ModelResult:
    k = int(folds.max()) + 1
    return score_baseline(labels.task, labels.y_true, folds, k, len(labels.names))


def _averages(by_net: dict[str, list[ModelResult]], baseline: list[ModelResult]) -> Table:
    """Return a table of macro and micro averages of each net and the baseline."""
    columns = [
        Column(f"{kind} {title}", NUMBER) for kind in ("macro", "micro") for title, _ in MEASURES
    ]
    keys = [f"{key}_{kind}" for kind in ("macro", "micro") for _, key in MEASURES]
    rows: list[tuple[Cell, ...]] = [
        (name, *(mean_of_finite(np.array([r.scores[k] for r in results])) for k in keys))
        for name, results in {**by_net, baseline_name(baseline): baseline}.items()
    ]
    return Table("averages", "Macro and micro averages", (Column("net"), *columns), tuple(rows))


def baseline_name(baseline: list[ModelResult]) -> str:
    return baseline[0].name


def _by_tag(net: str, labels: Labels, results: list[ModelResult]) -> Table:
    """Return a table with a row for each tag."""
    counts = labels.y_true.sum(axis=0)
    values = {
        key: mean_finite(np.stack([result.per_output[key] for result in results]), axis=0)
        for _, key in MEASURES
    }
    rows: list[tuple[Cell, ...]] = [
        (name, int(counts[i]), *(float(values[key][i]) for _, key in MEASURES))
        for i, name in enumerate(labels.names)
    ]
    columns = (Column("tag"), Column("clips", NUMBER), *(Column(t, NUMBER) for t, _ in MEASURES))
    return Table(f"tags-{net}", f"Each tag by {net}", columns, tuple(rows))


def _left_out(study: Study, compared: Sequence[Compared]) -> list[str]:
    """Return a note on tags that cannot be scored."""
    y_true = np.asarray(study.manifest.labels)
    same = [
        name
        for name, has in zip(study.manifest.classes, y_true.T, strict=True)
        if len(np.unique(has)) < 2
    ]
    if not same or not compared:
        return []
    return [f"All clips have, or none has, {', '.join(same)}: ROC-AUC of it is not defined."]

"""Study T4: training and test accuracy of convolutional nets (J22 3.4, 3.5, Tables 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.extract.settings import NetSettings
from mvemo.fuse.metrics.scores import confusion_matrix
from mvemo.fuse.numeric import F64, Ints
from mvemo.fuse.report.published import J22 as j22
from mvemo.pipeline.studies import tags
from mvemo.pipeline.studies.comparison import (
    OTHERS,
    Compared,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.plots import Bar
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.segments import SEGMENT_SECONDS, Cut, cut_study
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table, capital

NETS = ("cnn", "lightcnn", "crnn")


def run_convnets(
    study: Study,
    *,
    nets: Sequence[str] = NETS,
    seconds: float = SEGMENT_SECONDS,
    cut: Cut | None = None,
) -> StudyResult:
    """Cross-fit each net, and score it on its own training clips and on new clips.

    Like J22, this comparison has no knowledge distillation, and no transfer learning unless
    the settings name weight files.
    """
    study, notes = cut_study(study, seconds, cut)
    plans = [study.plan(net) for net in nets]
    media = study.media(plans)
    variants = [_variant(study, media, plan) for plan in plans]
    compared = compare(study, variants, media.manifest, study.folds_of_runs())
    labels = Labels.of(media.manifest)
    what = capital(labels.task.primary_title)
    table = comparison_table(
        "accuracy",
        f"{what} on training and test clips (as J22 Table 3)",
        compared,
        labels=labels,
        first=(Column("net"),),
        measures=("parameters", "training", "test", "low", "high", "gap", OTHERS, "baseline"),
        published=(
            Column("training, J22 Table 3", PERCENT, published=True),
            Column("test, J22 Table 3", PERCENT, published=True),
        ),
    )
    bars = [bar for each in compared for bar in _bars(each)]
    confusions = [
        confusion_table(
            plan.name,
            labels.names,
            labels.y_true,
            [run.outputs for run in each.runs],
            printed=matches_j22(study, plan),
        )
        for plan, each in zip(plans, compared, strict=True)
        if each.scores.n_clips and labels.y_true.ndim == 1
    ]
    return StudyResult(
        name="convnets",
        title="Convolutional nets on training and on new clips",
        tables=(table, *confusions),
        plots=(
            score_plot("accuracy", f"{what} on training and test clips", bars, compared, labels),
        ),
        notes=(
            "low and high: 95 % interval of the test score over groups. Training: the mean "
            "over folds of each net's score on the clips of the other folds, those held out "
            "for early stopping among them.",
            *notes,
            *media.left_out(media.usable(plans[0])),
            *divergence_notes(compared),
        ),
        sources=(tags.SOURCE,),
    )


def _variant(study: Study, media: StudyMedia, plan: NetSettings) -> Variant:
    """Return a net with J22's accuracies on training and test clips."""
    known = j22.TABLE_3.get(plan.name, (None, None)) if matches_j22(study, plan) else (None, None)
    return Variant(
        plan.name,
        NetPredictor(study, media, plan, with_train_score=True),
        cells=(plan.name,),
        published=known,
        printed_accuracy=known[1],
    )


def _bars(compared: Compared) -> tuple[Bar, Bar]:
    """Return the bars of a net on training clips and on new clips."""
    name = compared.variant.name
    on_train = compared.variant.published[0]
    assert on_train is None or isinstance(on_train, float)
    return (
        Bar(f"{name}, training", compared.train_score, published=on_train),
        replace(compared.bar(), label=f"{name}, test"),
    )


def confusion_table(
    net: str, classes: Sequence[str], y_true: Ints, probas: Sequence[F64], *, printed: bool
) -> Table:
    """Return the share of each predicted class by true class (J22 Table 4), over all repeats."""
    counts = np.zeros((len(classes), len(classes)))
    for proba in probas:
        mask = np.isfinite(proba).all(axis=1)
        y_pred = proba[mask].argmax(axis=1).astype(np.int64)
        counts += confusion_matrix(y_true[mask], y_pred, len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    beside = _printed_shares(net, classes) if printed else []
    columns = (
        Column("true"),
        Column("clips", NUMBER),
        *(Column(f"as {name}", PERCENT) for name in classes),
        *(Column(f"as {name}, J22", PERCENT, published=True) for name in classes if beside),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            round(float(counts[c].sum()) / len(probas)),
            *(float(value) for value in shares[c]),
            *(beside[c] if beside else ()),
        )
        for c, name in enumerate(classes)
    ]
    return Table(
        f"confusion-{net}",
        f"Confusion of {net}: shares of each true class, per cent (as J22 Table 4)",
        columns,
        tuple(rows),
    )


def _printed_shares(net: str, classes: Sequence[str]) -> list[list[float]]:
    """Return J22 Table 4 in the order of the classes; empty for other nets."""
    known, table = j22.known_classes(classes), j22.TABLE_4.get(net)
    if table is None:
        return []
    order = [j22.TABLE_4_CLASSES.index(name) for name in known]
    return [[table[name][column] for column in order] for name in known]

"""T4: training and test accuracy of convolutional nets (J22 3.4, 3.5, Tables 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mvemo.fuse.metrics.multiclass import confusion_matrix
from mvemo.fuse.report import published_j22 as j22
from mvemo.manifests import SCHEMES
from mvemo.pipeline.studies.core import Floats, Ints, Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.output import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
)
from mvemo.pipeline.studies.plots import Bar, accuracy_bars

NETS = ("cnn", "lightcnn", "crnn")


def run_convnets(study: Study, *, nets: Sequence[str] = NETS) -> StudyResult:
    """Cross-fit each net; accuracy on its own training clips beside that on new ones.

    J22 leaves knowledge distillation and transfer learning out of this comparison, and so
    do nets here, unless the settings name weight files.

    Parameters
    ----------
    study
        Of the clips.
    nets
        Names.
    """
    plans = [study.plan(net) for net in nets]
    media = study.media(plans)
    labels = labels_of(media)
    folds = [study.folds(run) for run in range(study.runs)]
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    confusions: list[Table] = []
    majority = math.nan
    for plan in plans:
        runs = [
            cross_fit(study, media, plan, folds[run], run=run, train_accuracy=True)
            for run in range(study.runs)
        ]
        found = score(labels, [r.probabilities for r in runs], folds, study.manifest.groups)
        on_train = float(np.mean([value for r in runs for value in r.train_accuracy]))
        known = j22.TABLE_3.get(plan.name, (None, None))
        rows.append(
            (
                plan.name,
                runs[0].parameters,
                on_train,
                found.accuracy,
                found.low,
                found.high,
                on_train - found.accuracy,
                found.f1,
                found.majority,
                *known,
            )
        )
        bars.append(Bar(f"{plan.name}, training", on_train, published=known[0]))
        bars.append(Bar(f"{plan.name}, test", found.accuracy, found.low, found.high, known[1]))
        majority = found.majority
        confusions.append(
            confusion_table(
                plan.name, study.manifest.classes, labels, [r.probabilities for r in runs]
            )
        )
    return StudyResult(
        name="convnets",
        title="Convolutional nets on training and on new clips",
        tables=(
            Table(
                "accuracy",
                "Accuracy on training and test clips, per cent (as J22 Table 3)",
                (
                    Column("net"),
                    Column("parameters", NUMBER),
                    Column("training", PERCENT),
                    Column("test", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("gap", PERCENT),
                    Column("macro F1", NUMBER),
                    Column("majority", PERCENT),
                    Column("training, J22 Table 3", PERCENT, published=True),
                    Column("test, J22 Table 3", PERCENT, published=True),
                ),
                tuple(rows),
            ),
            *confusions,
        ),
        plots=(
            Plot(
                "accuracy",
                "Accuracy on training and test clips",
                lambda axes: accuracy_bars(axes, bars, majority),
                (6.4, 1.6 + 0.4 * len(bars)),
            ),
        ),
        notes=(
            "low and high: 95 % interval of the test accuracy over groups. Training: the mean "
            "over folds of each net's accuracy on the clips of the other folds, those held out "
            "for early stopping among them.",
            *media.left_out(media.usable(plans[0])),
        ),
        sources=(j22.SOURCE,),
    )


def confusion_table(
    net: str, classes: Sequence[str], labels: Ints, probabilities: Sequence[Floats]
) -> Table:
    """Shares of predicted classes for each true class (as J22 Table 4), over all repeats.

    J22's own shares stand beside them where the classes are its four.
    """
    total = np.zeros((len(classes), len(classes)))
    for each in probabilities:
        there = np.isfinite(each).all(axis=1)
        said = each[there].argmax(axis=1).astype(np.int64)
        total += confusion_matrix(labels[there], said, len(classes))
    share = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    known = [SCHEMES["j22"].class_of(name) for name in classes]
    printed = j22.TABLE_4.get(net, {})
    beside = bool(printed) and sorted(str(name) for name in known) == sorted(j22.TABLE_4_CLASSES)
    columns = (
        Column("true"),
        Column("clips", NUMBER),
        *(Column(f"as {name}", PERCENT) for name in classes),
    )
    if beside:
        columns += tuple(Column(f"as {name}, J22", PERCENT, published=True) for name in classes)
    rows: list[tuple[Cell, ...]] = []
    for c, name in enumerate(classes):
        row: tuple[Cell, ...] = (
            name,
            round(float(total[c].sum()) / len(probabilities)),
            *(float(value) for value in share[c]),
        )
        if beside:
            theirs = printed[str(known[c])]
            row += tuple(theirs[j22.TABLE_4_CLASSES.index(str(other))] for other in known)
        rows.append(row)
    return Table(
        f"confusion-{net}",
        f"Confusion of {net}: shares of each true class, per cent (as J22 Table 4)",
        columns,
        tuple(rows),
    )

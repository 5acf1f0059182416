"""Tables by class and by tag: confusion matrices (J22 Table 4) and scores of each tag (L17)."""

from collections.abc import Sequence

import numpy as np

from mvemo.fuse import ModelResult
from mvemo.fuse.metrics.scores import confusion_matrix
from mvemo.fuse.numeric import mean_finite, mean_of_finite
from mvemo.manifests.array_types import F64
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies.comparison import Draft
from mvemo.pipeline.studies.result import NUMBER, PERCENT, Cell, Column, Table
from mvemo.pipeline.studies.scores import Labels, score_baselines, score_runs
from mvemo.pipeline.studies.study import j22_classes, matches_j22
from mvemo.pipeline.studies.study_file import published

TAG_SCORES = (
    *(("precision", "precision"), ("recall", "recall"), ("F1", "f1")),
    *(("ROC-AUC", "roc_auc"), ("AP", "average_precision")),
)


def add_confusions(draft: Draft) -> None:
    """Add a confusion matrix for each net, if the labels are classes."""
    for each in draft.compared:
        labels, plans = each.labels, each.row.plans
        if each.scores.n_clips and labels.y_true.ndim == 1 and len(plans) == 1:
            printed = matches_j22(each.study, *plans)
            draft.tables.append(
                confusion_table(plans[0].name, labels, each.outputs, printed=printed)
            )


def confusion_table(net: str, labels: Labels, probas: Sequence[F64], *, printed: bool) -> Table:
    """Return the confusion matrix over all repeats, as shares of true classes (J22 Table 4)."""
    classes = labels.names
    counts = np.zeros((len(classes), len(classes)))
    for proba in probas:
        mask = np.isfinite(proba).all(axis=1)
        y_pred = proba[mask].argmax(axis=1).astype(np.int64)
        counts += confusion_matrix(labels.y_true[mask], y_pred, len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # true class -> predicted class -> share
    known: dict[str, dict[str, float]] = published()["J22"]["table_4"].get(net, {})
    names = j22_classes(classes) if printed and known else []
    columns = (
        Column("true"),
        Column("clips", NUMBER),
        *(Column(f"as {name}", PERCENT) for name in classes),
        *(Column(f"as {name}, J22", PERCENT, published=True) for name in classes if names),
    )
    n_clips = (counts.sum(axis=1) / len(probas)).round().astype(int).tolist()
    rows: list[list[Cell]] = [
        [name, n_clips[c], *shares[c].tolist(), *(known[names[c]][other] for other in names)]
        for c, name in enumerate(classes)
    ]
    title = f"Confusion matrix of {net}: per cent of each true class (as J22 Table 4)"
    return Table(f"confusion-{net}", title, columns, rows)


def add_tags(draft: Draft) -> None:
    """Add average scores of nets and baseline, scores of each tag, a note on missing ROC-AUC."""
    if draft.study.manifest.task != "multilabel":
        raise BadOption(f"{draft.file.path}: table.extra: 'tags' needs a manifest with tags")
    labels, folds = draft.labels, draft.study.folds_of_runs()
    results = {
        each.row.name: score_runs(labels, each.outputs, folds)
        for each in draft.compared
        if not each.divergence
    }
    baseline = score_baselines(labels, folds)
    kinds = ("macro", "micro")
    titles = [f"{kind} {title}" for kind in kinds for title, _ in TAG_SCORES]
    keys = [f"{key}_{kind}" for kind in kinds for _, key in TAG_SCORES]
    averages: list[list[Cell]] = [
        [name, *(mean_of_finite(np.array([r.scores[key] for r in each])) for key in keys)]
        for name, each in {**results, baseline[0].name: baseline}.items()
    ]
    columns = [Column("net"), *(Column(title, NUMBER) for title in titles)]
    draft.tables.append(Table("averages", "Macro and micro averages", columns, averages))
    draft.tables += [_tag_table(net, labels, each) for net, each in results.items()]
    constant = [
        n
        for n, cells in zip(labels.names, labels.y_true.T, strict=True)
        if len(np.unique(cells)) < 2
    ]
    if constant:
        draft.findings.append(
            f"ROC-AUC is undefined for {', '.join(constant)}: all clips have the tag, or none "
            "has it."
        )


def _tag_table(net: str, labels: Labels, results: Sequence[ModelResult]) -> Table:
    """Return a table with a row for each tag."""
    values = [
        mean_finite(np.stack([result.per_output[key] for result in results]), axis=0).tolist()
        for _, key in TAG_SCORES
    ]
    counts = labels.y_true.sum(axis=0).astype(int).tolist()
    titles = ("clips", *(title for title, _ in TAG_SCORES))
    columns = [Column("tag"), *(Column(title, NUMBER) for title in titles)]
    rows = list(zip(labels.names, counts, *values, strict=True))
    return Table(f"tags-{net}", f"Scores of each tag by {net}", columns, rows)

"""Tables by class and by tag: confusion matrices (J22 Table 4) and scores of each tag (L17)."""

from dataclasses import replace

import numpy as np

from mvemo.fuse import Results
from mvemo.fuse.crossval.comparisons import with_uncertainty
from mvemo.fuse.report.score_tables import outputs_table
from mvemo.fuse.report.tables import PERCENT, TEXT, Column, Table, Value, table
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies.comparison import Draft, evaluations
from mvemo.pipeline.studies.losses import add_losses
from mvemo.pipeline.studies.study import j22_classes, matches_j22
from mvemo.pipeline.studies.study_file import published


def add_confusions(draft: Draft) -> None:
    """Add a confusion matrix for each net, if the labels are classes."""
    for each in draft.compared:
        plans, results = each.row.plans, each.results
        if results is None or len(plans) != 1 or each.row.values.get("varied"):
            continue
        if results.task.name == "multiclass":
            printed = matches_j22(each.study, *plans)
            draft.tables.append(confusion_table(plans[0].name, results, printed=printed))


def add_experiment(draft: Draft) -> None:
    """Add confusion matrices and the losses of the last net."""
    add_confusions(draft)
    add_losses(draft)


def confusion_table(net: str, results: Results, *, printed: bool) -> Table:
    """Return the confusion matrix over all repeats, as shares of true classes (J22 Table 4)."""
    classes, repeats = results.classes, evaluations(results)
    matrices = [one.models[0].confusion for one in repeats]
    counts = np.sum([matrix for matrix in matrices if matrix is not None], axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # true class -> predicted class -> share
    known: dict[str, dict[str, float]] = published()["J22"]["table_4"].get(net, {})
    names = j22_classes(classes) if printed and known else []
    columns = (
        Column("true", TEXT),
        Column("clips"),
        *(Column(f"as {name}", PERCENT) for name in classes),
        *(Column(f"as {name}, J22", PERCENT, published=True) for name in classes if names),
    )
    n_clips = (counts.sum(axis=1) / len(repeats)).round().astype(int).tolist()
    rows: list[list[Value]] = [
        [name, n_clips[c], *shares[c].tolist(), *(known[names[c]][other] for other in names)]
        for c, name in enumerate(classes)
    ]
    title = f"Confusion matrix of {net}: per cent of each true class (as J22 Table 4)"
    return table(columns, rows, title=title, name=f"confusion-{net}")


def add_tags(draft: Draft) -> None:
    """Add average scores of nets and baseline, scores of each tag, a note on missing ROC-AUC."""
    found = {each.row.name: each.results for each in draft.compared if each.results is not None}
    if draft.study.manifest.task != "multilabel":
        raise BadOption(f"{draft.file.path}: table.extra: 'tags' needs a manifest with tags")
    if not found:
        return
    first = next(iter(found.values()))
    models = {name: results.models[0] for name, results in found.items()}
    models[first.baseline.name] = first.baseline
    kinds = [(kind, column) for kind in ("macro", "micro") for column in first.task.output_columns]
    columns = ["net", *(f"{kind} {column.title}" for kind, column in kinds)]
    averages: list[list[Value]] = [
        [name, *(model.scores[f"{column.score}_{kind}"] for kind, column in kinds)]
        for name, model in models.items()
    ]
    draft.tables.append(table(columns, averages, title="Macro and micro averages", name="averages"))
    for net, results in found.items():
        certain = with_uncertainty(results)
        of_tags = outputs_table(certain, certain.models[0])
        title = f"Scores of each tag by {net}"
        draft.tables.append(replace(of_tags, title=title, name=f"tags-{net}"))
    tags = zip(first.classes, first.y_true.T, strict=True)
    constant = [name for name, cells in tags if len(np.unique(cells)) < 2]
    if constant:
        draft.findings.append(
            f"ROC-AUC is undefined for {', '.join(constant)}: all clips have the tag, or none "
            "has it."
        )

"""J22's experiment from end to end: songs, segments, one split, nets and ablations.

Songs are cut into segments of 10 s (3.2) and split 7:2:1, with all segments of a song in the same
part (section 3). A net is trained for 2,500 iterations (3.3) with the improved centre softmax
(2.4.2), and its last layer predicts the class. J22 does not say whether its split keeps songs
whole, nor whether its accuracies are of segments or songs. Here the split keeps songs whole, and
both accuracies are reported.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mvemo.manifests import holdout_of, parse_fractions
from mvemo.manifests.array_types import Ints
from mvemo.manifests.errors import BadOption
from mvemo.manifests.splits.assignment import PARTS, TEST, VALIDATION
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies.class_tables import confusion_table
from mvemo.pipeline.studies.comparison import Draft, Row, printed_figure
from mvemo.pipeline.studies.iterations import SMOOTH, loss_plot, score_part, smoothed
from mvemo.pipeline.studies.predictors import FoldPredictions, NetPredictor
from mvemo.pipeline.studies.result import NUMBER, PERCENT, Cell, Column, StudyResult, Table
from mvemo.pipeline.studies.runner import cut_of, plan_of, read_descriptors, row_values
from mvemo.pipeline.studies.study import Songs, Study, cut_study, find_songs, matches_j22
from mvemo.pipeline.studies.trainings import train_ahead


def run_j22(draft: Draft) -> StudyResult:
    """Run J22's experiment on one split of the songs: the manifest's, or ``extract.split``."""
    file, options, extract = draft.file, draft.options, draft.study.settings.extract
    seconds = float(file.grid["segment"][0])
    if not seconds > 0:
        raise BadOption(f"--seconds {seconds:g}: a segment must be longer than 0 s")
    rows = _j22_rows(draft)
    songs, cut = find_songs(draft.study), cut_of(options)
    split = holdout_of(songs.manifest, parse_fractions(extract.split), extract.fold_seed)
    study = draft.study = cut_study(draft.study, songs, seconds, cut)
    parts = split.assignment[songs.rows(study.manifest)]  # int64 (segments,), as in `split`
    predictors = _j22_predictors(study, rows, parts)
    folds = np.zeros(len(parts), dtype=np.int64)
    train_ahead(study, [t for each in predictors for t in each.trainings(0, folds)])
    results: list[tuple[Row, FoldPredictions]] = []
    with Progress("j22", len(rows), "training") as bar:
        for row, predictor in zip(rows, predictors, strict=True):
            results.append((replace(row, plans=(predictor.plan,)), predictor(0, folds)))
            bar.step()
    row, predictions = next(r for r in results if r[0].values["net"] == file.grid["net"][-1])
    (plan,) = row.plans
    printed = matches_j22(study, plan)
    counts: list[list[Cell]] = [
        [name, int((split.assignment == part).sum()), int((parts == part).sum())]
        for part, name in enumerate(PARTS)
    ]
    counts.append(["all", len(songs.manifest), len(parts)])
    columns = [Column("part"), Column("songs", NUMBER), Column("segments", NUMBER)]
    title = "Songs and segments of each part (J22: 7:2:1)"
    draft.tables = [Table("counts", title, columns, counts)]
    draft.tables.append(_j22_table(draft, results, songs, split.assignment, parts))
    if draft.labels.y_true.ndim == 1:
        outputs = [np.where((parts == TEST)[:, None], predictions.outputs, np.nan)]
        draft.tables.append(confusion_table(plan.name, draft.labels, outputs, printed=printed))
    curve, plots = predictions.curves[0], []
    if "iteration" in curve:
        losses = curve["iteration"], smoothed(curve["iteration_loss"])
        lines = {f"training, mean of {SMOOTH} batches": losses}
        title = f"Loss of {plan.name} ({plan.train.loss}) by iterations (as J22 Fig. 7)"
        plots.append(loss_plot(title, lines, printed=printed and plan.name == "crnn"))
    steps = options["iterations"]
    lasted = f"for {steps} iterations" if steps else "until early stopping"
    notes = (
        f"Nets are trained {lasted}; each predicts with its last layer and the weights of its "
        f"lowest validation loss. {cut.note()} low and high: ends of the 95 % interval over songs.",
        "RP: residual phase. Rows with an entry under 'varied' change one setting of the last "
        "net. Choose by the validation column: the best test score is optimistic.",
        *songs.notes,
        *split.notes,
    )
    division = f"one split, {extract.split}, that keeps songs whole"
    return draft.result(file.title, plots, notes=notes, division=division)


def _j22_rows(draft: Draft) -> list[Row]:
    """Return a row for each net, then rows of the last net with one setting changed."""
    study, file, options = draft.study, draft.file, draft.options
    varied = () if options["ablations"] == ("none",) else options["ablations"]
    for name in varied:
        if name not in file.vary:
            known = ", ".join(file.vary)
            raise BadOption(f"--ablations: unknown {name!r}; expected some of {known}, or none")
    file = replace(file, vary={axis: v for axis, v in file.vary.items() if axis in varied})
    train: dict[str, Any] = {}
    if options["iterations"]:
        # Patience beyond the last epoch turns off early stopping, but keeps the best weights.
        train = {"iterations": options["iterations"], "patience": options["iterations"] + 1}
    classes = np.asarray(study.manifest.labels).ndim == 1
    rows: list[Row] = []
    base = dict.fromkeys(file.grid["net"])
    for values in row_values(file):
        plan = plan_of(draft, {**values, **train})
        features = read_descriptors(plan, "--nets")
        axis = next((axis for axis in file.vary if axis in values), "")
        value = values.get(axis, "")
        unused = axis == "alpha" and (
            "mfcc_rp" not in features or value == study.settings.descriptors.alpha
        )
        unused |= axis in ("tau", "loss") and (not classes or plan == base[plan.name])
        if unused or (axis == "tau" and "centre" not in plan.train.loss):
            continue
        base[plan.name] = base[plan.name] or plan
        shown = f"{value:g}" if isinstance(value, float) else value
        cells = {**values, "varied": file.names.get(axis, axis), "value": shown}
        name = " ".join(filter(None, (plan.name, cells["varied"], shown)))
        rows.append(Row(name, cells, (plan,)))
    return rows


def _j22_predictors(study: Study, rows: Sequence[Row], splits: Ints) -> list[NetPredictor]:
    """Return the predictor of each row."""
    found: dict[str, NetPredictor] = {}
    # Only alpha, the weight of the residual phase, changes the descriptors.
    for alpha in dict.fromkeys(row.values.get("alpha") for row in rows):
        part = study.with_alpha(alpha)
        same = [row for row in rows if row.values.get("alpha") == alpha]
        plans = [study.with_segments(row.plans[0]) for row in same]
        media = part.media(plans)
        for row, plan in zip(same, plans, strict=True):
            found[row.name] = NetPredictor(
                part, media, media.manifest, plan, row.name, with_train_score=True, splits=splits
            )
    return [found[row.name] for row in rows]


def _j22_table(
    draft: Draft,
    results: Sequence[tuple[Row, FoldPredictions]],
    songs: Songs,
    of_songs: Ints,
    of_segments: Ints,
) -> Table:
    """Return a table with a row for each training; `of_songs` has the part of each song."""
    percent, segments = draft.labels.task.in_percent, draft.study.manifest
    names = ("training", "validation", "test", "low", "high", "test songs")
    columns = [Column("net"), Column("varied"), Column("value")]
    columns += [Column(name, draft.kind) for name in names]
    columns.append(Column("majority" if percent else "baseline", draft.kind))
    if percent:
        columns.append(Column("J22", PERCENT, published=True))
    rows = []
    for row, predictions in results:
        outputs = predictions.outputs
        validation = score_part(segments, outputs, of_segments == VALIDATION)
        test = score_part(segments, outputs, of_segments == TEST)
        whole = score_part(songs.manifest, songs.decide(segments, outputs), of_songs == TEST)
        cells = [row.values[name] for name in ("net", "varied", "value")]
        cells += [predictions.train_scores[0], validation.primary, test.primary]
        cells += [test.low, test.high, whole.primary, test.baseline]
        if percent:
            figures = () if row.values["varied"] else draft.file.published
            cells.append(printed_figure(draft, figures, row, draft.study))
        rows.append(cells)
    return Table("scores", draft.text(draft.file.table.title), columns, rows)

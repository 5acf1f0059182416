"""Trainings on one split: loss by iterations (J22 Fig. 7), and J22's experiment from end to end.

In the experiment, songs are cut to segments of 10 s (3.2) and divided 7:2:1, with all segments of
a song in one part (section 3). A net is trained for 2,500 iterations (3.3) with the improved
centre softmax (2.4.2), and its own classifier decides. J22 says neither whether its split keeps
songs whole nor whether its accuracies are of segments or songs. Here the split keeps songs whole,
and both accuracies are reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, RunSettings, SequenceInput, TrainingClips
from mvemo.extract.nets import input_of
from mvemo.extract.training.data import training_splits
from mvemo.extract.training.steps import Curve
from mvemo.extract.training.steps import steps_per_epoch as trained_steps
from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.songs import decide_songs
from mvemo.manifests import Manifest, holdout_of, parse_fractions
from mvemo.manifests.splits.holdout import PARTS, TEST, VALIDATION
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.class_tables import confusion_table
from mvemo.pipeline.studies.comparison import (
    Compared,
    Draft,
    Row,
    citations,
    figure_of,
    measured,
)
from mvemo.pipeline.studies.plots import loss_lines
from mvemo.pipeline.studies.predictors import FoldPredictions, NetPredictor, train_ahead
from mvemo.pipeline.studies.result import NUMBER, PERCENT, Cell, Column, Plot, StudyResult, Table
from mvemo.pipeline.studies.runner import cut_for_nets, cut_of, plan_of, row_values
from mvemo.pipeline.studies.scores import Labels, Scores, score
from mvemo.pipeline.studies.study import Study, StudyMedia, cut_study, find_songs, matches_j22
from mvemo.pipeline.studies.study_file import Measure, StudyFile, published

# Number of rows of the table, and of batches that a point of the training curve averages.
ROWS = 11
SMOOTH = 25


def run_iterations(study: Study, file: StudyFile, options: Mapping[str, Any]) -> StudyResult:
    """Train one net without the first fold for some steps, without early stopping."""
    draft = Draft(study, file, options)
    study = draft.study = cut_for_nets(draft)
    net, iterations = file.grid["net"][0], options["iterations"]
    # With patience beyond the last epoch, validation clips are scored but nothing stops.
    plan = study.plan(net, iterations=iterations, patience=iterations + 1)
    media, folds = study.media([plan]), study.folds()
    predictions = NetPredictor(study, media, plan, media.manifest, only_first=True)(0, folds)
    curve = predictions.curves[0]
    steps = steps_per_epoch(study, media, folds, plan)
    # Last iteration of each epoch, of which the last may be incomplete.
    ends = [min(steps * epoch, float(iterations)) for epoch in curve["epoch"]]
    losses = smoothed(curve["iteration_loss"])
    title = f"Loss of {net} by iterations"
    printed = net == "crnn" and matches_j22(study, plan)
    lines = {
        f"training, mean of {SMOOTH} batches": (curve["iteration"], losses),
        "validation (groups of the training folds)": (ends, curve["val_loss"]),
    }
    finite = {
        name: [value if math.isfinite(value) else None for value in values]
        for name, values in curve.items()
    }
    table_title = f"Loss of {net} ({plan.train.loss}) by iterations (as J22 Fig. 7)"
    return StudyResult(
        name=file.name,
        title=title,
        tables=(
            _loss_table(table_title, curve, losses, ends),
            _summary_table(curve, losses, ends, printed=printed),
            _test_table(replace(draft, study=study), folds, predictions),
        ),
        plots=(_loss_plot(title, lines, printed=printed),),
        notes=(
            f"One iteration is one step on a batch of {plan.train.batch_size} clips; an epoch "
            f"has {steps}. J22's Fig. 7 does not say whether its loss is of training clips.",
            *draft.notes,
            *media.left_out(media.usable(plan)),
        ),
        data={f"{net}@first fold": {"validation_at": ends, **finite}},
        sources=citations(file),
    )


def _loss_table(title: str, curve: Curve, losses: list[float], ends: list[float]) -> Table:
    """Return a table of losses at evenly spaced iterations."""
    at, n_points = curve["iteration"], len(curve["iteration"])
    rows: list[tuple[Cell, ...]] = []
    for i in sorted({round(i) for i in np.linspace(0, n_points - 1, min(ROWS, n_points))}):
        # The validation figures of the last epoch that had ended by then.
        epoch = int(np.searchsorted(ends, at[i], side="right")) - 1
        validation = [curve[name][epoch] if epoch >= 0 else None for name in _VALIDATION]
        rows.append((int(at[i]), losses[i], *validation))
    columns = (
        Column("iterations", NUMBER),
        Column("training loss", NUMBER),
        Column("validation loss", NUMBER),
        Column("validation accuracy", PERCENT),
    )
    return Table("loss", title, columns, tuple(rows))


_VALIDATION = ("val_loss", "val_accuracy")


def _summary_table(curve: Curve, losses: list[float], ends: list[float], *, printed: bool) -> Table:
    """Return a table of the final losses, with J22's figures if `printed`."""
    val_loss = curve["val_loss"]
    best = int(np.argmin(val_loss))
    known = published()["J22"]["figure_7"] if printed else {}
    columns = (
        Column("what"),
        Column("iterations", NUMBER),
        Column("loss", NUMBER),
        Column("iterations, J22", NUMBER, published=True),
        Column("loss, J22 Fig. 7", NUMBER, published=True),
    )
    stable = stable_from(curve["iteration"], losses)
    named = "training loss is stable (within 5 % of its end)"
    rows: tuple[tuple[Cell, ...], ...] = (
        (named, stable, losses[-1], known.get("stable_from"), known.get("loss")),
        ("lowest validation loss", int(ends[best]), val_loss[best], None, None),
        ("validation loss at the end", int(ends[-1]), val_loss[-1], known.get("iterations"), None),
    )
    return Table("summary", "Where the loss ends", columns, rows)


def _test_table(draft: Draft, folds: Ints, predictions: FoldPredictions) -> Table:
    """Return a table of the scores on the first fold, with the baseline."""
    tested = np.where(folds == folds.min(), 0, -1)  # the other folds are trained on
    scores = _part_scores(draft.study.manifest, predictions.outputs, tested)
    row = Row("", {})
    each = Compared(row, draft.study, draft.labels, [tested], (predictions,), scores)
    measure = Measure(metrics=("clips", "score", "others", "baseline"))
    columns = measured(replace(draft, file=replace(draft.file, measure=measure)))
    title = "The net of the lowest validation loss on the fold that it never saw"
    cells = tuple(metric(each) for _, metric in columns)
    return Table("test", title, tuple(column for column, _ in columns), (cells,))


def _part_scores(manifest: Manifest, outputs: F64, tested: Ints) -> Scores:
    """Score the clips of fold 0; `tested` is -1 for all others."""
    outputs = np.where(tested[:, None] == 0, outputs, np.nan)
    return score(Labels.of(manifest), [outputs], [tested])


def _loss_plot(
    title: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, printed: bool
) -> Plot:
    known = published()["J22"]["figure_7"]
    level, since = known["loss"] if printed else None, float(known["stable_from"])
    return Plot("loss", title, lambda axes: loss_lines(axes, lines, level, since), (6.4, 4.0))


def smoothed(losses: Sequence[float], count: int = SMOOTH) -> list[float]:
    """Return the running mean of the last `count` losses."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - count, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def stable_from(iterations: list[float], losses: list[float], share: float = 0.05) -> int:
    """Return the first iteration after which the loss stays close to its last value.

    Close means within `share` of the range of the losses.
    """
    span = max(losses) - min(losses)
    near = [abs(value - losses[-1]) <= share * span for value in losses]
    last_far = max((i for i, (ok, _) in enumerate(pairwise([*near, True])) if not ok), default=-1)
    return int(iterations[min(last_far + 1, len(iterations) - 1)])


def steps_per_epoch(study: Study, media: StudyMedia, folds: Ints, plan: NetSettings) -> int:
    """Return the number of steps of a whole epoch of the training without the first fold."""
    clips = TrainingClips(media.manifest, media.digests, media.usable(plan), folds)
    run = RunSettings("crossfit", study.settings.extract.run.seed)
    first = training_splits(plan, clips, run)[0]
    return trained_steps(plan.train, len(first.train_rows))


@dataclass(frozen=True)
class Divided:
    """Segments of songs in one split."""

    songs: Manifest
    segments: Manifest
    song: Ints  # int64 (segments,), the row of each segment's song
    parts: Ints  # int64 (songs,), 0 training, 1 validation, 2 test

    def scores(self, outputs: F64, part: int, *, of_songs: bool = False) -> Scores:
        """Return the scores of one part, per segment or per song."""
        if of_songs:
            outputs = decide_songs(outputs, self.song, len(self.songs), "mean")
            return _part_scores(self.songs, outputs, np.where(self.parts == part, 0, -1))
        tested = np.where(self.parts[self.song] == part, 0, -1)
        return _part_scores(self.segments, outputs, tested)


def run_j22(study: Study, file: StudyFile, options: Mapping[str, Any]) -> StudyResult:
    """Run J22's experiment on songs with one split: ``extract.split`` or the manifest's."""
    seconds = float(file.grid["segment"][0])
    if not seconds > 0:
        raise BadOption(f"--seconds {seconds:g}: a segment must be longer than 0 s")
    rows_of_alpha = _j22_rows(study, file, options)
    songs, extract, cut = find_songs(study), study.settings.extract, cut_of(options)
    split = holdout_of(songs.manifest, parse_fractions(extract.split), extract.fold_seed)
    study = cut_study(study, songs, seconds, cut)
    song = songs.rows(study.manifest)
    divided = Divided(songs.manifest, study.manifest, song, split.assignment)
    predictors = _j22_predictors(study, rows_of_alpha, divided)
    folds = np.zeros(len(song), dtype=np.int64)
    train_ahead(study, [t for p in predictors.values() for t in p.trainings(0, folds)])
    results: list[tuple[Row, FoldPredictions]] = []
    with Progress("j22", len(predictors), "training") as bar:
        for row in rows_of_alpha:
            predictor = predictors[row.name]
            results.append((replace(row, plans=(predictor.plan,)), predictor(0, folds)))
            bar.step()
    draft = Draft(study, file, options)
    main, predictions = next(r for r in results if r[0].values["net"] == file.grid["net"][-1])
    printed = matches_j22(study, *main.plans)
    tables = [_count_table(divided), _j22_table(draft, results, divided)]
    labels, net = draft.labels, main.plans[0].name
    if labels.y_true.ndim == 1:
        tested = (divided.parts[song] == TEST)[:, None]
        outputs = [np.where(tested, predictions.outputs, np.nan)]
        tables.append(confusion_table(net, labels.names, labels.y_true, outputs, printed=printed))
    curve, plots = predictions.curves[0], []
    if "iteration" in curve:
        losses = curve["iteration"], smoothed(curve["iteration_loss"])
        lines = {f"training, mean of {SMOOTH} batches": losses}
        title = f"Loss of {net} ({main.plans[0].train.loss}) by iterations (as J22 Fig. 7)"
        plots.append(_loss_plot(title, lines, printed=printed and net == "crnn"))
    steps = options["iterations"]
    lasted = f"{steps} iterations" if steps else "as many epochs as validation asks"
    return StudyResult(
        name=file.name,
        title=file.title,
        tables=tuple(tables),
        plots=tuple(plots),
        notes=(
            f"Trained for {lasted}; the weights of the lowest validation loss predict, by the "
            f"net's own last layer. {cut.note()} low and high: 95 % interval over songs.",
            "RP: residual phase. Varied: one thing about the last of the nets at a time. Choose "
            "by the validation column: the best of the test column flatters.",
            *songs.notes,
            *split.notes,
        ),
        sources=citations(file),
        division=f"one split, {extract.split}, that keeps songs whole",
    )


def _j22_rows(study: Study, file: StudyFile, options: Mapping[str, Any]) -> list[Row]:
    """Return the nets, then the last net with one setting changed at a time."""
    varied = () if options["ablations"] == ("none",) else options["ablations"]
    for name in varied:
        if name not in file.vary:
            raise BadOption(f"--ablations {name}: some of {', '.join(file.vary)}")
    file = replace(file, vary={axis: v for axis, v in file.vary.items() if axis in varied})
    train: dict[str, Any] = {}
    if options["iterations"]:
        # With patience beyond the last epoch nothing stops, and the best weights are kept.
        train = {"iterations": options["iterations"], "patience": options["iterations"] + 1}
    classes = np.asarray(study.manifest.labels).ndim == 1
    rows: list[Row] = []
    base = dict.fromkeys(file.grid["net"])
    for values in row_values(file):
        plan = plan_of(study, file, {**values, **train}, options)
        net_input = input_of(plan)
        if not isinstance(net_input, SequenceInput):
            raise BadOption(f"--nets {plan.name}: J22 has nets on sequences")
        axis = next((axis for axis in file.vary if axis in values), "")
        value = values.get(axis, "")
        if (
            (axis in ("tau", "loss") and (not classes or plan == base[plan.name]))
            or (axis == "tau" and "centre" not in plan.train.loss)
            or (axis == "alpha" and "mfcc_rp" not in net_input.features)
            or (axis == "alpha" and value == study.settings.descriptors.alpha)
        ):
            continue
        base[plan.name] = base[plan.name] or plan
        shown = f"{value:g}" if isinstance(value, float) else value
        cells = {**values, "varied": file.names.get(axis, axis), "value": shown}
        name = " ".join(filter(None, (plan.name, cells["varied"], shown)))
        rows.append(Row(name, cells, (plan,)))
    return rows


def _j22_predictors(study: Study, rows: Sequence[Row], divided: Divided) -> dict[str, NetPredictor]:
    """Return the predictor of each row, by the row's name."""
    splits = divided.parts[divided.song]
    found = {}
    # Only the weight of the residual phase changes the descriptors.
    for alpha in dict.fromkeys(row.values.get("alpha") for row in rows):
        part, settings = study, study.settings
        if alpha is not None:
            settings = replace(settings, descriptors=replace(settings.descriptors, alpha=alpha))
            part = replace(study, settings=settings)
        same = [row for row in rows if row.values.get("alpha") == alpha]
        plans = {row.name: study.with_segments(row.plans[0]) for row in same}
        media = part.media(list(plans.values()))
        for name, plan in plans.items():
            found[name] = NetPredictor(
                part, media, plan, media.manifest, name, with_train_score=True, splits=splits
            )
    return found


def _count_table(divided: Divided) -> Table:
    """Return a table of the numbers of songs and segments of each part."""
    of_segment = divided.parts[divided.song]
    rows: list[tuple[Cell, ...]] = [
        (name, int((divided.parts == part).sum()), int((of_segment == part).sum()))
        for part, name in enumerate(PARTS)
    ]
    rows.append(("all", len(divided.songs), len(divided.segments)))
    columns = (Column("part"), Column("songs", NUMBER), Column("segments", NUMBER))
    return Table("counts", "Songs and segments of each part (J22: 7:2:1)", columns, tuple(rows))


def _j22_table(
    draft: Draft, results: Sequence[tuple[Row, FoldPredictions]], divided: Divided
) -> Table:
    """Return a table with a row for each training."""
    percent = draft.labels.task.in_percent
    kind = PERCENT if percent else NUMBER
    names = ("training", "validation", "test", "low", "high", "test songs")
    columns = [Column("net"), Column("varied"), Column("value")]
    columns += [Column(name, kind) for name in names]
    columns.append(Column("majority" if percent else "baseline", kind))
    if percent:
        columns.append(Column("J22", PERCENT, published=True))
    empty = np.full((len(divided.segments), len(divided.segments.classes)), np.nan)
    majority = divided.scores(empty, TEST).baseline
    rows: list[tuple[Cell, ...]] = []
    for row, predictions in results:
        outputs = predictions.outputs
        test, songs = divided.scores(outputs, TEST), divided.scores(outputs, TEST, of_songs=True)
        validation = divided.scores(outputs, VALIDATION).primary
        cells = [row.values["net"], row.values["varied"], row.values["value"]]
        cells += [predictions.train_scores[0], validation, test.primary, test.low, test.high]
        cells += [songs.primary, majority]
        if percent:
            figures = [] if row.values["varied"] else draft.file.published
            known = (figure_of(figure, draft.study, row) for figure in figures)
            cells.append(next((value for value in known if value is not None), None))
        rows.append(tuple(cells))
    return Table("scores", draft.text(draft.file.table.title), tuple(columns), tuple(rows))

"""Comparison of a study's rows: predictions on the same folds, scores, table and plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, TrainingDiverged
from mvemo.fuse.numeric import Ints
from mvemo.fuse.report import published as papers
from mvemo.manifests import Manifest
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.predictors import FoldPredictions, Predictor
from mvemo.pipeline.studies.result import (
    NUMBER,
    PERCENT,
    TEXT,
    Bar,
    Cell,
    Column,
    Plot,
    Table,
    score_bars,
    score_lines,
)
from mvemo.pipeline.studies.scores import NO_SCORES, Labels, Scores, difference, score
from mvemo.pipeline.studies.study import Songs, Study, StudyMedia, matches_j22, matches_pl20
from mvemo.pipeline.studies.study_file import (
    INTERVAL_NOTE,
    Figure,
    StudyFile,
    fill,
    matches,
    published,
)
from mvemo.pipeline.studies.trainings import train_ahead


@dataclass(frozen=True)
class Row:
    """Row of a study: nets with their settings, or a classical model."""

    name: str  # name in plots and notes
    values: Mapping[str, Any]  # axis -> value, and other cells of the table
    plans: tuple[NetSettings, ...] = ()
    protocol: str = ""  # protocol of a head on embeddings; "" if the net's last layer predicts
    # Descriptors and predictor of a model that is not a net.
    descriptors: tuple[str, ...] = ()
    model: Callable[[StudyMedia], Predictor] | None = None
    runs: int | None = None  # number of repeats; None for that of the study

    @property
    def shuffled(self) -> bool:
        """True for a check with shuffled labels."""
        return self.values.get("labels") == "shuffled"


@dataclass(frozen=True)
class Compared:
    """Row with its predictions and scores."""

    row: Row
    study: Study  # the data on which the row was scored
    labels: Labels
    folds: Sequence[Ints]  # fold of each clip, for each repeat
    runs: tuple[FoldPredictions, ...]  # predictions of each repeat; () if a training diverged
    scores: Scores  # all NaN if a training diverged
    songs: Scores = NO_SCORES  # scores of whole songs, if they are asked for
    divergence: str = ""  # message about the training that diverged, if any

    @property
    def train_score(self) -> float:
        """Mean score of the nets on their own training clips, over folds and repeats."""
        if self.divergence:
            return math.nan
        return float(np.mean([value for run in self.runs for value in run.train_scores]))

    @property
    def outputs(self) -> list[Any]:
        """Predictions of each repeat."""
        return [run.outputs for run in self.runs]


@dataclass
class Draft:
    """Unfinished result of a study; functions named in study files add to it."""

    study: Study
    file: StudyFile
    options: Mapping[str, Any]
    compared: list[Compared] = field(default_factory=list)
    counts: list[tuple[Cell, ...]] = field(default_factory=list)  # rows of the table of counts
    tables: list[Table] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)  # notes on scores
    notes: list[str] = field(default_factory=list)  # notes on the data

    @property
    def labels(self) -> Labels:
        """Labels of the study's clips."""
        return Labels.of(self.study.manifest)

    def text(self, template: str) -> str:
        """Fill a template of the study file with the values of axes that have a single value."""
        title = self.labels.task.primary_title
        single = {axis: v[0] for axis, v in self.file.grid.items() if len(v) == 1}
        words = {"score": title, "Score": title[:1].upper() + title[1:], "interval": INTERVAL_NOTE}
        return fill(template, {**single, **words})


def citations(file: StudyFile) -> tuple[str, ...]:
    """Return the citations of a study."""
    known = {**papers.SOURCES, **published()["sources"]}
    return tuple(known.get(source, source) for source in file.sources)


def compare(
    study: Study,
    rows: Sequence[Row],
    predictors: Sequence[Predictor],
    manifest: Manifest,
) -> list[Compared]:
    """Predict and score all clips for each row; a row whose training diverges has no scores."""
    labels = Labels.of(manifest)
    of_rows = [[study.folds(run) for run in range(row.runs or study.runs)] for row in rows]
    trainings = [
        training
        for predictor, repeats in zip(predictors, of_rows, strict=True)
        for run, assignment in enumerate(repeats)
        for training in predictor.trainings(run, assignment)
    ]
    train_ahead(study, trainings)
    compared = []
    with Progress("table", len(rows), "row") as bar:
        for row, predictor, repeats in zip(rows, predictors, of_rows, strict=True):
            each = Compared(row, study, labels, repeats, (), NO_SCORES)
            try:
                runs = tuple(predictor(run, folds) for run, folds in enumerate(repeats))
            except TrainingDiverged as error:
                each = replace(each, divergence=error.problem)
            else:
                scores = score(labels, [run.outputs for run in runs], repeats)
                each = replace(each, runs=runs, scores=scores)
            compared.append(each)
            bar.step()
    return compared


def with_songs(compared: Compared, songs: Songs) -> Compared:
    """Add the scores of whole songs, decided by the mean of their segments' outputs."""
    if compared.divergence:
        return compared
    outputs = [songs.decide(compared.study.manifest, each) for each in compared.outputs]
    folds = replace(compared.study, manifest=songs.manifest, songs=None).folds_of_runs()
    return replace(compared, songs=score(Labels.of(songs.manifest), outputs, folds))


def divergence_notes(draft: Draft) -> list[str]:
    """Return a note on each row whose training diverged: net, fold and epoch."""
    many = len(draft.file.grid.get("segment", ())) > 1
    return [
        (f"Segments of {each.row.values['segment']:g} s: " if many else "")
        + f"{each.row.name} has no scores. {each.divergence}."
        for each in draft.compared
        if each.divergence
    ]


Metric = Callable[[Compared], Cell]
# Columns in the unit of the task's primary metric.
SCORED: Mapping[str, Metric] = {
    "score": lambda c: c.scores.primary,
    "test": lambda c: c.scores.primary,
    "low": lambda c: c.scores.low,
    "high": lambda c: c.scores.high,
    "sd": lambda c: c.scores.sd,
    "sd over runs": lambda c: c.scores.sd if len(c.runs) > 1 else None,
    "baseline": lambda c: c.scores.baseline,
    "training": lambda c: c.train_score,
    "gap": lambda c: c.train_score - c.scores.primary,
}
COUNTED: Mapping[str, Metric] = {
    "clips": lambda c: c.scores.n_clips,
    "runs": lambda c: len(c.runs),
    "parameters": lambda c: c.runs[0].n_parameters,
}


def measured(draft: Draft) -> list[tuple[Column, Metric]]:
    """Return a study's measured columns, each with the function that computes its cells."""
    file = draft.file
    keys, levels = list(file.measure.metrics), file.measure.level
    if levels == ("segment",):
        return [each for key in keys for each in _metric(draft, key)]
    columns: list[tuple[Column, Metric]] = []
    title = draft.labels.task.primary_title
    for level in levels:
        for key in keys:
            for column, metric in _metric(draft, key) if key != "baseline" else ():
                name = f"{level}s" if column.name == title else column.name
                columns.append((replace(column, name=name), _at(level, metric)))
    if "baseline" in keys:
        columns += [(column, _at("song", each)) for column, each in _metric(draft, "baseline")]
    return columns


def _metric(draft: Draft, key: str) -> list[tuple[Column, Metric]]:
    """Return the columns for a key of `SCORED` or `COUNTED`, or for other scores of the task."""
    labels = draft.labels
    task = labels.task
    kind = PERCENT if task.in_percent else NUMBER
    titles = {"score": task.primary_title, "sd over runs": "sd"}
    titles["baseline"] = "majority" if task.in_percent else "baseline"
    if key in SCORED or key == task.primary_title:
        return [(Column(titles.get(key, key), kind), SCORED.get(key, SCORED["score"]))]
    if key in COUNTED:
        return [(Column(key, NUMBER), COUNTED[key])]
    columns = task.columns(labels.names)
    chosen = [c for c in columns if (c.terminal if key == "others" else key in (c.title, c.score))]
    if not chosen and key != "others":
        known = ", ".join((*SCORED, *COUNTED, "others", *(c.title for c in columns)))
        raise BadOption(
            f"{draft.file.path}: measure.metrics: unknown {key!r}; expected one of {known}"
        )
    return [(Column(c.title, NUMBER), _other(c.title)) for c in chosen]


def _other(title: str) -> Metric:
    return lambda compared: compared.scores.others.get(title)


def _at(level: str, metric: Metric) -> Metric:
    """Return a metric that reads the scores of segments or those of songs."""
    if level == "segment":
        return metric
    return lambda compared: metric(replace(compared, scores=compared.songs))


def main_table(draft: Draft) -> Table:
    """Return the main table: the values, scores and published values of each row."""
    spec, rows = draft.file.table, draft.compared
    names = spec.columns or tuple(draft.file.grid)
    first = [[_value(draft.file, name, each.row) for each in rows] for name in names]
    texts = [any(isinstance(cell, str) for cell in cells) for cells in first]
    columns = [
        Column("seconds" if name == "segment" else name, TEXT if text else NUMBER)
        for name, text in zip(names, texts, strict=True)
    ]
    cells = [list(row) for row in zip(*first, strict=True)]
    for column, metric in measured(draft):
        columns.append(column)
        for row, each in zip(cells, rows, strict=True):
            row.append(None if each.divergence else metric(each))
    if draft.labels.task.in_percent:
        figures = [figure for figure in draft.file.published if figure.table != "counts"]
        for name in dict.fromkeys(figure.column for figure in figures):
            same = [figure for figure in figures if figure.column == name]
            columns.append(Column(name, same[0].kind, published=True))
            for row, each in zip(cells, rows, strict=True):
                row.append(printed_figure(draft, same, each.row, each.study))
    if spec.difference:
        kind = PERCENT if draft.labels.task.in_percent else NUMBER
        columns += [Column(n, kind) for n in (f"{spec.difference} less this", "from", "to")]
        for row, each in zip(cells, rows, strict=True):
            gap = None
            if each is not rows[0]:
                gap = difference(each.labels, rows[0].outputs, each.outputs, each.folds)
            row += (None,) * 3 if gap is None else (gap.value, gap.low, gap.high)
    return Table(spec.name, draft.text(spec.title), tuple(columns), tuple(map(tuple, cells)))


def _value(file: StudyFile, name: str, row: Row) -> Cell:
    """Return a row's cell in the column `name`, one of the first columns."""
    if name == "nets":
        return ", ".join(plan.name for plan in row.plans)
    train = row.plans[0].train if row.plans else None
    if name == "tau" and train is not None:
        return train.tau if "centre" in train.loss else None
    if name == "rate" and train is not None:
        return f"{train.lr:g}"
    if name == "momentum" and train is not None:
        return f"{train.momentum:g}" if train.optimizer == "sgd" else ""
    value = row.values.get(name)
    cell: Cell = file.names.get(str(value), value)
    return float(cell) if name == "segment" and cell is not None else cell


def printed_figure(draft: Draft, figures: Sequence[Figure], row: Row, study: Study) -> float | None:
    """Return the first published value that fits a row; None if learning rates are scaled."""
    if draft.options.get("rate_scale", 1.0) != 1.0:
        return None
    known = (figure_of(figure, study, row) for figure in figures)
    return next((value for value in known if value is not None), None)


def figure_of(figure: Figure, study: Study, row: Row) -> float | None:
    """Return a published value if it may be shown next to a row, otherwise None."""
    values = {"protocol": row.protocol, **row.values}
    if study.permuted or row.shuffled or not matches(figure.where, values):
        return None
    seconds = figure.segment or float(row.values.get("segment", 0))
    if figure.rule == "pl20" and not matches_pl20(study, *row.plans):
        return None
    if figure.rule == "j22" and not matches_j22(study, *row.plans, seconds=seconds):
        return None
    return published_value(figure.value, values)


def published_value(value: float | str, values: Mapping[str, Any]) -> float | None:
    """Return a number, or the value at a path such as ``J22.table_2.{net}.{segment}``."""
    if not isinstance(value, str):
        return value
    found: Any = {
        **published(),
        "PL20": {"table_2": papers.PL20_TABLE_2, "table_3": papers.PL20_TABLE_3},
        "Z22": {"table_1": papers.Z22_TABLE_1},
    }
    try:
        for key in fill(value, values).split("."):
            found = found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)
    except KeyError:
        return None
    return found if isinstance(found, (int, float)) else None


def score_plot(draft: Draft) -> Plot:
    """Return the plot: a bar for each row, or lines over the axis ``plot.x``."""
    spec, task, rows = draft.file.plot, draft.labels.task, draft.compared
    title, name = draft.text(spec.title), draft.file.table.name
    figures = [f for f in draft.file.published if f.kind == "percent" and f.table != "counts"]

    def mark(each: Compared, metric: str) -> float | None:
        same = [figure for figure in figures if figure.metric == metric]
        return printed_figure(draft, same, each.row, each.study)

    if not spec.x:
        bars = []
        for each in rows:
            label, training = each.row.name, "training" in draft.file.measure.metrics
            if training:
                on_train = mark(each, "training")
                bars.append(Bar(f"{label}, training", each.train_score, published=on_train))
                label += ", test"
            s = each.scores
            bars.append(Bar(label, s.primary, s.low, s.high, mark(each, "score")))
        baseline = next((c.scores.baseline for c in rows if not c.divergence), None)
        size = (6.4, 1.6 + 0.36 * len(bars))
        return Plot(name, title, lambda axes: score_bars(axes, bars, baseline, task), size)
    lines: dict[str, dict[float, float]] = {}
    printed: dict[str, dict[float, float]] = {}
    for each in rows:
        x, label = float(each.row.values[spec.x]), _without(draft, each.row)
        for level in draft.file.measure.level:
            line = f"{label}, {level}s" if len(draft.file.measure.level) > 1 else label
            scores = each.songs if level == "song" else each.scores
            lines.setdefault(line, {})[x] = scores.primary
        known = mark(each, "score")
        if known is not None and task.in_percent:
            printed.setdefault(label, {})[x] = known
    of_level = [c.songs if "song" in draft.file.measure.level else c.scores for c in rows]
    # Baseline of the last row that has scores.
    last = next((s.baseline for s in reversed(of_level) if s.n_clips), None)
    axis = spec.axis or spec.x
    return Plot(
        name, title, lambda axes: score_lines(axes, lines, printed, last, axis, task), (6.4, 4.6)
    )


def _without(draft: Draft, row: Row) -> str:
    """Return the name of a row's line: the row's values except that of the x axis."""
    names, grid = draft.file.names, draft.file.grid
    many = [a for a in row.values if a != draft.file.plot.x and len(grid.get(a, ())) > 1]
    shown = [str(row.values[axis]) for axis in many or ["net"] if axis in row.values]
    return ", ".join(names.get(value, value) for value in shown)

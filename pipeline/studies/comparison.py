"""Comparison of a study's rows: predictions on the same folds, scores, table and plot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, TrainingDiverged
from mvemo.fuse.numeric import mean_of_finite
from mvemo.fuse.report import published as papers
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies.predictors import FoldPredictions, Predictor
from mvemo.pipeline.studies.result import (
    NUMBER,
    PERCENT,
    TEXT,
    Bar,
    Cell,
    Column,
    Plot,
    StudyResult,
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
    # Descriptors and outputs of a model that is not a net; see `ModelPredictor`.
    descriptors: tuple[str, ...] = ()
    model: Callable[[StudyMedia, int, Ints], F64] | None = None
    runs: int | None = None  # number of repeats; None for that of the study

    @property
    def shuffled(self) -> bool:
        """True for a check with shuffled labels."""
        return self.values.get("labels") == "shuffled"


@dataclass(frozen=True)
class Compared:
    """Row with its predictions and scores."""

    row: Row
    predictor: Predictor
    folds: Sequence[Ints]  # fold of each clip, for each repeat
    runs: tuple[FoldPredictions, ...] = ()  # of each repeat; () if a training diverged
    scores: Scores = NO_SCORES  # all NaN if a training diverged
    songs: Scores = NO_SCORES  # scores of whole songs, if they are asked for
    divergence: str = ""  # message about the training that diverged, if any

    @property
    def study(self) -> Study:
        """Data on which the row was scored."""
        return self.predictor.study

    @property
    def labels(self) -> Labels:
        """True labels of the clips; shuffled ones for a check."""
        return Labels.of(self.predictor.manifest)

    @property
    def train_score(self) -> float:
        """Mean score of the nets on their own training clips, over folds and repeats, or NaN."""
        return mean_of_finite(np.array([x for run in self.runs for x in run.train_scores]))

    @property
    def outputs(self) -> list[Any]:
        """Predictions of each repeat."""
        return [run.outputs for run in self.runs]

    def values(self, level: str) -> Mapping[str, Cell]:
        """Return the measured values of segments or songs; {} if a training diverged."""
        if self.divergence:
            return {}
        scores = self.songs if level == "song" else self.scores
        return {
            "score": scores.primary,
            "test": scores.primary,
            "low": scores.low,
            "high": scores.high,
            "sd": scores.sd,
            "sd over runs": scores.sd if len(self.runs) > 1 else None,
            "baseline": scores.baseline,
            "training": self.train_score,
            "gap": self.train_score - scores.primary,
            "clips": scores.n_clips,
            "runs": len(self.runs),
            "parameters": self.runs[0].n_parameters,
            **scores.others,
        }


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

    @property
    def kind(self) -> str:
        """Kind of the columns in the unit of the task's primary metric."""
        return PERCENT if self.labels.task.in_percent else NUMBER

    def text(self, template: str) -> str:
        """Fill a template of the study file with the values of axes that have a single value."""
        title = self.labels.task.primary_title
        single = {axis: v[0] for axis, v in self.file.grid.items() if len(v) == 1}
        words = {"score": title, "Score": title[:1].upper() + title[1:], "interval": INTERVAL_NOTE}
        return fill(template, {**single, **words})

    def result(self, title: str, plots: Sequence[Plot], **parts: Any) -> StudyResult:
        """Return the finished result; `parts` are other fields of `StudyResult`."""
        known = {**papers.SOURCES, **published()["sources"]}
        sources = [known.get(source, source) for source in self.file.sources]
        return StudyResult(self.file.name, title, self.tables, plots, sources=sources, **parts)


def compare(
    study: Study, predictors: Sequence[tuple[Row, Predictor]], songs: Songs | None
) -> list[Compared]:
    """Predict and score all clips for each row; a row whose training diverges has no scores.

    The scores of `songs` are decided by the mean of their segments' outputs.
    """
    compared = [Compared(row, each, study.folds_of_runs(row.runs)) for row, each in predictors]
    train_ahead(
        study,
        [
            training
            for each in compared
            for run, folds in enumerate(each.folds)
            for training in each.predictor.trainings(run, folds)
        ],
    )
    with Progress("table", len(compared), "row") as bar:
        for i, each in enumerate(compared):
            try:
                runs = tuple(each.predictor(run, folds) for run, folds in enumerate(each.folds))
            except TrainingDiverged as error:
                compared[i] = replace(each, divergence=error.problem)
            else:
                scores = score(each.labels, [run.outputs for run in runs], each.folds)
                compared[i] = replace(each, runs=runs, scores=scores)
                if songs is not None:
                    outputs = [songs.decide(study.manifest, run.outputs) for run in runs]
                    of_songs = replace(study, manifest=songs.manifest, songs=None).folds_of_runs()
                    whole = score(Labels.of(songs.manifest), outputs, of_songs)
                    compared[i] = replace(compared[i], songs=whole)
            bar.step()
    return compared


def divergence_notes(draft: Draft) -> list[str]:
    """Return a note on each row whose training diverged: net, fold and epoch."""
    many = len(draft.file.grid.get("segment", ())) > 1
    start = "Segments of {segment:g} s: " if many else ""
    return [
        f"{start.format_map(each.row.values)}{each.row.name} has no scores. {each.divergence}."
        for each in draft.compared
        if each.divergence
    ]


# Keys of columns in the unit of the task's primary metric, and of counts; see `Compared.values`.
SCORED = ("score", "test", "low", "high", "sd", "sd over runs", "baseline", "training", "gap")
COUNTED = ("clips", "runs", "parameters")


def measured(draft: Draft) -> list[tuple[Column, str, str]]:
    """Return a study's measured columns, each with its level and its key in `Compared.values`."""
    keys, levels = draft.file.measure.metrics, draft.file.measure.level
    if levels == ("segment",):
        return [(column, "segment", of) for key in keys for column, of in _columns(draft, key)]
    columns = []
    title = draft.labels.task.primary_title
    pairs = [(level, key) for level in levels for key in keys if key != "baseline"]
    for level, key in pairs + [("song", key) for key in keys if key == "baseline"]:
        for column, of in _columns(draft, key):
            name = f"{level}s" if column.name == title else column.name
            columns.append((replace(column, name=name), level, of))
    return columns


def _columns(draft: Draft, key: str) -> list[tuple[Column, str]]:
    """Return the columns for a key of `SCORED` or `COUNTED`, or for other scores of the task."""
    task = draft.labels.task
    titles = {"score": task.primary_title, "sd over runs": "sd"}
    titles["baseline"] = "majority" if task.in_percent else "baseline"
    if key in SCORED or key == task.primary_title:
        of = key if key in SCORED else "score"
        return [(Column(titles.get(key, key), draft.kind), of)]
    if key in COUNTED:
        return [(Column(key, NUMBER), key)]
    columns = task.columns(draft.labels.names)
    chosen = [c for c in columns if (c.terminal if key == "others" else key in (c.title, c.score))]
    if not chosen and key != "others":
        known = ", ".join((*SCORED, *COUNTED, "others", *(c.title for c in columns)))
        raise BadOption(
            f"{draft.file.path}: measure.metrics: unknown {key!r}; expected one of {known}"
        )
    return [(Column(c.title, NUMBER), c.title) for c in chosen]


def main_table(draft: Draft) -> Table:
    """Return the main table: the values, scores and published values of each row."""
    spec, rows = draft.file.table, draft.compared
    columns: list[tuple[Column, Sequence[Cell]]] = []
    for name in spec.columns or draft.file.grid:
        values = [_value(draft.file, name, each.row) for each in rows]
        kind = TEXT if any(isinstance(value, str) for value in values) else NUMBER
        columns.append((Column("seconds" if name == "segment" else name, kind), values))
    columns += [
        (column, [each.values(level).get(key) for each in rows])
        for column, level, key in measured(draft)
    ]
    if draft.labels.task.in_percent:
        figures: dict[str, list[Figure]] = {}
        for figure in draft.file.published:
            if figure.table != "counts":
                figures.setdefault(figure.column, []).append(figure)
        columns += [
            (
                Column(name, same[0].kind, published=True),
                [printed_figure(draft, same, each.row, each.study) for each in rows],
            )
            for name, same in figures.items()
        ]
    if spec.difference:
        gaps = [
            None
            if each is rows[0]
            else difference(each.labels, rows[0].outputs, each.outputs, each.folds)
            for each in rows
        ]
        names = {"value": f"{spec.difference} less this", "low": "from", "high": "to"}
        columns += [
            (Column(name, draft.kind), [getattr(gap, key, None) for gap in gaps])
            for key, name in names.items()
        ]
    heads, cells = zip(*columns, strict=True)
    return Table(spec.name, draft.text(spec.title), heads, list(zip(*cells, strict=True)))


def _value(file: StudyFile, name: str, row: Row) -> Cell:
    """Return a row's cell in the column `name`, one of the first columns."""
    if name == "nets":
        return ", ".join(plan.name for plan in row.plans)
    if row.plans and name in ("tau", "rate", "momentum"):
        train = row.plans[0].train
        if name == "tau":
            return train.tau if "centre" in train.loss else None
        if name == "rate":
            return f"{train.lr:g}"
        return f"{train.momentum:g}" if train.optimizer == "sgd" else ""
    value = row.values.get(name)
    cell: Cell = file.names.get(str(value), value)
    return float(cell) if name == "segment" and cell is not None else cell


def printed_figure(draft: Draft, figures: Sequence[Figure], row: Row, study: Study) -> float | None:
    """Return the first published value that may be shown next to a row; None if there is none."""
    values = {"protocol": row.protocol, **row.values}
    # Published values are for the papers' learning rates and true labels.
    if draft.options.get("rate_scale", 1.0) != 1.0 or study.permuted or row.shuffled:
        return None
    for figure in figures:
        seconds = figure.segment or float(row.values.get("segment", 0))
        if (
            matches(figure.where, values)
            and (figure.rule != "pl20" or matches_pl20(study, *row.plans))
            and (figure.rule != "j22" or matches_j22(study, *row.plans, seconds=seconds))
            and (value := _published_value(figure.value, values)) is not None
        ):
            return value
    return None


def _published_value(value: float | str, values: Mapping[str, Any]) -> float | None:
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

    def mark(each: Compared, metric: str) -> float | None:
        figures = [f for f in draft.file.published if (f.kind, f.metric) == ("percent", metric)]
        figures = [figure for figure in figures if figure.table != "counts"]
        return printed_figure(draft, figures, each.row, each.study)

    if not spec.x:
        bars, training = [], "training" in draft.file.measure.metrics
        for each in rows:
            label, s = each.row.name, each.scores
            if training:
                on_train = mark(each, "training")
                bars.append(Bar(f"{label}, training", each.train_score, published=on_train))
                label += ", test"
            bars.append(Bar(label, s.primary, s.low, s.high, mark(each, "score")))
        baseline = next((c.scores.baseline for c in rows if not c.divergence), None)
        size = (6.4, 1.6 + 0.36 * len(bars))
        return Plot(name, title, lambda axes: score_bars(axes, bars, baseline, task), size)
    levels = draft.file.measure.level
    lines: dict[str, dict[float, float]] = {}
    printed: dict[str, dict[float, float]] = {}
    for each in rows:
        x, label = float(each.row.values[spec.x]), _without(draft, each.row)
        for level in levels:
            line = f"{label}, {level}s" if len(levels) > 1 else label
            scores = each.songs if level == "song" else each.scores
            lines.setdefault(line, {})[x] = scores.primary
        known = mark(each, "score")
        if known is not None and task.in_percent:
            printed.setdefault(label, {})[x] = known
    of_level = [c.songs if "song" in levels else c.scores for c in rows]
    # Baseline of the last row that has scores.
    last = next((s.baseline for s in reversed(of_level) if s.n_clips), None)
    axis = spec.axis or spec.x
    return Plot(
        name, title, lambda axes: score_lines(axes, lines, printed, last, axis, task), (6.4, 4.6)
    )


def _without(draft: Draft, row: Row) -> str:
    """Return the name of a row's line: the row's values except that of the x axis."""
    file = draft.file
    many = [a for a in row.values if a != file.plot.x and len(file.grid.get(a, ())) > 1]
    shown = [str(row.values[axis]) for axis in many or ["net"] if axis in row.values]
    return ", ".join(file.names.get(value, value) for value in shown)

"""Comparison of a study's rows: predictions on the same folds, scores, table and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvemo.extract import TrainingDiverged
from mvemo.fuse import Results, Task, bootstrap, external, numeric
from mvemo.fuse.crossval import comparisons, evaluation
from mvemo.fuse.report import drawing
from mvemo.fuse.report import published as papers
from mvemo.fuse.report.tables import NUMBER, PERCENT, TEXT, Column, Table, Value, table
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.errors import BadOption
from mvemo.manifests.labels import UNLABELLED
from mvemo.manifests.splits.assignment import VALIDATION
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies import study as data
from mvemo.pipeline.studies import study_file
from mvemo.pipeline.studies.predictors import FoldPredictions, RowPredictor, StudyRow, train_ahead
from mvemo.pipeline.studies.study import Songs, Study


@dataclass(frozen=True)
class Compared:
    """Row with its predictions and their results."""

    row: StudyRow
    predictor: RowPredictor
    runs: tuple[FoldPredictions, ...] = ()  # of each repeat; () if a training diverged
    results: Results | None = None  # one model; None if a training diverged
    songs: Results | None = None  # of whole songs, if they are asked for
    divergence: str = ""  # message about the training that diverged, if any

    @property
    def study(self) -> Study:
        """Data on which the row was scored."""
        return self.predictor.study

    @property
    def train_score(self) -> float:
        """Mean score of the nets on their own training clips, over folds and repeats, or NaN."""
        return numeric.mean_of_finite(np.array([x for run in self.runs for x in run.train_scores]))

    def values(self, level: str = "segment") -> dict[str, float]:
        """Return the measured values of segments or songs; {} if a training diverged."""
        results = self.songs if level == "song" else self.results
        if results is None:
            return {}
        (model,), task = results.models, results.task
        of_runs = [one.primary_mean(one.models[0]) for one in results.evaluations]
        sd = _deviation(of_runs)
        low, high = model.intervals["primary"]
        found = {
            "score": (score := results.primary_mean(model)),
            "test": score,
            "low": low,
            "high": high,
            "sd": sd if len(of_runs) > 1 else _deviation(results.primary_per_fold(model)),
            "sd over runs": sd,
            "baseline": results.primary_mean(results.baseline),
            "training": self.train_score,
            "gap": self.train_score - score,
            "clips": int(model.valid.sum()),
            "runs": len(self.runs),
            "parameters": self.runs[0].n_parameters,
            **{c.title: model.value_of(c) for c in task.columns(results.classes)},
        }
        if (parts := self.study.parts) is not None and level == "segment":
            rows = parts == VALIDATION
            found["validation"] = task.primary(results.y_true[rows], self.runs[0].outputs[rows])
        if self.songs is not None:
            found["test songs"] = self.songs.primary_mean(self.songs.models[0])
        return found


def _deviation(values: Sequence[float] | F64) -> float:
    """Return the standard deviation of the finite values; NaN for fewer than two."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else np.nan


@dataclass(frozen=True)
class Plot:
    """Plot of a study, for its page and as files."""

    name: str  # short, for file names
    picture: drawing.Picture
    svg: str
    png: bytes


@dataclass
class Draft:
    """Result of a study while it runs; functions named in study files add to it."""

    study: Study
    file: study_file.StudyFile
    options: Mapping[str, Any]
    compared: list[Compared] = field(default_factory=list)
    counts: list[list[Value]] = field(default_factory=list)  # rows of the table of counts
    tables: list[Table] = field(default_factory=list)  # in the order of the page
    plots: list[Plot] = field(default_factory=list)  # in the order of the page
    findings: list[str] = field(default_factory=list)  # notes on scores
    notes: list[str] = field(default_factory=list)  # notes on the data
    curves: dict[str, Any] = field(default_factory=dict)  # loss curves for the JSON file

    @property
    def task(self) -> Task:
        """Task of the study's clips."""
        return data.read_labels(self.study.manifest)[0]

    @property
    def kind(self) -> str:
        """Kind of the columns in the unit of the task's primary metric."""
        return PERCENT if self.task.in_percent else NUMBER

    @property
    def sources(self) -> list[str]:
        """Citations of the published values."""
        known = {**papers.SOURCES, **study_file.published()["sources"]}
        return [known.get(source, source) for source in self.file.sources]

    def text(self, template: str) -> str:
        """Fill a template of the study file with the values of axes that have a single value."""
        # Clips without labels have no score that a title could name.
        is_scored = self.study.manifest.task != UNLABELLED
        title = self.task.primary_title if is_scored else ""
        single = {axis: v[0] for axis, v in self.file.grid.items() if len(v) == 1}
        words = {
            "score": title,
            "Score": title[:1].upper() + title[1:],
            "interval": study_file.INTERVAL_NOTE,
        }
        return study_file.fill(template, {**single, **words})

    def __str__(self) -> str:
        """Format tables and notes for the terminal."""
        return "\n\n".join([*map(str, self.tables), *self.notes])


def compare(
    study: Study, predictors: Sequence[RowPredictor], songs: Songs | None
) -> list[Compared]:
    """Predict and score all clips for each row; a row whose training diverges has no scores.

    The scores of `songs` are decided by the mean of their segments' outputs.
    """
    pairs = [(each, range(each.row.runs or study.runs)) for each in predictors]
    train_ahead(study, [t for each, runs in pairs for run in runs for t in each.trainings(run)])
    compared = []
    with Progress("table", len(pairs), "row") as bar:
        for each, repeats in pairs:
            one = Compared(each.row, each)
            try:
                compared.append(_scored(replace(one, runs=tuple(map(each, repeats))), songs))
            except TrainingDiverged as error:
                compared.append(replace(one, divergence=error.problem))
            bar.step()
    return compared


def _scored(each: Compared, songs: Songs | None) -> Compared:
    study, outputs = each.study, [run.outputs for run in each.runs]
    folds = [study.tested(run) for run in range(len(outputs))]
    results = score(each.predictor.manifest, outputs, folds)
    if songs is None:
        return replace(each, results=results)
    outputs = [songs.decide(study.manifest, one) for one in outputs]
    of_songs = replace(study, manifest=songs.manifest, songs=None)
    folds = [of_songs.tested(run) for run in range(len(outputs))]
    return replace(each, results=results, songs=score(songs.manifest, outputs, folds))


def score(manifest: Manifest, outputs: Sequence[F64], folds: Sequence[Ints]) -> Results:
    """Return the results of out-of-fold outputs in each repeat, with intervals.

    Clips count that were predicted in all repeats.
    """
    predicted = np.logical_and.reduce([numeric.complete(values) for values in outputs])
    _, y_true = data.read_labels(manifest)
    first, *others = (
        external.score_predictions(
            external.Predictions(
                classes=manifest.classes,
                clip_ids=manifest.clip_ids,
                groups=manifest.groups,
                y_true=y_true,
                folds=of_run,
                k=int(of_run.max()) + 1,
                outputs={"": np.where(predicted[:, None], values, np.nan)},
                task=manifest.task,
            ),
            scale=manifest.scale,
        )
        for values, of_run in zip(outputs, folds, strict=True)
    )
    return comparisons.with_primary_intervals(
        evaluation.join_repeats(first, others) if others else first
    )


def difference(first: Compared, second: Compared) -> comparisons.Comparison | None:
    """Compare two rows on the clips that both predicted; None for a row without scores.

    Rows with different labels, true and shuffled, are not compared.
    """
    if first.results is None or second.results is None:
        return None
    if first.row.shuffled != second.row.shuffled:
        return None
    repeats = [
        comparisons.folded(
            one, {first.row.name: one.models[0].outputs, second.row.name: other.models[0].outputs}
        )
        for one, other in zip(first.results.evaluations, second.results.evaluations, strict=True)
    ]
    pair = (first.row.name, second.row.name)
    return comparisons.compare_models(
        repeats, [pair], bootstrap.resample_groups(first.results.groups)
    )[0]


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
SCORED = (
    *("score", "test", "low", "high", "sd", "sd over runs", "baseline", "training", "gap"),
    *("validation", "test songs"),
)
COUNTED = ("clips", "runs", "parameters")


def measured(draft: Draft) -> list[tuple[Column, str, str]]:
    """Return a study's measured columns, each with its level and its key in `Compared.values`."""
    keys, levels = draft.file.measure.metrics, draft.file.measure.level
    if levels == ("segment",):
        return [(column, "segment", of) for key in keys for column, of in _columns(draft, key)]
    columns = []
    title = draft.task.primary_title
    pairs = [(level, key) for level in levels for key in keys if key != "baseline"]
    for level, key in pairs + [("song", key) for key in keys if key == "baseline"]:
        for column, of in _columns(draft, key):
            name = f"{level}s" if column.title == title else column.title
            columns.append((replace(column, title=name), level, of))
    return columns


def _columns(draft: Draft, key: str) -> list[tuple[Column, str]]:
    """Return the columns for a key of `SCORED` or `COUNTED`, or for other scores of the task."""
    task = draft.task
    titles = {"score": task.primary_title, "sd over runs": "sd"}
    titles["baseline"] = "majority" if task.in_percent else "baseline"
    if key in SCORED or key == task.primary_title:
        of = key if key in SCORED else "score"
        return [(Column(titles.get(key, key), draft.kind), of)]
    if key in COUNTED:
        return [(Column(key), key)]
    columns = task.columns(draft.study.manifest.classes)
    chosen = [c for c in columns if (c.terminal if key == "others" else key in (c.title, c.score))]
    if not chosen and key != "others":
        known = ", ".join((*SCORED, *COUNTED, "others", *(c.title for c in columns)))
        raise BadOption(
            f"{draft.file.path}: measure.metrics: unknown {key!r}; expected one of {known}"
        )
    return [(Column(c.title), c.title) for c in chosen]


def main_table(draft: Draft) -> Table:
    """Return the main table: the values, scores and published values of each row."""
    spec, rows = draft.file.table, draft.compared
    columns: list[tuple[Column, Sequence[Value]]] = []
    for name in spec.columns or draft.file.grid:
        values = [_value(draft.file, name, each.row) for each in rows]
        kind = TEXT if any(isinstance(value, str) for value in values) else NUMBER
        columns.append((Column("seconds" if name == "segment" else name, kind), values))
    columns += [
        (column, [each.values(level).get(key) for each in rows])
        for column, level, key in measured(draft)
    ]
    if spec.difference:
        gaps = [None if each is rows[0] else difference(rows[0], each) for each in rows]
        names = f"{spec.difference} less this", "from", "to"
        ends = zip(*((g.mean, *g.interval) if g else [None] * 3 for g in gaps), strict=True)
        columns += [(Column(n, draft.kind), part) for n, part in zip(names, ends, strict=True)]
    if draft.task.in_percent:
        figures: dict[str, list[study_file.Figure]] = {}
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
    heads, cells = zip(*columns, strict=True)
    title = draft.text(spec.title)
    return table(heads, list(zip(*cells, strict=True)), title=title, name=spec.name)


def _value(file: study_file.StudyFile, name: str, row: StudyRow) -> Value:
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
    cell: Value = file.names.get(str(value), value)
    return float(cell) if name == "segment" and cell is not None else cell


def printed_figure(
    draft: Draft, figures: Sequence[study_file.Figure], row: StudyRow, study: Study
) -> float | None:
    """Return the first published value that may be shown next to a row; None if there is none."""
    values = {"protocol": row.protocol, "varied": "", **row.values}
    # Published values are for the papers' learning rates and true labels.
    if draft.options.get("rate_scale", 1.0) != 1.0 or study.permuted or row.shuffled:
        return None
    for figure in figures:
        seconds = figure.segment or float(row.values.get("segment", 0))
        if (
            study_file.matches(figure.where, values)
            and (figure.rule != "pl20" or data.matches_pl20(study, *row.plans))
            and (figure.rule != "j22" or data.matches_j22(study, *row.plans, seconds=seconds))
            and (value := _published_value(figure.value, values)) is not None
        ):
            return value
    return None


def _published_value(value: float | str, values: Mapping[str, Any]) -> float | None:
    """Return a number, or the value at a path such as ``J22.table_2.{net}.{segment}``."""
    if not isinstance(value, str):
        return value
    found: Any = {
        **study_file.published(),
        "PL20": {"table_2": papers.PL20_TABLE_2, "table_3": papers.PL20_TABLE_3},
        "Z22": {"table_1": papers.Z22_TABLE_1},
    }
    try:
        for key in study_file.fill(value, values).split("."):
            found = found.get(key) if isinstance(found, Mapping) else getattr(found, key, None)
    except KeyError:
        return None
    return found if isinstance(found, (int, float)) else None

"""Readers of prediction files of mvemo and of other programs, and of runs of mvemo."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.external import Predictions, divided_note
from mvemo.fuse.tasks import base, task_of
from mvemo.fuse.tasks.prediction_columns import COLUMNS, RESERVED, Columns
from mvemo.manifests import Manifest, tables, text_files
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.cells import to_number
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Label, Task, label_kind

_MAY_BE_EMPTY = ("predicted", "group", "label")
# Fold of clips that were not tested, as in mvemo's ``predictions.csv``.
NOT_TESTED = "-1"


class _Row(NamedTuple):
    """Prediction of one model for one clip; None for columns that the file lacks."""

    place: str  # file and line, for messages
    clip_id: str
    label: Label | None
    group: str | None
    fold: str | None
    model: str
    repeat: str | None
    outputs: list[float]
    divided: bool


def read_predictions(
    *paths: Path | str,
    task: Task | None = None,
    manifest: Manifest | None = None,
    columns: Mapping[str, str] | None = None,
    from_logits: bool = False,
) -> Predictions:
    """Read prediction files: CSV or Parquet with a header and a row for each clip and model.

    docs/importing.md has the columns of each task. Each row of probabilities must sum to 1 up to
    rounding; a sum that differs from 1 by more than `TOLERANCE` is divided out. If the name of any
    column begins with ``p_``, only such columns are probabilities.

    Models of different files must have different names. The task is by default that of the
    manifest, or ``multiclass``. A manifest has truth, groups and names of the outputs: the files
    then need no truth, and may name clips by paths, with or without folder and extension. `columns`
    maps standard names of columns to those in the files, such as ``{"clip_id": "song"}``.
    `from_logits` is True if the files hold logits instead of probabilities. `BadFeatures` names the
    line that contradicts the file, another file or the manifest.

    Examples
    --------
    >>> from pathlib import Path
    >>> text = "clip_id,label,fold,calm,tense\\na,calm,1,0.9,0.1\\nb,tense,-1,,\\n"
    >>> _ = Path("net.csv").write_text(text)
    >>> read_predictions("net.csv").outputs["net"]
    array([[0.9, 0.1],
           [nan, nan]])
    """
    if not paths:
        raise BadFeatures("no prediction file was given")
    known = None if manifest is None else manifest.classes
    kind: Task = task or ("multiclass" if manifest is None else manifest.task)
    if manifest is not None and manifest.task != kind:
        raise BadFeatures(f"expected a manifest of the task {kind}, got {manifest.task}")
    with tables.collection_paused():
        classes: tuple[str, ...] = ()
        rows: list[_Row] = []
        files, notes = [], list[str]()
        for path in map(Path, paths):
            table = _read_table(path, columns or {}, of_manifest=manifest is not None)
            columns_of_file = _columns(path, table, kind, known, truth=manifest is None)
            if set(columns_of_file.names) < set(classes):
                # A file with a column `predicted` names only the classes that were predicted.
                columns_of_file = _columns(path, table, kind, classes, truth=manifest is None)
            names, rows_of_file = columns_of_file.names, _parse(columns_of_file, from_logits)
            notes += columns_of_file.notes
            classes = classes or names
            if set(names) != set(classes):
                raise BadFeatures(
                    f"{path}: its classes ({', '.join(names)}) differ from those of {paths[0]} "
                    f"({', '.join(classes)})"
                )
            order = [names.index(name) for name in classes]
            rows += [r._replace(outputs=[r.outputs[i] for i in order]) for r in rows_of_file]
            files.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
        if manifest is not None:
            rows = _with_truth(rows, manifest)
        by_repeat: dict[str | None, list[_Row]] = {}
        for row in rows:
            by_repeat.setdefault(row.repeat, []).append(row)
        repeats = tuple(
            _predictions(part, classes, kind, tuple(files), notes) for part in by_repeat.values()
        )
        return repeats[0] if len(repeats) == 1 else replace(repeats[0], repeats=repeats)


def _with_truth(rows: Sequence[_Row], manifest: Manifest) -> list[_Row]:
    """Return the rows with ids, labels and groups from the manifest."""
    names = {c.path: c.clip_id for c in manifest.clips} | {i: i for i in manifest.clip_ids}
    ids, _ = tables.match_ids([row.clip_id for row in rows], names)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    result = []
    for row, clip_id in zip(rows, ids, strict=True):
        clip = clips.get(clip_id)
        if clip is None:
            raise BadFeatures(
                f"{row.place}: clip {clip_id!r} is not in the manifest {manifest.name}, whose "
                f"first clip is {manifest.clip_ids[0]!r}"
            )
        if row.label is not None and row.label != clip.label and set(row.label) != set(clip.label):
            raise BadFeatures(
                f"{row.place}: clip {clip_id!r} has label {_shown(row.label)}, but "
                f"the manifest {manifest.name} has {_shown(clip.label)}"
            )
        result.append(row._replace(clip_id=clip_id, label=clip.label, group=clip.group))
    return result


def _predictions(
    rows: Sequence[_Row],
    classes: tuple[str, ...],
    task: Task,
    files: tuple[tuple[str, str], ...],
    notes: Sequence[str],
) -> Predictions:
    first = _first_rows(rows)
    clip_ids = tuple(first)
    folds, k = _number_folds(list(first.values()))
    return Predictions(
        classes=classes,
        clip_ids=clip_ids,
        groups=tuple(row.group or row.clip_id for row in first.values()),
        y_true=label_kind(task).array([row.label or () for row in first.values()], classes),
        folds=folds,
        k=k,
        outputs=_outputs_by_model(rows, clip_ids, len(classes)),
        files=files,
        task=task,
        notes=(*notes, *divided_note(sum(row.divided for row in rows), len(rows))),
    )


def _read_table(path: Path, columns: Mapping[str, str], *, of_manifest: bool) -> tables.TableRows:
    """Read a file and rename its columns; with a manifest, paths may replace clip ids."""
    table = tables.read_table(path, columns=columns)
    for name, n in Counter(table.header).items():
        if n > 1:
            raise BadFeatures(f"{path}: duplicate column {name!r}")
    if of_manifest and "clip_id" not in table.header:
        table = table.with_path()
        table = table.renamed({"clip_id": "path"} if "path" in table.header else {})
    if table.predicted_by:
        table = table.renamed({"predicted": "label"} if "label" in table.header else {})
        # Rows of media files that could not be read have no model.
        model = table.header.index("model")
        rows = [(line, row) for line, row in table.rows[1:] if "".join(row[model : model + 1])]
        table = replace(table, rows=(table.rows[0], *rows))
    header = table.header
    if len(table.rows) < 2:
        raise BadFeatures(f"{path}: has no predictions: expected a header and rows")
    if "clip_id" not in header:
        raise BadFeatures(
            f"{path}: has no column 'clip_id', only {', '.join(header)}: name the column of clip "
            "ids with --column clip_id=NAME"
        )
    return table


def _columns(
    path: Path, table: tables.TableRows, task: Task, names: Sequence[str] | None, *, truth: bool
) -> Columns:
    """Return the columns of a file, its outputs in the order of `names` or of the columns."""
    n_columns = len(table.header)
    for number, cells in table.rows[1:]:
        if len(cells) != n_columns:
            raise BadFeatures(f"{path}:{number}: expected {n_columns} cells, got {len(cells)}")
    columns = COLUMNS[task](path, table, names)
    if truth and not columns.has_truth:
        raise BadFeatures(
            f"{path}: has no column 'label', only {', '.join(columns.header)}: name it "
            "with --column label=NAME, or give a manifest with labels (--manifest)"
        )
    columns.table, notes = table.with_points(columns.number_columns())
    columns.notes += [f"In {path.name}, {note}." for note in notes]
    return columns


def _parse(columns: Columns, from_logits: bool) -> list[_Row]:
    """Return the rows of a file."""
    path = columns.path
    needed = {n: i for n, i in columns.places.items() if n in RESERVED and n not in _MAY_BE_EMPTY}
    in_groups = columns.places.get("group")
    rows = []
    for number, cells in columns.table.rows[1:]:
        place = f"{path}:{number}"
        values = {name: cells[i].strip() for name, i in needed.items()}
        for name, value in values.items():
            if name in ("fold", "repeat"):
                values[name] = value = _number_name(place, name, value)
            if not value:
                raise BadFeatures(f"{place}: {name} is empty")
        label = columns.truth(place, cells) if columns.has_truth else None
        # A file may know the groups of only some clips.
        group = None if in_groups is None else cells[in_groups].strip()
        group = None if group is None or tables.is_missing(group) else group
        of_clip = place, values["clip_id"], label, group, values.get("fold")
        of_model = values.get("model", path.stem), values.get("repeat")
        rows.append(_Row(*of_clip, *of_model, *columns.outputs(place, cells, from_logits)))
    return rows


def _number_name(place: str, name: str, text: str) -> str:
    """Return the name of a fold or repeat, '' if missing; -1.0 and the like become -1."""
    # All spellings of -1 must become -1, which marks clips that are only for training.
    with suppress(ValueError):
        number = to_number(text.replace("\N{MINUS SIGN}", "-").replace(",", "."))
        text = str(int(number)) if number == number // 1 and abs(number) < 1e15 else text
    if re.match(r"training$|train$|-(?!1$)|\d+[.,]", text, re.IGNORECASE):
        raise BadFeatures(f"{place}: {name} {shown(text)}: expected 0 or more, or -1 (not tested)")
    return "" if tables.is_missing(text) else text


def _first_rows(rows: Sequence[_Row]) -> dict[str, _Row]:
    """Return the first row of each clip; raise an error if a later row contradicts it."""
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.clip_id, row)
        if row[2:5] != earlier[2:5]:
            facts = zip(_Row._fields[2:5], row[2:5], earlier[2:5], strict=True)
            name, value, expected = next(fact for fact in facts if fact[1] != fact[2])
            raise BadFeatures(
                f"{row.place}: clip {row.clip_id!r} has {name} {_shown(value)}, but "
                f"{_shown(expected)} at {earlier.place}"
            )
    return first


def _number_folds(rows: Sequence[_Row]) -> tuple[Ints, int]:
    names = {row.fold for row in rows if row.fold is not None}
    if not names:
        return np.zeros(len(rows), dtype=np.int64), 1
    for row in rows:
        if row.fold is None:
            raise BadFeatures(f"{row.place}: this clip has no fold, but other clips have one")
    tested = sorted(names - {NOT_TESTED}, key=_by_number)
    if not tested:
        raise BadFeatures(
            f"{rows[0].place}: every clip's fold is {NOT_TESTED}, which means not tested: there "
            "is nothing to score"
        )
    index = {NOT_TESTED: -1, **{fold: i for i, fold in enumerate(tested)}}
    return np.array([index[str(row.fold)] for row in rows], dtype=np.int64), len(tested)


def _outputs_by_model(
    rows: Sequence[_Row], clip_ids: Sequence[str], n_classes: int
) -> dict[str, F64]:
    position = {clip_id: i for i, clip_id in enumerate(clip_ids)}
    models = dict.fromkeys(row.model for row in rows)
    outputs = {model: np.full((len(clip_ids), n_classes), np.nan) for model in models}
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.model, row.clip_id)
        if key in places:
            raise BadFeatures(
                f"{row.place}: clip {row.clip_id!r} of model {row.model!r} repeats "
                f"{places[key]}: if it is of another model, add a column 'model'"
            )
        places[key] = row.place
        outputs[row.model][position[row.clip_id]] = row.outputs
    return outputs


def _by_number(text: str) -> tuple[int, int, str]:
    """Return a sort key: numbers by value, then other names."""
    if not text.isdecimal():
        return 1, 0, text
    # The key has length and digits, because Python refuses to convert thousands of digits.
    digits = text.lstrip("0")
    return 0, len(digits), digits


def _shown(value: str | Label | None) -> str:
    if isinstance(value, tuple):
        value = ";".join(map(str, value))
    return "none" if value is None else repr(value)


@dataclass(frozen=True)
class Run:
    """One evaluation, read from its folder."""

    name: str  # shortest name of the folder that differs from those of other runs
    folder: Path
    task: base.Task
    flags: tuple[str, ...]  # which of ``permuted``, ``leaky``, ``synthetic``, ... are true
    repeats: tuple[Predictions, ...]  # on each set of folds, with clips in the same order
    others: Mapping[str, dict[str, float]]  # model to its scores by title, as the run states them

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.repeats[0].outputs)


def read_run(folder: str | Path) -> Run:
    """Read ``metrics.json`` and ``predictions.csv`` from the folder of an evaluation."""
    folder = Path(folder)
    if folder.is_file():
        raise MvemoError(
            f"{folder}: expected the folder of a run, got a file: to make a run of it, use "
            f"'mvemo report --predictions {folder} --out FOLDER'"
        )
    metrics, path = folder / "metrics.json", folder / "predictions.csv"
    for file in (metrics, path):
        if not file.is_file():
            raise MvemoError(f"{file}: does not exist: 'mvemo fuse ... --out {folder}' writes it")
    facts = text_files.read_json(metrics)
    try:
        task, classes = task_of(str(facts["task"])), tuple(map(str, facts["classes"]))
        models = [str(name) for name in facts["models"]]
        flags = tuple(f for f in ("permuted", "leaky", "synthetic", "predicted_by") if facts.get(f))
        others = {name: _stated(task, classes, facts["models"][name]) for name in models}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"{error} is missing or unknown" if isinstance(error, KeyError) else error
        raise MvemoError(f"{metrics}: is not the metrics of an evaluation: {cause}") from error
    try:
        first = read_predictions(path, task=facts["task"])
        if (set(first.outputs), first.classes) != (set(models), classes):
            raise BadFeatures("the models or classes differ")
    except BadFeatures as error:
        raise MvemoError(f"{path}: does not match {metrics}: {error}") from error
    repeats = first.repeats or (first,)
    if any(set(one.clip_ids) != set(first.clip_ids) for one in repeats):
        raise MvemoError(f"{path}: its repeats differ in their clips")
    ordered = tuple(_ordered(one, first.clip_ids, models) for one in repeats)
    return Run(folder.name, folder, task, flags, ordered, others)


def _stated(task: base.Task, classes: Sequence[str], model: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of `Task.field_columns` in a model of ``metrics.json``; NaN if absent."""
    scores = {}
    for column in task.field_columns(classes):
        of = model
        if column.output is not None:
            of = model.get("per_output", {}).get(classes[column.output], {})
        value = of.get(column.score)
        scores[column.title] = np.nan if value is None else float(value)
    return scores


def align_run(first: Run, run: Run) -> Run:
    """Return `run` with its clips in the order of `first`; raise if they are not comparable."""
    where = f"{run.folder} is not comparable with {first.folder}"
    mine, theirs = first.repeats[0], run.repeats[0]
    for name, a, b in (
        ("task", mine.task, theirs.task),
        ("list of classes", list(mine.classes), list(theirs.classes)),
        ("number of folds", mine.k, theirs.k),
        ("number of repeats", len(first.repeats), len(run.repeats)),
    ):
        if a != b:
            raise BadFeatures(f"{where}: its {name} is {b}, not {a}")
    if changed := {*mine.clip_ids} ^ {*theirs.clip_ids}:
        clip = next(c for c in (*mine.clip_ids, *theirs.clip_ids) if c in changed)
        n_missing = len(changed & {*mine.clip_ids})
        raise BadFeatures(
            f"{where}: its clips differ: {n_missing} are missing and "
            f"{len(changed) - n_missing} are new, for example {clip!r}"
        )
    repeats = tuple(_ordered(one, mine.clip_ids, run.models) for one in run.repeats)
    pairs: list[tuple[str, Any, Any]] = [("groups", mine.groups, repeats[0].groups)]
    for one, other in zip(first.repeats, repeats, strict=True):
        pairs += [("folds", one.folds, other.folds), ("labels", one.y_true, other.y_true)]
    for what, expected, got in pairs:
        differs = np.asarray(expected) != np.asarray(got)
        rows = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
        if len(rows):
            permuted = ("permuted" in first.flags) != ("permuted" in run.flags)
            hint = "; one of the runs has permuted labels" * (permuted and what == "labels")
            raise BadFeatures(
                f"{where}: the {what} of {len(rows)} clips differ, for example "
                f"{mine.clip_ids[rows[0]]!r}{hint}"
            )
    return replace(run, repeats=repeats)


def _ordered(one: Predictions, clip_ids: Sequence[str], models: Sequence[str]) -> Predictions:
    """Return predictions with the clips and the models in another order."""
    row = {clip: i for i, clip in enumerate(one.clip_ids)}
    order = [row[clip] for clip in clip_ids]
    return replace(
        one,
        clip_ids=tuple(clip_ids),
        groups=tuple(one.groups[i] for i in order),
        y_true=one.y_true[order],
        folds=one.folds[order],
        outputs={name: one.outputs[name][order] for name in models},
        repeats=(),
    )

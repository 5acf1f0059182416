"""Predictions of models that mvemo never saw, scored as if it had cross-validated them.

What is in the file is all there is: nothing here can tell what a model was trained on,
and every report of it says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.crossval.repeats import with_repeats
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import Model
from mvemo.fuse.report.banners import OTHERS
from mvemo.fuse.results import Results, score_baseline, score_model
from mvemo.fuse.tasks.registry import task_of
from mvemo.manifests.csv_files import read_csv
from mvemo.manifests.files import shown

# Columns with a meaning of their own; `predicted` follows from the probabilities.
RESERVED = ("repeat", "clip_id", "label", "group", "fold", "model", "predicted")
# Probability columns may be marked as such, as in the file that mvemo writes.
PREFIX = "p_"
# The fold of clips that were not tested, as in the file that mvemo writes.
NOT_TESTED = "-1"
# How far a row's sum may be from 1: files are often rounded to three or four digits.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """The contents of one or more prediction files.

    Parameters
    ----------
    classes
        In the order of the first file's columns.
    clip_ids, groups
        In the order of their first rows; a clip without group is its own.
    y_true
        int64 (clips,): the true classes.
    folds
        int64 (clips,): from 0 to k - 1 in the order of the files' own names of folds, -1
        for clips that were not tested; 0 throughout where the files name none.
    k
        Number of folds that clips were tested in.
    proba
        Model name to float64 (clips, classes); NaN rows where it made no prediction.
    files
        (name, SHA-256) of each file.
    repeats
        Where the files have several evaluations on different folds, all of them, the first
        of which is this one.
    """

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    y_true: Ints
    folds: Ints
    k: int
    proba: Mapping[str, F64]
    files: tuple[tuple[str, str], ...] = ()
    repeats: tuple[Predictions, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class _Row:
    """One clip of one model; `place` is file and line, None where a column is not there."""

    place: str
    clip_id: str
    label: str
    group: str | None
    fold: str | None
    model: str
    repeat: str | None
    proba: list[float]


def read_predictions(*paths: Path | str) -> Predictions:
    """Read prediction files.

    CSV in UTF-8 with a header: ``clip_id``, ``label`` (the true class), and a column of
    probabilities for each class, named like the class or ``p_`` and the class; optional
    ``group``, ``fold`` (the one that the clip was tested in, -1 if it was not), ``model``
    (default: the file's name) and ``repeat`` (which of several evaluations on different
    folds). If any column begins with ``p_``, those alone are probabilities. Each row's
    probabilities sum to 1 within `TOLERANCE`; all empty or NaN: not predicted. mvemo's own
    ``predictions.csv`` is such a file.

    Parameters
    ----------
    paths
        Of the files; their models are told apart by name.

    Raises
    ------
    BadFeatures
        A file that is not there or not such a CSV, an unknown label, numbers that are no
        probabilities, a clip twice for one model, files that disagree on a clip, or no clip
        that was tested; the message names the line.

    See Also
    --------
    results_of_predictions : score them.

    Examples
    --------
    >>> from pathlib import Path
    >>> text = "clip_id,label,fold,calm,tense\\na,calm,1,0.9,0.1\\nb,tense,-1,,\\n"
    >>> _ = Path("net.csv").write_text(text)
    >>> predictions = read_predictions("net.csv")
    >>> predictions.folds
    array([ 0, -1])
    >>> predictions.proba["net"]
    array([[0.9, 0.1],
           [nan, nan]])
    """
    if not paths:
        raise BadFeatures("no prediction file was given")
    classes: tuple[str, ...] = ()
    rows: list[_Row] = []
    files: list[tuple[str, str]] = []
    for path in map(Path, paths):
        columns, rows_of_file = _read_file(path)
        if not classes:
            classes = columns
        elif set(columns) != set(classes):
            raise BadFeatures(
                f"{path}: its classes are {', '.join(columns)}, those of {paths[0]} "
                f"{', '.join(classes)}"
            )
        order = [columns.index(name) for name in classes]
        rows += [replace(row, proba=[row.proba[i] for i in order]) for row in rows_of_file]
        files.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    by_repeat: dict[str | None, list[_Row]] = {}
    for row in rows:
        by_repeat.setdefault(row.repeat, []).append(row)
    repeats = tuple(_predictions(part, classes, tuple(files)) for part in by_repeat.values())
    return repeats[0] if len(repeats) == 1 else replace(repeats[0], repeats=repeats)


def _predictions(
    rows: Sequence[_Row], classes: tuple[str, ...], files: tuple[tuple[str, str], ...]
) -> Predictions:
    """The rows of one evaluation."""
    first = _first_rows(rows)
    clip_ids = tuple(first)
    folds, k = _number_folds(list(first.values()))
    return Predictions(
        classes=classes,
        clip_ids=clip_ids,
        groups=tuple(row.group or row.clip_id for row in first.values()),
        y_true=np.array([classes.index(row.label) for row in first.values()], dtype=np.int64),
        folds=folds,
        k=k,
        proba=_proba_by_model(rows, clip_ids, len(classes)),
        files=files,
    )


def results_of_predictions(
    predictions: Predictions,
    *,
    name: str = "predictions",
    synthetic: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Results:
    """Score predictions, for the same report as an evaluation of mvemo's own.

    Without folds there is one: its scores are those of all clips, and the baseline is the
    share of the commonest class among them. Clips that were not tested are not scored,
    whatever was predicted for them; they may have been trained on. Groups in more than one
    fold, or both tested and not tested, make the results `leaky`: the model may have seen
    them.

    Parameters
    ----------
    predictions
        Of `read_predictions`.
    name
        Of the data set.
    synthetic
        Whether the clips are generated data, which no file tells.
    provenance
        JSON values to be kept beside the files' names and digests.

    See Also
    --------
    mvemo.fuse.evaluate : cross-validate heads over features, instead.

    Examples
    --------
    >>> import numpy as np
    >>> predictions = Predictions(
    ...     classes=("calm", "tense"), clip_ids=("a", "b", "c"), groups=("a", "b", "c"),
    ...     y_true=np.array([0, 1, 1]), folds=np.array([0, 0, 0]), k=1,
    ...     proba={"net": np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])},
    ... )
    >>> results = results_of_predictions(predictions, name="mine")
    >>> round(results.models[0].scores["accuracy"], 2)
    0.67
    """
    if predictions.repeats:
        first, *others = (
            results_of_predictions(one, name=name, synthetic=synthetic, provenance=provenance)
            for one in predictions.repeats
        )
        return with_repeats(first, others)
    p = predictions
    task = task_of("multiclass")
    tested = (p.folds >= 0)[:, None]
    models = tuple(
        score_model(
            task, Model(model, (), ()), np.where(tested, proba, np.nan), p.y_true, p.folds, p.k
        )
        for model, proba in p.proba.items()
    )
    folds_of_group: dict[str, set[int]] = {}
    for group, fold in zip(p.groups, p.folds.tolist(), strict=True):
        folds_of_group.setdefault(group, set()).add(fold)
    n_straddling = sum(len(folds) > 1 for folds in folds_of_group.values())
    return Results(
        name=name,
        task=task,
        classes=p.classes,
        clip_ids=p.clip_ids,
        groups=p.groups,
        y_true=p.y_true,
        folds=p.folds,
        k=p.k,
        seed=0,
        protocol=OTHERS,
        leaky=n_straddling > 0,
        synthetic=synthetic,
        permuted=False,
        models=models,
        baseline=score_baseline(task, p.y_true, p.folds, p.k, len(p.classes)),
        provenance={
            "prediction_files": [{"name": file, "sha256": sha256} for file, sha256 in p.files],
            "groups_in_several_folds": n_straddling,
            **(provenance or {}),
        },
    )


def _read_file(path: Path) -> tuple[tuple[str, ...], list[_Row]]:
    """Classes, in the order of the columns, and rows."""
    lines = read_csv(path, error=BadFeatures)
    if len(lines) < 2:
        raise BadFeatures(f"{path}: no predictions: it has a header at most")
    header = [cell.strip() for cell in lines[0][1]]
    columns, classes = _class_columns(path, header)
    reserved = {name: header.index(name) for name in RESERVED if name in header}
    rows: list[_Row] = []
    for number, cells in lines[1:]:
        place = f"{path}:{number}"
        if len(cells) != len(header):
            raise BadFeatures(f"{place}: {len(cells)} cells, the header has {len(header)}")
        values = {name: cells[i].strip() for name, i in reserved.items()}
        for name, value in values.items():
            if name not in ("predicted", "group") and not value:
                raise BadFeatures(f"{place}: {name} is empty")
        if values["label"] not in classes:
            raise BadFeatures(
                f"{place}: label {shown(values['label'])} is none of the classes "
                f"{', '.join(classes)}"
            )
        rows.append(
            _Row(
                place=place,
                clip_id=values["clip_id"],
                label=values["label"],
                # A file may know the groups of some clips alone.
                group=values.get("group") or None,
                fold=values.get("fold"),
                model=values.get("model", path.stem),
                repeat=values.get("repeat"),
                proba=_parse_proba(place, [cells[i] for i in columns]),
            )
        )
    return classes, rows


def _class_columns(path: Path, header: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Indices of the columns of probabilities, and the classes that they are of."""
    for name in header:
        if header.count(name) > 1:
            raise BadFeatures(f"{path}: column {name!r} is there twice")
    for name in ("clip_id", "label"):
        if name not in header:
            raise BadFeatures(f"{path}: no column {name!r}; there are {', '.join(header)}")
    marked = [i for i, name in enumerate(header) if name.startswith(PREFIX)]
    columns = marked or [i for i, name in enumerate(header) if name and name not in RESERVED]
    if len(columns) < 2:
        raise BadFeatures(
            f"{path}: {len(columns)} columns of probabilities: one for each class is needed, "
            "named like the class, or p_ and the class"
        )
    return columns, tuple(header[i][len(PREFIX) if marked else 0 :] for i in columns)


def _parse_proba(place: str, cells: Sequence[str]) -> list[float]:
    """One row's probabilities; all NaN where it is not predicted."""
    proba = []
    for cell in cells:
        try:
            proba.append(float(cell) if cell.strip() else math.nan)
        except ValueError:
            raise BadFeatures(f"{place}: probability {shown(cell)} is no number") from None
    n_missing = sum(map(math.isnan, proba))
    if n_missing == len(proba):
        return proba
    if n_missing:
        raise BadFeatures(
            f"{place}: {n_missing} of {len(proba)} probabilities are missing: give all, or none "
            "where nothing was predicted"
        )
    for value in proba:
        if not 0.0 <= value <= 1.0 + TOLERANCE:
            raise BadFeatures(f"{place}: {value:g} is no probability, which is from 0 to 1")
    total = math.fsum(proba)
    if abs(total - 1.0) > TOLERANCE:
        raise BadFeatures(f"{place}: the probabilities sum to {total:.6g}, not to 1")
    return [min(value, 1.0) for value in proba]


def _first_rows(rows: Sequence[_Row]) -> dict[str, _Row]:
    """Clip id to its first row, with which all others of the clip must agree."""
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.clip_id, row)
        for name in ("label", "group", "fold"):
            value, expected = getattr(row, name), getattr(earlier, name)
            if value != expected:
                raise BadFeatures(
                    f"{row.place}: clip {row.clip_id!r} has {name} {_or_none(value)}, but "
                    f"{_or_none(expected)} at {earlier.place}"
                )
    return first


def _number_folds(rows: Sequence[_Row]) -> tuple[Ints, int]:
    """Folds of clips, given one row each, as `Predictions.folds`; and their number."""
    names = {row.fold for row in rows if row.fold is not None}
    if not names:
        return np.zeros(len(rows), dtype=np.int64), 1
    for row in rows:
        if row.fold is None:
            raise BadFeatures(f"{row.place}: no fold is given for this clip, but for others")
    tested = sorted(names - {NOT_TESTED}, key=_by_number)
    if not tested:
        raise BadFeatures(
            f"{rows[0].place}: every clip's fold is {NOT_TESTED}, which means not tested: there "
            "is nothing to score"
        )
    index = {NOT_TESTED: -1, **{fold: i for i, fold in enumerate(tested)}}
    return np.array([index[str(row.fold)] for row in rows], dtype=np.int64), len(tested)


def _proba_by_model(
    rows: Sequence[_Row], clip_ids: Sequence[str], n_classes: int
) -> dict[str, F64]:
    position = {clip_id: i for i, clip_id in enumerate(clip_ids)}
    proba: dict[str, F64] = {}
    places: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.model, row.clip_id)
        if key in places:
            raise BadFeatures(
                f"{row.place}: clip {row.clip_id!r} of model {row.model!r} is already at "
                f"{places[key]}: a column 'model' tells models apart"
            )
        places[key] = row.place
        if row.model not in proba:
            proba[row.model] = np.full((len(clip_ids), n_classes), np.nan)
        proba[row.model][position[row.clip_id]] = row.proba
    return proba


def _by_number(text: str) -> tuple[int, int, str]:
    """Sorts folds 2 and 10 as numbers, and other names after them."""
    # By the number's length first: Python refuses to convert one of thousands of digits.
    digits = text.lstrip("0") if text.isdecimal() else ""
    return (0, len(digits), digits) if text.isdecimal() else (1, 0, text)


def _or_none(text: str | None) -> str:
    return "none" if text is None else repr(text)

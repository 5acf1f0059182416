"""Predictions of models that mvemo never saw, scored as if it had cross-validated them.

What is in the file is all there is: nothing here can tell what a model was trained on,
and every report of it says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import Model
from mvemo.fuse.report.summary import OTHERS
from mvemo.fuse.results import Results, score_baseline, score_model
from mvemo.fuse.tasks.registry import task_of
from mvemo.manifests.files import read_csv

# Columns with a meaning of their own; `predicted` follows from the probabilities.
RESERVED = ("clip_id", "label", "group", "fold", "model", "predicted")
# Probability columns may be marked as such, as in the file that mvemo writes.
PREFIX = "p_"
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
    labels
        int64 (clips,): the true classes.
    folds
        int64 (clips,): from 0 to k - 1 in the order of the files' own names of folds;
        0 throughout where they name none.
    k
        Number of folds.
    probabilities
        Model name to float64 (clips, classes); NaN rows where it made no prediction.
    files
        (name, SHA-256) of each file.
    """

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    k: int
    probabilities: Mapping[str, NDArray[np.float64]]
    files: tuple[tuple[str, str], ...] = ()


@dataclass
class _Row:
    """One clip of one model, and where it stands."""

    where: str
    clip_id: str
    label: str
    group: str | None
    fold: str | None
    model: str
    values: list[float]


def read_predictions(*paths: Path | str) -> Predictions:
    """Read prediction files.

    CSV in UTF-8 with a header: ``clip_id``, ``label`` (the true class), and a column of
    probabilities for each class, named like the class or ``p_`` and the class; optional
    ``group``, ``fold`` (the one that the clip was tested in) and ``model`` (default: the
    file's name). If any column begins with ``p_``, those alone are probabilities. Each
    row's probabilities sum to 1 within `TOLERANCE`; all empty or NaN: not predicted.
    mvemo's own ``predictions.csv`` is such a file.

    Raises
    ------
    BadFeatures
        A file that is not there or not such a CSV, an unknown label, numbers that are no
        probabilities, a clip twice for one model, or files that disagree on a clip; the
        message names the line.
    """
    if not paths:
        raise BadFeatures("no prediction file was given")
    classes: tuple[str, ...] = ()
    rows: list[_Row] = []
    files: list[tuple[str, str]] = []
    for path in map(Path, paths):
        lines = _lines(path)
        found, read = _read_file(path, lines)
        if not classes:
            classes = found
        elif set(found) != set(classes):
            raise BadFeatures(
                f"{path}: its classes are {', '.join(found)}, those of {paths[0]} "
                f"{', '.join(classes)}"
            )
        order = [found.index(name) for name in classes]
        for row in read:
            row.values = [row.values[i] for i in order]
        rows += read
        files.append((path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return _assembled(classes, rows, files)


def results_of_predictions(
    predictions: Predictions,
    *,
    name: str = "predictions",
    synthetic: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Results:
    """Score predictions, for the same report as an evaluation of mvemo's own.

    Without folds there is one: its scores are those of all clips, and the majority
    baseline is the share of the commonest class among them. Groups in more than one fold
    make the results `leaky`: a model trained on the other folds saw them.

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
    """
    p = predictions
    task = task_of("multiclass")
    scored = tuple(
        score_model(task, Model(model, (), ()), outputs, p.labels, p.folds, p.k)
        for model, outputs in p.probabilities.items()
    )
    seen: dict[str, set[int]] = {}
    for group, fold in zip(p.groups, p.folds.tolist(), strict=True):
        seen.setdefault(group, set()).add(fold)
    straddling = sum(len(folds) > 1 for folds in seen.values())
    return Results(
        name=name,
        task=task,
        classes=p.classes,
        clip_ids=p.clip_ids,
        groups=p.groups,
        y_true=p.labels,
        folds=p.folds,
        k=p.k,
        seed=0,
        protocol=OTHERS,
        leaky=straddling > 0,
        synthetic=synthetic,
        permuted=False,
        models=scored,
        baseline=score_baseline(task, p.labels, p.folds, p.k, len(p.classes)),
        provenance={
            "prediction_files": [{"name": file, "sha256": sha256} for file, sha256 in p.files],
            "groups_in_several_folds": straddling,
            **(provenance or {}),
        },
    )


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that is not empty."""
    lines = read_csv(path, error=BadFeatures)
    if len(lines) < 2:
        raise BadFeatures(f"{path}: no predictions: it has a header at most")
    return lines


def _read_file(
    path: Path, lines: Sequence[tuple[int, list[str]]]
) -> tuple[tuple[str, ...], list[_Row]]:
    head = [cell.strip() for cell in lines[0][1]]
    for name in head:
        if head.count(name) > 1:
            raise BadFeatures(f"{path}: column {name!r} is there twice")
    for name in ("clip_id", "label"):
        if name not in head:
            raise BadFeatures(f"{path}: no column {name!r}; there are {', '.join(head)}")
    marked = [i for i, name in enumerate(head) if name.startswith(PREFIX)]
    columns = marked or [i for i, name in enumerate(head) if name and name not in RESERVED]
    classes = tuple(head[i][len(PREFIX) if marked else 0 :] for i in columns)
    if len(classes) < 2:
        raise BadFeatures(
            f"{path}: {len(classes)} columns of probabilities: one for each class is needed, "
            "named like the class, or p_ and the class"
        )
    place = {name: head.index(name) for name in RESERVED if name in head}
    rows = []
    for number, cells in lines[1:]:
        where = f"{path}:{number}"
        if len(cells) != len(head):
            raise BadFeatures(f"{where}: {len(cells)} cells, the header has {len(head)}")
        told = {name: cells[i].strip() for name, i in place.items()}
        for name in told:
            if name != "predicted" and name != "group" and not told[name]:
                raise BadFeatures(f"{where}: {name} is empty")
        if told["label"] not in classes:
            raise BadFeatures(
                f"{where}: label {told['label']!r} is none of the classes {', '.join(classes)}"
            )
        values = _probabilities(where, [cells[i] for i in columns])
        rows.append(
            _Row(
                where,
                told["clip_id"],
                told["label"],
                # A file may know the groups of some clips alone.
                told.get("group") or None,
                told.get("fold"),
                told.get("model", path.stem),
                values,
            )
        )
    return classes, rows


def _probabilities(where: str, cells: Sequence[str]) -> list[float]:
    """One row's; all NaN where it is not predicted."""
    values = []
    for cell in cells:
        try:
            values.append(float(cell) if cell.strip() else math.nan)
        except ValueError:
            raise BadFeatures(f"{where}: probability {cell!r} is no number") from None
    unknown = sum(map(math.isnan, values))
    if unknown == len(values):
        return values
    if unknown:
        raise BadFeatures(
            f"{where}: {unknown} of {len(values)} probabilities are missing: give all, or none "
            "where nothing was predicted"
        )
    for value in values:
        if not 0.0 <= value <= 1.0 + TOLERANCE:
            raise BadFeatures(f"{where}: {value:g} is no probability, which is from 0 to 1")
    total = math.fsum(values)
    if abs(total - 1.0) > TOLERANCE:
        raise BadFeatures(f"{where}: the probabilities sum to {total:.6g}, not to 1")
    return values


def _assembled(
    classes: tuple[str, ...], rows: Sequence[_Row], files: Sequence[tuple[str, str]]
) -> Predictions:
    first: dict[str, _Row] = {}
    place: dict[str, int] = {}
    for row in rows:
        known = first.setdefault(row.clip_id, row)
        place.setdefault(row.clip_id, len(place))
        for what in ("label", "group", "fold"):
            here, there = getattr(row, what), getattr(known, what)
            if here != there:
                raise BadFeatures(
                    f"{row.where}: clip {row.clip_id!r} has {what} {_or_none(here)}, but "
                    f"{_or_none(there)} at {known.where}"
                )
    probabilities: dict[str, NDArray[np.float64]] = {}
    where: dict[tuple[str, str], str] = {}
    for row in rows:
        at = (row.model, row.clip_id)
        if at in where:
            raise BadFeatures(
                f"{row.where}: clip {row.clip_id!r} of model {row.model!r} is already at "
                f"{where[at]}: a column 'model' tells models apart"
            )
        where[at] = row.where
        if row.model not in probabilities:
            probabilities[row.model] = np.full((len(place), len(classes)), np.nan)
        probabilities[row.model][place[row.clip_id]] = row.values
    told = [row.fold for row in first.values()]
    named = sorted({fold for fold in told if fold is not None}, key=_by_number)
    without = [row.where for row in first.values() if row.fold is None]
    if named and without:
        raise BadFeatures(f"{without[0]}: no fold is given for this clip, but for others")
    index = {fold: i for i, fold in enumerate(named)}
    return Predictions(
        classes=classes,
        clip_ids=tuple(first),
        groups=tuple(row.group or row.clip_id for row in first.values()),
        labels=np.array([classes.index(row.label) for row in first.values()], dtype=np.int64),
        folds=np.array([0 if f is None else index[f] for f in told], dtype=np.int64),
        k=max(len(named), 1),
        probabilities=probabilities,
        files=tuple(files),
    )


def _by_number(text: str) -> tuple[int, int, str]:
    """Sorts folds 2 and 10 as numbers, and other names after them."""
    return (0, int(text), text) if text.isdecimal() else (1, 0, text)


def _or_none(text: str | None) -> str:
    return "none" if text is None else repr(text)

"""Runs: evaluations read back from the files of their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.arrays import Ints
from mvemo.fuse.crossval.comparisons import FoldedOutputs
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.tasks.base import Task
from mvemo.fuse.tasks.registry import task_of
from mvemo.manifests.files import parse_json
from mvemo.manifests.tables import read_table

CsvCells = dict[str, str]


@dataclass(frozen=True)
class Run:
    """One evaluation as its folder has it; `Results` explains the other fields."""

    name: str  # of the folder, as short as distinguishes it from other runs
    folder: Path
    task: Task
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    flags: tuple[str, ...]  # those of ``permuted``, ``leaky``, ``synthetic`` that are true
    repeats: tuple[FoldedOutputs, ...]  # predictions on each set of folds

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of its models."""
        return tuple(self.repeats[0].outputs)


def read_run(folder: str | Path) -> Run:
    """Read ``metrics.json`` and ``predictions.csv`` of one evaluation."""
    folder = Path(folder)
    if folder.is_file():
        raise FuseError(
            f"{folder}: a file, not the folder of a run: 'mvemo report --predictions {folder} "
            "--out FOLDER' makes one of it"
        )
    metrics, path = folder / "metrics.json", folder / "predictions.csv"
    for file in (metrics, path):
        if not file.is_file():
            raise FuseError(f"{file}: no such file: 'mvemo fuse ... --out {folder}' writes it")
    try:
        facts = parse_json(metrics.read_text(encoding="utf-8"))
        task, classes = task_of(str(facts["task"])), tuple(map(str, facts["classes"]))
        models, k = [str(name) for name in facts["models"]], int(facts["folds"])
        flags = tuple(f for f in ("permuted", "leaky", "synthetic", "predicted_by") if facts.get(f))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FuseError(f"{metrics}: not the metrics of an evaluation: {_cause(error)}") from error
    try:
        (_, head), *lines = read_table(path, error=ValueError).rows
        by_repeat: dict[str, list[CsvCells]] = {}
        for _, cells in lines:
            row = dict(zip(head, cells, strict=True))
            by_repeat.setdefault(row.get("repeat", "0"), []).append(row)
        clips = _clips(next(iter(by_repeat.values())))
        repeats = tuple(
            _read_repeat(rows, list(clips), task, classes, models, k) for rows in by_repeat.values()
        )
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise FuseError(f"{path}: not the predictions of {metrics}: {_cause(error)}") from error
    return Run(
        name=folder.name,
        folder=folder,
        task=task,
        classes=classes,
        clip_ids=tuple(clips),
        groups=tuple(row["group"] for row in clips.values()),
        flags=flags,
        repeats=repeats,
    )


def _clips(rows: Sequence[CsvCells]) -> dict[str, CsvCells]:
    """Return the first row of each clip, in their order."""
    clips: dict[str, CsvCells] = {}
    for row in rows:
        clips.setdefault(row["clip_id"], row)
    return clips


def _read_repeat(
    rows: Sequence[CsvCells],
    clip_ids: Sequence[str],
    task: Task,
    classes: Sequence[str],
    models: Sequence[str],
    k: int,
) -> FoldedOutputs:
    index = {clip_id: i for i, clip_id in enumerate(clip_ids)}
    outputs = {name: np.full((len(clip_ids), len(classes)), np.nan) for name in models}
    for row in rows:
        cells = [row[f"{task.csv_prefix}{name}"] for name in classes]
        if all(cells):
            outputs[row["model"]][index[row["clip_id"]]] = [float(cell) for cell in cells]
    clips = _clips(rows)
    about = [clips[clip_id] for clip_id in clip_ids]
    return FoldedOutputs(
        task=task,
        y_true=task.parse_labels(about, classes),
        folds=np.array([int(row["fold"]) for row in about], np.int64),
        k=k,
        outputs=outputs,
    )


def align_run(first: Run, run: Run) -> Run:
    """Return `run` with its clips in the order of `first`; raise if the two are not comparable."""
    where = f"{run.folder} is not comparable with {first.folder}"
    for name, a, b in (
        ("task", first.task.name, run.task.name),
        ("list of classes", list(first.classes), list(run.classes)),
        ("number of folds", first.repeats[0].k, run.repeats[0].k),
        ("number of repeats", len(first.repeats), len(run.repeats)),
    ):
        if a != b:
            raise BadFeatures(f"{where}: its {name} is {b}, not {a}")
    row = {clip: i for i, clip in enumerate(run.clip_ids)}
    missing = [clip for clip in first.clip_ids if clip not in row]
    n_new = len(run.clip_ids) - (len(first.clip_ids) - len(missing))
    if missing or n_new:
        example = missing[0] if missing else next(c for c in row if c not in set(first.clip_ids))
        raise BadFeatures(
            f"{where}: its clips differ: {len(missing)} are missing and {n_new} are new, such as "
            f"{example!r}"
        )
    order = np.array([row[clip] for clip in first.clip_ids], dtype=np.int64)
    groups = tuple(run.groups[int(i)] for i in order)
    if groups != first.groups:
        raise _differ(where, first, "groups", np.array(groups) != np.array(first.groups))
    repeats = tuple(_reordered(one, order) for one in run.repeats)
    for one, theirs in zip(first.repeats, repeats, strict=True):
        folds = one.folds != theirs.folds
        labels = (one.y_true != theirs.y_true).reshape(len(order), -1).any(axis=1)
        if folds.any():
            raise _differ(where, first, "folds", folds)
        if labels.any():
            hint = ""
            if ("permuted" in first.flags) != ("permuted" in run.flags):
                hint = "; one of them has permuted labels"
            raise _differ(where, first, "labels", labels, hint)
    return replace(run, clip_ids=first.clip_ids, groups=groups, repeats=repeats)


def _reordered(one: FoldedOutputs, order: Ints) -> FoldedOutputs:
    return replace(
        one,
        y_true=one.y_true[order],
        folds=one.folds[order],
        outputs={name: values[order] for name, values in one.outputs.items()},
    )


def _differ(where: str, first: Run, what: str, mask: Any, hint: str = "") -> BadFeatures:
    clip = first.clip_ids[int(np.flatnonzero(mask)[0])]
    return BadFeatures(f"{where}: {what} of {int(mask.sum())} clips differ, such as {clip!r}{hint}")


def _cause(error: Exception) -> str:
    return f"{error} is missing or not known" if isinstance(error, KeyError) else str(error)

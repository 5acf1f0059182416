"""Two or more evaluations of the same clips on the same folds, model by model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.report.text import clean, columns, wrap
from mvemo.fuse.statistics.model_tests import holm, nadeau_bengio
from mvemo.fuse.statistics.resamples import N_RESAMPLES, percentile_interval, resample_groups
from mvemo.fuse.tasks.registry import TASKS, task_of
from mvemo.manifests.files import read_csv, to_json_values

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One evaluation as its folder holds it.

    Parameters
    ----------
    name
        The folder's, as short as tells it from the others.
    folder
        Where it lies.
    task, classes, clip_ids, groups, folds, labels
        As in `Results`.
    k
        Number of folds.
    flags
        What a reader must know: ``permuted``, ``leaky``, ``synthetic``, where they hold.
    predictions
        Model name to float64 (clips, outputs); NaN rows were not predicted.
    """

    name: str
    folder: Path
    task: str
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    folds: NDArray[np.int64]
    labels: NDArray[Any]
    k: int
    flags: tuple[str, ...]
    predictions: dict[str, F64]


@dataclass(frozen=True)
class Difference:
    """A model in one run against the same model in the first run.

    Parameters
    ----------
    model, run
        Their names.
    clips
        Predicted in both runs; all else is of these alone.
    mean
        Of the score's differences over folds; positive where this run is better.
    interval
        float64 (2,): 95 % interval of the difference, by a paired group bootstrap.
    t, p, p_holm
        Nadeau and Bengio's corrected test over folds, and `p` corrected for the number of
        differences in the table (Holm); NaN where all predictions are the same.
    """

    model: str
    run: str
    clips: int
    mean: float
    interval: F64
    t: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class RunComparison:
    """All of it.

    Parameters
    ----------
    runs
        In the order given; the first is what the others are compared with.
    score
        Name of the task's primary metric.
    models
        Of all runs, in the order of their first appearance.
    scores
        (model, run) to the mean over folds of the score, on all clips it predicted.
    differences
        Of models that the first run has, too.
    n_resamples
        Of the bootstrap.
    """

    runs: tuple[Run, ...]
    score: str
    models: tuple[str, ...]
    scores: dict[tuple[str, str], float]
    differences: tuple[Difference, ...]
    n_resamples: int


def read_run(folder: str | Path) -> Run:
    """Read ``metrics.json`` and ``predictions.csv`` of one evaluation.

    Raises
    ------
    FuseError
        A file is absent or damaged.
    """
    folder = Path(folder)
    metrics, path = folder / "metrics.json", folder / "predictions.csv"
    for file in (metrics, path):
        if not file.is_file():
            raise FuseError(f"{file}: no such file: 'mvemo fuse ... --out {folder}' writes it")
    try:
        held = json.loads(metrics.read_text(encoding="utf-8"))
        task, classes = str(held["task"]), tuple(map(str, held["classes"]))
        names, k = [str(name) for name in held["models"]], int(held["folds"])
        if task not in TASKS:
            raise ValueError(f"task {task!r} is not known")
        flags = tuple(f for f in ("permuted", "leaky", "synthetic") if held.get(f))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FuseError(f"{metrics}: not the metrics of an evaluation: {_said(error)}") from error
    try:
        (_, head), *lines = read_csv(path)
        rows = [dict(zip(head, cells, strict=True)) for _, cells in lines]
        clips = {row["clip_id"]: i for i, row in enumerate(_first(rows))}
        model_row = {name: i for i, name in enumerate(names)}
        values = np.full((len(names), len(clips), len(classes)), np.nan)
        prefix = task_of(task).csv_prefix
        for row in rows:
            cells = [row[f"{prefix}{name}"] for name in classes]
            if all(cells):
                values[model_row[row["model"]], clips[row["clip_id"]]] = [float(c) for c in cells]
        about = _first(rows)
        labels = task_of(task).parse_labels(about, classes)
        return Run(
            name=folder.name,
            folder=folder,
            task=task,
            classes=classes,
            clip_ids=tuple(clips),
            groups=tuple(row["group"] for row in about),
            folds=np.array([int(row["fold"]) for row in about], np.int64),
            labels=labels,
            k=k,
            flags=flags,
            predictions={name: values[i] for name, i in model_row.items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FuseError(f"{path}: not the predictions of {metrics}: {_said(error)}") from error


def compare_runs(
    folders: Sequence[str | Path], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> RunComparison:
    """Compare every model of every run with the same model in the first run.

    The score is the task's primary metric: accuracy of classes, macro ROC-AUC of tags, R2 (mean
    over dimensions) of values; differences are means over folds, on the clips that both
    predicted. Of R2 the interval is that of the pooled difference (see
    `mvemo.fuse.tasks.regression`).

    Parameters
    ----------
    folders
        Two or more, as written by ``mvemo fuse`` or ``mvemo-cv``.
    n_resamples, seed
        Of the group bootstrap.

    Raises
    ------
    BadFeatures
        The runs are not of the same clips, labels, groups and folds; or no model is in the
        first run and another.
    FuseError
        A folder does not hold an evaluation.
    """
    if len(folders) < 2:
        raise BadFeatures(f"{len(folders)} run(s) given: a comparison needs two at least")
    runs = _named([read_run(folder) for folder in folders])
    first = runs[0]
    others = [first, *(_aligned(first, run) for run in runs[1:])]
    resamples = resample_groups(first.groups, n_resamples, seed)
    models = tuple(dict.fromkeys(name for run in others for name in run.predictions))
    scores, rows, task = {}, [], task_of(first.task)
    for model in models:
        for run in others:
            if model not in run.predictions:
                continue
            mine = run.predictions[model]
            per_fold = task.primary_per_fold(run.labels, mine, run.folds, run.k)
            scores[model, run.name] = mean_of_finite(per_fold)
            if run is first or model not in first.predictions:
                continue
            both = np.stack([mine, first.predictions[model]])
            there = np.isfinite(both).all(axis=(0, 2))
            both[:, ~there] = np.nan
            a, b = (task.primary_per_fold(run.labels, p, run.folds, run.k) for p in both)
            sizes = np.array([(there & (run.folds == f)).sum() for f in range(run.k)])
            used = np.isfinite(a - b) & (sizes > 0) & (sizes < there.sum())
            ratio = float(np.mean(sizes[used] / (there.sum() - sizes[used]))) if used.any() else 1.0
            _, t, p = nadeau_bengio((a - b)[used], 1.0, ratio)
            if np.array_equal(both[0, there], both[1, there]):
                # The same head twice is no hypothesis, and must not weaken the others' tests.
                t = p = float("nan")
            drawn = task.resample_primary(run.labels, both, run.folds, run.k, resamples)
            shared, mean = int(there.sum()), mean_of_finite(a - b)
            rows.append((model, run.name, shared, mean, drawn[0] - drawn[1], t, p))
    if not rows:
        raise BadFeatures(
            f"{first.folder}: none of its models ({', '.join(first.predictions)}) is in another run"
        )
    corrected = holm([row[-1] for row in rows])
    return RunComparison(
        runs=tuple(others),
        score=task.primary_metric,
        models=models,
        scores=scores,
        differences=tuple(
            Difference(*row[:4], percentile_interval(row[4]), *row[5:], float(p))
            for row, p in zip(rows, corrected, strict=True)
        ),
        n_resamples=n_resamples,
    )


def format_run_comparison(comparison: RunComparison) -> str:
    """The terminal's table: a line for each model and run."""
    first = comparison.runs[0]
    task = task_of(first.task)
    unit, digits = (100.0, 1) if task.in_percent else (1.0, 3)
    title = task.primary_title + (" %" if task.in_percent else "")

    def text(value: float, sign: str = "") -> str:
        return f"{unit * value:{sign}.{digits}f}" if np.isfinite(value) else "n/a"

    lines = []
    for run in comparison.runs:
        if run.flags:
            lines.append(wrap(f"{clean(run.name)}: {', '.join(run.flags)}", mark="! "))
    lines.append(
        wrap(
            f"{len(comparison.runs)} runs on the same {len(first.clip_ids)} clips in "
            f"{len(set(first.groups))} groups and {first.k} folds, against {clean(first.name)}"
        )
    )
    lines.append("")
    rows = [["model", "run", title, "difference", "95 % interval", "p", "p (Holm)"]]
    found = {(d.model, d.run): d for d in comparison.differences}
    for model in comparison.models:
        for run in comparison.runs:
            score = comparison.scores.get((model, run.name))
            if score is None:
                continue
            row = [clean(model), clean(run.name), text(score)]
            d = found.get((model, run.name))
            if d is not None:
                low, high = d.interval
                row += [text(d.mean, "+"), f"{text(low, '+')} to {text(high, '+')}"]
                row += [_p(d.p), _p(d.p_holm)] if d.interval.any() else ["same", ""]
            rows.append(row + [""] * (len(rows[0]) - len(row)))
    lines += columns(rows, [])[:-1]
    lines.append("")
    lines.append(
        wrap(
            f"{task.primary_title}: mean over folds. Difference: mean over folds, on clips "
            "that both runs predicted. Interval: paired group bootstrap"
            + (" of the pooled R2" if task.pooled_interval else "")
            + f", {comparison.n_resamples} resamples; it takes the trained heads as they are. "
            "p: corrected test over folds (Nadeau & Bengio 2003), which allows for other "
            "training clips."
        )
    )
    return "\n".join(lines)


def run_comparison_dict(comparison: RunComparison) -> dict[str, Any]:
    """The comparison as strict JSON values; scores are fractions."""
    result: dict[str, Any] = to_json_values(
        {
            "score": comparison.score,
            "runs": [
                {"name": run.name, "folder": run.folder, "flags": run.flags}
                for run in comparison.runs
            ],
            "clips": len(comparison.runs[0].clip_ids),
            "folds": comparison.runs[0].k,
            "n_resamples": comparison.n_resamples,
            "models": {
                model: {
                    run.name: comparison.scores[model, run.name]
                    for run in comparison.runs
                    if (model, run.name) in comparison.scores
                }
                for model in comparison.models
            },
            "differences": [
                {
                    "model": d.model,
                    "run": d.run,
                    "clips": d.clips,
                    "mean": d.mean,
                    "interval": d.interval,
                    "t": d.t,
                    "p": d.p,
                    "p_holm": d.p_holm,
                }
                for d in comparison.differences
            ],
        },
        "comparison",
    )
    return result


def _first(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """One row a clip, in their order."""
    return list({row["clip_id"]: row for row in reversed(rows)}.values())[::-1]


def _named(runs: Sequence[Run]) -> list[Run]:
    """With names that differ: as much of the path as is needed."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadFeatures(f"{twice}: given twice: a comparison needs different runs")
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def _aligned(first: Run, run: Run) -> Run:
    """`run` with its clips in the order of `first`; refused where they differ."""
    where = f"{run.folder} is not comparable with {first.folder}"
    for name, a, b in (
        ("task", first.task, run.task),
        ("classes", list(first.classes), list(run.classes)),
        ("number of folds", first.k, run.k),
    ):
        if a != b:
            raise BadFeatures(f"{where}: its {name} is {b}, not {a}")
    row = {clip: i for i, clip in enumerate(run.clip_ids)}
    lacking = [clip for clip in first.clip_ids if clip not in row]
    more = len(run.clip_ids) - (len(first.clip_ids) - len(lacking))
    if lacking or more:
        example = lacking[0] if lacking else next(c for c in row if c not in set(first.clip_ids))
        raise BadFeatures(
            f"{where}: its clips differ: {len(lacking)} are lacking and {more} are new, such as "
            f"{example!r}"
        )
    order = np.array([row[clip] for clip in first.clip_ids], dtype=np.int64)
    groups = tuple(run.groups[int(i)] for i in order)
    for name, differs in (
        ("folds", first.folds != run.folds[order]),
        ("labels", (first.labels != run.labels[order]).reshape(len(order), -1).any(axis=1)),
        ("groups", np.array(first.groups) != np.array(groups)),
    ):
        if differs.any():
            clip = first.clip_ids[int(np.flatnonzero(differs)[0])]
            hint = ""
            if name == "labels" and ("permuted" in first.flags) != ("permuted" in run.flags):
                hint = "; one of them has permuted labels"
            raise BadFeatures(
                f"{where}: {name} of {int(differs.sum())} clips differ, such as {clip!r}{hint}"
            )
    return replace(
        run,
        clip_ids=first.clip_ids,
        groups=groups,
        folds=first.folds,
        labels=first.labels,
        predictions={name: values[order] for name, values in run.predictions.items()},
    )


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "n/a"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _said(error: Exception) -> str:
    return f"{error} is lacking or not known" if isinstance(error, KeyError) else str(error)

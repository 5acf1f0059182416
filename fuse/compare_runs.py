"""Comparison of models of several runs, in pairs; the runs are read from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.bootstrap import N_RESAMPLES, resample_groups
from mvemo.fuse.crossval.comparisons import Comparison, FoldedOutputs, compare_models
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.metrics.averages import mean_of_finite
from mvemo.fuse.numeric import Ints
from mvemo.fuse.prediction_files import read_predictions
from mvemo.fuse.report.report_files import comparison_facts
from mvemo.fuse.report.text import (
    TEXT,
    Cell,
    Head,
    Heads,
    PaperTable,
    clean,
    columns,
    count,
    difference_text,
    p_text,
    score_text,
    table,
    wrap,
)
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.base import Task
from mvemo.manifests.files import parse_json, to_json_values


@dataclass(frozen=True)
class RunComparison:
    """Scores of the models of all runs, and the differences between pairs of them."""

    runs: tuple[Run, ...]
    # ``RUN:MODEL`` to the mean over folds of the primary metric on all clips that it predicted.
    scores: dict[str, float]
    # One comparison per pair; its `model` and `reference` are ``RUN:MODEL``.
    comparisons: tuple[Comparison, ...]
    members: dict[str, tuple[str, str]]  # ``RUN:MODEL`` to the names of run and model
    n_resamples: int


@dataclass(frozen=True)
class _Choice:
    """A run on the command line, and its models to compare."""

    run: Run
    models: tuple[str, ...]
    whole: bool


def compare_runs(
    chosen: Sequence[str | Path], *, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> RunComparison:
    """Compare models of several runs in pairs, on the clips that both models predicted.

    `chosen` are two or more folders of reports, or ``FOLDER:MODEL`` for one model of a run. Two
    whole runs are compared model by model if they share model names; otherwise every model of
    one run is compared with every model of the other.
    """
    if len(chosen) < 2:
        raise BadFeatures(f"expected at least two runs to compare, got {len(chosen)}")
    choices = _read_choices(chosen)
    runs = tuple({choice.run.name: choice.run for choice in choices}.values())
    first = runs[0]
    members = {
        f"{choice.run.name}:{model}": (choice.run.name, model)
        for choice in choices
        for model in choice.models
    }
    by_name = {run.name: run for run in runs}
    repeats = []
    for r, one in enumerate(first.repeats):
        outputs = {
            label: by_name[run].repeats[r].outputs[model] for label, (run, model) in members.items()
        }
        repeats.append(replace(one, outputs=outputs))
    scores = {}
    for label in members:
        per_fold = [
            first.task.primary_per_fold(one.y_true, one.outputs[label], one.folds, one.k)
            for one in repeats
        ]
        scores[label] = mean_of_finite(np.concatenate(per_fold))
    resamples = resample_groups(first.groups, n_resamples, seed)
    comparisons = compare_models(repeats, _pairs(choices), resamples)
    return RunComparison(runs, scores, tuple(comparisons), members, n_resamples)


def format_run_comparison(comparison: RunComparison) -> str:
    """Return the tables for the terminal: every model's score, and every difference."""
    first = comparison.runs[0]
    task, one = first.task, first.repeats[0]
    lines = [
        wrap(f"{clean(run.name)}: {', '.join(run.flags)}", mark="! ")
        for run in comparison.runs
        if run.flags
    ]
    times = f", {len(first.repeats)} times" if len(first.repeats) > 1 else ""
    lines.append(
        wrap(
            f"{count(len(comparison.runs), 'run')} on the same {len(first.clip_ids)} clips in "
            f"{len(set(first.groups))} groups and {count(one.k, 'fold')}{times}"
        )
    )
    title = task.primary_title + " %" * task.in_percent
    rows = [[clean(label), score_text(task, score)] for label, score in comparison.scores.items()]
    lines += ["", *columns([["model", title], *rows]), ""]
    header = ["model", "against", "difference", "95 % interval", "p", "p (Holm)"]
    rows = []
    for c in comparison.comparisons:
        low, high = (score_text(task, end, "+") for end in c.interval)
        facts = [f"{low} to {high}", p_text(c.p), p_text(c.p_holm)]
        facts = ["same", "", ""] if c.same else facts
        rows.append([clean(c.model), clean(c.reference), score_text(task, c.mean, "+"), *facts])
    lines += [*columns([header, *rows], left=2), ""]
    lines.append(
        wrap(
            f"{task.primary_title}: mean over folds. Difference: mean over folds, on the clips "
            "that both predicted; positive if the model in the first column is better. Interval: "
            "paired group bootstrap"
            + (f" of the pooled {task.primary_title}" if task.pooled_interval else "")
            + f", {comparison.n_resamples} resamples; the trained models stay the same. p: "
            "corrected test over folds (Nadeau & Bengio 2003), which allows for other training "
            "clips. p (Holm): with Holm's correction for all rows."
        )
    )
    return "\n".join(lines)


def comparison_tables(comparison: RunComparison) -> list[PaperTable]:
    first = comparison.runs[0]
    task = first.task
    scores = comparison.scores
    top = max(scores[name] for c in comparison.comparisons for name in (c.model, c.reference))

    def score(label: str) -> Cell:
        return Cell(score_text(task, scores[label]), strong=scores[label] == top)

    head: Heads = [Head("model", TEXT), "score", Head("against", TEXT), "score"]
    rows: list[list[str | Cell]] = []
    for c in comparison.comparisons:
        interval = "same" if c.same else difference_text(task, c.interval)
        change = Cell(score_text(task, c.mean, "+"), below=interval)
        pair = (c.model, score(c.model), c.reference, score(c.reference))
        rows.append([*pair, change, p_text(c.p_holm)])
    flags = "".join(f"{run.name}: {', '.join(run.flags)}. " for run in comparison.runs if run.flags)
    caption = (
        f"{flags}Score: {task.primary_title}{', %' if task.in_percent else ''}, mean over folds, "
        f"{len(first.clip_ids)} clips in {len(set(first.groups))} groups. Difference: with its "
        "95 % interval over groups. p: corrected test over folds, with Holm's correction."
    )
    return [(caption, table([*head, "difference", "p"], rows))]


def run_comparison_dict(comparison: RunComparison) -> dict[str, Any]:
    """Return the comparison as strict JSON values; scores are fractions."""
    first = comparison.runs[0]
    models: dict[str, dict[str, float]] = {}
    for label, score in comparison.scores.items():
        run, model = comparison.members[label]
        models.setdefault(model, {})[run] = score
    differences = []
    for c in comparison.comparisons:
        run, model = comparison.members[c.model]
        other, reference = comparison.members[c.reference]
        names = {"run": run, "model": model, "reference_run": other, "reference_model": reference}
        differences.append({**names, **comparison_facts(c), "same": c.same})
    result: dict[str, Any] = to_json_values(
        {
            "score": first.task.primary_metric,
            "runs": [
                {"name": run.name, "folder": run.folder, "flags": run.flags}
                for run in comparison.runs
            ],
            "clips": len(first.clip_ids),
            "folds": first.repeats[0].k,
            "repeats": len(first.repeats),
            "n_resamples": comparison.n_resamples,
            "models": models,
            "differences": differences,
        },
        "comparison",
    )
    return result


def _read_choices(chosen: Sequence[str | Path]) -> list[_Choice]:
    """Read each run once, and sort its clips in the order of the first run."""
    texts = [str(text) for text in chosen]
    split = [_split(text) for text in texts]
    for text in texts:
        if texts.count(text) > 1:
            raise BadFeatures(f"{text} is given twice: name different runs or models")
    folders = list(dict.fromkeys(folder for folder, _ in split))
    runs = _named([read_run(folder) for folder in folders])
    aligned = [runs[0], *(align_run(runs[0], run) for run in runs[1:])]
    by_folder = dict(zip(folders, aligned, strict=True))
    choices = []
    for folder, model in split:
        run = by_folder[folder]
        if model is not None and model not in run.models:
            raise FuseError(
                f"{folder}: unknown model {model!r}; expected one of {', '.join(run.models)}"
            )
        choices.append(_Choice(run, run.models if model is None else (model,), model is None))
    return choices


def _split(text: str) -> tuple[Path, str | None]:
    """Split ``RUN`` or ``RUN:MODEL`` into folder and model; both may contain colons."""
    if not Path(text).is_dir():
        for i, character in enumerate(text):
            if character == ":" and Path(text[:i]).is_dir() and text[i + 1 :]:
                return Path(text[:i]), text[i + 1 :]
    return Path(text), None


def _pairs(choices: Sequence[_Choice]) -> list[tuple[str, str]]:
    """Return the pairs (model, reference) to test, as ``RUN:MODEL``; the later run is first."""
    pairs: dict[tuple[str, str], None] = {}
    for a, b in combinations(choices, 2):
        shared = [name for name in b.models if name in a.models]
        by_name = a.whole and b.whole and shared
        for model in shared if by_name else b.models:
            for reference in (model,) if by_name else a.models:
                pair = f"{b.run.name}:{model}", f"{a.run.name}:{reference}"
                if pair[0] != pair[1]:
                    pairs.setdefault(pair)
    return list(pairs)


def _named(runs: Sequence[Run]) -> list[Run]:
    """Give runs different names: their paths if two folders have the same name."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


@dataclass(frozen=True)
class Run:
    """One evaluation, read from its folder; `Results` explains the other fields."""

    name: str  # shortest name of the folder that differs from those of other runs
    folder: Path
    task: Task
    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    flags: tuple[str, ...]  # the true ones of ``permuted``, ``leaky`` and ``synthetic``
    repeats: tuple[FoldedOutputs, ...]  # predictions on each set of folds

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.repeats[0].outputs)


def read_run(folder: str | Path) -> Run:
    """Read ``metrics.json`` and ``predictions.csv`` from the folder of an evaluation."""
    folder = Path(folder)
    if folder.is_file():
        raise FuseError(
            f"{folder}: expected the folder of a run, got a file: to make a run of it, use "
            f"'mvemo report --predictions {folder} --out FOLDER'"
        )
    metrics, path = folder / "metrics.json", folder / "predictions.csv"
    for file in (metrics, path):
        if not file.is_file():
            raise FuseError(f"{file}: does not exist: 'mvemo fuse ... --out {folder}' writes it")
    try:
        facts = parse_json(metrics.read_text(encoding="utf-8"))
        task, classes = task_of(str(facts["task"])), tuple(map(str, facts["classes"]))
        models = [str(name) for name in facts["models"]]
        flags = tuple(f for f in ("permuted", "leaky", "synthetic", "predicted_by") if facts.get(f))
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"{error} is missing or unknown" if isinstance(error, KeyError) else error
        raise FuseError(f"{metrics}: is not the metrics of an evaluation: {cause}") from error
    try:
        first = read_predictions(path, task=facts["task"])
        if (set(first.outputs), first.classes) != (set(models), classes):
            raise BadFeatures("the models or classes differ")
    except BadFeatures as error:
        raise FuseError(f"{path}: does not match {metrics}: {error}") from error
    repeats = []
    for one in first.repeats or (first,):
        if set(one.clip_ids) != set(first.clip_ids):
            raise FuseError(f"{path}: its repeats differ in their clips")
        outputs = {name: one.outputs[name] for name in models}
        folded = FoldedOutputs(task, one.y_true, one.folds, one.k, outputs)
        repeats.append(_reordered(folded, _order(one.clip_ids, first.clip_ids)))
    return Run(
        name=folder.name,
        folder=folder,
        task=task,
        classes=classes,
        clip_ids=first.clip_ids,
        groups=first.groups,
        flags=flags,
        repeats=tuple(repeats),
    )


def align_run(first: Run, run: Run) -> Run:
    """Return `run` with its clips in the order of `first`; raise if they are not comparable."""
    where = f"{run.folder} is not comparable with {first.folder}"
    for name, a, b in (
        ("task", first.task.name, run.task.name),
        ("list of classes", list(first.classes), list(run.classes)),
        ("number of folds", first.repeats[0].k, run.repeats[0].k),
        ("number of repeats", len(first.repeats), len(run.repeats)),
    ):
        if a != b:
            raise BadFeatures(f"{where}: its {name} is {b}, not {a}")
    missing, new = (
        [clip for clip in ids if clip not in others]
        for ids, others in ((first.clip_ids, {*run.clip_ids}), (run.clip_ids, {*first.clip_ids}))
    )
    if missing or new:
        raise BadFeatures(
            f"{where}: its clips differ: {len(missing)} are missing and {len(new)} are new, for "
            f"example {(missing or new)[0]!r}"
        )
    order = _order(run.clip_ids, first.clip_ids)
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
                hint = "; one of the runs has permuted labels"
            raise _differ(where, first, "labels", labels, hint)
    return replace(run, clip_ids=first.clip_ids, groups=groups, repeats=repeats)


def _order(clip_ids: Sequence[str], wanted: Sequence[str]) -> Ints:
    row = {clip: i for i, clip in enumerate(clip_ids)}
    return np.array([row[clip] for clip in wanted], dtype=np.int64)


def _reordered(one: FoldedOutputs, order: Ints) -> FoldedOutputs:
    return replace(
        one,
        y_true=one.y_true[order],
        folds=one.folds[order],
        outputs={name: values[order] for name, values in one.outputs.items()},
    )


def _differ(where: str, first: Run, what: str, mask: Any, hint: str = "") -> BadFeatures:
    clip = first.clip_ids[int(np.flatnonzero(mask)[0])]
    n = int(mask.sum())
    return BadFeatures(f"{where}: the {what} of {n} clips differ, for example {clip!r}{hint}")

"""Comparison of models of several runs, read from their folders, and of two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.bootstrap import N_RESAMPLES, resample_groups
from mvemo.fuse.crossval.comparisons import (
    Comparison,
    FoldedOutputs,
    by_scores,
    compare_models,
    difference_interval,
    names_of_tests,
)
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import complete, mean_of_finite
from mvemo.fuse.prediction_files import Run, align_run, read_run
from mvemo.fuse.report import text
from mvemo.fuse.report.report_files import comparison_facts
from mvemo.fuse.report.tables import TEXT, Cell, Column, Table, table
from mvemo.fuse.results import ModelResult, Results, recommended_model
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import to_json_values
from mvemo.manifests.text_table import escaped


@dataclass(frozen=True)
class RunComparison:
    """Scores of the models of all runs, and the differences between pairs of them."""

    runs: tuple[Run, ...]
    # ``RUN:MODEL`` to its primary metric on all clips that it predicted, as a mean over folds.
    scores: dict[str, float]
    # One comparison per pair; `model` and `reference` have the form ``RUN:MODEL``.
    comparisons: tuple[Comparison, ...]
    members: dict[str, tuple[Run, str]]  # ``RUN:MODEL`` to the run and the model's name
    n_resamples: int

    def other_scores(self, label: str) -> dict[str, float]:
        """Map titles of MCC or r to the scores that the run of ``RUN:MODEL`` states, or to NaN."""
        run, model = self.members[label]
        return run.others[model]


# A run on the command line, and the model to compare; None for all of its models.
_Choice = tuple["Run", str | None]


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
    choices = _read_choices(list(map(str, chosen)))
    members = {
        f"{run.name}:{name}": (run, name)
        for run, model in choices
        for name in _chosen_models(run, model)
    }
    first, task = choices[0][0], choices[0][0].task
    repeats = []
    for r, one in enumerate(first.repeats):
        outputs = {label: run.repeats[r].outputs[name] for label, (run, name) in members.items()}
        repeats.append(FoldedOutputs(task, one.y_true, one.groups, one.folds, one.k, outputs))
    scores = {}
    for label in members:
        per_fold = [
            task.primary_per_fold(one.y_true, one.outputs[label], one.folds, one.k)
            for one in repeats
        ]
        scores[label] = mean_of_finite(np.concatenate(per_fold))
    resamples = resample_groups(first.repeats[0].groups, n_resamples, seed)
    comparisons = tuple(compare_models(repeats, _pairs(choices), resamples))
    runs = tuple({run.name: run for run, _ in choices}.values())
    return RunComparison(runs, scores, comparisons, members, n_resamples)


def format_run_comparison(comparison: RunComparison) -> str:
    """Return the tables for the terminal: every model's score, and every difference."""
    task, repeats = comparison.runs[0].task, comparison.runs[0].repeats
    flagged = [
        f"{escaped(run.name)}: {', '.join(run.flags)}" for run in comparison.runs if run.flags
    ]
    lines = [text.wrap(line, mark="! ") for line in flagged]
    times = f", {len(repeats)} times" if len(repeats) > 1 else ""
    on = f"{_clips_and_groups(comparison)} and {text.count(repeats[0].k, 'fold')}{times}"
    lines.append(text.wrap(f"{text.count(len(comparison.runs), 'run')} on the same {on}"))
    title = task.primary_title + " %" * task.in_percent
    others = {label: comparison.other_scores(label) for label in comparison.scores}
    rows = [
        [escaped(label), text.score_text(task, score), *map(text.fraction, others[label].values())]
        for label, score in comparison.scores.items()
    ]
    titles = [escaped(title) for title in next(iter(others.values()))]
    lines += ["", *text.columns([["model", title, *titles], *rows]), ""]
    header = ["model", "against", "score", "difference", "95 % interval", "p", "p (Holm)"]
    rows, tests = [], by_scores(task, comparison.comparisons)
    for of, c in tests:
        ends = " to ".join(text.score_text(of, end, "+") for end in c.interval)
        facts = [ends, text.p_text(c.p), text.p_text(c.p_holm) + " *" * bool(c.significant)]
        facts = ["same", "", ""] if c.same else facts
        names = [escaped(c.model), escaped(c.reference), of.primary_title + " %" * of.in_percent]
        rows.append([*names, text.score_text(of, c.mean, "+"), *facts])
    lines += [*text.columns([header, *rows], left=3), ""]
    lines.append(
        text.wrap(
            f"{task.primary_title}: mean over folds; {', '.join(titles)}: pooled. Difference: mean "
            "over folds, on the clips that both predicted; positive if the model in the first "
            "column is better. Interval: "
            f"over groups{', of the pooled score' * task.pooled_interval}, for "
            f"these trained models. p: {names_of_tests([c for _, c in tests])}. p (Holm): with "
            "Holm's correction for all rows of a score; *: significant at 5 %."
        )
    )
    return "\n".join(lines)


def _clips_and_groups(comparison: RunComparison) -> str:
    one = comparison.runs[0].repeats[0]
    return f"{len(one.clip_ids)} clips in {len(set(one.groups))} groups"


def comparison_tables(comparison: RunComparison) -> list[Table]:
    task, scores = comparison.runs[0].task, comparison.scores
    top = max(scores[name] for c in comparison.comparisons for name in (c.model, c.reference))

    def score(label: str) -> Cell:
        return Cell(text.score_text(task, scores[label]), strong=scores[label] == top)

    def others(label: str) -> str:
        return ", ".join(map(text.fraction, comparison.other_scores(label).values()))

    rows: list[list[str | Cell]] = []
    for of, c in by_scores(task, comparison.comparisons):
        interval = "same" if c.same else text.difference_text(of, c.interval)
        change = Cell(text.score_text(of, c.mean, "+"), below=interval)
        pair = [(label, score(label), others(label)) for label in (c.model, c.reference)]
        rows.append([*pair[0], *pair[1], of.primary_title, change, text.p_text(c.p_holm)])
    flags = "".join(f"{run.name}: {', '.join(run.flags)}. " for run in comparison.runs if run.flags)
    caption = (
        f"{flags}Score: {task.primary_title}{', %' * task.in_percent}, mean over folds, "
        f"{_clips_and_groups(comparison)}. Difference: with its "
        f"95 % interval over groups. p: {names_of_tests(comparison.comparisons)}, with Holm's "
        "correction."
    )
    also = ", ".join(comparison.other_scores(next(iter(scores))))
    titles = "score", also, Column("against", TEXT), "score", also, "of", "difference", "p"
    return [table(["model", *titles], rows, title=caption)]


def run_comparison_dict(comparison: RunComparison) -> dict[str, Any]:
    """Return the comparison as strict JSON values; scores are fractions."""
    first, members = comparison.runs[0], comparison.members
    models: dict[str, dict[str, float]] = {}
    others: dict[str, dict[str, dict[str, float]]] = {}
    for label, score in comparison.scores.items():
        run, model = members[label]
        models.setdefault(model, {})[run.name] = score
        others.setdefault(model, {})[run.name] = comparison.other_scores(label)
    differences = []
    for c in comparison.comparisons:
        (run, model), (other, reference) = members[c.model], members[c.reference]
        names = {"run": run.name, "model": model}
        names |= {"reference_run": other.name, "reference_model": reference}
        differences.append({**names, **comparison_facts(c), "same": c.same})
    return to_json_values(
        {
            "score": first.task.primary_metric,
            "runs": [
                {"name": run.name, "folder": run.folder, "flags": run.flags}
                for run in comparison.runs
            ],
            "clips": len(first.repeats[0].clip_ids),
            "folds": first.repeats[0].k,
            "repeats": len(first.repeats),
            "n_resamples": comparison.n_resamples,
            "models": models,
            "others": others,
            "differences": differences,
        },
        "comparison",
    )


def _read_choices(chosen: Sequence[str]) -> list[_Choice]:
    """Read each run once, and sort its clips in the order of the first run."""
    for one in chosen:
        if chosen.count(one) > 1:
            raise BadFeatures(f"{one} is given twice: name different runs or models")
    split = list(map(_split, chosen))
    runs = {folder: read_run(folder) for folder, _ in split}
    if len({run.name for run in runs.values()}) < len(runs):
        # Two folders have the same name, so that runs are named by their paths.
        runs = {folder: replace(run, name=str(folder)) for folder, run in runs.items()}
    first, *others = runs
    runs |= {folder: align_run(runs[first], runs[folder]) for folder in others}
    for folder, model in split:
        known = runs[folder].models
        if model is not None and model not in known:
            raise MvemoError(
                f"{folder}: unknown model {model!r}; expected one of {', '.join(known)}"
            )
    return [(runs[folder], model) for folder, model in split]


def _split(chosen: str) -> tuple[Path, str | None]:
    """Split ``RUN`` or ``RUN:MODEL`` into folder and model; both may contain colons."""
    if not Path(chosen).is_dir():
        for i, character in enumerate(chosen):
            if character == ":" and Path(chosen[:i]).is_dir() and chosen[i + 1 :]:
                return Path(chosen[:i]), chosen[i + 1 :]
    return Path(chosen), None


def _chosen_models(run: Run, model: str | None) -> tuple[str, ...]:
    return run.models if model is None else (model,)


def _pairs(choices: Sequence[_Choice]) -> list[tuple[str, str]]:
    """Return the pairs (model, reference) to test, as ``RUN:MODEL``; the later run is first."""
    pairs = []
    for (a, a_model), (b, b_model) in combinations(choices, 2):
        names = product(_chosen_models(b, b_model), _chosen_models(a, a_model))
        shared = [(name, name) for name in b.models if name in a.models]
        whole = a_model is None and b_model is None
        for model, reference in (whole and shared) or names:
            pairs.append((f"{b.name}:{model}", f"{a.name}:{reference}"))
    return [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]


@dataclass(frozen=True)
class Difference:
    """Difference of two models in the primary metric of the task, of pooled predictions."""

    metric: str  # primary metric, such as ``accuracy``
    models: tuple[str, str]  # names of both models
    scores: tuple[float, float]  # of both models on the common clips
    difference: float  # score of the first model minus the score of the second
    low: float  # paired 95 % interval of the difference over groups; NaN for fewer than eight
    high: float
    n_clips: int  # numbers of the common clips and of their groups
    n_groups: int


def compare_results(
    a: Results, b: Results, models: tuple[str, str] | None, n_resamples: int, seed: int
) -> Difference:
    """Compare a model of each of two results, see `mvemo.compare`."""
    if a.task.name != b.task.name or tuple(a.classes) != tuple(b.classes):
        raise BadFeatures(
            f"expected the same task and outputs: {a.name} has {a.task.name} of "
            f"{', '.join(a.classes)}, {b.name} has {b.task.name} of {', '.join(b.classes)}"
        )
    chosen = [_model(one, models and models[i]) for i, one in enumerate((a, b))]
    row_of = {clip: row for row, clip in enumerate(b.clip_ids)}
    pairs = [(row, row_of[clip]) for row, clip in enumerate(a.clip_ids) if clip in row_of]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    outputs = [model.outputs[rows[:, i]] for i, model in enumerate(chosen)]
    common = complete(outputs[0]) & complete(outputs[1])
    if not common.any():
        raise BadFeatures(f"{a.name}, {b.name}: no clip was predicted in both")
    rows, outputs = rows[common], [values[common] for values in outputs]
    y_true = a.y_true[rows[:, 0]]
    if not np.array_equal(y_true, b.y_true[rows[:, 1]]):
        clip = next(a.clip_ids[i] for i, j in rows if not np.array_equal(a.y_true[i], b.y_true[j]))
        raise BadFeatures(f"{a.name}, {b.name}: the labels differ, for example of {clip!r}")
    groups = [a.groups[row] for row in rows[:, 0]]
    named = dict(zip("ab", outputs, strict=True))
    folds = np.zeros(len(rows), np.int64)
    folded = FoldedOutputs(a.task, y_true, groups, folds, 1, named)
    scores = [a.task.primary(y_true, values) for values in outputs]
    resamples = resample_groups(groups, n_resamples, seed)
    low, high = difference_interval([folded], "a", "b", resamples)
    return Difference(
        a.task.primary_metric,
        (chosen[0].name, chosen[1].name),
        (scores[0], scores[1]),
        scores[0] - scores[1],
        low,
        high,
        len(rows),
        len(set(groups)),
    )


def _model(results: Results, name: str | None) -> ModelResult:
    if name is None:
        model = recommended_model(results)
        if model is None:
            raise BadFeatures(f"{results.name}: no model has a score")
        return model
    known = {model.name: model for model in results.models}
    if name not in known:
        raise BadFeatures(
            f"{results.name}: unknown model {name!r}; expected one of {', '.join(known)}"
        )
    return known[name]

"""Sentences on one evaluation for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.comparisons import Comparison
from mvemo.fuse.models import INTEGRATED, STACKED
from mvemo.fuse.report.banners import OTHERS
from mvemo.fuse.report.findings import findings
from mvemo.fuse.report.shown import best, recommended, twin_of_integrated
from mvemo.fuse.report.text import count, difference_text, interval_text, p_text, score_text
from mvemo.fuse.results import ModelResult, Results

# Maximum number of clips that a sentence names.
MANY = 3


@dataclass(frozen=True)
class Spread:
    """Smallest, mean and largest of the finite values; NaN if there are none."""

    min: float
    mean: float
    max: float


def spread(values: F64) -> Spread:
    """Return the minimum, mean and maximum of the finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Spread(float("nan"), float("nan"), float("nan"))
    return Spread(float(finite.min()), float(finite.mean()), float(finite.max()))


# --- sentences


def describe(results: Results) -> str:
    """Return one line on the data, the folds and the protocol."""
    classes = count(len(results.classes), *results.task.output_nouns)
    groups = count(len(set(results.groups)), "group")
    models, clips = count(len(results.models), "model"), count(len(results.clip_ids), "clip")
    if results.protocol == OTHERS:
        tested = f"{int(results.tested.sum())} of " if one_split(results) else ""
        return (
            f"predictions of {models} for {tested}{clips} in {groups}, {classes}, "
            f"{count(results.k, 'fold')}, made by another program"
        )
    how = f"{results.k}-fold cross-validation"
    if one_split(results):
        how = f"test on {count(int(results.tested.sum()), 'held-out clip')}"
    return f"{how} of {models} on {clips} in {groups}, {classes}, protocol {results.protocol}"


def summarise(results: Results) -> str:
    """Return a paragraph for a reader who looks at nothing else."""
    verdict_text, how, failing = opening(results)
    return " ".join([*verdict_text, *how, *failing])


def opening(results: Results) -> tuple[list[str], list[str], list[str]]:
    """Return the sentences at the head of a page, in three parts.

    They are the verdict (which model to use, the score to expect, the gain from fusion), the
    method (how it was measured and against what), and the weaknesses of the recommended model.
    """
    how = [_what_was_predicted(results)]
    if results.leaky and results.protocol != OTHERS:
        how.append("The nets under them, however, saw clips that they are scored on.")
    model = recommended(results)
    if model is None:
        return ["No model made a prediction."], how, findings(results, None)
    how.append(_score_and_baseline(results, model))
    how.append(results.task.remark(results.classes, model.scores, results.baseline.scores))
    found: list[str] = []
    if results.permuted:
        how.append("As labels were shuffled, no model should do better than that.")
    else:
        found = [recommend(results), compare_best(results)]
    how += scaling_notes(results)
    return (
        [sentence for sentence in found if sentence],
        [sentence for sentence in how if sentence],
        findings(results, model),
    )


def recommend(results: Results) -> str:
    """Recommend a model and state the score to expect; '' if no model was chosen."""
    choice, task = results.choice, results.task
    if choice is None or results.permuted:
        return ""
    key, what = task.primary_interval
    interval = interval_text(choice.nested.intervals.get(key), in_percent=task.in_percent)
    interval = f" (95 % interval of {what}: {interval})" if interval else ""
    return (
        f"Use {choice.model}. Expect {_indefinite(task.primary_title)} of "
        f"{_score(results, results.primary_mean(choice.nested))}{interval}: that is of clips "
        "predicted by models that were chosen without them. The best score in a table is "
        "optimistically biased (selection)."
    )


def _what_was_predicted(results: Results) -> str:
    predicted = results.task.prediction(results.classes)
    n_clips, n_tested = len(results.clip_ids), int(results.tested.sum())
    if results.protocol == OTHERS:
        untested = n_clips - n_tested
        others = f" {count(untested, 'other clip')} had no test." if untested else ""
        return (
            f"Another program predicted {predicted} for {_each(n_tested)}; whether it had seen "
            f"the clips before is not known.{others}"
        )
    if one_split(results):
        return (
            f"Models that were trained on {count(n_clips - n_tested, 'clip')} predicted "
            f"{predicted} for {_each(n_tested)} held out; no group of clips is on both sides."
        )
    return (
        f"Models that were trained on the other {results.k - 1} of {results.k} folds predicted "
        f"{predicted} for {_each(n_clips)}; no group of clips is in two folds."
    )


def _each(n: int) -> str:
    return "1 clip" if n == 1 else f"each of {n} clips"


def _score_and_baseline(results: Results, model: ModelResult) -> str:
    task = results.task
    scores = spread(results.primary_per_fold(model))
    over_folds = ""
    if results.k > 1:
        low, high = score_text(task, scores.min), score_text(task, scores.max)
        over_folds = f" in a fold on average ({low} to {high}{_unit(task.in_percent)})"
    top = best(results)
    # The score to expect is not its row in the table: it includes the cost of choosing.
    chosen = results.choice is not None and not results.permuted
    which, higher = "In the table the recommended model" if chosen else "The best model", ""
    if top is not None and top.name != model.name:
        higher = (
            f" The highest row is {top.name} with {_score(results, results.primary_mean(top))}."
        )
    baseline = results.primary_mean(results.baseline)
    ends = model.intervals.get(task.primary_interval[0])
    doubt = ""
    if ends is not None and ends[0] <= baseline:
        doubt = ", which is inside the model's 95 % interval: nothing shows that it does better"
    return (
        f"{which}, {model.name}, has {_indefinite(task.primary_title)} of "
        f"{_score(results, scores.mean)}{over_folds}.{higher} The baseline, "
        f"{task.baseline_words}, has {_score(results, baseline)}{doubt}."
    )


def _indefinite(title: str) -> str:
    return f"{'an' if title[0] in 'aeiouR' else 'a'} {title}"


def _unit(in_percent: bool) -> str:
    return " %" if in_percent else ""


def _score(results: Results, value: float) -> str:
    return f"{score_text(results.task, value)}{_unit(results.task.in_percent)}"


def compare_best(results: Results) -> str:
    """Return a sentence on one paired difference: its interval, p and verdict; '' without any.

    In an evaluation it compares the best fusion with the best single feature in it; with
    predictions of other programs it compares the two best models.
    """
    comparison = best_comparison(results)
    if comparison is None:
        return ""
    c, task = comparison, results.task
    by_name = {model.name: model for model in results.models}
    winner = f"{c.model} ({_score(results, results.primary_mean(by_name[c.model]))})"
    other = f"{c.reference} ({_score(results, results.primary_mean(by_name[c.reference]))})"
    fused = bool(by_name[c.model].features)
    top = best(results, [m for m in results.models if (len(m.features) > 1) == fused])
    which = "best" if top is not None and top.name == c.model else "recommended"
    kind = f"{which} {'fusion' if fused else 'model'}"
    rival = "the best single feature in it" if by_name[c.model].features else "the next"
    if c.same:
        return f"The {kind}, {winner}, predicts the same as {rival}, {other}."
    unit = " points" if task.in_percent else ""
    facts = []
    if interval := difference_text(task, c.interval):
        facts.append(f"95 % interval of the difference {interval}")
    if np.isfinite(c.p):
        facts.append(f"corrected t-test over folds: p {p_text(c.p)}")
    if c.n_tests > 1 and np.isfinite(c.p):
        facts.append(f"{p_text(c.p_holm)} with Holm's correction for {c.n_tests} tests")
    on = "" if _all_shared(results, c) else f" on the {c.n_clips} clips that both predicted"
    points = score_text(task, abs(c.mean))
    relation = f"{points}{unit} {'better' if c.mean >= 0 else 'worse'} than"
    if points == score_text(task, 0.0):
        relation = "as good as"
    return (
        f"The {kind}, {winner}, is {relation} {rival}, {other}{on}"
        + (f" ({'; '.join(facts)})" if facts else "")
        + f": {verdict(c)}{_although(c)}."
    )


def best_comparison(results: Results) -> Comparison | None:
    """Return the comparison of the best fusion, or without fusions of the best model."""
    fusions = [m for m in results.models if len(m.features) > 1]
    candidates = fusions or [m for m in results.models if not m.features]
    model = recommended(results)
    if model is None or all(model.name != m.name for m in candidates):
        model = best(results, candidates)
    if model is None or not results.comparisons:
        return None
    if fusions:
        return next((c for c in results.comparisons if c.model == model.name), None)
    rival = best(results, [m for m in candidates if m.name != model.name])
    if rival is None:
        return None
    pair = {model.name, rival.name}
    comparison = next((c for c in results.comparisons if {c.model, c.reference} == pair), None)
    return (
        comparison
        if comparison is None or comparison.model == model.name
        else comparison.reversed()
    )


def verdict(c: Comparison) -> str:
    """Return a comparison's verdict in words."""
    if c.same:
        return "the same predictions"
    if c.significant is None:
        return "whether that is more than chance was not tested"
    if np.isfinite(c.p_holm):
        return f"{'significant' if c.significant else 'not significant'} at 5 %"
    return f"the interval {'leaves out' if c.significant else 'includes'} no difference"


def _although(c: Comparison) -> str:
    """Return a clause if the test and the interval disagree, otherwise ''."""
    if c.significant is None or not np.isfinite([c.p_holm, *c.interval]).all():
        return ""
    leaves_out = c.interval[0] > 0 or c.interval[1] < 0
    if leaves_out == c.significant:
        return ""
    return f", although the interval {'leaves out' if leaves_out else 'includes'} 0"


def _all_shared(results: Results, c: Comparison) -> bool:
    return all(
        int(model.valid.sum()) == c.n_clips
        for model in results.models
        if model.name in (c.model, c.reference)
    )


def scaling_notes(results: Results) -> list[str]:
    """Return sentences on unusual scaling of features; empty for the usual scaling."""
    notes = []
    within = results.provenance.get("within_groups")
    if within:
        notes.append(
            f"Features are standardised within groups, without labels: {within['clips']} of "
            f"{within['of_clips']} clips, in the {within['groups']} of {within['of_groups']} "
            f"groups that have {within['min_clips']} clips or more. The scores are of groups "
            "whose clips are all there at once."
        )
    far = {name: ids for name, ids in results.outliers.items() if ids}
    if far:
        listed = "; ".join(f"{name}: {_some(ids)}" for name, ids in far.items())
        notes.append(f"Clips far outside the rest, which no other was scaled by: {listed}.")
    return notes


def _some(ids: Sequence[str]) -> str:
    """Join the first few ids, and count the others."""
    more = len(ids) - MANY
    return ", ".join(ids[:MANY]) + (f" and {more} more" if more > 0 else "")


def over_folds(results: Results) -> str:
    """Return the number of folds in words: ``6 folds``, ``18 folds (3 times 6)``."""
    times = len(results.repeats)
    if not times:
        return count(results.k, "fold")
    return f"{times * results.k} folds ({times} times {results.k})"


def one_split(results: Results) -> bool:
    """Return True for one split into training and test clips instead of folds."""
    return not bool(results.tested.all())


def seen_text(results: Results) -> str:
    """Return ``yes``, ``no`` or ``not known``: were clips scored by a net that saw them?"""
    if results.leaky and results.protocol != OTHERS:
        return "yes"
    return "not known" if results.protocol in (OTHERS, "imported") else "no"


def scoring_note(results: Results) -> str:
    """Explain the columns of the main table."""
    task = results.task
    text = f"min, mean, max: {task.primary_title} over {over_folds(results)}"
    return " ".join([f"{text}{task.averaged_over}. {task.columns_note}", *row_notes(results)])


def row_notes(results: Results) -> list[str]:
    """Return notes on single rows and on their nets."""
    notes = []
    if twin := twin_of_integrated(results):
        notes.append(f"{twin} has all features: it is {INTEGRATED}, too.")
    nets = [model.name for model in results.models if model.by_net]
    if nets:
        decided = " Its tags are decided at 0.5." if results.task.needs_inner else ""
        notes.append(
            f"{', '.join(nets)}: what a net predicts itself, by its own last layer; no head is "
            f"fitted.{decided}"
        )
    stacked = any(model.name == STACKED for model in results.models)
    if stacked and any(p.protocol == "crossfit" for p in (results, *results.repeats)):
        notes.append(
            f"{STACKED}: its second layer is fitted on inner predictions whose heads never saw "
            "the clip, but whose nets did: they are better than those of new clips, so its "
            "weights may be off. No tested clip has a part in that."
        )
    notes += [str(note) for note in results.provenance.get("prediction_notes", ())]
    stage_one = results.provenance.get("stage_one")
    if isinstance(stage_one, dict):
        notes += [str(note) for note in stage_one.get("notes", ())]
    return notes

"""Sentences for the terminal and the page: verdict, comparison, notes."""

import numpy as np

from mvemo.fuse import bootstrap, numeric
from mvemo.fuse.crossval import comparisons, evaluation
from mvemo.fuse.models import INTEGRATED, STACKED
from mvemo.fuse.report.findings import findings
from mvemo.fuse.report.text import count, difference_text, p_text, primary_interval_text, score_text
from mvemo.fuse.results import (
    OTHERS,
    ModelResult,
    Results,
    best_model,
    recommended_model,
    twin_of_integrated,
)
from mvemo.manifests.text_table import listed

# Maximum number of clips that a sentence names.
MANY = 3
# The protocols, in a few plain words.
IN_WORDS = {
    "crossfit": "nets trained without the tested fold",
    "frozen": "pretrained nets",
    "shared": "nets that saw all clips",
    "holdout": "nets trained on other clips",
    "imported": "features of another program",
}


# --- opening


def describe(results: Results) -> str:
    """Return one line that describes the data, the folds and the protocol."""
    classes = count(len(results.classes), *results.task.output_nouns)
    groups = count(len(set(results.groups)), "group")
    models, clips = count(len(results.models), "model"), count(len(results.clip_ids), "clip")
    n_tested = int(results.tested.sum())
    if results.protocol == OTHERS:
        tested = f"{n_tested} of " if one_split(results) else ""
        return (
            f"predictions of {models} for {tested}{clips} in {groups}, {classes}, "
            f"{count(results.k, 'fold')}, made by another program"
        )
    how = f"{results.k}-fold cross-validation"
    if one_split(results):
        how = f"test on {count(n_tested, 'held-out clip')}"
    made_by = IN_WORDS.get(results.protocol, "no features")
    return f"{how} of {models} on {clips} in {groups}, {classes}; {made_by}"


def opening(results: Results) -> tuple[list[str], list[str], list[str]]:
    """Return the sentences at the top of a page: verdict, method, weaknesses of the model."""
    model = recommended_model(results)
    verdicts = [recommend(results), against_chance(results)]
    verdicts.append("" if results.permuted else compare_best(results))
    how = [_what_was_predicted(results)]
    if results.leaky and results.protocol != OTHERS:
        how.append("However, their nets saw clips that the models are scored on.")
    if model is None:
        verdicts = ["No model made a prediction."]
    else:
        how.append(_score_and_baseline(results, model))
        how.append(results.task.remark(results.classes, model.scores, results.baseline.scores))
        if results.permuted:
            how.append("As the labels are random, no model should do better than chance.")
        how += scaling_notes(results)
    return list(filter(None, verdicts)), list(filter(None, how)), findings(results, model)


def recommend(results: Results) -> str:
    """Recommend a model and state the score to expect; '' if no model was chosen."""
    choice, task = results.choice, results.task
    if choice is None or results.permuted:
        return ""
    interval = primary_interval_text(task, choice.nested)
    if interval:
        interval = f" (95 % interval, which allows for other training clips: {interval})"
    # R2 within a fold of n clips is biased by about -1 / n, so the pooled R2 is stated.
    expected = _mean(results, choice.nested)
    if task.pooled_interval:
        expected = score_text(task, choice.nested.scores[task.primary_metric])
    why = ""
    if choice.best not in ("", choice.model):
        why = (
            f" It is the simplest model whose loss is within one standard error of the lowest, "
            f"that of {choice.best}."
        )
    return (
        f"Use {choice.model}. Expect {_indefinite(task.primary_title)} of "
        f"{expected} on clips like these{interval}: this score is of "
        f"clips that had no part in choosing the model.{why} The best score in a table is "
        "optimistically biased (selection)."
    )


def against_chance(results: Results) -> str:
    """Compare the score with those on random labels; '' if there are none."""
    model = recommended_model(results)
    name = "" if results.choice is not None else model.name if model else ""
    if model is None or name not in results.chance:
        return ""
    drawn = results.chance[name]
    low, mean, high = (score_text(results.task, value) for value in numeric.spread(drawn))
    scored = results.choice.nested if results.choice is not None else model
    p = evaluation.chance_p(results.primary_mean(scored), drawn)
    return (
        f"On {len(drawn)} random draws of the labels the same procedure has {mean} on average "
        f"({low} to {high}{' %' * results.task.in_percent}): permutation p {p_text(p)}."
    )


def _what_was_predicted(results: Results) -> str:
    predicted = results.task.prediction(results.classes)
    n_clips, n_tested = len(results.clip_ids), int(results.tested.sum())
    each = f"{predicted} for " + ("1 clip" if n_tested == 1 else f"each of {n_tested} clips")
    if results.protocol == OTHERS:
        untested = n_clips - n_tested
        others = f" {count(untested, 'other clip')} had no test." if untested else ""
        return (
            f"Another program predicted {each}; whether it had seen "
            f"the clips before is not known.{others}"
        )
    if one_split(results):
        return (
            f"Models that were trained on {count(n_clips - n_tested, 'clip')} predicted "
            f"{each} held out; no group of clips is in both parts."
        )
    return (
        f"Models that were trained on the other {results.k - 1} of {results.k} folds predicted "
        f"{each}; no group of clips is in two folds."
    )


def _score_and_baseline(results: Results, model: ModelResult) -> str:
    task = results.task
    scores = numeric.spread(results.primary_per_fold(model))
    over_folds = ""
    if results.k > 1:
        low, high = score_text(task, scores.min), score_text(task, scores.max)
        over_folds = f" on average over folds ({low} to {high}{' %' * task.in_percent})"
    top = best_model(results)
    # The expected score differs from the table's, as it includes the cost of choosing.
    chosen = results.choice is not None and not results.permuted
    which, higher = "In the table the recommended model" if chosen else "The best model", ""
    if top is not None and top.name != model.name:
        higher = f" The highest score is that of {top.name}, {_mean(results, top)}."
    ends = model.intervals.get(task.primary_interval[0])
    doubt = ""
    if ends is not None and ends[0] <= results.primary_mean(results.baseline):
        doubt = ", which is inside the model's 95 % interval: the model may not be better"
    return (
        f"{which}, {model.name}, has {_indefinite(task.primary_title)} of "
        f"{_mean(results, model)}{over_folds}.{higher} The baseline, "
        f"{task.baseline_words}, has {_mean(results, results.baseline)}{doubt}."
    )


def _indefinite(title: str) -> str:
    return f"{'an' if title[0] in 'aeiouR' else 'a'} {title}"


def _mean(results: Results, model: ModelResult) -> str:
    text = score_text(results.task, results.primary_mean(model))
    return text + " %" * results.task.in_percent


# --- comparison


def compare_best(results: Results) -> str:
    """Return a sentence on the paired difference of `best_comparison`, or ''."""
    c, task = best_comparison(results), results.task
    if c is None:
        return ""
    model, reference = (
        next(m for m in results.models if m.name == name) for name in (c.model, c.reference)
    )
    winner, other = (f"{m.name} ({_mean(results, m)})" for m in (model, reference))
    fused = bool(model.features)
    top = best_model(results, [m for m in results.models if (len(m.features) > 1) == fused])
    which = "best" if top is not None and top.name == c.model else "recommended"
    kind = f"{which} {'fusion' if fused else 'model'}"
    rival = "its best single feature" if fused else "the next"
    if c.same:
        return f"The {kind}, {winner}, predicts the same as {rival}, {other}."
    facts = []
    if interval := difference_text(task, c.interval):
        facts.append(f"95 % interval of the difference {interval}")
    if np.isfinite(c.p):
        facts.append(f"{comparisons.names_of_tests([c])}: p {p_text(c.p)}")
    if c.n_tests > 1 and np.isfinite(c.p):
        facts.append(f"{p_text(c.p_holm)} with Holm's correction for {c.n_tests} tests")
    shared = all(int(m.valid.sum()) == c.n_clips for m in (model, reference))
    on = "" if shared else f" on the {c.n_clips} clips that both predicted"
    points = score_text(task, abs(c.mean))
    better = "better" if c.mean >= 0 else "worse"
    by_field = ""
    if c.by_field is not None and c.by_field.significant is not None:
        (_, (of, _)) = comparisons.by_scores(task, [c])
        p = f"p {p_text(c.by_field.p_holm)}"
        by_field = f"; by {of.primary_title} {verdict(c.by_field)} ({p})"
    relation = f"{points}{' points' * task.in_percent} {better} than"
    if points == score_text(task, 0.0):
        relation = "as good as"
    return (
        f"The {kind}, {winner}, is {relation} {rival}, {other}{on}"
        + (f" ({'; '.join(facts)})" if facts else "")
        + f": {verdict(c)}{by_field}."
    )


def best_comparison(results: Results) -> comparisons.Comparison | None:
    """Return the comparison of the best fusion or, if there are no fusions, the best model."""
    fusions = [m for m in results.models if len(m.features) > 1]
    candidates = fusions or [m for m in results.models if not m.features]
    model = recommended_model(results)
    if model is None or all(model.name != m.name for m in candidates):
        model = best_model(results, candidates)
    if model is None or not results.comparisons:
        return None
    if fusions:
        return next((c for c in results.comparisons if c.model == model.name), None)
    rival = best_model(results, [m for m in candidates if m.name != model.name])
    names = {model.name, rival.name if rival else ""}
    found = (c for c in results.comparisons if {c.model, c.reference} == names)
    return next((c if c.model == model.name else c.reversed() for c in found), None)


def verdict(c: comparisons.Comparison) -> str:
    if c.same:
        return "the same predictions"
    if c.significant is None:
        return "this difference was not tested"
    return f"{'significant' if c.significant else 'not significant'} at 5 %"


# --- notes


def scaling_notes(results: Results) -> list[str]:
    """Return sentences on scaling within groups and on outliers; empty if there are none."""
    notes = []
    if within := results.provenance.get("within_groups"):
        notes.append(
            f"Features are standardised within groups, without labels: {within['clips']} of "
            f"{within['of_clips']} clips, in the {within['groups']} of {within['of_groups']} "
            f"groups that have {within['min_clips']} clips or more. The scores hold for "
            "groups whose clips are all available at once."
        )
    far = [f"{name}: {listed(ids, MANY)}" for name, ids in results.outliers.items() if ids]
    if far:
        notes.append(f"Outliers (not used for scaling): {'; '.join(far)}.")
    return notes


def over_folds(results: Results) -> str:
    """Return the number of folds in words: ``6 folds``, ``18 folds (3 times 6)``."""
    times = len(results.repeats)
    if not times:
        return count(results.k, "fold")
    return f"{times * results.k} folds ({times} times {results.k})"


def one_split(results: Results) -> bool:
    """Return True for a single split into training and test clips instead of folds."""
    return not results.tested.all()


def scoring_note(results: Results) -> str:
    """Explain the columns of the main table."""
    task = results.task
    text = f"min, mean, max: {task.primary_title} over {over_folds(results)}"
    text += "" if task.exclusive else f", mean over {task.output_nouns[1]}"
    return " ".join([f"{text}. {task.columns_note}", *row_notes(results)])


def row_notes(results: Results) -> list[str]:
    """Return notes on rows of the main table and on their nets."""
    notes = []
    if twin := twin_of_integrated(results):
        notes.append(f"{twin} has all features, so it is also {INTEGRATED}.")
    if nets := [model.name for model in results.models if model.by_net]:
        decided = " Its tags are decided at 0.5." if results.task.needs_inner else ""
        notes.append(
            f"{', '.join(nets)}: predicted by the last layer of the net itself; no head is "
            f"fitted.{decided}"
        )
    stacked = any(model.name == STACKED for model in results.models)
    if stacked and any(p.protocol == "crossfit" for p in (results, *results.repeats)):
        notes.append(
            f"{STACKED}: its second layer is fitted on inner predictions whose heads never saw "
            "the clip, but whose nets did: these are better than predictions of new clips, "
            "so its weights may be inaccurate. Tested clips are not used for this."
        )
    n_groups = len({g for g, tested in zip(results.groups, results.tested, strict=True) if tested})
    if results.has_intervals and n_groups < bootstrap.MIN_GROUPS:
        notes.append(
            f"There are no intervals: the variation of scores between groups cannot be estimated "
            f"from {count(n_groups, 'group')}, only from {bootstrap.MIN_GROUPS} or more."
        )
    notes += [f"{ceiling.sentence()}." for ceiling in results.ceilings]
    notes += results.provenance.get("prediction_notes", ())
    notes += results.provenance.get("stage_one", {}).get("notes", ())
    return notes

"""Sentences on the weaknesses of a model; `Task.findings` names the sentences of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from mvemo.cache import failures_by_reason
from mvemo.fuse.report.text import count, fraction, percent
from mvemo.fuse.results import ModelResult, Results

# Stated and true shares closer than this are called equal.
CLOSE = 0.03
# Number of reasons that a sentence on failures names.
_REASONS = 2
# The spread of more targets than this would make the sentence too long.
_MANY_TARGETS = 4


def findings(results: Results, model: ModelResult | None) -> list[str]:
    """Return sentences on weak outputs, confidence, unpredicted clips and failures."""
    listed = []
    if model is not None and model.valid.any() and not results.permuted:
        listed = [FINDINGS[name](results, model) for name in results.task.findings]
    listed += [_not_predicted(results), _failures(results)]
    return [sentence for sentence in listed if sentence]


# --- outputs


def weakest_class(results: Results, model: ModelResult) -> str:
    """Name the class of lowest recall and the class of highest recall."""
    recall = model.per_output["recall"]
    if not np.isfinite(recall).any():
        return ""
    low, high = int(np.nanargmin(recall)), int(np.nanargmax(recall))
    lowest, highest = fraction(recall[low], 2), fraction(recall[high], 2)
    if recall[low] == recall[high]:
        return f"{model.name} finds every class equally often: recall {lowest}."
    n = int((results.y_true[model.valid] == low).sum())
    # Recalls cover all repeats; the number of clips is that of one repeat.
    of = f"{n} clips" if results.repeats else f"{round(recall[low] * n)} of {count(n, 'clip')}"
    return (
        f"{model.name} misses {results.classes[low]} most: recall {lowest} ({of}); best is "
        f"{results.classes[high]} with {highest}."
    )


def confusion(results: Results, model: ModelResult) -> str:
    """Name the pair of classes that is confused most often."""
    counts = model.confusion
    if counts is None:
        return ""
    wrong = np.where(np.eye(len(counts), dtype=np.bool_), 0, counts)
    if not wrong.any():
        return "No clip is taken for another class."
    true, predicted = divmod(int(wrong.argmax()), len(wrong))
    return (
        f"Its commonest mistake is to take {results.classes[true]} for "
        f"{results.classes[predicted]}: {int(wrong[true, predicted])} of "
        f"{count(int(counts[true].sum()), 'clip')}, of {int(wrong.sum())} mistakes in "
        f"{'the first evaluation' if results.repeats else 'all'}."
    )


def _weakest(results: Results, model: ModelResult, *, score: str, title: str, verb: str) -> str:
    """Name the tags or targets of the lowest and of the highest score."""
    values = model.per_output[score]
    if np.isfinite(values).sum() < 2:
        return ""
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    return (
        f"{model.name} {verb} {results.classes[low]} worst ({title} {fraction(values[low], 2)}) "
        f"and {results.classes[high]} best ({fraction(values[high], 2)})."
    )


def shrinkage(results: Results, model: ModelResult) -> str:
    """Compare the spread of the predictions with that of the labels."""
    valid = model.valid
    true, predicted = results.y_true[valid].std(axis=0), model.outputs[valid].std(axis=0)
    shares = [
        f"{percent(p / t, 0)} % ({name})"
        for name, t, p in zip(results.classes, true, predicted, strict=True)
        if t > 0
    ]
    if not shares or len(shares) > _MANY_TARGETS:
        return ""
    return f"Its predictions spread over {', '.join(shares)} of the labels' standard deviation."


# --- confidence


def confidence(results: Results, model: ModelResult) -> str:
    """Compare the stated probability of the likeliest answer with the share that is right."""
    proba, y_true = model.outputs[model.valid], results.y_true[model.valid]
    if y_true.ndim == 2:
        stated, right = np.maximum(proba, 1.0 - proba), (proba >= 0.5) == (y_true == 1)
    else:
        stated, right = proba.max(axis=1), proba.argmax(axis=1) == y_true
    mean, share = float(stated.mean()), float(right.mean())
    facts = f"on average it states {percent(mean, 0)} %, and is right in {percent(share, 0)} %"
    if mean - share > CLOSE:
        return f"It is overconfident: {facts}."
    if share - mean > CLOSE:
        return f"It is underconfident: {facts}."
    return f"Its confidence can be taken at its word: {facts}."


# --- clips


def _not_predicted(results: Results) -> str:
    """Say why some tested clips have no prediction; '' if all have one."""
    tested = results.tested
    partial = [m for m in results.models if not m.valid[tested].all()]
    if not partial:
        return ""
    causes = []
    if any(m.n_untrained < int((~m.valid[tested]).sum()) for m in partial):
        missing = {name: int((~present[tested]).sum()) for name, present in results.present.items()}
        listed = ", ".join(f"{name}: {count(n, 'clip')}" for name, n in missing.items() if n)
        causes.append(f"a feature of a clip is missing{f' ({listed})' if listed else ''}")
    if any(m.n_untrained for m in partial):
        causes.append(f"training folds have too few clips {results.task.too_few}")
    none = int((~np.stack([m.valid[tested] for m in results.models]).any(axis=0)).sum())
    by_none = f" {count(none, 'clip')} of {int(tested.sum())} no model predicted." if none else ""
    return (
        f"{count(len(partial), 'model')} could not predict every clip, because "
        f"{' or '.join(causes)}; those clips are left out of that model's scores.{by_none}"
    )


def _failures(results: Results) -> str:
    """Say how many clips failed in stage one, and the commonest reasons; '' without failures."""
    if not results.failures:
        return ""
    clips = len({clip_id for clip_id, _, _ in results.failures})
    kinds = failures_by_reason(results.failures)[:_REASONS]
    reasons = "; ".join(kind.text() for kind in kinds)
    return f"{count(clips, 'clip')} failed in stage one ({reasons}); all are listed below."


FINDINGS: Mapping[str, Callable[[Results, ModelResult], str]] = {
    "weakest_class": weakest_class,
    "confusion": confusion,
    "confidence": confidence,
    "weakest_tag": partial(_weakest, score="roc_auc", title="AUC", verb="ranks"),
    "weakest_target": partial(_weakest, score="r2", title="R2", verb="predicts"),
    "shrinkage": shrinkage,
}

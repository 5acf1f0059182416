"""Learning from corrections: a new model from corrected clips, and an honest before and after.

No media are read: the features of the corrected clips are in the catalogue that ``mvemo predict
--cache`` wrote.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.cache import open_cache
from mvemo.fuse import bootstrap, numeric
from mvemo.fuse.crossval import comparisons
from mvemo.fuse.final import adaptation, retraining
from mvemo.fuse.final.corrections import PER_CLASS, CorrectedClips, read_corrections
from mvemo.fuse.final.model_files import extra_files, load_model, save_model
from mvemo.manifests.array_types import F64, Bools
from mvemo.manifests.files import replacing_together
from mvemo.manifests.text_table import listed

# Minimum number of corrected clips for a meaningful score of tags or ratings.
PER_TASK = 20
# Larger numbers of needed corrections are not stated.
MOST_NEEDED = 1000


class LearnScore(TypedDict):
    """Score of a model on corrected clips."""

    metric: str
    score: float
    clips: int


@dataclass(frozen=True)
class LearnResult:
    """Result of learning from corrections; all values are JSON values."""

    # Scores of the base model, and of models adapted or trained without the scored groups; None
    # if no clip can be scored.
    before: LearnScore | None
    after: LearnScore | None
    interval: list[float] | None  # 95 % interval of the difference of the scores
    n_corrections: int
    enough: bool  # True if the interval excludes 0 and each class has enough clips
    better: bool  # True if `enough` and the new model is better
    needed: int | None  # number of further corrections needed; None if unknown or 0
    text: str
    model: str  # folder of the new model


def learn(
    corrections: str | Path,
    features: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    training: str | Path | None = None,
) -> LearnResult:
    """Make a new model from corrections, and compare it with the old one on the corrected clips.

    `corrections` is a manifest, whose columns ``content``, ``unsure`` and ``annotator`` are used;
    `features` the catalogue that ``mvemo predict --cache`` wrote with this model. With `training`,
    the cache that the model was made of, the heads are trained again on all clips, otherwise they
    are adapted (`mvemo.fuse.final.adaptation`).
    """
    base = load_model(model)
    corrected = read_corrections(base, Path(model), Path(corrections), features, training)
    before = adaptation.first_of(adaptation.predictor_outputs(base, corrected.vectors))
    if training is None:
        # The matrices are small: threads of BLAS would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            new, after = adaptation.adapted_model(base, corrected, before)
    else:
        with open_cache(training) as cache:
            new, after = retraining.retrained_model(base, corrected, cache)
    # The old model gives a class that it does not know the probability 0.
    before = np.pad(before, ((0, 0), (0, after.shape[1] - before.shape[1])))
    result = replace(_compared(corrected, before, after), model=str(out))
    if new is base:
        same = (
            "The new model answers as the old one: the corrections show no pattern that it lacks."
        )
        result = replace(result, text=f"{result.text} {same}")
    facts = {**asdict(result), "annotators": list(corrected.annotators), "base": str(model)}
    people = f" by {listed(corrected.annotators)}" if corrected.annotators else ""
    note = f"learned from {result.n_corrections} corrections{people}. {result.text}"
    notes = [*base.facts.get("notes", []), note]
    new = replace(new, facts={**new.facts, "notes": notes, "learned_from": facts})
    extra = extra_files(Path(model))
    with replacing_together(Path(out)) as folder:
        for name in extra:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(model) / name, folder / name)
        save_model(folder, new, extra)
    return result


def _compared(corrected: CorrectedClips, before: F64, after: F64) -> LearnResult:
    """Compare the models on the scored clips, and describe the result in words."""
    clips, task, n = corrected.clips, corrected.clips.task, len(corrected.clips.groups)
    rows = corrected.scored & numeric.complete(before) & numeric.complete(after)
    y_true, groups = clips.y_true[rows], [clips.groups[row] for row in np.flatnonzero(rows)]
    # A model must also be better than a model with constant outputs.
    models = {"before": before, "after": after, "constant": corrected.constant_outputs}
    outputs = {name: values[rows] for name, values in models.items()}
    scores = [task.primary(y_true, values) for values in outputs.values()]
    if not np.isfinite(scores).all():
        text = (
            f"None of the {n} corrected clips can be scored: each is unsure, part of the model's "
            "training data, or the only group."
        )
        return LearnResult(None, None, None, n, False, False, None, text, "")
    folds = np.zeros(len(groups), np.int64)
    folded = [comparisons.FoldedOutputs(task, y_true, groups, folds, 1, outputs)]
    resamples = bootstrap.resample_groups(groups)
    interval, (above_constant, _) = (
        comparisons.difference_interval(folded, "after", other, resamples)
        for other in ("before", "constant")
    )
    gain, missing = scores[1] - scores[0], _missing(corrected, rows)
    rule, needed = _shortage(gain, interval, len(y_true), missing)
    if not rule and gain > 0 and not above_constant > 0:
        rule = "the new model is not better than the same answer for every clip"
    verdict = f"Not enough to say: {rule}."
    if not rule:
        verdict = f"The new model is {'better' if gain > 0 else 'worse'} on such clips."
    unit, sign = (100, " %") if task.in_percent else (1, "")
    old, new = (f"{unit * score:.3g}{sign}" for score in scores[:2])
    change, low, high = (f"{unit * x:+.3g}" for x in (gain, *interval))
    known = bool(np.isfinite(interval).all())
    ends = f", 95 % interval {low} to {high}" * known
    text = (
        f"{task.primary_title} on {len(y_true)} corrected clips ({len(set(groups))} groups): "
        f"{old} before, {new} after by models that were not made of the clip's group; difference "
        f"{change}{ends}. {verdict} Corrected clips are a selected "
        "sample, often the most doubtful: on other clips the difference is usually smaller."
    )
    metric, n_clips = task.primary_metric, len(y_true)
    records = [LearnScore(metric=metric, score=x, clips=n_clips) for x in scores]
    better = not rule and gain > 0
    shown = [*interval] if known else None
    return LearnResult(records[0], records[1], shown, n, not rule, better, needed, text, "")


def _shortage(
    gain: float, interval: tuple[float, float], n: int, missing: Mapping[str, int]
) -> tuple[str, int | None]:
    """Return why `n` clips are too few ('' if they suffice), and how many more are needed."""
    if missing:
        needed = sum(missing.values())
        by_class = ", ".join(f"{name}: {number}" for name, number in missing.items())
        return f"{needed} more needed ({by_class})", needed
    low, high = interval
    if not np.isfinite(interval).all():
        return f"the scored clips are of fewer than {bootstrap.MIN_GROUPS} groups", None
    if low > 0 or high < 0:
        return "", None
    # The interval narrows with the square root of the number of clips.
    times = ((high - low) / 2 / gain) ** 2 - 1 if gain > 0 else np.inf
    if n * times > MOST_NEEDED:
        return "the interval includes 0, and the difference is too small or not above 0", None
    needed = max(1, int(np.ceil(n * times)))
    return f"the interval includes 0; about {needed} more needed at this difference", needed


def _missing(corrected: CorrectedClips, rows: Bools) -> dict[str, int]:
    """Return the numbers of further clips that are needed, by class or in all."""
    if corrected.clips.link != "softmax":
        short = PER_TASK - int(rows.sum())
        return {f"at least {PER_TASK} clips": short} if short > 0 else {}
    y_true, classes = corrected.clips.y_true, corrected.store.table.classes
    used = np.unique(y_true)
    counts = {classes[i]: int((y_true[rows] == i).sum()) for i in used}
    if len(used) < 2:
        counts["another class"] = 0
    return {name: PER_CLASS - n for name, n in counts.items() if n < PER_CLASS}

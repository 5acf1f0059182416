"""Difference of two results on the clips that both predicted, also with unequal folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.crossval.comparisons import FoldedOutputs, difference_interval
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import complete
from mvemo.fuse.results import ModelResult, Results, recommended_model


@dataclass(frozen=True)
class Difference:
    """Difference of two models in the primary metric of the task, of pooled predictions.

    Parameters
    ----------
    metric
        Primary metric, such as ``accuracy``.
    models
        Names of both models.
    scores
        Scores of both models on the common clips.
    difference
        Score of the first model minus the score of the second.
    low, high
        Paired 95 % interval of the difference, over groups; NaN for fewer than eight groups.
    n_clips, n_groups
        Numbers of the common clips and of their groups.
    """

    metric: str
    models: tuple[str, str]
    scores: tuple[float, float]
    difference: float
    low: float
    high: float
    n_clips: int
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

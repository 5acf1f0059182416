"""Choice of the recommended model, cross-validated like everything that is fitted.

The best score in a table is optimistically biased (selection). So the choice is part of what is
cross-validated (Varma & Simon 2006, "Bias in error estimation when using cross-validation for
model selection"): in each fold a model is chosen by inner predictions of the training clips, and
that model predicts the fold's clips.

With few clips the least loss depends on chance. So `integrated-late`, of which only the
calibration is fitted, is chosen unless another model's loss is lower by more than one standard
error of the difference over the inner folds' clips (after the one-standard-error rule of Breiman
et al. 1984, "Classification and Regression Trees", section 3.4.3). That rule was adopted after
looking at nested scores of the 100 music videos of the `music-video` model and of the songs of
RAVDESS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import LATE, Key, Model
from mvemo.fuse.results import Choice, score_model
from mvemo.fuse.tasks.base import Task

# A candidate predicts at least this share of the clips that another model predicts.
ENOUGH = 0.9


def choose_model(oof: OutOfFold, k: int, thresholds: Mapping[Key, F64]) -> Choice | None:
    """Choose a model by all clips, and score that choice made inside each fold.

    Return None if there are fewer than two models, or a fold has no inner predictions to choose
    by. `thresholds` maps a model's key to float64 (folds, tags); empty if the task has none.
    """
    clips, models = oof.clips, oof.models
    if len(models) < 2:
        return None
    outer = [oof.predict(model)[0] for model in models]
    inside: list[Model] = []
    outputs = np.full_like(outer[0], np.nan)
    by_clip = np.full_like(outputs, np.nan) if thresholds else None
    for fold in range(k):
        inner = [oof.predict_inside(model, fold) for model in models]
        best = best_model(clips.task, clips.y_true, models, inner)
        if best is None:
            return None
        tested = clips.folds == fold
        inside.append(models[best])
        outputs[tested] = outer[best][tested]
        if by_clip is not None:
            by_clip[tested] = thresholds[models[best].key][fold]
    everywhere = [oof.predict_everywhere(model) for model in models]
    best = best_model(clips.task, clips.y_true, models, everywhere)
    if best is None:
        return None
    modalities = tuple(dict.fromkeys(kind for model in models for kind in model.modalities))
    nested = Model("nested choice", (), modalities)
    return Choice(
        model=models[best].name,
        inside=tuple(model.name for model in inside),
        nested=score_model(clips.task, nested, outputs, clips.y_true, clips.folds, k, by_clip),
    )


def best_model(
    task: Task, y_true: F64, models: Sequence[Model], outputs: Sequence[F64]
) -> int | None:
    """Return the index of the model of least loss, or of `LATE` if that is not clearly worse.

    Only clips that all candidates predict count. Of equal models, the one with the fewest
    features is chosen.
    """
    valid = np.stack([complete(values) for values in outputs])
    n = valid.sum(axis=1)
    if not n.any():
        return None
    candidates = np.flatnonzero(n >= ENOUGH * n.max()).tolist()
    common = np.logical_and.reduce(valid[candidates])
    losses = {i: task.losses(y_true[common], outputs[i][common]) for i in candidates}
    means = {i: losses[i].mean() for i in candidates if np.isfinite(losses[i]).all()}
    best = min(means, key=lambda i: (means[i], len(models[i].features)), default=None)
    late = next((i for i in means if models[i].name == LATE), None)
    if best is None or late is None:
        return best
    gains = losses[late] - losses[best]
    return best if gains.mean() > gains.std() / np.sqrt(len(gains)) else late

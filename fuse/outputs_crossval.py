"""Cross-validation of tags (F8) and of dimensions (F9) over one cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.metrics.multilabel import best_thresholds
from mvemo.fuse.models import STACKED, Model, parts_in
from mvemo.fuse.out_of_fold import OutOfFold, evaluation
from mvemo.fuse.outputs import OutputResult, OutputResults
from mvemo.fuse.tasks.primary_metric import HEADLINES
from mvemo.fuse.tasks.scores import Plane, plane_of, score_tags, score_values

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# The stack among models that are known by their features.
_STACK = (STACKED,)
BASELINES = {"multilabel": "training frequency", "regression": "training mean"}


def evaluate_outputs(
    cache: Cache,
    *,
    k: int | None = None,
    seed: int | None = None,
    permute_labels: bool = False,
    allow_leak: bool = False,
    models: Sequence[str] | None = None,
    C: float = 0.01,
    head: HeadSettings | None = None,
    stacked: bool = False,
    missing_modality: bool = False,
    refit: bool = False,
    centre: tuple[float, float] | None = None,
) -> OutputResults:
    """Cross-validate every model on tags or on dimensions.

    A head is one linear layer with L2 penalty on features that are standardised on its
    training clips: logistic for tags (L5), least squares for dimensions (L6), whose labels
    are standardised on the training clips, too. A tag is decided by a threshold that makes
    F1 largest on out-of-fold predictions inside the training folds. Models, folds and leak
    guard are those of `evaluate`.

    Parameters
    ----------
    cache
        Open; its task is ``multilabel`` or ``regression``.
    k, seed, allow_leak, models, C, head, stacked, missing_modality, refit
        As for `evaluate`. Folds made here are stratified by tag, or by fifths of the first
        two dimensions.
    permute_labels
        Shuffle whole rows of labels over the clips first: R2 must then be 0 or less, and
        AUC 0.5, as far as chance goes.
    centre
        Valence and arousal of the neutral point, for quadrants; None for that of the
        rating scale that the labels fit (see `plane_of`).

    Raises
    ------
    BadFeatures, LeakError
        As for `evaluate`.
    """
    table = cache.table
    if table.task not in BASELINES:
        raise BadFeatures(
            f"{cache.path}: its task is {table.task}, not multilabel or regression: evaluate "
            "scores it"
        )
    tags = table.task == "multilabel"
    found, fields = evaluation(
        cache,
        head or HeadSettings(C=C),
        k=k,
        seed=seed,
        permute_labels=permute_labels,
        allow_leak=allow_leak,
        models=models,
        stacked=stacked,
        missing_modality=missing_modality,
        inner=tags,
        refit=refit,
    )
    labels, folds, k = found.clips.labels, fields["folds"], fields["k"]
    plane = None if tags else plane_of(table.classes, np.asarray(table.labels, np.float64), centre)
    cuts = _thresholds(found, k) if tags else {}
    scored = []
    for model in found.models:
        said, by = found.of(model)
        cut = by_clip = None
        if tags:
            cut = cuts[model.features]
            of_parts = [cuts[part.features] for part in parts_in(model, found.parts)]
            by_clip = np.stack([cut, *of_parts])[by, folds]
        made = _score(model, labels, said, cut, folds, k, plane, by_clip)
        scored.append(replace(made, without=found.without(model), stood_in=int((by > 0).sum())))
    if found.stack is not None:
        said, by, without = found.of_stack()
        by_clip = None
        if tags:
            # Where one base is left, what it says is decided as it decides.
            left = [found.left_of_stack(gone) or _STACK for gone in ("video", "audio")]
            by_clip = np.stack([cuts[of] for of in (_STACK, *left)])[by, folds]
        made = _score(found.stack, labels, said, cuts.get(_STACK), folds, k, plane, by_clip)
        scored.append(replace(made, without=without, stood_in=int((by > 0).sum())))
    return OutputResults(
        **fields,
        headline=HEADLINES[table.task],
        models=tuple(scored),
        baseline=baseline(table.task, labels, folds, k, plane),
        quadrant_centre=None if plane is None else plane.centre,
        heads=tuple(_decided(found, cuts) if tags else found.heads),
    )


def _thresholds(found: OutOfFold, k: int) -> dict[tuple[str, ...], F64]:
    """A model's features to float64 (folds, tags): fitted inside each fold's training folds.

    Crossfitted nets saw the training clips, so inner predictions over their features are
    better than those of new clips, and thresholds may be off; no tested clip has a part in
    that.
    """
    labels = found.clips.labels
    cuts = {
        names: np.stack(
            [
                best_thresholds(found.inner[names, fold].astype(np.float64), labels)
                for fold in range(k)
            ]
        )
        for names in found.outputs
    }
    if found.stack is not None:
        inner = [found.stack_inner[fold] for fold in range(k)]
        cuts[_STACK] = np.stack([best_thresholds(held, labels) for held in inner])
    return cuts


def _decided(found: OutOfFold, cuts: Mapping[tuple[str, ...], F64]) -> list[Head]:
    """The heads with their thresholds.

    Out-of-fold predictions of all clips are inner ones of a head that is fitted on all.
    """
    heads = []
    for one in found.heads:
        of = _STACK if one.model == STACKED else one.features
        if one.fold is not None:
            cut = cuts[of][one.fold]
        else:
            said = found.of_all_stacked() if of == _STACK else found.own_of_all(of)
            cut = best_thresholds(said, found.clips.labels)
        heads.append(replace(one, thresholds=cut))
    return heads


def baseline(
    task: str, labels: NDArray[Any], folds: Ints, k: int, plane: Plane | None = None
) -> OutputResult:
    """Predictions from the training folds' labels alone, scored like a model's.

    Each tag's frequency, decided by the threshold that makes F1 largest on the training
    clips (so always, unless no training clip has the tag); each dimension's mean.
    """
    said = np.full(labels.shape, np.nan)
    thresholds = np.full((k, labels.shape[1]), np.nan) if task == "multilabel" else None
    for fold in range(k):
        test = folds == fold
        if test.all() or not test.any():
            continue
        mean = labels[~test].mean(axis=0)
        said[test] = mean
        if thresholds is not None:
            constant = np.broadcast_to(mean, labels[~test].shape)
            thresholds[fold] = best_thresholds(constant, labels[~test])
    return _score(Model(BASELINES[task], (), ()), labels, said, thresholds, folds, k, plane)


def _score(
    model: Model,
    labels: NDArray[Any],
    said: F64,
    thresholds: F64 | None,
    folds: Ints,
    k: int,
    plane: Plane | None,
    by_clip: F64 | None = None,
) -> OutputResult:
    if thresholds is not None:
        return score_tags(model, labels, said, thresholds, folds, k, by_clip)
    return score_values(model, labels, said, folds, k, plane)

"""Cross-validation of all models over one cache (F7-F9: out-of-fold predictions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import STACKED, Model, parts_in
from mvemo.fuse.out_of_fold import OutOfFold, evaluation
from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# The stack among models that are known by their features.
_STACK = (STACKED,)


def evaluate(
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
    temperature: bool = False,
    refit: bool = False,
) -> Results:
    """Cross-validate every model; each clip is scored once, by a head that never saw it.

    A head is one linear layer with L2 penalty on features that are standardised on its
    training clips. Models are compared on the same folds.

    Parameters
    ----------
    cache
        Open.
    k
        Number of folds; None for the cache's own, or six.
    seed
        Of folds made here and of the permutation. None keeps the cache's folds where
        they are k; crossfitted features always do.
    permute_labels
        Shuffle the labels over the clips first. All scores must then be at chance.
    allow_leak
        Accept scores of clips by nets that saw them; the results then say so.
    models
        Names; None for all.
    C, head
        Inverse strength of the L2 penalty, as in scikit-learn; or all settings of heads.
    stacked
        Add ``integrated-stacked``, reading (b) of F5: of the fusions of one feature each
        (F1-F4), or of the single features where there is one such fusion or none.
    missing_modality
        Score fusions with either modality missing, too, and let the head of the other
        predict clips that lack one (F6).
    temperature
        Fit a temperature for each model and fold on inner folds (of classes only).
    refit
        Also fit each head on all clips; kept in the results' `heads`.

    Raises
    ------
    BadFeatures
        Nothing to evaluate, an unknown model, or folds that the features do not allow.
    LeakError
        A net saw clips that it is scored on, or clips of their groups.
    """
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
        temperature=temperature,
        refit=refit,
    )
    temperature = temperature and found.clips.task.fits_temperature
    clips, folds, k = found.clips, fields["folds"], fields["k"]
    thresholds = _thresholds(found, k)
    every = [*found.models, *([found.stack] if found.stack is not None else [])]
    return Results(
        **fields,
        models=tuple(_scored(found, model, k, thresholds, temperature) for model in every),
        baseline=score_baseline(clips.task, clips.y_true, folds, k, clips.n_outputs),
        heads=tuple(_with_thresholds(found, thresholds)),
    )


def _scored(
    found: OutOfFold,
    model: Model,
    k: int,
    thresholds: Mapping[tuple[str, ...], F64],
    temperature: bool,
) -> ModelResult:
    """One model's result: its predictions, with those of its fallbacks (F6)."""
    clips = found.clips
    if model is found.stack:
        outputs, source, without = found.of_stack()
        # Where one base is left, its outputs are decided by its own thresholds.
        left = [found.left_of_stack(gone) or _STACK for gone in ("video", "audio")]
        keys, inner = [_STACK, *left], [found.stack_inner.get(fold) for fold in range(k)]
    else:
        outputs, source = found.of(model)
        without = found.without(model)
        keys = [model.features, *(part.features for part in parts_in(model, found.parts))]
        inner = [found.inner_of(model, fold) for fold in range(k)] if temperature else []
    by_clip = None
    if thresholds:
        by_clip = np.stack([thresholds[key] for key in keys])[source, clips.folds]
    result = score_model(clips.task, model, outputs, clips.y_true, clips.folds, k, by_clip)
    scaled = {}
    if temperature:
        known = [values for values in inner if values is not None]
        scaled = clips.task.scaled_calibration(clips.y_true, outputs, clips.folds, known)
    return replace(
        result,
        thresholds=thresholds.get(keys[0]),
        without_modality=without,
        n_fallback=int((source > 0).sum()),
        n_untrained=int((found.have_all(model) & ~complete(outputs)).sum()),
        calibration={**result.calibration, **scaled},
    )


def _thresholds(found: OutOfFold, k: int) -> dict[tuple[str, ...], F64]:
    """A model's features to float64 (folds, tags): fitted inside each fold's training folds.

    Crossfitted nets saw the training clips, so inner predictions over their features are
    better than those of new clips, and thresholds may be off; no tested clip has a part in
    that. Empty where nothing is decided by thresholds.
    """
    task, y_true = found.clips.task, found.clips.y_true
    if not task.needs_inner:
        return {}
    inner = {
        names: [found.inner[names, fold].astype(np.float64) for fold in range(k)]
        for names in found.outputs
    }
    if found.stack is not None:
        inner[_STACK] = [found.stack_inner[fold] for fold in range(k)]
    return {
        key: np.array([task.fit_thresholds(y_true, outputs) for outputs in of_folds])
        for key, of_folds in inner.items()
    }


def _with_thresholds(found: OutOfFold, thresholds: Mapping[tuple[str, ...], F64]) -> list[Head]:
    """The heads with their thresholds.

    Out-of-fold predictions of all clips are inner ones of a head that is fitted on all.
    """
    if not thresholds:
        return found.heads
    clips, heads = found.clips, []
    for head in found.heads:
        key = _STACK if head.model == STACKED else head.features
        if head.fold is not None:
            fitted: F64 | None = thresholds[key][head.fold]
        else:
            outputs = found.of_all_stacked() if key == _STACK else found.own_of_all(key)
            fitted = clips.task.fit_thresholds(clips.y_true, outputs)
        heads.append(replace(head, thresholds=fitted))
    return heads

"""Cross-validation of all models over one cache (F7: six folds, out-of-fold predictions)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.calibration import (
    apply_temperature,
    brier_score,
    expected_calibration_error,
    fit_temperatures,
    log_loss,
    log_probabilities,
)
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Head
from mvemo.fuse.metrics import accuracy, confusion_matrix, f1_macro, roc_auc_macro_ovr
from mvemo.fuse.models import Model, parts_by_absence, parts_in, parts_of
from mvemo.fuse.preparation import prepare, provenance_of, shuffled
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.stacking import STACKED, base_models, stack_all, stack_fold, stacked_model
from mvemo.fuse.views import Clips, View, fit_view


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

    A head is a softmax layer with L2 penalty on features that are standardised on its
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
        Add ``integrated-stacked``, reading (b) of F5, where F1-F4 are among the models.
    missing_modality
        Score fusions with either modality missing, too, and let the head of the other
        predict clips that lack one (F6).
    temperature
        Fit a temperature for each model and fold on inner folds.
    refit
        Also fit each head on all clips; kept in the results' `heads`.

    Raises
    ------
    BadFeatures
        Nothing to evaluate, an unknown model, or folds that the features do not allow.
    LeakError
        A net saw clips that it is scored on, or clips of their groups.
    """
    table = cache.table
    if table.task != "multiclass":
        raise BadFeatures(
            f"{cache.path}: its task is {table.task}, not multiclass: evaluate_outputs scores it"
        )
    settings = head or HeadSettings(C=C)
    want_stack = stacked or (models is not None and STACKED in models)
    asked = None if models is None else [name for name in models if name != STACKED]
    prepared = prepare(cache, k=k, seed=seed, models=asked, allow_leak=allow_leak)
    features, chosen, names = prepared.features, prepared.models, prepared.names
    folds, k = prepared.folds, prepared.k
    labels = np.asarray(table.labels, dtype=np.int64)
    if permute_labels:
        labels = shuffled(labels, seed)
    clips = Clips(labels, table.groups, folds, len(table.classes), 0 if seed is None else seed)

    bases = base_models(chosen) if want_stack else ()
    parts = parts_of(chosen, features.modality) if missing_modality else {}
    # A part may be a model itself: heads are known by their features.
    fitted = {model.features: model for model in (*parts.values(), *chosen)}
    inner = chosen if temperature else bases
    views: list[tuple[tuple[int, ...], View]] = []
    stack_outputs = np.full((len(table), len(table.classes)), np.nan)
    heads: list[Head] = []
    missing: dict[str, int] = {}
    for net_fold, tested in prepared.views:
        matrices = {name: features.matrix(name, net_fold) for name in names}
        for name in names:
            missing[name] = int((~matrices[name].present).sum())
        view = fit_view(
            clips,
            matrices,
            tested,
            list(fitted.values()),
            inner,
            settings,
            net_fold=net_fold,
            refit=list(fitted.values()) if refit else (),
        )
        del matrices
        heads += view.heads
        views.append((tested, view))
        for fold in tested if bases else ():
            stack_head, output = stack_fold(clips, view, bases, fold)
            heads.append(stack_head)
            stack_outputs[folds == fold] = output[folds == fold]

    outputs = {names_: _out_of_fold(views, names_, clips) for names_ in fitted}
    scored = []
    for model in chosen:
        own, stood_in = outputs[model.features], 0
        others = [outputs[part.features] for part in parts_in(model, parts)]
        for other in others:
            lacking = ~_complete(own) & _complete(other)
            own = np.where(lacking[:, None], other, own)
            stood_in += int(lacking.sum())
        result = score_model(model, own, labels, folds, k, clips.n_classes)
        without = {
            gone: _mean_accuracy(outputs[part.features], outputs[model.features], labels, folds, k)
            for gone, part in parts_by_absence(model, parts).items()
        }
        scaled = _scaled(own, views, model, clips) if temperature else None
        scored.append(
            replace(
                result,
                without=without,
                stood_in=stood_in,
                calibration=calibration_of(labels, own, scaled),
            )
        )
    if bases:
        stack = stacked_model(bases)
        result = score_model(stack, stack_outputs, labels, folds, k, clips.n_classes)
        scored.append(replace(result, calibration=calibration_of(labels, stack_outputs, None)))
        if refit:
            heads.append(stack_all(clips, {b.name: outputs[b.features] for b in bases}, bases))
    return Results(
        name=table.name,
        task=table.task,
        classes=table.classes,
        clip_ids=table.clip_ids,
        groups=table.groups,
        labels=labels,
        folds=folds,
        k=k,
        seed=clips.seed,
        protocol=features.protocol(names),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        permuted=permute_labels,
        models=tuple(scored),
        majority_per_fold=majority_accuracy(labels, folds, k),
        missing=missing,
        failures=tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        curves=cache.curves,
        provenance={**provenance_of(cache, prepared, settings.C), "heads": settings.record()},
        heads=tuple(heads),
    )


def _complete(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool (clips,): rows without NaN."""
    return np.asarray(np.isfinite(values).all(axis=1), dtype=np.bool_)


def _out_of_fold(
    views: Sequence[tuple[tuple[int, ...], View]], names: tuple[str, ...], clips: Clips
) -> NDArray[np.float64]:
    """Probabilities of every clip, by the head that left its fold out."""
    result = np.full((len(clips.labels), clips.n_classes), np.nan)
    for tested, view in views:
        for fold in tested:
            rows = clips.folds == fold
            result[rows] = view.scored[names, fold]
    return result


def _scaled(
    own: NDArray[np.float64],
    views: Sequence[tuple[tuple[int, ...], View]],
    model: Model,
    clips: Clips,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities at temperatures fitted on inner folds, and those, one a fold."""
    inner = [view.inner[model.features, fold] for tested, view in views for fold in tested]
    order = [fold for tested, _ in views for fold in tested]
    found = fit_temperatures(log_probabilities(np.stack(inner).astype(np.float64)), clips.labels)
    temperatures = np.ones(int(clips.folds.max()) + 1)
    temperatures[order] = found
    return apply_temperature(own, temperatures[clips.folds][:, None]), found


def calibration_of(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    scaled: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> dict[str, float]:
    """The entries of `ModelResult.calibration`."""
    found = {
        "ece": expected_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
        "log_loss": log_loss(labels, probabilities),
    }
    if scaled is not None:
        at, temperatures = scaled
        found |= {
            "ece_scaled": expected_calibration_error(labels, at),
            "brier_scaled": brier_score(labels, at),
            "log_loss_scaled": log_loss(labels, at),
            "temperature": float(np.mean(temperatures)),
        }
    return found


def _mean_accuracy(
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    k: int,
) -> float:
    """Mean over folds of a part's accuracy on the clips that the whole model predicts."""
    there = _complete(whole) & _complete(part)
    right = np.nan_to_num(part).argmax(axis=1) == labels
    held = [right[there & (folds == f)] for f in range(k)]
    means = [float(r.mean()) for r in held if len(r)]
    return float(np.mean(means)) if means else float("nan")


def score_model(
    model: Model,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    k: int,
    n_classes: int,
) -> ModelResult:
    """Score out-of-fold probabilities (clips, classes); NaN rows are not predicted."""
    there = np.isfinite(probabilities).all(axis=1)
    predicted = np.where(there, np.nan_to_num(probabilities).argmax(axis=1), -1)
    per_fold = np.full((3, k), np.nan)
    for fold in range(k):
        rows = there & (folds == fold)
        if rows.any():
            confusion = confusion_matrix(labels[rows], predicted[rows], n_classes)
            per_fold[:, fold] = (
                accuracy(labels[rows], predicted[rows]),
                f1_macro(confusion),
                roc_auc_macro_ovr(labels[rows], probabilities[rows]),
            )
    confusion = confusion_matrix(labels[there], predicted[there], n_classes)
    aucs = per_fold[2][np.isfinite(per_fold[2])]
    return ModelResult(
        name=model.name,
        modalities=model.modalities,
        features=model.features,
        probabilities=probabilities,
        accuracy_per_fold=per_fold[0],
        f1_macro_per_fold=per_fold[1],
        roc_auc_per_fold=per_fold[2],
        f1_macro=f1_macro(confusion),
        roc_auc_macro_ovr=float(aucs.mean()) if len(aucs) else float("nan"),
        roc_auc_macro_ovr_pooled=roc_auc_macro_ovr(labels[there], probabilities[there]),
        confusion=confusion,
    )


def majority_accuracy(
    labels: NDArray[np.int64], folds: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """float64 (k,): accuracy of always saying the training folds' commonest class."""
    result = np.full(k, np.nan)
    for fold in range(k):
        test = folds == fold
        if test.any() and not test.all():
            result[fold] = np.mean(labels[test] == np.bincount(labels[~test]).argmax())
    return result

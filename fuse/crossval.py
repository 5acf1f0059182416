"""Cross-validation of all models over one cache (F7: six folds, out-of-fold predictions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.metrics import accuracy, confusion_matrix, f1_macro, roc_auc_macro_ovr
from mvemo.fuse.models import Model
from mvemo.fuse.out_of_fold import predict_all
from mvemo.fuse.preparation import prepare, provenance_of, shuffled
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.stacking import STACKED

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    folds, k = prepared.folds, prepared.k
    labels = np.asarray(table.labels, dtype=np.int64)
    if permute_labels:
        labels = shuffled(labels, seed)
    clips = Clips(table.task, labels, table.groups, folds, len(table.classes), seed or 0)
    found = predict_all(
        prepared,
        clips,
        settings,
        stacked=want_stack,
        missing_modality=missing_modality,
        inner=temperature,
        refit=refit,
    )
    scored = []
    for model in prepared.models:
        own, by = found.of(model)
        scaled = None
        if temperature:
            scaled = _scaled(own, {f: found.inner_of(model, f) for f in range(k)}, clips)
        scored.append(
            replace(
                score_model(model, own, labels, folds, k, clips.n_outputs),
                without=found.without(model),
                stood_in=int((by > 0).sum()),
                calibration=calibration_of(labels, own, scaled),
            )
        )
    if found.stack is not None:
        own = found.stack_outputs
        scaled = _scaled(own, found.stack_inner, clips) if temperature else None
        scored.append(
            replace(
                score_model(found.stack, own, labels, folds, k, clips.n_outputs),
                stood_in=found.stack_stood_in(),
                calibration=calibration_of(labels, own, scaled),
            )
        )
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
        protocol=prepared.features.protocol(prepared.names),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        permuted=permute_labels,
        models=tuple(scored),
        majority_per_fold=majority_accuracy(labels, folds, k),
        missing=found.missing,
        failures=tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        curves=cache.curves,
        provenance={**provenance_of(cache, prepared, settings.C), "heads": settings.record()},
        heads=tuple(found.heads),
    )


def _scaled(own: F64, inner: Mapping[int, F64], clips: Clips) -> tuple[F64, F64]:
    """Probabilities at temperatures fitted on inner folds, and those, one a fold."""
    scores = log_probabilities(np.stack([inner[fold] for fold in range(len(inner))]))
    temperatures = fit_temperatures(scores, clips.labels)
    return apply_temperature(own, temperatures[clips.folds][:, None]), temperatures


def calibration_of(
    labels: Ints,
    probabilities: F64,
    scaled: tuple[F64, F64] | None,
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


def score_model(
    model: Model,
    probabilities: F64,
    labels: Ints,
    folds: Ints,
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


def majority_accuracy(labels: Ints, folds: Ints, k: int) -> F64:
    """float64 (k,): accuracy of always saying the training folds' commonest class."""
    result = np.full(k, np.nan)
    for fold in range(k):
        test = folds == fold
        if test.any() and not test.all():
            result[fold] = np.mean(labels[test] == np.bincount(labels[~test]).argmax())
    return result

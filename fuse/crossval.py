"""Cross-validation of all models over one cache (F7: six folds, out-of-fold predictions)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.metrics.calibration import (
    apply_temperature,
    brier_score,
    expected_calibration_error,
    fit_temperatures,
    log_loss,
    log_probabilities,
)
from mvemo.fuse.metrics.multiclass import (
    accuracy,
    confusion_matrix,
    f1_macro,
    majority_hits,
    mean_of_held,
    roc_auc_macro_ovr,
)
from mvemo.fuse.models import Model
from mvemo.fuse.out_of_fold import evaluation
from mvemo.fuse.results import ModelResult, Results

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
        Add ``integrated-stacked``, reading (b) of F5: of the fusions of one feature each
        (F1-F4), or of the single features where there is one such fusion or none.
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
        inner=temperature,
        refit=refit,
    )
    clips, folds, k = found.clips, fields["folds"], fields["k"]
    labels = clips.labels
    scored = []
    for model in found.models:
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
        own, by, without = found.of_stack()
        scaled = _scaled(own, found.stack_inner, clips) if temperature else None
        scored.append(
            replace(
                score_model(found.stack, own, labels, folds, k, clips.n_outputs),
                without=without,
                stood_in=int((by > 0).sum()),
                calibration=calibration_of(labels, own, scaled),
            )
        )
    return Results(
        **fields,
        models=tuple(scored),
        majority_per_fold=majority_accuracy(labels, folds, k),
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
    """float64 (k,): accuracy of always saying the training folds' commonest class.

    Of one fold that holds all clips, the share of the commonest class.
    """
    hits = majority_hits(labels, folds, k)
    return np.array([mean_of_held(hits[folds == fold]) for fold in range(k)])

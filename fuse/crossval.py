"""Cross-validation of all models over one cache (F7: six folds, out-of-fold predictions)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads import Fit, Head, fit_heads
from mvemo.fuse.metrics import accuracy, confusion_matrix, f1_macro, roc_auc_macro_ovr
from mvemo.fuse.models import Model
from mvemo.fuse.preparation import prepare, provenance_of, shuffled
from mvemo.fuse.results import ModelResult, Results


def evaluate(
    cache: Cache,
    *,
    k: int | None = None,
    seed: int | None = None,
    permute_labels: bool = False,
    allow_leak: bool = False,
    models: Sequence[str] | None = None,
    C: float = 0.01,
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
    C
        Inverse strength of the L2 penalty, as in scikit-learn.
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
    prepared = prepare(cache, k=k, seed=seed, models=models, allow_leak=allow_leak)
    features, chosen, names = prepared.features, prepared.models, prepared.names
    folds, k = prepared.folds, prepared.k
    labels = np.asarray(table.labels, dtype=np.int64)
    if permute_labels:
        labels = shuffled(labels, seed)

    n_classes = len(table.classes)
    probabilities = {m.name: np.full((len(table), n_classes), np.nan) for m in chosen}
    heads: list[Head] = []
    missing: dict[str, int] = {}
    for net_fold, tested in prepared.views:
        matrices = {name: features.matrix(name, net_fold) for name in names}
        for name in names:
            missing[name] = int((~matrices[name].present).sum())
        fits = [Fit(model, fold, folds != fold, C) for model in chosen for fold in tested]
        if refit:
            everything = np.ones(len(table), dtype=np.bool_)
            fits += [Fit(model, None, everything, C) for model in chosen]
        made, outputs = fit_heads(fits, matrices, labels, n_classes, net_fold=net_fold)
        heads += made
        for fit, output in zip(fits, outputs, strict=True):
            if fit.fold is not None:
                rows = folds == fit.fold
                probabilities[fit.model.name][rows] = output[rows]
    scored = [
        score_model(model, probabilities[model.name], labels, folds, k, n_classes)
        for model in chosen
    ]
    return Results(
        name=table.name,
        task=table.task,
        classes=table.classes,
        clip_ids=table.clip_ids,
        groups=table.groups,
        labels=labels,
        folds=folds,
        k=k,
        seed=0 if seed is None else seed,
        protocol=features.protocol(names),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        permuted=permute_labels,
        models=tuple(scored),
        majority_per_fold=majority_accuracy(labels, folds, k),
        missing=missing,
        failures=tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        curves=cache.curves,
        provenance=provenance_of(cache, prepared, C),
        heads=tuple(heads),
    )


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

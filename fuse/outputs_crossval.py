"""Cross-validation of tags (F8) and of dimensions (F9) over one cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.bootstrap import DRAWS
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.headline import HEADLINES
from mvemo.fuse.heads import Fit, Head, fit_output_heads
from mvemo.fuse.models import Model
from mvemo.fuse.multilabel import best_thresholds
from mvemo.fuse.outputs import OutputResult, OutputResults
from mvemo.fuse.outputs_scores import Plane, plane_of, score_tags, score_values, with_intervals
from mvemo.fuse.preparation import prepare, provenance_of, shuffled
from mvemo.manifests import make_folds
from mvemo.manifests.model import Task

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]

# Folds inside the training folds, for thresholds.
INNER_FOLDS = 3
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
    refit: bool = False,
    draws: int = DRAWS,
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
    k, seed, allow_leak, models, C, refit
        As for `evaluate`. Folds made here are stratified by tag, or by fifths of the first
        two dimensions.
    permute_labels
        Shuffle whole rows of labels over the clips first: R2 must then be 0 or less, and
        AUC 0.5, as far as chance goes.
    draws
        Of the group bootstrap; 0 for no intervals.
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
    prepared = prepare(cache, k=k, seed=seed, models=models, allow_leak=allow_leak)
    folds, k = prepared.folds, prepared.k
    labels: NDArray[Any] = np.asarray(table.labels, np.int64 if tags else np.float64)
    if permute_labels:
        labels = shuffled(labels, seed)
    inner = [
        _inner_folds(table.task, labels, table.groups, folds != fold, seed or 0)
        for fold in range(k if tags else 0)
    ]

    shape = (len(table), len(table.classes))
    said = {model.name: np.full(shape, np.nan) for model in prepared.models}
    thresholds = {model.name: np.full((k, shape[1]), np.nan) for model in prepared.models}
    heads: list[Head] = []
    missing: dict[str, int] = {}
    for net_fold, tested in prepared.views:
        matrices = {name: prepared.features.matrix(name, net_fold) for name in prepared.names}
        for name in prepared.names:
            missing[name] = int((~matrices[name].present).sum())
        made, outputs, cut = _fit_view(
            prepared.models, matrices, labels, folds, tested, inner, C, refit, net_fold
        )
        heads += made
        for (name, fold), output in outputs.items():
            rows = folds == fold
            said[name][rows] = output[rows]
            if tags:
                thresholds[name][fold] = cut[name, fold]
    plane = None if tags else plane_of(table.classes, np.asarray(table.labels, np.float64), centre)
    scored = [
        _score(model, labels, said[model.name], thresholds[model.name], folds, k, plane)
        for model in prepared.models
    ]
    scored.append(baseline(table.task, labels, folds, k, plane))
    *results, base = with_intervals(
        table.task,
        scored,
        labels,
        table.classes,
        table.groups,
        folds,
        k,
        plane,
        draws=draws,
        seed=seed or 0,
    )
    if tags:
        # Out-of-fold predictions of all clips are inner ones of a head fitted on all.
        final = {r.name: best_thresholds(r.predictions, labels) for r in results}
        heads = [replace(h, thresholds=final[h.model]) if h.fold is None else h for h in heads]
    return OutputResults(
        name=table.name,
        task=table.task,
        classes=table.classes,
        clip_ids=table.clip_ids,
        groups=table.groups,
        labels=labels,
        folds=folds,
        k=k,
        seed=seed or 0,
        protocol=prepared.features.protocol(prepared.names),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        permuted=permute_labels,
        headline=HEADLINES[table.task],
        models=tuple(results),
        baseline=base,
        quadrant_centre=None if plane is None else plane.centre,
        missing=missing,
        failures=tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        curves=cache.curves,
        provenance={**provenance_of(cache, prepared, C), "bootstrap_draws": draws},
        heads=tuple(heads),
    )


def baseline(
    task: str, labels: NDArray[Any], folds: Ints, k: int, plane: Plane | None = None
) -> OutputResult:
    """Predictions from the training folds' labels alone, scored like a model's.

    Each tag's frequency, decided by the threshold that makes F1 largest on the training
    clips (so always, unless no training clip has the tag); each dimension's mean.
    """
    said = np.full(labels.shape, np.nan)
    thresholds = np.full((k, labels.shape[1]), np.nan)
    for fold in range(k):
        test = folds == fold
        if test.all() or not test.any():
            continue
        mean = labels[~test].mean(axis=0)
        said[test] = mean
        if task == "multilabel":
            constant = np.broadcast_to(mean, labels[~test].shape)
            thresholds[fold] = best_thresholds(constant, labels[~test])
    return _score(Model(BASELINES[task], (), ()), labels, said, thresholds, folds, k, plane)


def _score(
    model: Model,
    labels: NDArray[Any],
    said: F64,
    thresholds: F64,
    folds: Ints,
    k: int,
    plane: Plane | None,
) -> OutputResult:
    if labels.dtype.kind == "i":
        return score_tags(model, labels, said, thresholds, folds, k)
    return score_values(model, labels, said, folds, k, plane)


def _inner_folds(
    task: str,
    labels: NDArray[Any],
    groups: Sequence[str],
    train: NDArray[np.bool_],
    seed: int,
) -> Ints:
    """int64 (clips,): folds of the training clips, groups whole; -1 for all others."""
    rows = np.flatnonzero(train)
    held = [groups[int(i)] for i in rows]
    result = np.full(len(train), -1, dtype=np.int64)
    count = min(INNER_FOLDS, len(set(held)))
    # One group cannot be divided: its clips have no inner prediction, and the default counts.
    if count >= 2:
        result[rows] = make_folds(labels[rows], held, count, seed, cast(Task, task))
    return result


def _fit_view(
    models: Sequence[Model],
    matrices: Mapping[str, Matrix],
    labels: NDArray[Any],
    folds: Ints,
    tested: Sequence[int],
    inner: Sequence[Ints],
    C: float,
    refit: bool,
    net_fold: int | None,
) -> tuple[list[Head], dict[tuple[str, int], F64], dict[tuple[str, int], F64]]:
    """All heads over one set of feature values; outputs and thresholds by (model, fold).

    Crossfitted nets saw the training clips, so inner predictions over their features are
    better than those of new clips, and thresholds may be off; no tested clip has a part in
    that.
    """
    fits, of_inner = [], []
    for model in models:
        for fold in tested:
            fits.append(Fit(model, fold, folds != fold, C))
            if len(inner):
                for j in range(int(inner[fold].max()) + 1):
                    train = (inner[fold] >= 0) & (inner[fold] != j)
                    of_inner.append((Fit(model, fold, train, C), j))
        if refit:
            fits.append(Fit(model, None, np.ones(len(folds), dtype=np.bool_), C))
    both = [*fits, *(fit for fit, _ in of_inner)]
    link: Literal["sigmoid", "identity"] = "sigmoid" if len(inner) else "identity"
    made, outputs = fit_output_heads(both, matrices, labels, link, net_fold=net_fold)
    held: dict[tuple[str, int], F64] = {}
    for (fit, j), output in zip(of_inner, outputs[len(fits) :], strict=True):
        fold = cast(int, fit.fold)
        rows = inner[fold] == j
        key = (fit.model.name, fold)
        held.setdefault(key, np.full(output.shape, np.nan))[rows] = output[rows]
    heads, scored, cut = [], {}, {}
    for fit, head, output in zip(fits, made, outputs, strict=False):
        if fit.fold is not None:
            key = (fit.model.name, fit.fold)
            scored[key] = output
            if len(inner):
                nothing = np.full(output.shape, np.nan)
                cut[key] = best_thresholds(held.get(key, nothing), labels)
                head = replace(head, thresholds=cut[key])
        heads.append(head)
    return heads, scored, cut

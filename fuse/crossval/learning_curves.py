"""Learning curves: the primary metric by number of training clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.preparation import passes_over
from mvemo.fuse.features import PLAIN, Features, FeatureSettings
from mvemo.fuse.heads.fitting import Fit, HeadFitter
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.models import SECOND_LAYERS, Model
from mvemo.fuse.numeric import Ints
from mvemo.fuse.results import CurvePoint, Results

FRACTIONS = (0.1, 0.2, 0.4, 0.7)
# (model, index of a share) to the score and the number of training clips in each fold.
Scores = dict[tuple[str, int], list[tuple[float, int]]]


def with_learning_curve(
    cache: Cache,
    results: Results,
    head: HeadSettings,
    fractions: Sequence[float] = FRACTIONS,
    *,
    features: FeatureSettings = PLAIN,
) -> Results:
    """Add the primary metric of every model with fewer training clips, whole groups at a time."""
    values = Features(cache, features)
    models = [
        Model(m.name, m.features, m.modalities)
        for m in results.models
        if m.name not in SECOND_LAYERS and not m.by_net
    ]
    names = list(dict.fromkeys(name for model in models for name in model.features))
    n_outputs = len(results.classes)
    clips = Clips(
        results.task, results.y_true, results.groups, results.folds, n_outputs, results.seed
    )
    shares = sorted({*fractions, 1.0})
    # Clips that one split never tests are also trained on: they get a fold of their own.
    masks = learning_curve_masks(
        np.where(results.tested, results.folds, results.k),
        results.groups,
        shares,
        results.seed,
        labels=results.y_true if results.y_true.ndim == 1 else None,
    )[: results.k]
    scores: Scores = {}
    strength = {(h.features, h.fold): h.C for h in results.heads if h.model not in SECOND_LAYERS}
    crossfit = any(values.crossfit(name) for name in names)
    for net_fold, tested in passes_over(results.k, crossfit=crossfit):
        fitter = HeadFitter({name: values.matrix(name, net_fold) for name in names}, clips, head)
        share_of: dict[int, int] = {}
        fits = []
        for fold in tested:
            for i in range(len(shares)):
                for model in models:
                    C = strength.get((model.features, fold), head.C)
                    rows = results.folds == fold
                    fits.append(Fit(model, fold, masks[fold, i], C, predict=rows))
                    share_of[id(fits[-1])] = i
        for one in fitter.fit(fits):
            fit = one.fit
            score = clips.task.primary(clips.y_true[fit.predict], one.outputs)
            if np.isfinite(score):
                present = [fitter.matrices[name].present for name in fit.model.features]
                n_train = int(np.logical_and.reduce([fit.train, *present]).sum())
                scores.setdefault((fit.model.name, share_of[id(fit)]), []).append((score, n_train))
    curves = {model.name: _points(model.name, shares, scores) for model in models}
    return replace(
        results, learning_curve={name: points for name, points in curves.items() if points}
    )


def _points(model: str, shares: Sequence[float], scores: Scores) -> tuple[CurvePoint, ...]:
    """Return the points of one model's curve."""
    n_folds = len(scores.get((model, len(shares) - 1), []))
    points = []
    for i, share in enumerate(shares):
        of_folds = scores.get((model, i), [])
        # A mean over fewer folds could not be compared.
        if of_folds and len(of_folds) == n_folds:
            score, n_train = np.mean(of_folds, axis=0)
            deviation = float(np.std(of_folds, axis=0)[0])
            points.append((float(share), float(n_train), float(score), deviation))
    return tuple(points)


def learning_curve_masks(
    folds: Ints,
    groups: Sequence[object],
    fractions: Sequence[float],
    seed: int = 0,
    *,
    labels: Ints | None = None,
) -> NDArray[np.bool_]:
    """Choose training clips by whole groups: bool (folds, fractions, clips), nested."""
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    shuffled, spare = rng.permutation(n_groups), rng.random(n_groups)
    of_class = np.zeros(n_groups, np.int64) if labels is None else _commonest(codes, labels)
    n_folds = int(folds.max()) + 1
    masks = np.zeros((n_folds, len(fractions), len(folds)), dtype=np.bool_)
    for fold in range(n_folds):
        train = (folds != fold) & (folds >= 0)
        size = np.bincount(codes[train], minlength=n_groups)
        # The m groups of a class are spread over [0, 1), group i at (i + random number) / m.
        place = np.ones(n_groups)
        for label in np.unique(of_class):
            members = np.flatnonzero((of_class == label) & (size > 0))
            members = members[np.argsort(shuffled[members])]
            place[members] = (np.arange(len(members)) + spare[members]) / max(len(members), 1)
        order = np.argsort(place, kind="stable")
        before = np.empty(n_groups)
        before[order] = np.cumsum(size[order]) - size[order]
        for i, fraction in enumerate(fractions):
            # Allow for rounding: 0.7 * 10 may come out above 7.
            n_needed = fraction * train.sum() - 1e-9 * len(folds)
            masks[fold, i] = train & (before[codes] < n_needed)
    return masks


def _commonest(codes: Ints, labels: Ints) -> Ints:
    """Return the commonest class of each group, int64 (groups,)."""
    votes = np.zeros((int(codes.max()) + 1, int(labels.max()) + 1))
    np.add.at(votes, (codes, labels), 1)
    result: Ints = votes.argmax(axis=1).astype(np.int64)
    return result

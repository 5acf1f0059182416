"""How sure an evaluation's figures are: intervals, tests, repeats, learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.clips import Clips, partition
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Features
from mvemo.fuse.heads.fitting import Fit, fit_heads, trainable
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.metrics.averages import mean_finite
from mvemo.fuse.models import STACKED, Model
from mvemo.fuse.preparation import views_of
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.statistics.learning_curve import learning_curve_masks
from mvemo.fuse.statistics.model_tests import compare_fusions
from mvemo.fuse.statistics.resamples import Resamples, percentile_interval, resample_groups

F64 = NDArray[np.float64]
T = TypeVar("T")

FRACTIONS = (0.1, 0.2, 0.4, 0.7)


def with_uncertainty(results: Results, *, n_resamples: int = 1000, seed: int = 0) -> Results:
    """Add group-bootstrap intervals to every model, and tests of the fusions.

    Intervals are of the out-of-fold predictions; with repeats a resample's score is the
    mean over them. The test is Nadeau and Bengio's, corrected by Holm, on the primary
    metric in each fold. Neither covers the choice of the best among many models.

    Parameters
    ----------
    results
        An evaluation, with its repeats in `repeats`.
    n_resamples
        Of groups; 0 for no intervals.
    seed
        Of the resamples.
    """
    every: Sequence[Results] = results.repeats or (results,)
    compared = compare_fusions(every) if results.k > 1 else []
    if not n_resamples or not results.models:
        return replace(results, comparisons=tuple(compared))
    resamples = resample_groups(results.groups, n_resamples, seed)
    # One at a time: shuffled labels differ between repeats.
    by_repeat = [resampled_scores(one, resamples) for one in every]
    drawn = {
        score: mean_finite(np.stack([one[score] for one in by_repeat]), axis=0)
        for score in by_repeat[0]
    }
    row = {model.name: i for i, model in enumerate(results.models)}
    primary = drawn["primary"]
    compared = [
        replace(
            c, interval=_ends(percentile_interval(primary[row[c.model]] - primary[row[c.single]]))
        )
        for c in compared
    ]
    ends = {score: percentile_interval(values) for score, values in drawn.items()}
    *of_models, of_baseline = (
        replace(model, intervals=_intervals(results, model, ends, i))
        for i, model in enumerate((*results.models, results.baseline))
    )
    return replace(
        results,
        models=tuple(of_models),
        baseline=of_baseline,
        comparisons=tuple(compared),
        provenance={**results.provenance, "n_resamples": n_resamples},
    )


def resampled_scores(results: Results, resamples: Resamples) -> dict[str, F64]:
    """Score name to float64 (models, resamples), the baseline last: see `Task.resample`.

    Parameters
    ----------
    results
        One evaluation, without its repeats.
    resamples
        Of the clips' groups.
    """
    models = (*results.models, results.baseline)
    return results.task.resample(
        results.y_true,
        np.stack([model.outputs for model in models]),
        np.stack([model.y_pred for model in models]),
        results.folds,
        results.k,
        resamples,
    )


def _intervals(
    results: Results, model: ModelResult, ends: Mapping[str, F64], row: int
) -> dict[str, tuple[float, float]]:
    """`ends`: score name to float64 (models, 2).

    Empty where the clips are of one group: resamples of it are all the same, and say nothing
    of others.
    """
    valid = [group for group, there in zip(results.groups, model.valid, strict=True) if there]
    if len(set(valid)) < 2:
        return {}
    return {score: _ends(values[row]) for score, values in ends.items()}


def _ends(interval: F64) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])


def with_repeats(results: Results, repeats: Sequence[Results]) -> Results:
    """Add evaluations of the same models on other folds.

    Scores of folds are then those of all evaluations in turn, and all other scores means
    over them; predictions, confusion matrices and thresholds stay those of the first.

    Raises
    ------
    BadFeatures
        They are of other clips or models, or two are on the same folds.
    """
    if len({partition(one.folds).tobytes() for one in (results, *repeats)}) <= len(repeats):
        raise BadFeatures(
            f"{results.name}: two of its repeats are on the same folds, which says nothing new"
        )
    for other in repeats:
        if other.clip_ids != results.clip_ids or [m.name for m in other.models] != [
            m.name for m in results.models
        ]:
            raise BadFeatures(f"{other.name}: a repeat is of other clips or models")
    every = tuple(replace(one, heads=(), repeats=()) for one in (results, *repeats))
    return replace(
        results,
        repeats=every,
        models=tuple(
            _over_repeats([one.models[i] for one in every]) for i in range(len(results.models))
        ),
        baseline=_over_repeats([one.baseline for one in every]),
    )


def _over_repeats(models: Sequence[ModelResult]) -> ModelResult:
    """One model's results on different folds as one."""
    return replace(
        models[0],
        scores=_of_each([m.scores for m in models], _mean),
        per_output=_of_each([m.per_output for m in models], _mean_array),
        calibration=_of_each([m.calibration for m in models], _mean),
        without_modality=_of_each([m.without_modality for m in models], _mean),
        per_fold=_of_each([m.per_fold for m in models], np.concatenate),
        per_output_fold=_of_each([m.per_output_fold for m in models], np.concatenate),
    )


def _of_each(values: Sequence[Mapping[str, T]], join: Callable[[Sequence[T]], T]) -> dict[str, T]:
    """The entries of the first, joined with those of the others that have them.

    Temperatures are fitted in the first evaluation alone.
    """
    return {name: join([v[name] for v in values if name in v]) for name in values[0]}


def _mean_array(values: Sequence[F64]) -> F64:
    return mean_finite(np.stack(values), axis=0)


def _mean(values: Sequence[float]) -> float:
    return float(mean_finite(np.array(values, dtype=np.float64), axis=0))


def with_learning_curve(
    cache: Cache,
    results: Results,
    head: HeadSettings,
    fractions: Sequence[float] = FRACTIONS,
) -> Results:
    """Add the primary metric of every model with fewer training clips, whole groups at a time.

    Under ``crossfit`` only the heads see fewer clips; the nets saw all of the training
    folds. A model is scored on clips that have its features, its penalty is not chosen
    anew, and a point that too few clips are left for is left out, as is a model without a
    point: the last point may differ from the evaluation's score.

    Parameters
    ----------
    cache
        That was evaluated.
    results
        Of that evaluation.
    head
        Settings of its heads.
    fractions
        Shares of the training clips, each above 0 and below 1.
    """
    features = Features(cache)
    models = [Model(m.name, m.features, m.modalities) for m in results.models if m.name != STACKED]
    names = list(dict.fromkeys(name for model in models for name in model.features))
    clips = Clips(
        results.task,
        results.y_true,
        results.groups,
        results.folds,
        len(results.classes),
        results.seed,
    )
    # Clips that one split never tests are trained on all the same: a fold of their own.
    folds = np.where(results.folds < 0, results.k, results.folds)
    shares = sorted({*fractions, 1.0})
    masks = learning_curve_masks(
        folds,
        results.groups,
        shares,
        results.seed,
        labels=results.y_true if results.y_true.ndim == 1 else None,
    )[: results.k]

    # Of each fold: the score, and the clips that the head was trained on.
    scores: dict[tuple[str, int], list[tuple[float, int]]] = {}
    crossfit = any(features.crossfit(name) for name in names)
    for net_fold, tested in views_of(crossfit, results.k):
        matrices = {name: features.matrix(name, net_fold) for name in names}
        every = [
            (Fit(model, fold, masks[fold, i], head.C, predict=results.folds == fold), i)
            for fold in tested
            for i in range(len(shares))
            for model in models
        ]
        at = {id(fit): i for fit, i in every}
        fits = trainable([fit for fit, _ in every], matrices, clips)
        _, outputs = fit_heads(fits, matrices, clips, head)
        for fit, output in zip(fits, outputs, strict=True):
            said = np.full((len(folds), output.shape[1]), np.nan)
            said[results.folds == fit.fold] = output
            score = clips.score(results.folds == fit.fold, said)
            if np.isfinite(score):
                there = [matrices[name].present for name in fit.model.features]
                clips_there = int(np.logical_and.reduce([fit.train, *there]).sum())
                scores.setdefault((fit.model.name, at[id(fit)]), []).append((score, clips_there))
    last = len(shares) - 1
    curves = {}
    for model in models:
        full = scores.get((model.name, last), [])
        points = []
        for i, share in enumerate(shares):
            held = scores.get((model.name, i), [])
            # Of fewer folds a mean could not be compared.
            if held and len(held) == len(full):
                score, trained_on = np.mean(held, axis=0)
                points.append((float(share), float(trained_on), float(score)))
        if points:
            curves[model.name] = tuple(points)
    return replace(results, learning_curve=curves)

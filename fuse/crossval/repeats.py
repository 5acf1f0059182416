"""Repeats: further evaluations on other folds, and the scores of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mvemo.cache import Cache
from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.averages import mean_finite
from mvemo.fuse.results import Choice, ModelResult, Results

T = TypeVar("T")
# Seeds tried for each repeat: a few groups can be split into folds in only a few ways.
TRIES = 10


def evaluate_on_other_folds(
    cache: Cache,
    first: Results,
    settings: EvaluationSettings,
    evaluate_once: Callable[[Cache, EvaluationSettings], Results],
) -> list[Results]:
    """Evaluate again until there are `settings.repeats` evaluations, each on other folds."""
    _refuse_bound_folds(cache, first)
    table = cache.table
    # The first evaluation may use the cache's own folds, which have another seed.
    own_folds = first.k == table.k and settings.seed is None
    seed = table.fold_seed if own_folds else first.seed
    # Temperatures are fitted, and heads kept, only in the first evaluation.
    settings = replace(settings, temperature=False, refit=False)
    results = {_partition(first): first}
    for _ in range(TRIES * settings.repeats):
        if len(results) == settings.repeats:
            break
        seed += 1
        other = evaluate_once(cache, replace(settings, seed=seed))
        results.setdefault(_partition(other), other)
    if len(results) < settings.repeats:
        raise BadFeatures(
            f"{cache.path}: --repeats {settings.repeats} asks for more different folds than were "
            f"found for {len(set(table.groups))} groups in {first.k} folds: {len(results)}"
        )
    return list(results.values())[1:]


def _partition(results: Results) -> bytes:
    """Return the same key for evaluations that divide the clips alike, however numbered."""
    _, first, which = np.unique(results.folds, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which.reshape(-1)].astype(np.int64).tobytes()


def _refuse_bound_folds(cache: Cache, first: Results) -> None:
    """Raise if the clips cannot be split into other folds."""
    needs = f"{cache.path}: --repeats needs other folds, but"
    if not first.tested.all():
        raise BadFeatures(
            f"{needs} its clips have one split (holdout): evaluate once, or ask for --folds of "
            "frozen features"
        )
    if first.protocol == "crossfit":
        raise BadFeatures(
            f"{needs} its nets are bound to theirs (crossfit): evaluate once, or extract with "
            "--protocol frozen"
        )
    if first.k == cache.table.k and cache.table.fold_seed < 0:
        raise BadFeatures(
            f"{needs} its manifest prescribes these: evaluate once, or ask for another number of "
            f"--folds than {cache.table.k}"
        )


def with_repeats(results: Results, repeats: Sequence[Results]) -> Results:
    """Add evaluations of the same models on other folds.

    Scores per fold are then those of all evaluations in turn, and all other scores are means over
    them; predictions, confusion matrices and thresholds stay those of the first.
    """
    if len({_partition(one) for one in (results, *repeats)}) <= len(repeats):
        raise BadFeatures(
            f"{results.name}: two of its repeats are on the same folds, which says nothing new"
        )
    for other in repeats:
        if other.clip_ids != results.clip_ids or [m.name for m in other.models] != [
            m.name for m in results.models
        ]:
            raise BadFeatures(f"{other.name}: a repeat is of other clips or models")
    evaluations = tuple(replace(one, heads=(), repeats=()) for one in (results, *repeats))
    return replace(
        results,
        repeats=evaluations,
        models=tuple(
            _over_repeats([one.models[i] for one in evaluations])
            for i in range(len(results.models))
        ),
        baseline=_over_repeats([one.baseline for one in evaluations]),
        choice=_choice_over_repeats(evaluations),
    )


def _choice_over_repeats(evaluations: Sequence[Results]) -> Choice | None:
    """Return the choice of the first evaluation, scored over all."""
    choices = [one.choice for one in evaluations if one.choice is not None]
    if len(choices) < len(evaluations):
        return None
    nested = _over_repeats([choice.nested for choice in choices])
    inside = tuple(name for choice in choices for name in choice.inside)
    return Choice(choices[0].model, inside, nested)


def _over_repeats(models: Sequence[ModelResult]) -> ModelResult:
    """Join one model's results on different folds."""
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
    """Join the entries of the first mapping with those of the others that have them.

    Temperatures are fitted only in the first evaluation.
    """
    return {name: join([v[name] for v in values if name in v]) for name in values[0]}


def _mean_array(values: Sequence[F64]) -> F64:
    return mean_finite(np.stack(values), axis=0)


def _mean(values: Sequence[float]) -> float:
    return float(mean_finite(np.array(values, dtype=np.float64), axis=0))

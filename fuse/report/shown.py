"""Selection of the models that every table and plot shows, and of the recommended one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.models import INTEGRATED
from mvemo.fuse.results import ModelResult, Results


def best(results: Results, models: Sequence[ModelResult] | None = None) -> ModelResult | None:
    """Return the model with the highest mean primary metric, or None if none has a score.

    Ties go to the model with fewer features, then to the first.
    """
    models = results.models if models is None else models
    scored = [m for m in models if np.isfinite(results.primary_mean(m))]
    return min(scored, key=lambda m: (-results.primary_mean(m), len(m.features)), default=None)


def recommended(results: Results) -> ModelResult | None:
    """Return the model of the nested choice, otherwise the best; None if none has a score."""
    if results.choice is not None and not results.permuted:
        for model in results.models:
            if model.name == results.choice.model:
                return model
    return best(results)


def twin_of_integrated(results: Results) -> str:
    """Return the name of the pair that has the same features as ``integrated``, or ''."""
    by_name = {model.name: model for model in results.models}
    if INTEGRATED not in by_name:
        return ""
    features = set(by_name[INTEGRATED].features)
    pairs = (m for m in results.models if "+" in m.name and set(m.features) == features)
    return next((m.name for m in pairs), "")


def without_twin(results: Results) -> Results:
    """Return the results without ``integrated`` if a pair of features is the same model.

    This happens with one audio and one video feature. Files keep both names; tables and plots
    show the pair.
    """
    twin = twin_of_integrated(results)
    if not twin:
        return results
    choice = results.choice
    if choice is not None:
        inside = tuple(twin if name == INTEGRATED else name for name in choice.inside)
        model = twin if choice.model == INTEGRATED else choice.model
        choice = replace(choice, model=model, inside=inside)
    curve = {name: p for name, p in results.learning_curve.items() if name != INTEGRATED}
    return replace(
        results,
        models=tuple(m for m in results.models if m.name != INTEGRATED),
        comparisons=tuple(c for c in results.comparisons if c.model != INTEGRATED),
        repeats=tuple(
            replace(one, models=tuple(m for m in one.models if m.name != INTEGRATED))
            for one in results.repeats
        ),
        learning_curve=curve,
        choice=choice,
    )

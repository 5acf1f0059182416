"""Predictions of all models; no part of a model was fitted on the clips that it predicts.

Features that all folds share serve the heads of six folds at once; crossfitted features are
another set for every fold. Whatever is chosen or fitted in addition to the heads (strength of
the penalty, stacking, temperatures, thresholds) uses only inner folds of the training clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.clips import leave_each_out
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import Fallback, OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.crossval.second_layers import (
    Product,
    SecondLayer,
    Stack,
    base_models,
    late_bases,
)
from mvemo.fuse.crossval.strengths import Strength, choose_strengths
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, HeadFitter
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import LATE, STACKED, Key, Model, Parts, parts_of
from mvemo.fuse.scaling import fit_scaling

# Inner predictions need less precision than those that are scored.
INNER_TOLERANCE = 1e-5


def predict_all(prepared: Preparation, settings: EvaluationSettings) -> OutOfFold:
    """Fit the heads of all models and folds, and predict every clip by one that left it out."""
    clips, features, models = prepared.clips, prepared.features, prepared.models
    inner = clips.task.needs_inner or settings.choose_model
    inner = inner or (settings.temperature and clips.task.fits_temperature)
    parts = parts_of(models, features.modality) if settings.missing_modality else {}
    # Parts and models with the same features share a head.
    fitted = _with_parts(models, parts)
    oof = OutOfFold(clips, prepared.k, models, {})
    oof.outputs |= {model.features: oof.blank() for model in fitted}
    oof.fallbacks = {
        name: tuple(Fallback(m, part.features, part.features) for m, part in of_model.items())
        for name, of_model in parts.items()
    }
    layers = _second_layers(prepared, settings, parts, inner=inner)
    count = settings.head.inner_folds
    oof.inner_folds |= {fold: clips.inner_folds(fold, count) for fold in range(prepared.k)}
    if any((inner_folds < 0).all() for inner_folds in oof.inner_folds.values()):
        # Training clips of one group have no inner predictions for a second layer.
        layers = []
    for layer in layers:
        oof.add_model(layer.model, layer.decided_by if settings.missing_modality else None)
    inner_models = models if inner else [base for layer in layers for base in layer.bases]
    needs_parts = clips.task.needs_inner or any(isinstance(layer, Stack) for layer in layers)
    for net_fold, tested in prepared.passes:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        _note_present(oof, matrices, tested)
        # Without missing features nothing falls back, but a stack is scored with modalities
        # missing, and thresholds are saved.
        needed = needs_parts or not all(m.present.all() for m in matrices.values())
        predicted_inside = _with_parts(inner_models, parts if needed else {})
        fitter = HeadFitter(matrices, clips, settings.head, net_fold)
        chosen = [_fit_fold(oof, fitter, fold, fitted, predicted_inside) for fold in tested]
        if settings.refit:
            _fit_all(oof, fitter, fitted, chosen)
        del matrices, fitter
        for layer in layers:
            for fold in tested:
                layer.predict_fold(oof, fold)
    if not any(complete(outputs).any() for outputs in oof.outputs.values()):
        raise BadFeatures(
            f"no head can be trained: no fold leaves training clips {clips.task.too_few}"
        )
    for layer in layers:
        if settings.refit and any(head.model == layer.name for head in oof.heads):
            oof.heads.append(layer.fit_all(oof))
    return oof


def _with_parts(models: Sequence[Model], parts: Parts) -> tuple[Model, ...]:
    """Add to the models what is left of them with modalities missing."""
    of_models = [part for model in models for part in parts.get(model.name, {}).values()]
    return tuple({model.features: model for model in (*of_models, *models)}.values())


def _second_layers(
    prepared: Preparation, settings: EvaluationSettings, parts: Parts, *, inner: bool
) -> list[SecondLayer]:
    """Return the stack and the product if they are set, or named among the models."""
    kinds: tuple[tuple[type[SecondLayer], bool, tuple[Model, ...], str], ...] = (
        (
            Stack,
            settings.stacked,
            base_models(prepared.models),
            f"{STACKED} stacks two models or more: name those, too, or leave it out",
        ),
        (
            Product,
            settings.late,
            late_bases(prepared.models),
            f"{LATE} multiplies what two single features or more predict: name those, too, or "
            "leave it out",
        ),
    )
    layers = []
    for kind, by_default, bases, advice in kinds:
        named = settings.models is not None and kind.name in settings.models
        if named and not bases:
            raise BadFeatures(f"{prepared.where}: {advice}")
        if bases and (named or (settings.models is None and by_default)):
            layers.append(kind(bases, parts, settings.head, inner))
    return layers


def _note_present(oof: OutOfFold, matrices: Mapping[str, Matrix], tested: Sequence[int]) -> None:
    """Record the clips that have each feature (from the tested folds' nets), and outliers."""
    rows = np.isin(oof.clips.folds, tested)
    for name, matrix in matrices.items():
        _, far = fit_scaling(matrix.values, matrix.present)
        oof.outliers[name] = oof.outliers.get(name, False) | far
        present = oof.present.setdefault(name, matrix.present.copy())
        present[rows] = matrix.present[rows]


def _fit_fold(
    oof: OutOfFold,
    fitter: HeadFitter,
    fold: int,
    models: Sequence[Model],
    inner_models: Sequence[Model],
) -> dict[Key, float]:
    """Predict a fold, and its training clips by inner folds; return the chosen C by features."""
    clips, settings, inner = oof.clips, fitter.settings, oof.inner_folds[fold]
    tested = clips.folds == fold
    strengths: dict[Key, Strength] = {}
    if settings.choose_C:
        strengths = choose_strengths(fitter, models, fold, inner)
    default = Strength(settings.C)
    # Thresholds depend on the last digits of inner predictions.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    fits = []
    for j, (train, rows) in enumerate(leave_each_out(inner)):
        for model in inner_models:
            strength = strengths.get(model.features, default)
            start = strength.start(j)
            fits.append(Fit(model, fold, train, strength.C, tolerance, rows, ~tested, start))
    for model in inner_models:
        oof.inner[model.features, fold] = oof.blank().astype(np.float32)
    for one in fitter.fit(fits):
        oof.inner[one.fit.model.features, fold][one.fit.predict] = one.outputs
    fits = []
    for model in models:
        strength = strengths.get(model.features, default)
        start = strength.start(None)
        fits.append(Fit(model, fold, ~tested, strength.C, predict=tested, start=start))
    for one in fitter.fit(fits):
        oof.outputs[one.fit.model.features][tested] = one.outputs
        oof.heads.append(fitter.head(one))
    return {key: strength.C for key, strength in strengths.items()}


def _fit_all(
    oof: OutOfFold,
    fitter: HeadFitter,
    models: Sequence[Model],
    chosen: Sequence[Mapping[Key, float]],
) -> None:
    """Fit heads on all clips, with the median of the strengths that the folds chose."""
    everything = np.ones(len(oof.clips.y_true), dtype=np.bool_)
    fits = []
    for model in models:
        key = model.features
        strengths = sorted(of_fold[key] for of_fold in chosen if key in of_fold)
        C = strengths[len(strengths) // 2] if strengths else fitter.settings.C
        # Their outputs are not needed.
        fits.append(Fit(model, None, everything, C, predict=~everything))
    oof.heads += [fitter.head(one) for one in fitter.fit(fits)]

"""Predictions of all models; no part of a model was fitted on the clips that it predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.fold_heads import HeadPlan, fit_fold_heads
from mvemo.fuse.crossval.integration import Product, Stack
from mvemo.fuse.crossval.out_of_fold import Fallback, OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.crossval.settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.late import (
    late_bases,
)
from mvemo.fuse.heads.stacking import base_models, stack_all
from mvemo.fuse.matrices.scaling import fit_scaling
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import (
    STACKED,
    Model,
    Parts,
    parts_of,
)


def predict_all(
    prepared: Preparation, clips: Clips, settings: EvaluationSettings, *, stacked: bool, late: bool
) -> OutOfFold:
    """Fit the heads of all models and folds, and predict every clip by one that left it out."""
    features, models = prepared.features, prepared.models
    inner = clips.task.needs_inner or settings.choose_model
    inner = inner or (settings.temperature and clips.task.fits_temperature)
    parts = parts_of(models, features.modality) if settings.missing_modality else {}
    # Parts and models with the same features share a head.
    fitted = {model.features: model for model in _with_parts(models, parts)}
    blank = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    oof = OutOfFold(clips, models, {key: blank.copy() for key in fitted})
    oof.fallbacks = {
        name: tuple(Fallback(m, part.features, part.features) for m, part in of_model.items())
        for name, of_model in parts.items()
    }
    stack = Stack.over(base_models(models) if stacked else (), parts, inner)
    product = Product.over(late_bases(models) if late else (), settings.head)
    if not all(clips.divisible(fold) for fold in range(prepared.k)):
        # Training clips of one group have no inner predictions for a second layer.
        stack = product = None
    layers = [layer for layer in (stack, product) if layer is not None]
    for layer in layers:
        oof.add_model(layer.model, blank, layer.decided_by if settings.missing_modality else None)
    for net_fold, tested in prepared.passes:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        _note_present(oof, matrices, tested)
        # Without missing features nothing falls back, but a stack is scored with modalities
        # missing, and thresholds are saved.
        need_parts = (
            stack is not None
            or clips.task.needs_inner
            or not all(m.present.all() for m in matrices.values())
        )
        inner_models = models if inner else [base for layer in layers for base in layer.bases]
        plan = HeadPlan(
            folds=tested,
            models=tuple(fitted.values()),
            inner_models=_with_parts(inner_models, parts if need_parts else {}),
            refit=tuple(fitted.values()) if settings.refit else (),
            net_fold=net_fold,
        )
        fold_heads = fit_fold_heads(clips, matrices, plan, settings.head)
        del matrices
        oof.heads += fold_heads.heads
        oof.inner |= fold_heads.inner
        for key, fold in fold_heads.scored:
            oof.outputs[key][clips.folds == fold] = fold_heads.scored[key, fold]
        for layer in layers:
            for fold in tested:
                layer.predict_fold(oof, fold_heads, fold)
    if not any(complete(outputs).any() for outputs in oof.outputs.values()):
        raise BadFeatures(
            f"no head can be trained: no fold leaves training clips {clips.task.too_few}"
        )
    if stack is not None and settings.refit and any(h.model == STACKED for h in oof.heads):
        bases = {base.name: oof.predict_everywhere(base) for base in stack.bases}
        oof.heads.append(stack_all(clips, bases))
    if product is not None and settings.refit:
        oof.heads.append(product.head_of_all(oof))
    return oof


def _with_parts(models: Sequence[Model], parts: Parts) -> tuple[Model, ...]:
    """Add to the models what is left of them with modalities missing."""
    of_models = [part for model in models for part in parts.get(model.name, {}).values()]
    return tuple({model.features: model for model in (*of_models, *models)}.values())


def _note_present(oof: OutOfFold, matrices: Mapping[str, Matrix], tested: Sequence[int]) -> None:
    """Record the clips that have each feature (from the tested folds' nets), and outliers."""
    rows = np.isin(oof.clips.folds, tested)
    for name, matrix in matrices.items():
        _, far = fit_scaling(matrix.values, matrix.present)
        oof.outliers[name] = oof.outliers.get(name, False) | far
        present = oof.present.setdefault(name, matrix.present.copy())
        present[rows] = matrix.present[rows]

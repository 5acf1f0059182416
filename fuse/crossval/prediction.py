"""Predictions of all models; no part of a model was fitted on the clips that it predicts.

Features that all folds share serve the heads of six folds at once; crossfitted features are
another set for every fold. Whatever is chosen or fitted in addition to the heads (strength of
the penalty, stacking, temperatures, thresholds) uses only inner folds of the training clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mvemo.fuse.arrays import F32, F64, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.choice import best_model
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import Fallback, OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.crossval.strengths import Strength, choose_strengths
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, HeadFitter, trainable
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.heads.late import (
    late_bases,
    late_head,
    late_inner,
    late_model,
    late_outputs,
    late_weights,
)
from mvemo.fuse.heads.stacking import base_models, stack_all, stack_fold, stacked_model
from mvemo.fuse.matrices.scaling import fit_scaling
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import STACKED, Key, Missing, Model, Parts, parts_of

# Key of a head: its features, and the fold that it leaves out.
HeadKey = tuple[Key, int]
# Inner predictions need less precision than those that are scored.
INNER_TOLERANCE = 1e-5


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


@dataclass(frozen=True)
class Stack:
    """Second layer of the stack, over its bases."""

    bases: tuple[Model, ...]
    model: Model
    parts: Parts  # models left of a base when modalities are missing (`parts_of`)
    inner: bool  # True to predict inside the training folds, too

    @classmethod
    def over(cls, bases: tuple[Model, ...], parts: Parts, inner: bool) -> Stack | None:
        """Make the stack of the bases; None if there are none."""
        return cls(bases, stacked_model(bases), parts, inner) if bases else None

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds with modalities missing: each case has its own."""
        return (self.model.name, *missing)

    def predict_fold(self, oof: OutOfFold, fold_heads: FoldHeads, fold: int) -> None:
        """Fit one fold's second layer and predict the fold's clips, into `oof`.

        With modalities missing, another model predicts: the best of those that need none of
        them, by inner predictions of the training clips. The second layer itself would read the
        same remaining feature as several bases.
        """
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        inputs = {}
        for base in self.bases:
            values = oof.predict_inside(base, fold)
            values[tested] = oof.outputs[base.features][tested]
            inputs[base.name] = values
        head, outputs, inner = stack_fold(
            clips, fold, inputs, fold_heads.inner_folds[fold], inner=self.inner
        )
        oof.inner[key, fold] = inner
        fallbacks = oof.fallbacks.get(self.model.name, ())
        best = {f.key: self._best_without(oof, f.missing, fold) for f in fallbacks}
        if self.inner:
            oof.inner |= {(k, fold): oof.inner[best[k], fold] for k in best}
        if head is None:
            return
        oof.heads.append(head)
        oof.outputs[key][tested] = outputs[tested]
        for fallback_key, of in best.items():
            oof.outputs[fallback_key][tested] = oof.outputs[of][tested]

    def _best_without(self, oof: OutOfFold, missing: Missing, fold: int) -> Key:
        """Return the key of the best model that needs none of the missing modalities."""
        models = [m for m in oof.models if not set(missing) & set(m.modalities)]
        models += [parts[missing] for parts in self.parts.values() if missing in parts]
        models = [m for m in {m.key: m for m in models}.values() if (m.key, fold) in oof.inner]
        outputs = [oof.inner[m.key, fold].astype(np.float64) for m in models]
        best = best_model(oof.clips.task, oof.clips.y_true, models, outputs) if models else None
        left = (self._left_of(base, missing) for base in self.bases)
        return next(key for key in left if key) if best is None else models[best].key

    def _left_of(self, base: Model, missing: Missing) -> Key | None:
        """Return the key of what is left of a base with modalities missing; None for nothing."""
        lost = tuple(kind for kind in missing if kind in base.modalities)
        if not lost:
            return base.key
        part = self.parts.get(base.name, {}).get(lost)
        return None if part is None else part.key


@dataclass(frozen=True)
class Product:
    """Product of the calibrated predictions of single features."""

    bases: tuple[Model, ...]  # models of one feature each
    model: Model
    settings: HeadSettings

    @classmethod
    def over(cls, bases: tuple[Model, ...], settings: HeadSettings) -> Product | None:
        """Make the product of the bases; None if there are none."""
        return cls(bases, late_model(bases), settings) if bases else None

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds with modalities missing.

        If only one base can predict a clip, its own thresholds are used.
        """
        left = self._without(missing)
        return left[0].features if len(left) == 1 else self.model.key

    def predict_fold(self, oof: OutOfFold, fold_heads: FoldHeads, fold: int) -> None:
        """Calibrate inside one fold's training clips and predict the fold's clips, into `oof`."""
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        inner = np.stack([oof.inner[base.key, fold] for base in self.bases]).astype(np.float64)
        weights = late_weights(clips, inner)
        oof.inner[key, fold] = late_inner(clips, inner, fold_heads.inner_folds[fold])
        outputs = np.stack([oof.outputs[base.key][tested] for base in self.bases])
        if not complete(outputs).any():
            return
        names = [base.name for base in self.bases]
        oof.heads.append(late_head(clips, fold, names, weights, self.settings))
        values = late_outputs(clips, outputs, weights)
        # If all features of a modality are missing, a fallback predicts, or nothing does.
        for missing in self.model.modalities:
            of_modality = [missing in base.modalities for base in self.bases]
            values[~complete(outputs[of_modality]).any(axis=0)] = np.nan
        oof.outputs[key][tested] = values
        for fallback in oof.fallbacks.get(self.model.name, ()):
            left = self._without(fallback.missing)
            rows = [base in left for base in self.bases]
            values = late_outputs(clips, outputs[rows], weights[rows])
            oof.outputs[fallback.key][tested] = values

    def head_of_all(self, oof: OutOfFold) -> Head:
        """Return the layer for new clips, calibrated on all clips' out-of-fold predictions."""
        outputs = np.stack([oof.predict_everywhere(base) for base in self.bases])
        names = [base.name for base in self.bases]
        weights = late_weights(oof.clips, outputs)
        return late_head(oof.clips, None, names, weights, self.settings)

    def _without(self, missing: Missing) -> list[Model]:
        return [base for base in self.bases if not set(missing) & set(base.modalities)]


@dataclass(frozen=True)
class HeadPlan:
    """Plan of the heads to fit over one set of feature values."""

    folds: tuple[int, ...]  # folds to leave out in turn
    models: tuple[Model, ...]  # models to fit a head of, for every fold
    inner_models: tuple[Model, ...] = ()  # models that also predict inner folds
    refit: tuple[Model, ...] = ()  # models that are also fitted on all clips
    net_fold: int | None = None  # fold whose nets made the values, for the record


@dataclass
class FoldHeads:
    """Fitted heads of one plan, with their predictions."""

    # Outputs of a fold's clips by the head trained without them, float64 (clips of the fold,
    # outputs).
    scored: dict[HeadKey, F64] = field(default_factory=dict)
    # Outputs of a fold's training clips, float32 (clips, outputs), each by a head that never saw
    # the clip; NaN elsewhere.
    inner: dict[HeadKey, F32] = field(default_factory=dict)
    # Fold to its inner folds, int64 (clips,); -1 for the fold's own clips.
    inner_folds: dict[int, Ints] = field(default_factory=dict)
    # Chosen C of each head; empty without a choice.
    strength: dict[HeadKey, float] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)


def fit_fold_heads(
    clips: Clips, matrices: Mapping[str, Matrix], plan: HeadPlan, settings: HeadSettings
) -> FoldHeads:
    """Fit all heads over one set of feature values."""
    inner_folds = {fold: clips.inner_folds(fold, settings.inner_folds) for fold in plan.folds}
    result = FoldHeads(inner_folds=inner_folds)
    fitter = HeadFitter(matrices, clips, settings, plan.net_fold)
    for fold in plan.folds:
        strengths: Mapping[Key, Strength] = {}
        if settings.choose_C:
            strengths = choose_strengths(fitter, plan.models, fold, inner_folds[fold])
            result.strength |= {(key, fold): one.C for key, one in strengths.items()}
        _predict_inside(result, fitter, plan, fold, strengths)
        _fit_outer(result, fitter, plan, fold, strengths)
    if plan.refit:
        again = _refits(plan.refit, fitter, result.strength)
        result.heads += [fitter.head(one) for one in fitter.fit(again)]
    return result


def _predict_inside(
    result: FoldHeads,
    fitter: HeadFitter,
    plan: HeadPlan,
    fold: int,
    strengths: Mapping[Key, Strength],
) -> None:
    """Predict a fold's training clips by heads on inner folds, into `result`.

    Heads without training clips are left out: few clips may have a feature.
    """
    clips, inner = fitter.clips, result.inner_folds[fold]
    shape = (len(clips.y_true), clips.n_outputs)
    for model in plan.inner_models:
        result.inner[model.features, fold] = np.full(shape, np.nan, np.float32)
        # Thresholds depend on the last digits of these predictions.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    fits = []
    for j in range(int(inner.max()) + 1):
        for model in plan.inner_models:
            chosen = strengths.get(model.features)
            fit = Fit(
                model, fold, (inner >= 0) & (inner != j), fitter.default_C, tolerance, inner == j
            )
            fit = replace(fit, scaled_on=clips.folds != fold)
            if chosen is not None:
                fit = replace(fit, C=chosen.C, start=chosen.start(j))
            fits.append(fit)
    for one in fitter.fit(trainable(fits, fitter.matrices, clips)):
        result.inner[one.fit.model.features, fold][one.fit.predict] = one.outputs


def _fit_outer(
    result: FoldHeads,
    fitter: HeadFitter,
    plan: HeadPlan,
    fold: int,
    strengths: Mapping[Key, Strength],
) -> None:
    """Fit the heads that leave a fold out, if they have training clips, into `result`."""
    clips = fitter.clips
    fits = []
    for model in plan.models:
        fit = Fit(model, fold, clips.folds != fold, fitter.default_C, predict=clips.folds == fold)
        chosen = strengths.get(model.features)
        if chosen is not None:
            fit = replace(fit, C=chosen.C, start=chosen.start(None))
        fits.append(fit)
    for one in fitter.fit(trainable(fits, fitter.matrices, clips)):
        result.scored[one.fit.model.features, fold] = one.outputs
        result.heads.append(fitter.head(one))


def _refits(
    models: tuple[Model, ...], fitter: HeadFitter, strength: Mapping[HeadKey, float]
) -> list[Fit]:
    """Return fits on all clips, with the median of the strengths that the folds chose."""
    everything = np.ones(len(fitter.clips.y_true), dtype=np.bool_)
    # Their outputs are not needed.
    nothing = ~everything
    fits = []
    for model in models:
        chosen = sorted(C for (names, _), C in strength.items() if names == model.features)
        C = chosen[len(chosen) // 2] if chosen else fitter.default_C
        fits.append(Fit(model, None, everything, C, predict=nothing))
    return trainable(fits, fitter.matrices, fitter.clips)

"""Out-of-fold predictions of all models: their heads, the stack, and fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F64, Bools, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.fold_heads import FoldHeads, HeadPlan, fit_fold_heads
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.crossval.settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.late import (
    late_bases,
    late_head,
    late_inner,
    late_model,
    late_outputs,
    late_weights,
)
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.heads.stacking import base_models, stack_all, stack_fold, stacked_model
from mvemo.fuse.links import decision_inputs
from mvemo.fuse.metrics.averages import complete, mean_finite, mean_of_finite
from mvemo.fuse.models import (
    LATE,
    STACKED,
    Key,
    Missing,
    Model,
    Parts,
    missing_of,
    modality_order,
    parts_of,
)
from mvemo.fuse.scaling import fit_scaling

# Outputs by key, whatever their precision.
Values = Mapping[Key, NDArray[np.floating]]


@dataclass(frozen=True)
class Fallback:
    """What predicts for a model when modalities are missing (PL20 3.6).

    Parameters
    ----------
    missing
        Modalities, in the order of report.
    key
        Of its outputs.
    thresholds
        Key of the model whose thresholds decide them.
    """

    missing: Missing
    key: Key
    thresholds: Key


@dataclass
class OutOfFold:
    """What `predict_all` gives.

    Parameters
    ----------
    clips
        Labels, groups and folds.
    models
        That were asked for, in the order of report; the stack, if any, last.
    outputs
        `Model.key` to float64 (clips, outputs), by the head that left the clip's fold out;
        NaN rows where a feature is missing. Those of fallbacks are among them.
    inner
        (key, fold) to float (clips, outputs): predictions of its training clips, each by a
        head that never saw it.
    fallbacks
        Name of a model of several modalities to its fallbacks, in the order of `missing_of`:
        a clip is predicted by the first that can.
    heads
        All that were fitted.
    present
        Feature name to bool (clips,): which clips have it; under ``crossfit`` of each
        fold's net.
    outliers
        Feature name to bool (clips,): which clips lie far outside the rest
        (`mvemo.fuse.scaling.fit_scaling`).
    """

    clips: Clips
    models: tuple[Model, ...]
    outputs: dict[Key, F64]
    inner: dict[tuple[Key, int], NDArray[np.floating]] = field(default_factory=dict)
    fallbacks: dict[str, tuple[Fallback, ...]] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    present: dict[str, Bools] = field(default_factory=dict)
    outliers: dict[str, Bools] = field(default_factory=dict)

    def predict(self, model: Model) -> tuple[F64, Ints]:
        """A model's outputs, with those of its fallbacks where it has none itself.

        Returns
        -------
        float64 (clips, outputs), and int64 (clips,): 0 where the model itself predicted, n
        where the n-th of its `fallbacks` did.
        """
        return self._fill(model, self.outputs)

    def predict_inside(self, model: Model, fold: int) -> F64:
        """float64 (clips, outputs): as `predict`, of a fold's training clips, inside them."""
        inner = {key: values for (key, of_fold), values in self.inner.items() if of_fold == fold}
        return self._fill(model, inner)[0]

    def predict_everywhere(self, model: Model) -> F64:
        """As `predict`, and of clips that train only what is predicted inside training."""
        return self._with_training(self.predict(model)[0], lambda: self.predict_inside(model, 0))

    def predict_everywhere_alone(self, key: Key) -> F64:
        """As `predict_everywhere`, of the model of that key without its fallbacks."""
        return self._with_training(self.outputs[key], lambda: self.inner[key, 0].astype(np.float64))

    def score_without_modality(self, model: Model) -> dict[str, float]:
        """The primary metric, mean over folds, when a modality is missing (PL20 3.6).

        Returns
        -------
        Missing modalities (``video``, ``audio+lyrics``) to that of the fallback, and ``none``
        to that of the model: all of the clips that it predicts itself, so that they can be
        compared. Empty for a model of one modality.
        """
        fallbacks = self.fallbacks.get(model.name, ())
        if not fallbacks:
            return {}
        rows = complete(self.outputs[model.key])
        order = modality_order(model.modalities)
        by_missing = sorted(
            fallbacks, key=lambda f: (len(f.missing), [order.index(kind) for kind in f.missing])
        )
        keys = {"none": model.key, **{"+".join(f.missing): f.key for f in by_missing}}
        return {missing: self._mean_score(self.outputs[key], rows) for missing, key in keys.items()}

    def has_features(self, model: Model) -> Bools:
        """bool (clips,): tested clips that have every feature of a model."""
        present = [self.present[name] for name in model.features]
        return np.asarray(np.logical_and.reduce([self.clips.folds >= 0, *present]), np.bool_)

    def _mean_score(self, outputs: F64, rows: Bools) -> float:
        """Mean over folds of the primary metric of `rows`."""
        folds = self.clips.folds
        scores = [
            self.clips.score(rows & (folds == fold), outputs)
            for fold in range(int(folds.max()) + 1)
        ]
        return mean_of_finite(np.array(scores))

    def _with_training(self, outputs: F64, inner: Callable[[], F64]) -> F64:
        train_only = self.clips.folds < 0
        return np.where(train_only[:, None], inner(), outputs) if train_only.any() else outputs

    def _fill(self, model: Model, values: Values) -> tuple[F64, Ints]:
        outputs = np.asarray(values[model.key], dtype=np.float64)
        source = np.zeros(len(outputs), dtype=np.int64)
        for n, fallback in enumerate(self.fallbacks.get(model.name, ()), start=1):
            if fallback.key not in values:
                continue
            others = values[fallback.key]
            rows = ~complete(outputs) & complete(others)
            outputs = np.where(rows[:, None], others, outputs)
            source[rows] = n
        return outputs, source


def predict_all(
    prepared: Preparation, clips: Clips, settings: EvaluationSettings, *, stacked: bool, late: bool
) -> OutOfFold:
    """Fit the heads of all models and folds, and predict every clip by one that left it out.

    Parameters
    ----------
    prepared
        Models, folds and features, past the leak guard.
    clips
        Labels, groups and folds.
    settings
        Of the evaluation.
    stacked
        Fit the stack's second layer as well, where there are models to stack.
    late
        Predict with the product of single features as well, where there are two.
    """
    features, models = prepared.features, prepared.models
    inner = clips.task.needs_inner or settings.choose_model
    inner = inner or (settings.temperature and clips.task.fits_temperature)
    parts = parts_of(models, features.modality) if settings.missing_modality else {}
    # A part may be a model itself: heads are known by their features.
    fitted = {model.features: model for model in _with_parts(models, parts)}
    blank = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    oof = OutOfFold(clips, models, {key: blank.copy() for key in fitted})
    oof.fallbacks = {
        name: tuple(Fallback(m, part.features, part.features) for m, part in of_model.items())
        for name, of_model in parts.items()
    }
    stack = _Stack.over(base_models(models) if stacked else (), parts, inner)
    product = _Product.over(late_bases(models) if late else (), settings.head)
    if not all(clips.divisible(fold) for fold in range(prepared.k)):
        # Training clips of one group have no inner predictions to stack, or to calibrate by.
        stack = product = None
    layers = [layer for layer in (stack, product) if layer is not None]
    for layer in layers:
        layer.add_to(oof, blank, fallbacks=settings.missing_modality)
    for net_fold, tested in prepared.passes:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        _note_present(oof, matrices, tested)
        # Where no clip lacks a feature nothing falls back; but its thresholds are saved.
        need_parts = clips.task.needs_inner or not all(m.present.all() for m in matrices.values())
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
    """The models, and what remains of them with modalities missing."""
    of_models = [part for model in models for part in parts.get(model.name, {}).values()]
    return tuple({model.features: model for model in (*of_models, *models)}.values())


def _note_present(oof: OutOfFold, matrices: Mapping[str, Matrix], tested: Sequence[int]) -> None:
    """Which clips have each feature, of a fold's own nets where there are such; and outliers."""
    rows = np.isin(oof.clips.folds, tested)
    for name, matrix in matrices.items():
        _, far = fit_scaling(matrix.values, matrix.present)
        oof.outliers[name] = oof.outliers.get(name, False) | far
        present = oof.present.setdefault(name, matrix.present.copy())
        present[rows] = matrix.present[rows]


@dataclass(frozen=True)
class _Stack:
    """The second layer of the stack, over its bases.

    Parameters
    ----------
    bases
        The models that are stacked.
    model
        The stacked model.
    parts
        Of `parts_of`: what remains of a base with modalities missing.
    inner
        Predict inside the training folds, too.
    """

    bases: tuple[Model, ...]
    model: Model
    parts: Parts
    inner: bool

    @classmethod
    def over(cls, bases: tuple[Model, ...], parts: Parts, inner: bool) -> _Stack | None:
        """None where there are no models to stack."""
        return cls(bases, stacked_model(bases), parts, inner) if bases else None

    def add_to(self, oof: OutOfFold, blank: F64, *, fallbacks: bool) -> None:
        """Make room for its outputs, and for those with modalities missing.

        These are by the second layer on what is left of its bases, or, where nothing of a
        base is left, the mean of the others.
        """
        oof.models = (*oof.models, self.model)
        oof.outputs[self.model.key] = blank.copy()
        if not fallbacks or len(self.model.modalities) < 2:
            return
        listed = []
        for missing in missing_of(self.model.modalities):
            left = [base for base in self.bases if self._left_of(base, missing) is not None]
            # What one base alone predicts is decided by its own thresholds.
            thresholds = left[0].features if len(left) == 1 < len(self.bases) else self.model.key
            key = (STACKED, *missing)
            listed.append(Fallback(missing, key, thresholds))
            oof.outputs[key] = blank.copy()
        oof.fallbacks[self.model.name] = tuple(listed)

    def predict_fold(self, oof: OutOfFold, fold_heads: FoldHeads, fold: int) -> None:
        """Fit one fold's second layer and predict the fold's clips, into `oof`."""
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
        fallbacks = oof.fallbacks.get(self.model.name, ())
        if fallbacks and self.inner:
            # Clips that the second layer cannot read are predicted as by its fallbacks.
            others = np.stack([np.where(tested[:, None], np.nan, v) for v in inputs.values()])
            inner = np.where(complete(inner)[:, None], inner, mean_finite(others, axis=0))
        oof.inner[key, fold] = inner
        if head is None:
            return
        oof.heads.append(head)
        oof.outputs[key][tested] = outputs[tested]
        for fallback in fallbacks:
            left = [self._left_of(base, fallback.missing) for base in self.bases]
            of_bases = [oof.outputs[key][tested] for key in left if key is not None]
            if len(of_bases) == len(self.bases):
                x = [decision_inputs(values, head.link) for values in of_bases]
                values = head.predict(np.concatenate(x, axis=1))
            else:
                values = np.mean(of_bases, axis=0)
            oof.outputs[fallback.key][tested] = values

    def _left_of(self, base: Model, missing: Missing) -> Key | None:
        """Key of what remains of a base with modalities missing; None where nothing is."""
        lost = tuple(kind for kind in missing if kind in base.modalities)
        if not lost:
            return base.key
        part = self.parts.get(base.name, {}).get(lost)
        return None if part is None else part.key


@dataclass(frozen=True)
class _Product:
    """The product of single features' calibrated predictions.

    Parameters
    ----------
    bases
        Models of one feature each.
    model
        The product as a model.
    settings
        Of the bases' heads.
    """

    bases: tuple[Model, ...]
    model: Model
    settings: HeadSettings

    @classmethod
    def over(cls, bases: tuple[Model, ...], settings: HeadSettings) -> _Product | None:
        """None where there are no models to multiply."""
        return cls(bases, late_model(bases), settings) if bases else None

    def add_to(self, oof: OutOfFold, blank: F64, *, fallbacks: bool) -> None:
        """Make room for its outputs, and for those with modalities missing."""
        oof.models = (*oof.models, self.model)
        oof.outputs[self.model.key] = blank.copy()
        if not fallbacks or len(self.model.modalities) < 2:
            return
        listed = []
        for missing in missing_of(self.model.modalities):
            left = self._without(missing)
            # What one base alone predicts is decided by its own thresholds.
            thresholds = left[0].features if len(left) == 1 else self.model.key
            key = (LATE, *missing)
            listed.append(Fallback(missing, key, thresholds))
            oof.outputs[key] = blank.copy()
        oof.fallbacks[self.model.name] = tuple(listed)

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
        # Where all features of a modality are missing, a fallback predicts, or nothing.
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
        """For new clips: calibrated on all clips' out-of-fold predictions."""
        outputs = np.stack([oof.predict_everywhere(base) for base in self.bases])
        names = [base.name for base in self.bases]
        weights = late_weights(oof.clips, outputs)
        return late_head(oof.clips, None, names, weights, self.settings)

    def _without(self, missing: Missing) -> list[Model]:
        return [base for base in self.bases if not set(missing) & set(base.modalities)]

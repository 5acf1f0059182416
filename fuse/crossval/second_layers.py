"""Second layers over the outputs of other models: the stack and the product.

The stack is a head over the outputs of its bases: PL20 3.4 combines "the decision-level
features" of the four fusions. It is trained on out-of-fold outputs made inside the
training folds, so it learns how far to trust each base on clips that the base never saw.

The product is late fusion: a product of experts (Hinton 2002, "Training products of experts",
eq. 1) whose exponents are not learned but calibrate each expert. It is a linear layer on the
outputs of the single features' heads, so it is stored as a `Head`. Only one number per feature,
or per feature and target, is fitted. Unlike a stack, it needs no training clip that has all
features, and it works with any subset of them.

The blend is the mean of the values of a linear model and of the kernel expert, whose errors differ.
Nothing is fitted, because weights fitted on inner errors are not better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mvemo.fuse.crossval.out_of_fold import OutOfFold, simplest_model
from mvemo.fuse.features import Clips, leave_each_out, matrix_of
from mvemo.fuse.heads.fitting import Fit, HeadFitter
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.metrics.calibration import fit_temperature
from mvemo.fuse.models import (
    BLENDED,
    INTEGRATED,
    LATE,
    STACKED,
    Key,
    Missing,
    Model,
    Parts,
    modalities_of,
)
from mvemo.fuse.numeric import DECISION_INPUTS, apply_link, complete, decision_inputs, ratio
from mvemo.manifests.array_types import F64, Ints

# The stack has few inputs, which are predictions, so its penalty is weaker than for features.
STACK_C = 0.1
# Smallest mean squared error of a target, as a share of its variance: a feature that happens to
# predict a few clips exactly must not get all of the weight.
MIN_ERROR = 1e-6


@dataclass(frozen=True)
class _SecondLayer:
    """Model over the outputs of its bases."""

    bases: tuple[Model, ...]
    parts: Parts  # models that replace a base if modalities are missing (`parts_of`)
    settings: HeadSettings
    inner: bool  # True to predict also inside the training folds
    name: ClassVar[str]
    needs: ClassVar[str]  # end of the message on too few models

    @property
    def model(self) -> Model:
        """Return the layer as a model that needs all modalities of its bases."""
        features = dict.fromkeys(name for base in self.bases for name in base.features)
        return Model(self.name, tuple(features), modalities_of(self.bases))

    def _head(self, clips: Clips, fold: int | None, weights: F64) -> Head:
        """Return the weighted mean of the bases as a layer over their decision-level outputs."""
        scaled = weights / _shares(clips, weights).sum(axis=0)
        return Head(
            model=self.name,
            features=tuple(base.name for base in self.bases),
            fold=fold,
            net_fold=None,
            mean=np.zeros(weights.size),
            scale=np.ones(weights.size),
            coef=np.concatenate([np.diag(w) for w in scaled], axis=1).astype(np.float32),
            intercept=np.zeros(clips.n_outputs),
            C=self.settings.C,
            link=clips.link,
            inputs=DECISION_INPUTS[clips.link],
        )


class Stack(_SecondLayer):
    """Head over the outputs of its bases."""

    name = STACKED
    needs = "needs at least two models to stack"

    @staticmethod
    def bases_of(models: Sequence[Model]) -> tuple[Model, ...]:
        """Return fusions of the most modalities, with one feature of each, or single features."""
        fusions = [
            m for m in models if len(m.features) == len(m.modalities) > 1 and m.name != INTEGRATED
        ]
        most = max((len(m.modalities) for m in fusions), default=0)
        fusions = [m for m in fusions if len(m.modalities) == most]
        return tuple(fusions) if len(fusions) > 1 else Product.bases_of(models)

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds to use when modalities are missing."""
        return (self.name, *missing)

    def predict_fold(self, oof: OutOfFold, fold: int) -> None:
        """Fit one fold's stack; if modalities are missing, the best other model predicts."""
        key, tested = self.model.key, oof.clips.folds == fold
        inputs = {}
        for base in self.bases:
            inputs[base.name] = oof.predict_inside(base, fold)
            inputs[base.name][tested] = oof.outputs[base.key][tested]
        fitter, model = _fitter(oof.clips, inputs)
        fits = [Fit(model, fold, ~tested, STACK_C, predict=tested)]
        if self.inner:
            fits += [
                Fit(model, fold, train, STACK_C, predict=rows)
                for train, rows in leave_each_out(oof.inner_folds[fold])
            ]
        fitted = fitter.fit(fits)
        inner = oof.inner[fold]
        inner[key] = oof.blank()
        for one in fitted[1:]:
            inner[key][one.fit.predict] = one.outputs
        fallbacks = oof.fallbacks.get(self.name, ())
        best = {f.key: self._best_without(oof, f.missing, fold) for f in fallbacks}
        if self.inner:
            inner |= {fallback_key: inner[of] for fallback_key, of in best.items()}
        if fitted:
            oof.heads.append(fitter.head(fitted[0]))
            oof.outputs[key][tested] = fitted[0].outputs
            for fallback_key, of in best.items():
                oof.outputs[fallback_key][tested] = oof.outputs[of][tested]

    def fit_all(self, oof: OutOfFold) -> Head:
        """Fit the stack for new clips, on out-of-fold predictions of all clips."""
        fitter, model = _fitter(
            oof.clips, {base.name: oof.predict_everywhere(base) for base in self.bases}
        )
        all_clips = np.ones(len(oof.clips.y_true), bool)
        fit = Fit(model, None, all_clips, STACK_C, predict=~all_clips)
        return fitter.head(fitter.fit([fit], strict=True)[0])

    def _best_without(self, oof: OutOfFold, missing: Missing, fold: int) -> Key:
        """Return the key of the best model that needs none of the missing modalities."""
        models = [m for m in oof.models if not set(missing) & set(m.modalities)]
        models += [parts[missing] for parts in self.parts.values() if missing in parts]
        inner = oof.inner[fold]
        models = [m for m in {m.key: m for m in models}.values() if m.key in inner]
        outputs = [inner[m.key].astype(float) for m in models]
        clips = oof.clips
        if models and (
            found := simplest_model(clips.task, clips.y_true, clips.groups, models, outputs)
        ):
            return found[0].key
        # Without inner predictions: the part of the first base that can still predict.
        base = next(base for base in self.bases if set(base.modalities) - set(missing))
        lost = tuple(kind for kind in missing if kind in base.modalities)
        return self.parts.get(base.name, {}).get(lost, base).key


def _fitter(clips: Clips, outputs: Mapping[str, F64]) -> tuple[HeadFitter, Model]:
    """Return a fitter of heads over the given outputs, and a model that uses all of them."""
    matrices = {
        name: matrix_of(decision_inputs(values, clips.link).astype(np.float32))
        for name, values in outputs.items()
    }
    settings = HeadSettings(inputs=DECISION_INPUTS[clips.link])
    return HeadFitter(matrices, clips, settings), Model(STACKED, tuple(outputs), ())


class Product(_SecondLayer):
    """Product of the calibrated predictions of single features."""

    name = LATE
    needs = "multiplies the predictions of at least two single features"

    @staticmethod
    def bases_of(models: Sequence[Model]) -> tuple[Model, ...]:
        """Return the models to multiply: those of a single feature, if there are two or more."""
        bases = tuple(model for model in models if len(model.features) == 1)
        return bases if len(bases) > 1 else ()

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds: if only one base can predict a clip, its own."""
        left = self._without(missing)
        return left[0].features if len(left) == 1 else self.model.key

    def predict_fold(self, oof: OutOfFold, fold: int) -> None:
        """Fit the product of one fold's models, and write its predictions of the fold to `oof`."""
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        inner = np.stack([oof.inner[fold][base.key] for base in self.bases]).astype(float)
        weights = late_weights(clips, inner)
        oof.inner[fold][key] = late_inner(clips, inner, oof.inner_folds[fold])
        outputs = np.stack([oof.outputs[base.key][tested] for base in self.bases])
        if not complete(outputs).any():
            return
        oof.heads.append(self._head(clips, fold, weights))
        values = late_fusion_outputs(clips, outputs, weights)
        # If all features of a modality are missing, only a fallback may predict.
        for missing in self.model.modalities:
            of_modality = [missing in base.modalities for base in self.bases]
            values[~complete(outputs[of_modality]).any(axis=0)] = np.nan
        oof.outputs[key][tested] = values
        for fallback in oof.fallbacks.get(self.name, ()):
            left = self._without(fallback.missing)
            rows = [base in left for base in self.bases]
            oof.outputs[fallback.key][tested] = late_fusion_outputs(
                clips, outputs[rows], weights[rows]
            )

    def fit_all(self, oof: OutOfFold) -> Head:
        """Fit the product for new clips, on out-of-fold predictions of all clips."""
        outputs = np.stack([oof.predict_everywhere(base) for base in self.bases])
        return self._head(oof.clips, None, late_weights(oof.clips, outputs))

    def _without(self, missing: Missing) -> list[Model]:
        return [base for base in self.bases if not set(missing) & set(base.modalities)]


class Blend(_SecondLayer):
    """Mean of the values of a linear model and of the kernel expert."""

    name = BLENDED

    def predict_fold(self, oof: OutOfFold, fold: int) -> None:
        """Write the means for a fold's clips, and for its training clips if possible, to `oof`."""
        key, tested = self.model.key, oof.clips.folds == fold
        inner, bases = oof.inner[fold], [base.key for base in self.bases]
        oof.outputs[key][tested] = np.mean([oof.outputs[base][tested] for base in bases], axis=0)
        if set(bases) <= set(inner):
            inner[key] = np.mean([inner[base] for base in bases], axis=0)

    def fit_all(self, oof: OutOfFold) -> Head:
        """Return a second layer that computes the mean of both models' values."""
        return self._head(oof.clips, None, np.ones((len(self.bases), oof.clips.n_outputs)))


def late_weights(clips: Clips, outputs: F64) -> F64:
    """Fit weights (bases, outputs) on out-of-fold outputs (bases, clips, outputs)."""
    weights = np.ones((len(outputs), clips.n_outputs))
    for weight, values in zip(weights, outputs, strict=True):
        valid = complete(values)
        if clips.link == "sigmoid" or not valid.any():
            continue
        if clips.link == "softmax":
            scores = decision_inputs(values[valid], clips.link)
            # Guo et al. 2017, section 4.2.
            weight[:] = 1.0 / fit_temperature(scores, clips.y_true[valid])
        else:
            variance = np.maximum(clips.y_true[valid].var(axis=0), np.finfo(np.float64).tiny)
            error = np.square(values[valid] - clips.y_true[valid]).mean(axis=0)
            # Division by the variance gives a weight without unit.
            weight[:] = 1.0 / np.maximum(error / variance, MIN_ERROR)
    return weights


def late_fusion_outputs(clips: Clips, outputs: F64, weights: F64) -> F64:
    """Return the weighted mean of the models that have a prediction for a clip."""
    valid = complete(outputs)
    inputs = np.where(valid[:, :, None], decision_inputs(outputs, clips.link), 0.0)
    total = np.einsum("bnk,bk->nk", inputs, weights)
    share = np.einsum("bn,bk->nk", valid.astype(float), _shares(clips, weights))
    fused = apply_link(np.nan_to_num(ratio(total, share)), clips.link)
    fused[~valid.any(axis=0)] = np.nan
    return fused


def late_inner(clips: Clips, outputs: F64, folds: Ints) -> F64:
    """Return products for the clips of each fold, with weights fitted on all other folds."""
    result = np.full(outputs.shape[1:], np.nan)
    for fold in np.unique(folds[folds >= 0]):
        others, rows = (folds >= 0) & (folds != fold), folds == fold
        weights = late_weights(clips, np.where(others[:, None], outputs, np.nan))
        result[rows] = late_fusion_outputs(clips, outputs[:, rows], weights)
    return result


def _shares(clips: Clips, weights: F64) -> F64:
    """Return the share of each base in the divisor of the weighted mean."""
    return weights if clips.link == "identity" else np.ones_like(weights)

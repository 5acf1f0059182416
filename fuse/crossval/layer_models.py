"""Models over all layers of an encoder: a weighted sum of the layers, and the best single layer.

The weights are a softmax, learned together with a linear head of the sum (Yang et al. 2021,
"SUPERB", section 3). Weights, layer and penalty are fitted and chosen inside the training folds.
The heads are linear layers over the whole feature, so that they predict new clips like others.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import scipy
from threadpoolctl import threadpool_limits

from mvemo.cache.spec import LAYERS, FeatureSpec
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import leave_each_out
from mvemo.fuse.heads import fitting
from mvemo.fuse.heads.fitting import HeadFitter, TargetScale
from mvemo.fuse.heads.head import Head
from mvemo.fuse.models import BEST_LAYER, WEIGHTED, Model
from mvemo.fuse.numeric import Link, apply_link, softmax
from mvemo.fuse.results import LayerChoice
from mvemo.fuse.scaling import Scaling, fit_scaling
from mvemo.manifests.array_types import F32, F64, Bools, Ints

# Inverse strengths of the penalty to try, and the largest number of steps of a fit.
GRID = (1e-3, 1e-2, 1e-1)
MOST_STEPS = 100
# Number of principal directions, over all layers, that a weighted sum uses: more would take
# longer and hardly change the weights.
MOST_DIRECTIONS = 128
# Products of these fits are so small that threads would wait for each other longer than they work.
_Method = TypeVar("_Method", bound=Callable[..., Any])
one_thread: Callable[[_Method], _Method] = threadpool_limits.wrap(limits=1, user_api="blas")


def fit_layer_weights(
    z: F32, target: F64, link: Link, C: float, share: F64
) -> tuple[F64, F64, F64]:
    """Fit weights (layers,) of standardised layers (layers, clips, dim) together with a head.

    The objective is the one of `mvemo.fuse.heads.solver`, with the weights `share` of the clips.
    Return also the coefficients (outputs, dim) and intercepts (outputs,).
    """
    (n_layers, _, dim), n_outputs = z.shape, target.shape[1]
    penalty, share = 1.0 / (C * share.sum()), (share / share.sum())[:, None]

    def split(x: F64) -> tuple[F64, F64, F64]:
        coef = x[n_layers:-n_outputs].reshape(n_outputs, dim)
        return softmax(x[:n_layers]), coef, x[-n_outputs:]

    def loss(x: F64) -> tuple[float, F64]:
        weights, coef, intercept = split(x)
        mixed = np.tensordot(weights.astype(np.float32), z, 1)
        scores = mixed @ coef.T + intercept
        if link == "softmax":
            values = scipy.special.logsumexp(scores, axis=1) - (scores * target).sum(axis=1)
        elif link == "sigmoid":
            values = (np.logaddexp(0.0, scores) - scores * target).sum(axis=1)
        else:
            values = 0.5 * np.square(scores - target).sum(axis=1)
        residual = share * (apply_link(scores, link) - target)
        # Derivative by the weight of each layer: the layer's scores times the residuals.
        slopes = np.tensordot(z, (residual @ coef).astype(np.float32), 2).astype(float)
        of_weights = weights * (slopes - weights @ slopes)
        of_coef = (residual.T @ mixed + penalty * coef).ravel()
        total = share[:, 0] @ values + 0.5 * penalty * np.square(coef).sum()
        return float(total), np.concatenate([of_weights, of_coef, residual.sum(axis=0)])

    start = np.zeros(n_layers + n_outputs * dim + n_outputs)
    options = {"maxiter": MOST_STEPS, "ftol": 1e-7}
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return split(found.x)


@dataclass(frozen=True)
class _Sum:
    """A weighted sum of layers, or one layer, with its linear head."""

    weights: F64  # float64 (layers,), which sum to 1
    coef: F64  # float64 (outputs, directions)
    intercept: F64  # float64 (outputs,)
    scale: TargetScale


@dataclass(frozen=True)
class _Layers:
    """All layers of all clips, standardised on the training clips of a fold."""

    fitter: HeadFitter
    scaling: Scaling
    z: F32  # float32 (layers, clips, directions)
    basis: F32  # float32 (dim, directions)
    valid: Bools  # bool (clips,): True for clips with the feature

    def fit(self, train: Bools, layer: int | None, C: float) -> _Sum | None:
        """Fit one layer, or for None the sum of all; return None if there are too few clips."""
        clips, rows = self.fitter.clips, train & self.valid
        if fitting.count_different(clips, rows) < fitting.MIN_DIFFERENT:
            return None
        target, scale = fitting.scaled_target(clips, rows)
        share = self.fitter.clip_weights(target).astype(float)
        used = slice(None) if layer is None else slice(layer, layer + 1)
        weights = np.zeros(len(self.z))
        z = np.ascontiguousarray(self.z[used, rows])
        weights[used], coef, intercept = fit_layer_weights(z, target, clips.link, C, share)
        return _Sum(weights, coef, intercept, scale)

    def outputs(self, fitted: _Sum | None, rows: Bools) -> F64:
        """Return outputs of some clips, NaN where a clip lacks the feature or nothing is fitted."""
        clips = self.fitter.clips
        if fitted is None:
            return np.full((int(rows.sum()), clips.n_outputs), np.nan)
        mixed = np.tensordot(fitted.weights.astype(np.float32), self.z[:, rows], 1)
        scores = mixed @ fitted.coef.T + fitted.intercept
        outputs = fitted.scale.outputs(apply_link(scores, clips.link))
        outputs[~self.valid[rows]] = np.nan
        return outputs


@dataclass
class LayerModels:
    """Both models over the layers of one feature, or one of them."""

    models: tuple[Model, ...]
    feature: str
    layers: tuple[int, ...]  # number of each layer
    columns: Ints  # int64 (layers, dim): columns of each layer in the feature
    # By fold: layer weights. By (model, fold): index of the layer (None for the sum), and C.
    weights: dict[int, F64] = field(default_factory=dict)
    chosen: dict[tuple[str, int], tuple[int | None, float]] = field(default_factory=dict)

    def choice(self, k: int) -> LayerChoice:
        """Return the layer weights and the best layer of each fold."""
        blank, name = np.full(len(self.layers), np.nan), f"{self.feature}{BEST_LAYER}"
        best = [self.chosen.get((name, fold), (None, 0.0))[0] for fold in range(k)]
        weights = np.stack([self.weights.get(fold, blank) for fold in range(k)])
        return LayerChoice(
            self.layers, weights, tuple(None if i is None else self.layers[i] for i in best)
        )

    def predict_fold(self, oof: OutOfFold, fitter: HeadFitter, fold: int) -> None:
        """Write predictions of a fold's clips, and of its training clips, to `oof`.

        For clips of an inner fold, layer and penalty are chosen on the other inner folds.
        """
        self._predict(oof, self._layers(fitter, oof.clips.folds != fold), fold)

    @one_thread
    def _predict(self, oof: OutOfFold, data: _Layers, fold: int) -> None:
        clips, folds, tested = oof.clips, oof.inner_folds[fold], oof.clips.folds == fold
        settings, splits = data.fitter.settings, leave_each_out(folds)
        for model in self.models:
            is_sum = model.name.endswith(WEIGHTED)
            tried = {}
            for C in GRID if settings.choose_C else (settings.C,):
                for layer in [None] if is_sum else range(len(self.layers)):
                    tried[layer, C] = values = oof.blank()
                    for train, rows in splits:
                        values[rows] = data.outputs(data.fit(train, layer, C), rows)

            def choose(
                rows: Bools, tried: dict[tuple[int | None, float], F64] = tried
            ) -> tuple[int | None, float]:
                labels, task = clips.y_true[rows], clips.task
                losses = {key: task.choice_loss(labels, x[rows]) for key, x in tried.items()}
                return min(losses, key=lambda key: np.nan_to_num(losses[key], nan=np.inf))

            oof.inner[fold][model.key] = inner = oof.blank()
            for others, rows in splits:
                inner[rows] = tried[choose(others)][rows]
            found = choose(folds >= 0)
            if (fitted := data.fit(~tested, *found)) is not None:
                self.chosen[model.name, fold] = found
                if is_sum:
                    self.weights[fold] = fitted.weights
                oof.outputs[model.key][tested] = data.outputs(fitted, tested)
                oof.heads.append(self._head(data, fitted, model, fold, found[1]))

    def fit_all(self, oof: OutOfFold, fitter: HeadFitter, tested: Sequence[int]) -> None:
        """Add heads of all clips, with the layer and penalty that most tested folds chose."""
        everything = np.ones(len(oof.clips.y_true), bool)
        data = self._layers(fitter, everything)
        fit = one_thread(data.fit)
        for model in self.models:
            found = [self.chosen[model.name, f] for f in tested if (model.name, f) in self.chosen]
            if found:
                layer, C = Counter(found).most_common(1)[0][0]
                if (fitted := fit(everything, layer, C)) is not None:
                    oof.heads.append(self._head(data, fitted, model, None, C))

    def _layers(self, fitter: HeadFitter, train: Bools) -> _Layers:
        matrix = fitter.matrices[self.feature]
        scaling, _ = fit_scaling(matrix.values, matrix.present & train)
        assert isinstance(matrix.values, np.ndarray)  # see `add_layer_models`
        z = np.ascontiguousarray(scaling.apply(matrix.values)[:, self.columns])
        of_training = z[matrix.present & train].reshape(-1, z.shape[2])
        basis = np.linalg.eigh(of_training.T @ of_training)[1][:, ::-1][:, :MOST_DIRECTIONS]
        along = np.ascontiguousarray((z @ basis).swapaxes(0, 1))
        return _Layers(fitter, scaling, along, basis, matrix.present)

    def _head(self, data: _Layers, fitted: _Sum, model: Model, fold: int | None, C: float) -> Head:
        """Return a weighted sum and its head as one linear layer over the feature."""
        scale = fitted.scale
        coef = np.zeros((len(fitted.coef), self.columns.size), np.float32)
        of_sum = (fitted.coef * scale.deviation[:, None]) @ data.basis.T
        coef[:, self.columns] = fitted.weights[:, None] * of_sum[:, None]
        return Head(
            model=model.name,
            features=model.features,
            fold=fold,
            net_fold=data.fitter.net_fold,
            mean=data.scaling.shift,
            scale=data.scaling.scale,
            coef=coef,
            intercept=fitted.intercept * scale.deviation + scale.mean,
            C=C,
            link=data.fitter.clips.link,
            limit=data.scaling.limit,
            ends=scale.ends,
        )


def add_layer_models(
    oof: OutOfFold, prepared: Preparation, settings: EvaluationSettings
) -> list[LayerModels]:
    """Add the models over layers of the features of an evaluation to `oof`, and return them.

    Raise `BadFeatures` if ``models`` names a model that cannot be made.
    """
    features, found = prepared.features, []
    named = [name for name in settings.models or () if name.endswith((WEIGHTED, BEST_LAYER))]
    for name in prepared.names:
        layers, columns = layers_of(features.variants[name][0])
        kinds = (features.modality[name],)
        models = [Model(f"{name}{end}", (name,), kinds) for end in (WEIGHTED, BEST_LAYER)]
        models = [m for m in models if m.name in named or (not named and settings.layers)]
        if layers and models and not features.streamed and (named or settings.models is None):
            found.append(LayerModels(tuple(models), name, layers, columns))
            for model in models:
                oof.add_model(model, None)
    for name in {*named} - {model.name for one in found for model in one.models}:
        raise BadFeatures(
            f"{features.store.path}: {name}: expected a feature of all layers of an encoder "
            "(hf:FOLDER@all) that fits in memory (fuse.memory)"
        )
    return found


def layers_of(spec: FeatureSpec) -> tuple[tuple[int, ...], Ints]:
    """Return the numbers of a feature's layers, and the columns of each; () for one layer."""
    layers = spec.params.get(LAYERS)
    # Windows are pooled to their means, which may be followed by their deviations.
    n_parts = 1 + (spec.params.get("view", {}).get("pooling") == "mean+std")
    if not isinstance(layers, list) or len(layers) < 2 or spec.dim % (n_parts * len(layers)):
        return (), np.zeros((0, 0), np.int64)
    columns = np.arange(spec.dim).reshape(n_parts, len(layers), -1).swapaxes(0, 1)
    return tuple(map(int, layers)), columns.reshape(len(layers), -1)

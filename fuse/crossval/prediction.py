"""Predictions of all models; no part of a model was fitted on the clips that it predicts.

If all folds share the features, the heads of all folds are fitted together; crossfitted
features differ for every fold. Whatever is chosen or fitted in addition to the heads (strength of
the penalty, stacking, temperatures, thresholds) uses only inner folds of the training clips.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np

from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.experts import EstimatorExpert, KernelExpert, experts_of
from mvemo.fuse.crossval.layer_models import LayerModels, add_layer_models
from mvemo.fuse.crossval.out_of_fold import Fallback, OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.crossval.second_layers import Blend, Product, Stack
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Clips, Matrix, leave_each_out
from mvemo.fuse.heads.fitting import TOLERANCE, Fit, Fitted, HeadFitter, Position
from mvemo.fuse.models import BLENDED, KERNEL, Key, Model, Parts, parts_of
from mvemo.fuse.numeric import complete
from mvemo.fuse.scaling import fit_scaling
from mvemo.manifests.array_types import Ints

# Inner predictions need less precision than scored predictions.
INNER_TOLERANCE = 1e-5


def predict_all(prepared: Preparation, settings: EvaluationSettings) -> OutOfFold:
    """Fit the heads of all models and folds; predict each clip by heads that left it out."""
    clips, features, models = prepared.clips, prepared.features, prepared.models
    inner = clips.task.needs_inner or settings.choose_model
    inner = inner or (settings.temperature and clips.task.exclusive)
    parts = parts_of(models, features.modality) if settings.missing_modality else {}
    # Parts and models with the same features share a head.
    fitted = _with_parts(models, parts)
    oof = OutOfFold(clips, prepared.k, models, {})
    oof.outputs |= {model.features: oof.blank() for model in fitted}
    oof.fallbacks = {
        name: tuple(Fallback(m, part.features, part.features) for m, part in of_model.items())
        for name, of_model in parts.items()
    }
    count = settings.head.inner_folds
    oof.inner_folds |= {
        fold: clips.folds_of(clips.folds != fold, count) for fold in range(prepared.k)
    }
    layers, experts, encoders = _other_models(oof, prepared, settings, parts, inner)
    bases = [base for layer in layers if not isinstance(layer, Blend) for base in layer.bases]
    inner_models = models if inner else bases
    needs_parts = clips.task.needs_inner or any(isinstance(layer, Stack) for layer in layers)
    for net_fold, tested in prepared.passes:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        _note_present(oof, matrices, tested)
        # If no feature is missing, fallbacks are needed only to score a stack without modalities
        # and to save thresholds.
        needed = needs_parts or not all(m.present.all() for m in matrices.values())
        predicted_inside = _with_parts(inner_models, parts if needed else {})
        fitter = HeadFitter(matrices, clips, settings.head, net_fold)
        chosen: dict[tuple[int, Key], float] = {}
        for first in range(0, len(tested), fitter.at_once):
            folds = tested[first : first + fitter.at_once]
            chosen |= _fit_folds(oof, fitter, folds, fitted, predicted_inside)
            for expert, fold in product(experts, folds):
                expert.predict_fold(oof, fitter, fold)
        for encoder in encoders:
            for fold in tested:
                encoder.predict_fold(oof, fitter, fold)
            if settings.refit:
                encoder.fit_all(oof, fitter, tested)
            oof.layers[encoder.feature] = encoder.choice(prepared.k)
        if settings.refit:
            _fit_all(oof, fitter, fitted, chosen)
            for expert in experts:
                expert.fit_all(oof, fitter, tested)
        del matrices, fitter
        for layer in layers:
            for fold in tested:
                layer.predict_fold(oof, fold)
    if not any(complete(outputs).any() for outputs in oof.outputs.values()):
        raise BadFeatures(
            f"no head can be trained: every fold has too few training clips {clips.task.too_few}"
        )
    for layer in layers:
        # A blend has no heads of folds, because the kernel expert has none.
        shown_by = KERNEL if isinstance(layer, Blend) else layer.name
        if settings.refit and any(head.model == shown_by for head in oof.heads):
            oof.heads.append(layer.fit_all(oof))
    return oof


def _other_models(
    oof: OutOfFold,
    prepared: Preparation,
    settings: EvaluationSettings,
    parts: Parts,
    inner: bool,
) -> tuple[list[Stack | Product | Blend], list[EstimatorExpert | KernelExpert], list[LayerModels]]:
    """Add second layers, experts and layer models to `oof`, and return them."""
    on_heads = _second_layers(prepared, settings, parts, inner)
    experts = experts_of(prepared, settings)
    if any((folds < 0).all() for folds in oof.inner_folds.values()):
        # If all training clips are of one group, there are no inner predictions for these models.
        on_heads, experts = [], []
        settings = replace(settings, layers=False)
    layers: list[Stack | Product | Blend] = [*on_heads]
    for layer in on_heads:
        oof.add_model(layer.model, layer.decided_by if settings.missing_modality else None)
    for expert in experts:
        oof.add_model(expert.model, None)
    is_blended = prepared.clips.link == "identity" and BLENDED in (settings.models or (BLENDED,))
    if is_blended and any(expert.model.name == KERNEL for expert in experts):
        # The stack or, if there is none, the model with the most features.
        stacks = [layer.model for layer in on_heads if isinstance(layer, Stack)]
        linear = stacks[0] if stacks else max(prepared.models, key=lambda one: len(one.features))
        layers.append(Blend((linear, experts[-1].model), parts, settings.head, inner))
        oof.add_model(layers[-1].model, None)
    return layers, experts, add_layer_models(oof, prepared, settings)


def _second_layers(
    prepared: Preparation, settings: EvaluationSettings, parts: Parts, inner: bool
) -> list[Stack | Product]:
    """Return the second layers that are enabled in the settings and possible with the models."""
    layers: list[Stack | Product] = []
    for kind, by_default in ((Stack, settings.stacked), (Product, settings.late)):
        bases = kind.bases_of(prepared.models)
        named = settings.models is not None and kind.name in settings.models
        if named and not bases:
            raise BadFeatures(
                f"{prepared.features.store.path}: {kind.name} {kind.needs}: name these, too, or "
                "leave it out"
            )
        if bases and (named or (settings.models is None and by_default)):
            layers.append(kind(bases, parts, settings.head, inner))
    return layers


def _with_parts(models: Sequence[Model], parts: Parts) -> tuple[Model, ...]:
    """Return the models, and the smaller models that replace them if modalities are missing."""
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


def _fit_folds(
    oof: OutOfFold,
    fitter: HeadFitter,
    folds: Sequence[int],
    models: Sequence[Model],
    inner_models: Sequence[Model],
) -> dict[tuple[int, Key], float]:
    """Predict folds, and their training clips on inner folds; return C by fold and features."""
    clips, settings = oof.clips, fitter.settings
    strengths: dict[tuple[int, Key], Strength] = {}
    if settings.choose_C:
        strengths = choose_strengths(
            fitter, models, {fold: oof.inner_folds[fold] for fold in folds}
        )
    default = Strength(settings.C)
    # Thresholds depend on the last digits of inner predictions.
    tolerance = TOLERANCE if clips.task.needs_inner else INNER_TOLERANCE
    for fold in folds:
        for model in inner_models:
            oof.inner[fold][model.features] = oof.blank().astype(np.float32)
    inner_fits, fits = [], []
    for fold, tested in [(fold, clips.folds == fold) for fold in folds]:
        for j, (train, rows) in enumerate(leave_each_out(oof.inner_folds[fold])):
            for model in inner_models:
                one = strengths.get((fold, model.features), default)
                start = one.start(j)
                inner_fits.append(Fit(model, fold, train, one.C, tolerance, rows, ~tested, start))
        for model in models:
            one = strengths.get((fold, model.features), default)
            fits.append(Fit(model, fold, ~tested, one.C, predict=tested, start=one.start(None)))
    for fitted in fitter.fit(inner_fits):
        assert fitted.fit.fold is not None
        of_fold = oof.inner[fitted.fit.fold]
        of_fold[fitted.fit.model.features][fitted.fit.predict] = fitted.outputs
    for fitted in fitter.fit(fits):
        oof.outputs[fitted.fit.model.features][fitted.fit.predict] = fitted.outputs
        oof.heads.append(fitter.head(fitted))
    return {key: strength.C for key, strength in strengths.items()}


def _fit_all(
    oof: OutOfFold,
    fitter: HeadFitter,
    models: Sequence[Model],
    chosen: Mapping[tuple[int, Key], float],
) -> None:
    """Fit heads on all clips, with the median of the strengths that the folds chose."""
    everything = np.ones(len(oof.clips.y_true), bool)
    fits = []
    for model in models:
        strengths = sorted(C for (_, key), C in chosen.items() if key == model.features)
        C = strengths[len(strengths) // 2] if strengths else fitter.settings.C
        # Outputs of these heads are not needed.
        fits.append(Fit(model, None, everything, C, predict=~everything))
    oof.heads += [fitter.head(one) for one in fitter.fit(fits)]


# Inverse strengths to try; factors of 10 are enough, because the loss changes slowly.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Indices in `GRID` of the first two strengths to try.
FIRST = (1, 2)
# Number of clips that is enough to compare strengths; larger sets use fewer inner folds.
ENOUGH_CLIPS = 500
# Tolerance of fits that only serve to compare strengths.
TRIAL_TOLERANCE = 1e-4


@dataclass
class Strength:
    """Chosen strength of a model's penalty, and starts for fits with it."""

    C: float  # inverse strength of the penalty
    # Inner fold to the result of the fit that left it out, at the tried strength nearest to `C`.
    positions: Mapping[int, Position] = field(default_factory=dict)

    def start(self, inner_fold: int | None) -> Position | None:
        """Return a start for the fit that leaves out `inner_fold` (None: no clip left out)."""
        if inner_fold is not None and inner_fold in self.positions:
            return self.positions[inner_fold]
        if not self.positions:
            return None
        positions = list(self.positions.values())
        coef = {
            name: np.mean([position.coef[name] for position in positions], axis=0)
            for name in positions[0].coef
        }
        return Position(coef, np.mean([position.intercept for position in positions], axis=0))


@dataclass
class _Trials:
    """Trials of one model: index in `GRID` to the loss, and to the results of the fits."""

    losses: dict[int, float] = field(default_factory=dict)
    positions: dict[int, dict[int, Position]] = field(default_factory=dict)
    margin: float = 0.0
    failed: bool = False  # True if the heads cannot be trained

    @property
    def best(self) -> int:
        """Return the index of the strongest penalty unless a weaker one is better by a margin."""
        best, *others = sorted(self.losses)
        for i in others:
            if self.losses[i] < self.losses[best] - self.margin:
                best = i
        return best

    def next(self) -> int | None:
        """Return an untried neighbour of the best index in `GRID`; None if there is none."""
        if self.failed:
            return None
        if len(self.losses) < len(FIRST):
            return FIRST[len(self.losses)]
        neighbours = (self.best + 1, self.best - 1)
        return next((i for i in neighbours if 0 <= i < len(GRID) and i not in self.losses), None)

    def start(self, step: int, inner_fold: int) -> Position | None:
        """Return the result of the fit without an inner fold at the nearest tried strength."""
        nearest = min(self.losses, key=lambda i: abs(i - step), default=None)
        return None if nearest is None else self.positions[nearest].get(inner_fold)

    def add(self, step: int, fitted: Sequence[Fitted], clips: Clips, inner: Ints) -> None:
        """Add the fits of one strength."""
        outputs = np.full((len(inner), clips.n_outputs), np.nan)
        positions = {}
        for one in fitted:
            outputs[one.fit.predict] = one.outputs
            positions[int(inner[one.fit.predict][0])] = one.position
        loss = clips.task.choice_loss(clips.y_true, outputs)
        self.failed = not np.isfinite(loss)
        if not self.failed:
            self.losses[step], self.positions[step] = loss, positions
            self.margin = 0.5 / int(complete(outputs).sum())

    def chosen(self) -> Strength:
        """Return the strength at the minimum of a parabola through the best and its neighbours."""
        best = self.best
        shift = 0.0
        if best - 1 in self.losses and best + 1 in self.losses:
            left, middle, right = (self.losses[i] for i in (best - 1, best, best + 1))
            bend = left - 2 * middle + right
            shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
        C = GRID[best] * 10**shift
        return Strength(float(f"{C:.3g}"), self.positions[best])


def choose_strengths(
    fitter: HeadFitter, models: Sequence[Model], inner: Mapping[int, Ints]
) -> dict[tuple[int, Key], Strength]:
    """Choose the strength of each penalty, by fold and features, by the loss inside the fold.

    `inner` maps each fold to the inner folds of its training clips.
    """
    clips, splits = fitter.clips, {fold: leave_each_out(folds) for fold, folds in inner.items()}
    for fold, of_fold in splits.items():
        per_split = (inner[fold] >= 0).sum() / max(len(of_fold), 1)
        del of_fold[int(np.ceil(ENOUGH_CLIPS / max(per_split, 1.0))) :]
    trials = {(fold, model.features): _Trials() for fold in inner for model in models}
    while steps := {key: step for key, one in trials.items() if (step := one.next()) is not None}:
        fits = [
            Fit(
                model,
                fold,
                train,
                GRID[steps[fold, model.features]],
                TRIAL_TOLERANCE,
                predict=rows,
                scaled_on=clips.folds != fold,
                start=trials[fold, model.features].start(steps[fold, model.features], j),
            )
            for fold, model in product(inner, models)
            if (fold, model.features) in steps
            for j, (train, rows) in enumerate(splits[fold])
        ]
        by_key: dict[tuple[int | None, Key], list[Fitted]] = {}
        for one in fitter.fit(fits):
            by_key.setdefault((one.fit.fold, one.fit.model.features), []).append(one)
        for key, step in steps.items():
            trials[key].add(step, by_key.get(key, []), clips, inner[key[0]])
    return {key: tried.chosen() for key, tried in trials.items() if tried.losses}

"""Experts next to the linear heads: a kernel head and estimators of scikit-learn.

An expert reads all features of clips that have all of them. It is chosen only if it wins inside the
training folds (`mvemo.fuse.crossval.out_of_fold`). Scores of classes become probabilities by a
scale that is fitted on inner scores. Only the kernel head of all clips is saved.

``--head sklearn:sklearn.svm.SVC`` names the class of an estimator, a plug-in of ``mvemo.heads`` a
function that returns one. Parameters with a list of values are tuned: each setting is fitted on the
inner folds of the training clips, and the best one is refitted on all of them. Estimators are only
scored: a file that could hold any of them would be a pickle, which can run code when it is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mvemo.fuse.crossval.evaluation_settings import EstimatorSettings, EvaluationSettings
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Clips, leave_each_out
from mvemo.fuse.heads import fitting, kernel
from mvemo.fuse.metrics.calibration import apply_temperature, fit_temperature, log_probabilities
from mvemo.fuse.models import BLENDED, KERNEL, NAMED, WITH_KERNEL, Model, modalities_of
from mvemo.fuse.numeric import Labels, Link, complete, softmax
from mvemo.fuse.scaling import unit_rows
from mvemo.manifests.array_types import F32, F64, Bools, Ints
from mvemo.manifests.errors import BadOption


def experts_of(
    prepared: Preparation, settings: EvaluationSettings
) -> list[EstimatorExpert | KernelExpert]:
    """Return the experts that the settings ask for, in the order of reports."""
    named = next((name for name in settings.models or () if name in WITH_KERNEL), None)
    estimators = [_estimator_expert(one, prepared) for one in settings.estimators]
    if named is None and (settings.models is not None or not settings.kernel):
        return [*estimators]
    features, n = prepared.features, len(prepared.clips.y_true)
    reasons = {
        "it needs at least one other model": not prepared.models,
        f"it needs at most {kernel.MOST_CLIPS:,} clips, got {n:,}": n > kernel.MOST_CLIPS,
        "it needs all features in memory (fuse.memory)": features.streamed,
        "it needs ratings": named == BLENDED and prepared.clips.link != "identity",
    }
    why_not = next((reason for reason, applies in reasons.items() if applies), None)
    if why_not and named:
        raise BadFeatures(f"{features.store.path}: {named}: {why_not}: leave it out")
    return [*estimators, *([] if why_not else [KernelExpert(_joint_model(KERNEL, prepared))])]


def _joint_model(name: str, prepared: Preparation, **facts: Any) -> Model:
    """Return a model over all features of the other models."""
    everything = max(prepared.models, key=lambda model: len(model.features)).features
    names = dict.fromkeys((*everything, *prepared.names))
    return Model(name, tuple(names), modalities_of(prepared.models), **facts)


def _estimator_expert(settings: EstimatorSettings, prepared: Preparation) -> EstimatorExpert:
    names = [*prepared.names, *(model.name for model in prepared.models), *NAMED]
    if settings.name in names:
        raise settings.failure(f"{settings.name} is the name of another model")
    if prepared.features.streamed:
        raise settings.failure("it needs all features in memory (fuse.memory)")
    estimator = settings.load()
    kind = "regressor" if prepared.clips.link == "identity" else "classifier"
    from sklearn.utils import get_tags

    if get_tags(estimator).estimator_type != kind:
        raise settings.failure(f"the task {prepared.clips.task.name} needs a {kind}")
    model = _joint_model(settings.name, prepared, by_estimator=True)
    return EstimatorExpert(model, settings, estimator)


@dataclass(frozen=True)
class _Training:
    """Inputs of one fit of the kernel expert."""

    fit: fitting.Fit
    unit: F32  # float32 (clips, dim): standardised vectors of length 1 of all clips
    valid: Bools  # bool (clips,): True for clips with all features
    rows: Bools  # bool (clips,): True for training clips
    target: F64  # float64 (training clips, outputs)
    target_scale: fitting.TargetScale
    weights: F32  # float32 (training clips,)


@dataclass(frozen=True)
class KernelExpert:
    """Kernel ridge regression over all features."""

    model: Model
    # Ridge and slope that each fold chose.
    chosen: dict[int, tuple[float, float]] = field(default_factory=dict)

    def predict_fold(self, oof: OutOfFold, fitter: fitting.HeadFitter, fold: int) -> None:
        """Fit one fold's expert, and write its predictions to `oof`, also the inner ones.

        Columns and targets are scaled on the training clips. Inner predictions use the slope that
        was fitted on the other inner folds.
        """
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        oof.inner[fold][key] = oof.blank()
        part = self._training(fitter, fold, ~tested)
        if part is None:
            return
        labels, link, scale = clips.y_true[part.rows], clips.link, part.target_scale
        folds = oof.inner_folds[fold][part.rows]
        head, scores = kernel.fit_kernel(part.unit[part.rows], part.target, folds, part.weights)
        inner = np.full_like(scores, np.nan)
        for others, rows in leave_each_out(folds):
            slope = _slope(link, scores[others], labels[others])
            inner[rows] = scale.outputs(kernel.outputs_of(scores[rows], link, slope))
        oof.inner[fold][key][part.rows] = inner
        slope = _slope(link, scores, labels)
        predict = part.valid & tested
        outputs = kernel.outputs_of(head.scores(part.unit[predict]), link, slope)
        oof.outputs[key][predict] = scale.outputs(outputs)
        self.chosen[fold] = head.ridge, slope

    def fit_all(self, oof: OutOfFold, fitter: fitting.HeadFitter, tested: Sequence[int]) -> None:
        """Add a head of all clips, with the medians of the tested folds' ridges and slopes."""
        part = self._training(fitter, None, np.ones(len(oof.clips.y_true), bool))
        chosen = [self.chosen[fold] for fold in tested if fold in self.chosen]
        if part is None or not chosen:
            return
        ridge, slope = (sorted(values)[len(chosen) // 2] for values in zip(*chosen, strict=True))
        head = kernel.refit_kernel(part.unit[part.rows], part.target, ridge, part.weights)
        fit = replace(part.fit, C=1.0 / ridge)
        oof.heads.append(fitter.kernel_head(fit, head, slope, part.target_scale))

    def _training(
        self, fitter: fitting.HeadFitter, fold: int | None, train: Bools
    ) -> _Training | None:
        """Return the inputs of a fit on the clips in `train`; None if there are too few clips."""
        clips, fit = fitter.clips, fitting.Fit(self.model, fold, train, fitter.settings.C)
        columns, valid = fitter.standardised(fit)
        rows = valid & train
        if fitting.count_different(clips, rows) < fitting.MIN_DIFFERENT:
            return None
        target, scale = fitting.scaled_target(clips, rows)
        weights = fitter.clip_weights(target)
        return _Training(fit, unit_rows(columns), valid, rows, target, scale, weights)


def _slope(link: Link, scores: F64, labels: Labels) -> float:
    """Return the exponent of class scores with the lowest log loss; 1 for tags and targets."""
    if link != "softmax":
        return 1.0
    return 1.0 / fit_temperature(np.log(np.maximum(scores, kernel.FLOOR)), labels)


@dataclass(frozen=True)
class EstimatorExpert:
    """Estimator of scikit-learn over all features."""

    model: Model
    settings: EstimatorSettings
    estimator: Any

    def predict_fold(self, oof: OutOfFold, fitter: fitting.HeadFitter, fold: int) -> None:
        """Tune and fit one fold's estimator, and write its outer and inner outputs to `oof`."""
        clips, key = oof.clips, self.model.key
        tested, folds = clips.folds == fold, oof.inner_folds[fold]
        columns, valid = fitter.standardised(
            fitting.Fit(self.model, fold, ~tested, fitter.settings.C)
        )
        oof.inner[fold][key] = oof.blank()
        train = valid & ~tested
        if len(np.unique(clips.y_true[train], axis=0)) < fitting.MIN_DIFFERENT:
            return
        best, lowest, chosen = oof.blank(), np.inf, None
        splits = leave_each_out(np.where(train, folds, -1))
        for parameters in self.settings.grid():
            inner = oof.blank()
            for others, rows in splits:
                inner[rows] = self._outputs(clips, columns, others, rows, parameters)
            loss = clips.task.choice_loss(clips.y_true, self._scaled(clips, inner, inner))
            if chosen is None or loss < lowest:
                best, lowest, chosen = inner, loss, parameters
        assert chosen is not None  # a grid is never empty
        # The scale of an inner fold is fitted on the other inner folds.
        for others, rows in splits:
            values = self._scaled(clips, np.where(others[:, None], best, np.nan), best)
            oof.inner[fold][key][rows] = values[rows]
        outputs = oof.blank()
        rows = valid & tested
        if rows.any():
            outputs[rows] = self._outputs(clips, columns, train, rows, chosen)
        oof.outputs[key][tested] = self._scaled(clips, best, outputs)[tested]

    def fit_all(self, oof: OutOfFold, fitter: fitting.HeadFitter, tested: Sequence[int]) -> None:
        """Do nothing: estimators are only scored."""

    def _outputs(
        self, clips: Clips, columns: F32, train: Bools, rows: Bools, parameters: Mapping[str, Any]
    ) -> F64:
        """Fit on the clips in `train`; return outputs or scores of the clips in `rows`."""
        y_true, x, wanted = clips.y_true[train], columns[train], columns[rows]
        if clips.link == "softmax":
            return self._fit(x, y_true, wanted, parameters, clips)
        if clips.link == "sigmoid":
            found = [self._fit(x, target, wanted, parameters, clips) for target in y_true.T]
            return np.concatenate(found, axis=1)
        targets, scale = fitting.scaled_target(clips, train)
        found = [self._fit(x, target, wanted, parameters, clips) for target in targets.T]
        return scale.outputs(np.concatenate(found, axis=1))

    def _fit(
        self, x: F32, target: F64 | Ints, wanted: F32, parameters: Mapping[str, Any], clips: Clips
    ) -> F64:
        """Return values, probabilities or scores: (clips, outputs), or (clips, 1) of one target."""
        from sklearn.base import clone

        is_constant = clips.link != "identity" and len(np.unique(target)) < 2
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fitted = clone(self.estimator).set_params(**parameters)
                if is_constant:
                    found, classes = np.ones((len(wanted), 1)), target[:1]
                elif clips.link == "identity":
                    return self._checked(fitted.fit(x, target).predict(wanted), len(wanted), 1)
                else:
                    method = "predict_proba" if self._gives_proba else "decision_function"
                    found = getattr(fitted.fit(x, target), method)(wanted)
                    classes = fitted.classes_.astype(int)
        except BadOption:
            raise
        except Exception as error:
            raise self.settings.failure(f"{type(error).__name__}: {error}") from error
        if np.ndim(found) == 1:
            found = np.stack([-found / 2, found / 2], axis=1)
        found = self._checked(found, len(wanted), len(classes))
        if not self._gives_proba and not is_constant:
            found = softmax(found)
        proba = np.zeros((len(wanted), clips.n_outputs if clips.link == "softmax" else 2))
        proba[:, classes] = found
        return proba if clips.link == "softmax" else proba[:, [1]]

    def _checked(self, outputs: Any, n: int, n_columns: int) -> F64:
        values = np.asarray(outputs, float)
        if values.size != n * n_columns or not np.isfinite(values).all():
            raise self.settings.failure(
                f"expected finite outputs of shape ({n}, {n_columns}), got shape {values.shape}"
            )
        return values.reshape(n, n_columns)

    @property
    def _gives_proba(self) -> bool:
        return hasattr(self.estimator, "predict_proba")

    def _scaled(self, clips: Clips, inner: F64, outputs: F64) -> F64:
        """Return outputs as probabilities, calibrated on the inner predictions by log loss."""
        rows = complete(inner)
        if self._gives_proba or clips.link == "identity" or not rows.any():
            return outputs
        y_true = clips.y_true[rows]
        if clips.link == "softmax":
            temperature = fit_temperature(log_probabilities(inner[rows]), y_true)
            return apply_temperature(outputs, temperature)
        scaled = []
        for tag in range(clips.n_outputs):
            pair = _pair(inner[rows, tag])
            temperature = fit_temperature(log_probabilities(pair), y_true[:, tag])
            scaled.append(apply_temperature(_pair(outputs[:, tag]), temperature)[:, 1])
        return np.stack(scaled, axis=1)


def _pair(proba: F64) -> F64:
    return np.stack([1.0 - proba, proba], axis=1)

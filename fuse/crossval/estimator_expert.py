"""Estimators of scikit-learn as heads over all features, among the evaluated models.

``--head sklearn:sklearn.svm.SVC`` names the class, a plug-in of ``mvemo.heads`` a function that
returns an estimator. Parameters with a list of values are tuned: each setting is fitted on the
inner folds of the training clips, and the best one is refitted on all of them. Scores
of classifiers without ``predict_proba`` become probabilities by a scale that is fitted on inner
scores, too. Estimators are only scored: a file that could hold any of them would be a pickle,
which can run code when it is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.preparation import Preparation
from mvemo.fuse.features import Clips, leave_each_out
from mvemo.fuse.heads import fitting
from mvemo.fuse.heads.estimator import EstimatorSettings
from mvemo.fuse.heads.fitting import target_scale
from mvemo.fuse.metrics.calibration import apply_temperature, fit_temperature, log_probabilities
from mvemo.fuse.models import NAMED, Model, modalities_of
from mvemo.fuse.numeric import complete, softmax
from mvemo.manifests.array_types import F32, F64, Bools, Ints
from mvemo.manifests.errors import BadOption


@dataclass(frozen=True)
class EstimatorExpert:
    """Estimator over all features, for clips that have all of them."""

    model: Model
    settings: EstimatorSettings
    estimator: Any

    @classmethod
    def of(cls, settings: EstimatorSettings, prepared: Preparation) -> EstimatorExpert:
        """Return the expert over all features of the models."""
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
        everything = max(prepared.models, key=lambda model: len(model.features)).features
        features = tuple(dict.fromkeys((*everything, *prepared.names)))
        kinds = modalities_of(prepared.models)
        return cls(Model(settings.name, features, kinds, by_estimator=True), settings, estimator)

    def predict_fold(self, oof: OutOfFold, fitter: fitting.HeadFitter, fold: int) -> None:
        """Tune and fit one fold's estimator, and write its outputs to `oof`, also inner ones."""
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
        for parameters in self.settings.grid():
            inner = oof.blank()
            for others, rows in leave_each_out(np.where(train, folds, -1)):
                if others.any() and rows.any():
                    inner[rows] = self._outputs(clips, columns, others, rows, parameters)
            loss = clips.task.choice_loss(clips.y_true, self._scaled(clips, inner, inner))
            if chosen is None or loss < lowest:
                best, lowest, chosen = inner, loss, parameters
        assert chosen is not None  # a grid has one setting or more
        # The scale of an inner fold is fitted on the other inner folds.
        for others, rows in leave_each_out(np.where(train, folds, -1)):
            values = self._scaled(clips, np.where(others[:, None], best, np.nan), best)
            oof.inner[fold][key][rows] = values[rows]
        outputs = oof.blank()
        rows = valid & tested
        if rows.any():
            outputs[rows] = self._outputs(clips, columns, train, rows, chosen)
        oof.outputs[key][tested] = self._scaled(clips, best, outputs)[tested]

    def _outputs(
        self, clips: Clips, columns: F32, train: Bools, rows: Bools, parameters: Mapping[str, Any]
    ) -> F64:
        """Fit on the clips in `train`; return outputs or scores of the clips in `rows`."""
        y_true, x, wanted = clips.y_true[train], columns[train], columns[rows]
        if clips.link == "softmax":
            return self._fit(x, y_true, wanted, parameters, clips)
        scale = fitting.TargetScale(np.zeros(1), np.ones(1))
        if clips.link == "identity":
            scale = target_scale(y_true)
            y_true = scale.standardised(y_true)
        found = [self._fit(x, target, wanted, parameters, clips) for target in y_true.T]
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
        """Return outputs as probabilities, at the temperature of lowest log loss inside."""
        if self._gives_proba or clips.link == "identity":
            return outputs
        rows = complete(inner)
        if not rows.any():
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

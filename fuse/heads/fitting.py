"""Fitting of the heads of all models and folds, together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.arrays import F32, F64, Bools
from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.fits import Fit, Fitted
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.problems import FitProblems, fits_by_batch
from mvemo.fuse.heads.scaled import ScaledFeatures
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.links import apply_link
from mvemo.fuse.matrices.rows import Rows
from mvemo.fuse.models import Model

DEFAULT = HeadSettings()
# Fewest different classes, or clips with tags or values, that a head can be trained on.
MIN_DIFFERENT = 2
# Scores solved for at once (heads x outputs x clips): some arrays of 1.2 MB; or of 200 MB if
# features are read again at every step, which more heads then share.
BATCH_SCORES, BATCH_STREAMED = 300_000, 50_000_000


def fit_heads(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    settings: HeadSettings = DEFAULT,
    *,
    net_fold: int | None = None,
) -> tuple[list[Head], list[F64]]:
    """Fit heads together: of classes (softmax), tags (logistic) or targets (least squares).

    Targets are standardised on each fit's training clips, so that the penalty and the
    tolerance mean the same in any unit.

    Parameters
    ----------
    fits
        Heads to fit.
    matrices
        Feature name to values, for all features of the models.
    clips
        Clips with labels and folds.
    settings
        Settings of all heads.
    net_fold
        Fold whose nets made the values, for the record.

    Returns
    -------
    The heads, and for each head the outputs of its clips to predict, float64 (clips, outputs);
    NaN rows where a feature is missing.

    Raises
    ------
    BadFeatures
        The training clips of a head are fewer than two, or of one class; or a setting does not
        apply to the task.

    See Also
    --------
    trainable : select the fits that have enough training clips.
    mvemo.fuse.evaluate : fit and score every model and fold of a cache.

    Examples
    --------
    >>> import numpy as np
    >>> from mvemo.fuse import Clips, models_of, task_of
    >>> from mvemo.fuse.features import matrix_of
    >>> values = np.array([[-2.0], [-1.0], [1.0], [2.0], [1.5]], np.float32)
    >>> clips = Clips(
    ...     task=task_of("multiclass"), y_true=np.array([0, 0, 1, 1, 1]), groups=tuple("abcde"),
    ...     folds=np.array([0, 1, 0, 1, 2]), n_outputs=2,
    ... )
    >>> (model,) = models_of({"tempo": "audio"})
    >>> fit = Fit(model, fold=2, train=clips.folds != 2, C=1.0, predict=clips.folds == 2)
    >>> heads, outputs = fit_heads([fit], {"tempo": matrix_of(values)}, clips)
    >>> outputs[0].argmax(axis=1)
    array([1])
    """
    fitter = HeadFitter(matrices, clips, settings, net_fold)
    fitted = fitter.fit(fits)
    return [fitter.head(one) for one in fitted], [one.outputs for one in fitted]


def trainable(fits: Sequence[Fit], matrices: Mapping[str, Matrix], clips: Clips) -> list[Fit]:
    """Return the fits that have enough training clips for `fit_heads`."""
    if not fits:
        return []
    _, weights = _training(fits, matrices)
    return [
        fit
        for fit, w in zip(fits, weights, strict=True)
        if _n_different(w > 0, clips) >= MIN_DIFFERENT
    ]


def balance(weights: F32, target: F32) -> F32:
    """Return factors (fits, clips) by which all classes weigh the same in training.

    As in scikit-learn's "balanced": n / (number of classes present * n of the clip's class).
    `weights` are (fits, clips), above 0 for training clips; `target` is (classes, clips).

    Examples
    --------
    >>> import numpy as np
    >>> target = np.array([[1, 1, 1, 0], [0, 0, 0, 1]], np.float32)
    >>> balance(np.ones((1, 4), np.float32), target).round(2)
    array([[0.67, 0.67, 0.67, 2.  ]], dtype=float32)
    """
    counts = (weights > 0).astype(np.float32) @ target.T
    present = counts > 0
    factor = counts.sum(axis=1, keepdims=True) / (
        present.sum(axis=1, keepdims=True) * np.where(present, counts, 1.0)
    )
    factors: F32 = np.where(present, factor, 0.0).astype(np.float32) @ target
    return factors


class HeadFitter:
    """Fitter of heads over one set of feature values, in any number of calls.

    Parameters
    ----------
    matrices
        Feature name to values.
    clips, settings, net_fold
        As in `fit_heads`.
    """

    def __init__(
        self,
        matrices: Mapping[str, Matrix],
        clips: Clips,
        settings: HeadSettings = DEFAULT,
        net_fold: int | None = None,
    ) -> None:
        _check_settings(clips, settings)
        self.matrices, self.clips = matrices, clips
        self._settings, self._net_fold = settings, net_fold
        self._target = clips.target
        self._scaled = ScaledFeatures(matrices, np.zeros(len(clips.y_true), np.bool_))

    @property
    def default_C(self) -> float:
        """Return the C of heads whose strength is not chosen."""
        return self._settings.C

    def fit(self, fits: Sequence[Fit]) -> list[Fitted]:
        """Solve all fits, in their order; arguments and errors as in `fit_heads`.

        Fits of the same training clips are solved together: they share products with features.
        """
        if not fits:
            return []
        valid, weights = _training(fits, self.matrices)
        for fit, w in zip(fits, weights, strict=True):
            _check_training_clips(fit, w > 0, self.clips)
        if self._settings.class_weight == "balanced":
            weights = weights * balance(weights, self._target)
        together: dict[bytes, list[int]] = {}
        for i, fit in enumerate(fits):
            key = _rows_scaled_on(fit).tobytes()
            if self.clips.link == "identity":
                # Fits of values also share the standardised target.
                key += fit.train.tobytes()
            together.setdefault(key, []).append(i)
        fitted: dict[int, Fitted] = {}
        for members in together.values():
            fitted |= self._fit_together(members, fits, valid, weights)
        return [fitted[i] for i in range(len(fits))]

    def head(self, fitted: Fitted) -> Head:
        """Return a fit as a head over cached values."""
        fit, position = fitted.fit, fitted.position
        scaled = self._scaled_on(fit)
        names = fit.model.features
        parts = [scaled[name] for name in names]
        factors = [self._factor(name, fit.model) for name in names]
        coef = [
            part.raw_coef(of_part * np.float32(factor))
            for part, of_part, factor in zip(parts, position.coef, factors, strict=True)
        ]
        mean, scale = fitted.target_scale
        return Head(
            model=fit.model.name,
            features=names,
            fold=fit.fold,
            net_fold=self._net_fold,
            mean=np.concatenate([part.scaling.shift for part in parts]),
            scale=np.concatenate([part.scaling.scale for part in parts]),
            coef=(np.concatenate(coef, axis=1) * scale[:, None]).astype(np.float32),
            intercept=position.intercept * scale + mean,
            C=fit.C,
            link=self.clips.link,
            inputs=self._settings.inputs,
            limit=parts[0].scaling.limit,
        )

    def _scaled_on(self, fit: Fit) -> ScaledFeatures:
        """Return the features scaled for a fit; those of the last call are kept."""
        rows = _rows_scaled_on(fit)
        if not np.array_equal(self._scaled.rows, rows):
            self._scaled = self._scaled.on(rows)
        return self._scaled

    def _fit_together(
        self, members: Sequence[int], fits: Sequence[Fit], valid: Bools, weights: F32
    ) -> dict[int, Fitted]:
        """Solve fits that share scaled features and, for values, scaled targets."""
        target, mean, scale = self._target, np.zeros(1), np.ones(self.clips.n_outputs)
        if self.clips.link == "identity":
            values = self.clips.y_true.astype(np.float64)
            train = fits[members[0]].train
            mean, scale = values[train].mean(axis=0), values[train].std(axis=0)
            scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1e-30)] = 1.0
            target = np.ascontiguousarray(((values - mean) / scale).T, np.float32)
        scaled = self._scaled_on(fits[members[0]])
        fitted = {}
        streamed = any(isinstance(matrix.values, Rows) for matrix in self.matrices.values())
        size = (BATCH_STREAMED if streamed else BATCH_SCORES) // target.size
        for batch in fits_by_batch(members, fits, max(size, 1)):
            problems = FitProblems(
                [fits[i] for i in batch], [self._factors(fits[i].model) for i in batch], scaled
            )
            solution = problems.solve(target, weights[batch], self.clips.link)
            for row, i in enumerate(batch):
                position = problems.position(solution, row)
                scores = problems.scores(position, row)
                outputs = apply_link(scores.astype(np.float64), self.clips.link)
                if self.clips.link == "identity":
                    outputs = outputs * scale + mean
                predict = fits[i].predict
                outputs[~(valid[i] if predict is None else valid[i][predict])] = np.nan
                fitted[i] = Fitted(fits[i], outputs, position, (mean, scale))
        return fitted

    def _factors(self, model: Model) -> list[float]:
        return [self._factor(name, model) for name in model.features]

    def _factor(self, name: str, model: Model) -> float:
        """Return the factor of a feature's columns: 1 if the model has no other feature."""
        if not self._settings.balance_blocks:
            return 1.0
        dims = [self.matrices[feature].values.shape[1] for feature in model.features]
        return float(np.sqrt(np.mean(dims) / self.matrices[name].values.shape[1]))


def _rows_scaled_on(fit: Fit) -> Bools:
    return fit.train if fit.scaled_on is None else fit.scaled_on


def _training(fits: Sequence[Fit], matrices: Mapping[str, Matrix]) -> tuple[Bools, F32]:
    """Return the clips with all features of each fit, and weights in training (fits, clips)."""
    valid = np.array(
        [
            np.logical_and.reduce([matrices[name].present for name in fit.model.features])
            for fit in fits
        ]
    )
    train = np.array([fit.train for fit in fits])
    return valid, (valid & train).astype(np.float32)


def _n_different(train: Bools, clips: Clips) -> int:
    """Return the number of classes among the training clips, or of clips for other tasks."""
    if clips.link == "softmax":
        return len(np.unique(clips.y_true[train]))
    return int(train.sum())


def _check_training_clips(fit: Fit, train: Bools, clips: Clips) -> None:
    n = _n_different(train, clips)
    if n >= MIN_DIFFERENT:
        return
    if clips.link == "softmax":
        raise BadFeatures(
            f"{fit}: the training clips with all of its features are of {n} class(es); two at "
            "least are needed"
        )
    raise BadFeatures(
        f"{fit}: {n} training clip(s) have all of its features; two at least are needed"
    )


def _check_settings(clips: Clips, settings: HeadSettings) -> None:
    """Refuse settings for classes if the heads predict tags or targets."""
    if settings.class_weight != "none" and clips.link != "softmax":
        raise BadFeatures(
            f"class_weight {settings.class_weight!r} of heads is for multiclass only, and the "
            f"task is {clips.task.name}: leave it at 'none'"
        )

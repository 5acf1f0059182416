"""Joint fitting of the heads of all models and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Clips, Matrix
from mvemo.fuse.heads.blocks import Block, ScaledFeatures
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.heads.solver import Start, solve
from mvemo.fuse.models import Model
from mvemo.fuse.numeric import F32, F64, Bools, Link, apply_link
from mvemo.fuse.scaling import Rows

# A fit ends if its mean loss per clip exceeds the minimum by at most this, in nats.
TOLERANCE = 1e-6
DEFAULT = HeadSettings()
# Minimum number of classes, or of clips with tags or values, to train a head.
MIN_DIFFERENT = 2
# Number of scores (heads x outputs x clips) in one batch: arrays of 1.2 MB; or of 200 MB if every
# step reads the features again, so that more heads share a reading.
BATCH_SCORES, BATCH_STREAMED = 300_000, 50_000_000


@dataclass(frozen=True)
class Position:
    """Coefficients of a fit, in the coordinates of its `ScaledFeatures`."""

    coef: tuple[F32, ...]  # for each feature of the model, float32 (outputs, columns)
    intercept: F64  # float64 (outputs,)


@dataclass(frozen=True)
class Fit:
    """One head to be fitted.

    Parameters
    ----------
    model
        Model whose features the head concatenates.
    fold
        Fold that is left out; None to train on all clips.
    train
        bool (clips,): training clips. Clips that lack one of the features are left out.
    C
        Inverse strength of the L2 penalty, above 0.
    tol
        Allowed excess of the mean loss over its minimum, in nats.
    predict
        bool (clips,): clips whose outputs are returned; None for all.
    scaled_on
        bool (clips,): clips that the features are standardised on; None for the training clips.
    start
        Result of another fit of the same model on features scaled on the same clips; None to
        start from zeros.
    """

    model: Model
    fold: int | None
    train: Bools
    C: float
    tol: float = TOLERANCE
    predict: Bools | None = None
    scaled_on: Bools | None = None
    start: Position | None = None

    def __str__(self) -> str:
        return f"{self.model.name}, {'all clips' if self.fold is None else f'fold {self.fold}'}"


@dataclass(frozen=True)
class Fitted:
    """One solved fit."""

    fit: Fit
    outputs: F64  # float64 (clips to predict, outputs); NaN rows where a feature is missing
    position: Position
    target_scale: tuple[F64, F64]  # mean and standard deviation of the targets, in their unit


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
    tolerance do not depend on their unit.

    Parameters
    ----------
    fits
        Heads to fit.
    matrices
        Feature name to values, for all features of the models.
    clips, settings
        Clips with labels and folds, and settings of all heads.
    net_fold
        Fold whose nets made the values; it is only stored in the heads.

    Returns
    -------
    The heads, and for each head the outputs of its clips to predict, float64 (clips, outputs);
    NaN rows where a feature is missing.

    Raises
    ------
    BadFeatures
        A head has fewer than two training clips, or training clips of only one class; or a
        setting does not apply to the task.

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
    fitted = fitter.fit(fits, strict=True)
    return [fitter.head(one) for one in fitted], [one.outputs for one in fitted]


class HeadFitter:
    """Fitter of heads over one set of feature values, in any number of calls."""

    def __init__(
        self,
        matrices: Mapping[str, Matrix],
        clips: Clips,
        settings: HeadSettings = DEFAULT,
        net_fold: int | None = None,
    ) -> None:
        if settings.class_weight != "none" and clips.link != "softmax":
            raise BadFeatures(
                f"class_weight {settings.class_weight!r} of heads needs the task multiclass, got "
                f"{clips.task.name}: leave it at 'none'"
            )
        self.matrices, self.clips, self.settings = matrices, clips, settings
        self._net_fold = net_fold
        self._target = clips.target
        self._scaled = ScaledFeatures(matrices, np.zeros(len(clips.y_true), np.bool_))

    def fit(self, fits: Sequence[Fit], *, strict: bool = False) -> list[Fitted]:
        """Solve fits; omit those with too few training clips or, if `strict`, raise for them."""
        if not fits:
            return []
        valid = np.array(
            [
                np.logical_and.reduce([self.matrices[name].present for name in fit.model.features])
                for fit in fits
            ]
        )
        train = valid & np.array([fit.train for fit in fits])
        counts = [self._n_different(rows) for rows in train]
        enough = [i for i, count in enumerate(counts) if count >= MIN_DIFFERENT]
        if strict and len(enough) < len(fits):
            i = next(i for i in range(len(fits)) if i not in enough)
            unit = "classes" if self.clips.link == "softmax" else "clips"
            raise BadFeatures(
                f"{fits[i]}: expected at least {MIN_DIFFERENT} {unit} among the training clips "
                f"that have all of its features, got {counts[i]}"
            )
        fits, valid, weights = [fits[i] for i in enough], valid[enough], train[enough].astype("f4")
        if self.settings.class_weight == "balanced":
            weights = weights * balance(weights, self._target)
        together: dict[bytes, list[int]] = {}
        for i, fit in enumerate(fits):
            key = _rows_scaled_on(fit).tobytes()
            if self.clips.link == "identity":
                # Fits of regression targets must also share the standardised target.
                key += fit.train.tobytes()
            together.setdefault(key, []).append(i)
        fitted: dict[int, Fitted] = {}
        for members in together.values():
            fitted |= self._fit_together(members, fits, valid, weights)
        return [fitted[i] for i in range(len(fits))]

    def head(self, fitted: Fitted) -> Head:
        """Convert a solved fit to a head over cached values."""
        fit, position = fitted.fit, fitted.position
        scaled = self._scaled_on(fit)
        names = fit.model.features
        parts = [scaled[name] for name in names]
        factors = self._factors(fit.model)
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
            inputs=self.settings.inputs,
            limit=parts[0].scaling.limit,
        )

    def _scaled_on(self, fit: Fit) -> ScaledFeatures:
        """Return the features scaled for a fit; the result of the last call is cached."""
        rows = _rows_scaled_on(fit)
        if not np.array_equal(self._scaled.rows, rows):
            self._scaled = self._scaled.on(rows)
        return self._scaled

    def _fit_together(
        self, members: Sequence[int], fits: Sequence[Fit], valid: Bools, weights: F32
    ) -> dict[int, Fitted]:
        """Solve fits that share scaled features and, for regression, scaled targets."""
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
            positions = problems.solve(target, weights[batch], self.clips.link)
            for row, (i, position) in enumerate(zip(batch, positions, strict=True)):
                scores = problems.scores(position, row)
                outputs = apply_link(scores.astype(np.float64), self.clips.link)
                if self.clips.link == "identity":
                    outputs = outputs * scale + mean
                predict = fits[i].predict
                outputs[~(valid[i] if predict is None else valid[i][predict])] = np.nan
                fitted[i] = Fitted(fits[i], outputs, position, (mean, scale))
        return fitted

    def _n_different(self, train: Bools) -> int:
        """Return the number of classes of the training clips; for other tasks, of the clips."""
        if self.clips.link == "softmax":
            return len(np.unique(self.clips.y_true[train]))
        return int(train.sum())

    def _factors(self, model: Model) -> list[float]:
        """Return the factor for each feature's columns; 1 if the model has only one feature."""
        if not self.settings.balance_blocks:
            return [1.0] * len(model.features)
        dims = [self.matrices[name].values.shape[1] for name in model.features]
        return [float(np.sqrt(np.mean(dims) / dim)) for dim in dims]


def _rows_scaled_on(fit: Fit) -> Bools:
    return fit.train if fit.scaled_on is None else fit.scaled_on


def balance(weights: F32, target: F32) -> F32:
    """Return factors (fits, clips) that give all classes the same weight, as in scikit-learn."""
    counts = (weights > 0).astype(np.float32) @ target.T
    present = counts > 0
    factor = counts.sum(axis=1, keepdims=True) / (
        present.sum(axis=1, keepdims=True) * np.where(present, counts, 1.0)
    )
    factors: F32 = np.where(present, factor, 0.0).astype(np.float32) @ target
    return factors


class FitProblems:
    """Fits in the solver's form; `factors` has a factor for each feature of each fit."""

    def __init__(
        self, fits: Sequence[Fit], factors: Sequence[Sequence[float]], scaled: ScaledFeatures
    ) -> None:
        self.fits, self.factors, self.scaled = fits, factors, scaled
        self._names = list(dict.fromkeys(name for fit in fits for name in fit.model.features))
        # For each feature name, the indices of the fits that use it.
        self._members = [
            np.flatnonzero([name in fit.model.features for fit in fits]) for name in self._names
        ]

    def solve(self, target: F32, weights: F32, link: Link) -> list[Position]:
        """Solve all fits for one target (outputs, clips)."""
        rows: Bools = np.asarray((weights > 0).any(axis=0), np.bool_)
        blocks = []
        for name, members in zip(self._names, self._members, strict=True):
            feature = self.scaled[name]
            factors = [
                of_fit[fit.model.features.index(name)]
                for fit, of_fit in zip(self.fits, self.factors, strict=True)
                if name in fit.model.features
            ]
            values = feature.values.take(rows)
            blocks.append(Block(values, members, np.array(factors), feature.spectrum))
        C, tol = np.array([(fit.C, fit.tol) for fit in self.fits]).T
        if link == "identity":
            # More precision costs only few steps for squared errors.
            tol = tol * 1e-3
        start = self._start(blocks, len(target))
        solution = solve(
            blocks, target[:, rows], weights[:, rows], C, link=link, tol=tol, start=start
        )
        return [
            Position(tuple(solution.coef[b][row] for b, row in self._rows(i)), intercept)
            for i, intercept in enumerate(solution.intercept)
        ]

    def scores(self, position: Position, i: int) -> F32:
        """Return the scores of a fit, float32 (clips to predict, outputs)."""
        fit = self.fits[i]
        scores = position.intercept.astype(np.float32)
        for name, coef, factor in zip(
            fit.model.features, position.coef, self.factors[i], strict=True
        ):
            values = self.scaled[name].values
            if fit.predict is not None:
                values = values.take(fit.predict)
            scores = scores + values.scores(coef * np.float32(factor)).T
        return scores

    def _rows(self, i: int) -> list[tuple[int, int]]:
        """Return, for each feature of a fit, its block and the fit's row in it."""
        blocks = [self._names.index(name) for name in self.fits[i].model.features]
        return [(b, int(np.searchsorted(self._members[b], i))) for b in blocks]

    def _start(self, blocks: Sequence[Block], n_outputs: int) -> Start | None:
        """Return the start of all fits, zeros for those without; None if all are without."""
        if not any(fit.start for fit in self.fits):
            return None
        intercept = np.zeros((len(self.fits), n_outputs))
        coef = [
            np.zeros((len(block.problems), n_outputs, block.values.shape[1]), np.float32)
            for block in blocks
        ]
        for i, fit in enumerate(self.fits):
            if fit.start is not None:
                intercept[i] = fit.start.intercept
                for (b, row), part in zip(self._rows(i), fit.start.coef, strict=True):
                    coef[b][row] = part
        return Start(tuple(coef), intercept)


def fits_by_batch(members: Sequence[int], fits: Sequence[Fit], size: int) -> list[list[int]]:
    """Split fits into batches of at most `size`; fits on the same clips stay together."""
    by_clips: dict[bytes, list[int]] = {}
    for i in members:
        by_clips.setdefault(fits[i].train.tobytes(), []).append(i)
    batches: list[list[int]] = [[]]
    for of_clips in by_clips.values():
        of_clips.sort(key=lambda i: fits[i].model.features)
        for start in range(0, len(of_clips), size):
            part = of_clips[start : start + size]
            if batches[-1] and len(batches[-1]) + len(part) > size:
                batches.append([])
            batches[-1].extend(part)
    return batches

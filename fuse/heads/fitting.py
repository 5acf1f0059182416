"""Joint fitting of the heads of all models and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Clips, Matrix
from mvemo.fuse.heads.blocks import SPANNED, Block, ScaledFeatures
from mvemo.fuse.heads.head import Head, HeadSettings, inside
from mvemo.fuse.heads.kernel import KernelRidge
from mvemo.fuse.heads.solver import solve
from mvemo.fuse.models import Model
from mvemo.fuse.numeric import apply_link
from mvemo.fuse.scaling import Rows
from mvemo.manifests.array_types import F32, F64, Bools

# A fit ends if its mean loss per clip exceeds the minimum by at most this, in nats.
TOLERANCE = 1e-6
DEFAULT = HeadSettings()
# Minimum number of classes, or of clips with tags or values, to train a head.
MIN_DIFFERENT = 2
# Maximum number of scores (heads x outputs x clips) per batch: arrays of 1.2 MB; 1/32 of the values
# of a feature larger than the CPU cache; or 200 MB if every step reads the features from the file,
# so that many heads share a pass over the file.
BATCH_SCORES, BATCH_SHARE, BATCH_STREAMED = 300_000, 32, 50_000_000
# Maximum number of standardised values that are kept, to solve folds of few clips together.
MOST_VALUES = 1 << 23


@dataclass(frozen=True)
class Position:
    """Coefficients of a fit, in the coordinates of its `ScaledFeatures`."""

    coef: Mapping[str, F32]  # feature name to float32 (outputs, columns)
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
class TargetScale:
    """Scale of the targets of training clips, in their unit."""

    mean: F64
    deviation: F64
    ends: F64 | None = None  # (2, targets): least and largest values; None for classes and tags

    def outputs(self, scores: F64) -> F64:
        """Return values in the targets' unit, inside the range of the training clips."""
        return inside(scores * self.deviation + self.mean, self.ends)

    def standardised(self, values: F64) -> F64:
        """Return values in the targets' unit with a mean of 0 and a deviation of 1."""
        return (values - self.mean) / self.deviation


@dataclass(frozen=True)
class Fitted:
    """One solved fit."""

    fit: Fit
    outputs: F64  # float64 (clips to predict, outputs); NaN rows where a feature is missing
    position: Position
    target_scale: TargetScale


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
    """Fits heads over one set of feature values, in one or more calls."""

    def __init__(
        self,
        matrices: Mapping[str, Matrix],
        clips: Clips,
        settings: HeadSettings,
        net_fold: int | None = None,
    ) -> None:
        if settings.class_weight != "none" and clips.link != "softmax":
            raise BadFeatures(
                f"class_weight {settings.class_weight!r} of heads needs the task multiclass, got "
                f"{clips.task.name}: leave it at 'none'"
            )
        self.matrices = matrices
        self.clips = clips
        self.settings = settings
        self.net_fold = net_fold
        self._target = clips.target
        size = sum(int(np.prod(matrix.values.shape)) for matrix in matrices.values())
        few = len(clips.y_true) <= SPANNED
        #: Number of masks of clips to standardise on, such as folds, that are solved together.
        self.at_once: int = max(MOST_VALUES // max(size, 1), 1) if few else 1
        # These masks, as bytes, to the standardised features, those used last at the end.
        self._scaled: dict[bytes, ScaledFeatures] = {}

    def fit(self, fits: Sequence[Fit], *, strict: bool = False) -> list[Fitted]:
        """Solve fits; omit those with too few training clips or, if `strict`, raise for them."""
        # Number of a fit to bool (clips,): clips with all features, and training clips.
        valid: dict[int, Bools] = {}
        train: dict[int, Bools] = {}
        together: dict[tuple[int, bytes], list[int]] = {}
        masks: dict[bytes, int] = {}
        for i, fit in enumerate(fits):
            present = [self.matrices[name].present for name in fit.model.features]
            valid[i] = np.logical_and.reduce(present)
            train[i] = valid[i] & fit.train
            count = count_different(self.clips, train[i])
            if count >= MIN_DIFFERENT:
                number = masks.setdefault(_rows_scaled_on(fit).tobytes(), len(masks))
                # Of many clips, targets of regression are not kept for each fit.
                is_one = self.at_once == 1 and self.clips.link == "identity"
                key = number // self.at_once, fit.train.tobytes() if is_one else b""
                together.setdefault(key, []).append(i)
            elif strict:
                unit = "classes" if self.clips.link == "softmax" else "clips"
                raise BadFeatures(
                    f"{fit}: expected at least {MIN_DIFFERENT} {unit} among the training clips "
                    f"that have all of its features, got {count}"
                )
        fitted: dict[int, Fitted] = {}
        for members in together.values():
            fitted |= self._fit_together(members, fits, valid, train)
        return [fitted[i] for i in sorted(fitted)]

    def head(self, fitted: Fitted) -> Head:
        """Convert a solved fit to a head over cached values."""
        fit, position = fitted.fit, fitted.position
        scaled = self._scaled_on(fit)
        coef = [
            scaled[name].raw_coef(position.coef[name] * factor)
            for name, factor in self._factors(fit.model).items()
        ]
        target = fitted.target_scale
        return Head(
            coef=(np.concatenate(coef, axis=1) * target.deviation[:, None]).astype(np.float32),
            intercept=position.intercept * target.deviation + target.mean,
            ends=target.ends,
            **self._head_fields(fit),
        )

    def kernel_head(self, fit: Fit, ridge: KernelRidge, slope: float, target: TargetScale) -> Head:
        """Convert a kernel head over the columns of `standardised` to a head over cached values."""
        factors = self._factors(fit.model).items()
        dims = [self.matrices[name].values.shape[1] for name, _ in factors]
        return Head(
            coef=(ridge.dual * target.deviation).T.astype(np.float32),
            intercept=np.broadcast_to(target.mean, ridge.dual.shape[1:]).astype(np.float64),
            ends=target.ends,
            rows=ridge.rows,
            factor=np.repeat([float(factor) for _, factor in factors], dims),
            slope=slope,
            **self._head_fields(fit),
        )

    def _head_fields(self, fit: Fit) -> dict[str, Any]:
        scaled = self._scaled_on(fit)
        scalings = [scaled[name].scaling for name in fit.model.features]
        return {
            "model": fit.model.name,
            "features": fit.model.features,
            "fold": fit.fold,
            "net_fold": self.net_fold,
            "mean": np.concatenate([scaling.shift for scaling in scalings]),
            "scale": np.concatenate([scaling.scale for scaling in scalings]),
            "C": fit.C,
            "link": self.clips.link,
            "inputs": self.settings.inputs,
            "limit": scalings[0].limit,
        }

    def standardised(self, fit: Fit) -> tuple[F32, Bools]:
        """Return a fit's columns in memory (clips, dim), and True for complete clips."""
        scaled, parts = self._scaled_on(fit), []
        for name, factor in self._factors(fit.model).items():
            feature = scaled[name]
            parts += [factor * feature.raw_coef(block) for _, block in feature.values.blocks()]
        present = [self.matrices[name].present for name in fit.model.features]
        return np.concatenate(parts, axis=1), np.logical_and.reduce(present)

    def clip_weights(self, target: F64) -> F32:
        """Return the weights of clips with these targets (clips, outputs): float32 (clips,)."""
        weights = np.ones((1, len(target)), np.float32)
        if self.settings.class_weight == "balanced":
            weights = balance(weights, target.T.astype(np.float32))
        return weights[0]

    def _scaled_on(self, fit: Fit) -> ScaledFeatures:
        """Return the features standardised for a fit; those of the last `at_once` are kept."""
        key = (rows := _rows_scaled_on(fit)).tobytes()
        scaled = self._scaled.pop(key, None)
        if scaled is None:
            last = next(reversed(self._scaled.values()), None)
            scaled = last.on(rows) if last else ScaledFeatures(self.matrices, rows)
            if len(self._scaled) == self.at_once:
                del self._scaled[next(iter(self._scaled))]
        self._scaled[key] = scaled
        return scaled

    def _fit_together(
        self,
        members: Sequence[int],
        fits: Sequence[Fit],
        valid: Mapping[int, Bools],
        train: Mapping[int, Bools],
    ) -> dict[int, Fitted]:
        """Solve fits in batches."""
        fitted = {}
        streamed = any(isinstance(matrix.values, Rows) for matrix in self.matrices.values())
        largest = max(np.prod(matrix.values.shape) for matrix in self.matrices.values())
        n_scores = BATCH_STREAMED if streamed else max(BATCH_SCORES, int(largest) // BATCH_SHARE)
        size = n_scores // self._target.size
        for batch in fits_by_batch(members, fits, max(size, 1)):
            scales, target = self._targets([fits[i] for i in batch])
            weights = np.array([train[i] for i in batch], np.float32)
            if self.settings.class_weight == "balanced":
                weights *= balance(weights, self._target)
            positions = self._solve([fits[i] for i in batch], target, weights)
            for i, position, scale in zip(batch, positions, scales, strict=True):
                fit = fits[i]
                scaled = self._scaled_on(fit)
                predict = np.ones_like(valid[i]) if fit.predict is None else fit.predict
                scores = position.intercept.astype(np.float32)
                for name, factor in self._factors(fit.model).items():
                    rows = scaled[name].values.take(predict)
                    scores = scores + rows.scores(position.coef[name] * factor).T
                outputs = scale.outputs(apply_link(scores.astype(float), self.clips.link))
                outputs[~valid[i][predict]] = np.nan
                fitted[i] = Fitted(fit, outputs, position, scale)
        return fitted

    def _targets(self, fits: Sequence[Fit]) -> tuple[list[TargetScale], F32]:
        """Return the scale of each fit's target, and the targets (1 or fits, outputs, clips)."""
        if self.clips.link != "identity":
            unit = TargetScale(np.zeros(1), np.ones(self.clips.n_outputs))
            return [unit] * len(fits), self._target[None]
        values = self.clips.y_true.astype(float)
        by_train = {fit.train.tobytes(): target_scale(values[fit.train]) for fit in fits}
        scales = [by_train[fit.train.tobytes()] for fit in fits]
        different = scales[:1] if len(by_train) == 1 else scales
        # Targets of other clips, which the scale may not fit, are not used.
        pairs = zip(fits, different, strict=False)
        target = [np.where(fit.train, scale.standardised(values).T, 0.0) for fit, scale in pairs]
        return scales, np.array(target, np.float32)

    def _solve(self, fits: Sequence[Fit], target: F32, weights: F32) -> list[Position]:
        """Return the results of fits for the targets (1 or fits, outputs, clips)."""
        rows = np.logical_or.reduce(weights > 0)
        factors = [self._factors(fit.model) for fit in fits]
        scaled_on = [self._scaled_on(fit) for fit in fits]
        # The different ones, and the number of each fit's.
        different = list({id(scaled): scaled for scaled in scaled_on}.values())
        of = np.array([next(i for i, x in enumerate(different) if x is s) for s in scaled_on])
        # Feature name to the indices of the fits that use it.
        users = {
            name: [i for i in range(len(fits)) if name in factors[i]]
            for name in dict.fromkeys(name for of_fit in factors for name in of_fit)
        }
        blocks, start = [], []
        for name, members in users.items():
            matrices = [(scaled.take(name, rows), scaled[name].spectrum) for scaled in different]
            of_block = np.array([factors[i][name] for i in members])
            blocks.append(Block(matrices, of[members], np.array(members), of_block))
            zeros = np.zeros((target.shape[1], matrices[0][0].shape[1]), np.float32)
            starts = [fits[i].start for i in members]
            coef = [one.coef[name] if one else zeros for one in starts]
            start.append(np.array(coef, np.float32))
        intercept = [fit.start.intercept if fit.start else [0.0] * target.shape[1] for fit in fits]
        C, tol = np.array([(fit.C, fit.tol) for fit in fits]).T
        if self.clips.link == "identity":
            # More precision costs only few steps for squared errors.
            tol = tol * 1e-3
        start.append(np.array(intercept, np.float32))
        *solved, intercepts = solve(
            blocks, start, target[:, :, rows], weights[:, rows], C, tol, self.clips.link
        )
        coefs = dict(zip(users, solved, strict=True))
        return [
            Position({name: coefs[name][users[name].index(i)] for name in factors[i]}, intercept)
            for i, intercept in enumerate(intercepts.astype(float))
        ]

    def _factors(self, model: Model) -> dict[str, np.float32]:
        """Map each feature to the factor of its columns; 1 if the model has only one feature."""
        dims = {name: self.matrices[name].values.shape[1] for name in model.features}
        if not self.settings.balance_blocks:
            dims = dict.fromkeys(dims, 1)
        mean = np.mean(list(dims.values()))
        return {name: np.float32(np.sqrt(mean / dim)) for name, dim in dims.items()}


def _rows_scaled_on(fit: Fit) -> Bools:
    return fit.train if fit.scaled_on is None else fit.scaled_on


def target_scale(values: F64) -> TargetScale:
    """Return the scale of targets (clips, targets); the deviation of constant targets is 1."""
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    deviation[deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-30)] = 1.0
    return TargetScale(mean, deviation, np.stack([values.min(axis=0), values.max(axis=0)]))


def count_different(clips: Clips, rows: Bools) -> int:
    """Return the number of classes, or of clips with tags or values, among the clips in `rows`."""
    labels = clips.y_true[rows]
    return len(np.unique(labels) if clips.link == "softmax" else labels)


def scaled_target(clips: Clips, rows: Bools) -> tuple[F64, TargetScale]:
    """Return targets of the clips in `rows`, float64 (clips, outputs), and their scale."""
    if clips.link == "identity":
        labels = clips.y_true[rows].astype(float)
        scale = target_scale(labels)
        return scale.standardised(labels), scale
    unit = TargetScale(np.zeros(1), np.ones(clips.n_outputs))
    return clips.target.T[rows].astype(float), unit


def balance(weights: F32, target: F32) -> F32:
    """Return factors (fits, clips) that give all classes the same weight, as in scikit-learn."""
    counts = (weights > 0).astype(np.float32) @ target.T
    present = counts > 0
    factor = counts.sum(axis=1, keepdims=True) / (
        present.sum(axis=1, keepdims=True) * np.where(present, counts, 1.0)
    )
    return np.where(present, factor, 0.0).astype(np.float32) @ target


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

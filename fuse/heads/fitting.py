"""The heads of all models and folds, fitted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mvemo.fuse.arrays import F32, F64, Bools
from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.heads.solver import Solution, Start, solve
from mvemo.fuse.links import Link, apply_link
from mvemo.fuse.models import Model

DEFAULT = HeadSettings()
# Classes, or clips with tags or values, that a head is trained on at least.
MIN_DIFFERENT = 2
# Largest entry of the gradient that a fit ends with.
TOLERANCE = 1e-4
# Scores that are solved for at once (heads x outputs x clips): some arrays of 1.2 MB.
BATCH_SCORES = 300_000


@dataclass(frozen=True)
class Fit:
    """One head to be fitted.

    Parameters
    ----------
    model
        Whose features it concatenates.
    fold
        Left out; None to train on all clips.
    train
        bool (clips,): its training clips. Those without one of its features are left out.
    C
        Inverse strength of its L2 penalty, above 0.
    tol
        Largest entry of the gradient at which its fitting ends.
    predict
        bool (clips,): clips whose outputs are given back; None for all.
    start
        A head of the same features to start from: of another C, or of other clips. None for
        zeros.
    """

    model: Model
    fold: int | None
    train: Bools
    C: float
    tol: float = TOLERANCE
    predict: Bools | None = None
    start: Head | None = None

    def __str__(self) -> str:
        return f"{self.model.name}, {'all clips' if self.fold is None else f'fold {self.fold}'}"


def fit_heads(
    fits: Sequence[Fit],
    matrices: Mapping[str, Matrix],
    clips: Clips,
    settings: HeadSettings = DEFAULT,
    *,
    net_fold: int | None = None,
) -> tuple[list[Head], list[F64]]:
    """Fit all heads at once: of classes (softmax), tags (logistic) or targets (least squares).

    Targets are standardised on each fit's training clips, so that the penalty and the
    tolerance mean the same for every one of them; heads give them in the labels' unit.

    Parameters
    ----------
    fits
        The heads.
    matrices
        Feature name to its values, of every feature that a model names.
    clips
        Labels and task; only labels of training clips are used.
    settings
        Of the heads; the strength of the penalty is each fit's own.
    net_fold
        Which fold's nets made the values, for the record.

    Returns
    -------
    The heads, and for each the outputs of the clips that it is to predict, float64 (clips,
    outputs), NaN rows where a feature is missing.

    Raises
    ------
    BadFeatures
        A head has training clips of fewer than two classes, or fewer than two of them; or
        settings that heads of this task do not have.

    See Also
    --------
    trainable : those of some fits that have enough training clips.
    mvemo.fuse.evaluate : every model and fold of a cache, scored.

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
    _check_settings(clips, settings)
    valid, weights = _training(fits, matrices)
    for fit, w in zip(fits, weights, strict=True):
        _check_training_clips(fit, w > 0, clips)
    if settings.class_weight == "balanced":
        weights = weights * balance(weights, clips.target)
    problems = _Problems(tuple(fits), matrices, valid, weights, clips.link, settings.balance_blocks)
    fitted = (
        _fit_targets(problems, clips) if clips.link == "identity" else problems.fit(clips.target)
    )
    heads = [replace(head, inputs=settings.inputs, net_fold=net_fold) for head, _ in fitted]
    return heads, [outputs for _, outputs in fitted]


def trainable(fits: Sequence[Fit], matrices: Mapping[str, Matrix], clips: Clips) -> list[Fit]:
    """Those of `fits` that have the training clips that `fit_heads` asks for."""
    if not fits:
        return []
    _, weights = _training(fits, matrices)
    return [
        fit
        for fit, w in zip(fits, weights, strict=True)
        if _n_different(w > 0, clips) >= MIN_DIFFERENT
    ]


def balance(weights: F32, target: F32) -> F32:
    """Factors that make all classes weigh the same in training, as scikit-learn's "balanced".

    Parameters
    ----------
    weights
        float32 (fits, clips): above 0 for the training clips of each fit.
    target
        float32 (classes, clips), one-hot.

    Returns
    -------
    float32 (fits, clips): n / (number of classes present * n of the clip's class).

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


@dataclass(frozen=True)
class _Problems:
    """Fits that share features and a link.

    `valid` is bool (fits, clips), clips with all features of each fit; `weights` float32
    (fits, clips), of training clips.
    """

    fits: tuple[Fit, ...]
    matrices: Mapping[str, Matrix]
    valid: Bools
    weights: F32
    link: Link
    balance_blocks: bool = False

    def take(self, members: Sequence[int]) -> _Problems:
        """Some of them."""
        return replace(
            self,
            fits=tuple(self.fits[i] for i in members),
            valid=self.valid[members],
            weights=self.weights[members],
        )

    def fit(self, target: F32) -> list[tuple[Head, F64]]:
        """Head and outputs of each, fitted to one target (outputs, clips).

        A few at once, so that memory is bounded by the features. Those of the same features
        together: they share products with them, and end at about the same step.
        """
        order = sorted(range(len(self.fits)), key=lambda i: self.fits[i].model.features)
        step = max(BATCH_SCORES // target.size, 1)
        fitted: dict[int, tuple[Head, F64]] = {}
        for start in range(0, len(order), step):
            members = order[start : start + step]
            fitted |= zip(members, self.take(members)._fit_batch(target), strict=True)
        return [fitted[i] for i in range(len(self.fits))]

    def _fit_batch(self, target: F32) -> list[tuple[Head, F64]]:
        names = list(dict.fromkeys(name for fit in self.fits for name in fit.model.features))
        blocks = [self._block(name) for name in names]
        C, tol = np.array([(fit.C, fit.tol) for fit in self.fits]).T
        start = self._start(blocks, names)
        solution = solve(blocks, target, self.weights, C, link=self.link, tol=tol, start=start)
        rows = {
            name: {int(i): row for row, i in enumerate(block.problems)}
            for name, block in zip(names, blocks, strict=True)
        }
        fitted = []
        for i, fit in enumerate(self.fits):
            places = [(names.index(name), rows[name][i]) for name in fit.model.features]
            fitted.append((self._head(i, solution, places), self._outputs(i, solution.scores[i])))
        return fitted

    def _block(self, name: str) -> Block:
        members = np.flatnonzero([name in fit.model.features for fit in self.fits])
        factors = None
        if self.balance_blocks:
            factors = np.array([self._factor(name, self.fits[i].model) for i in members])
        return Block(self.matrices[name].values, members, factors)

    def _start(self, blocks: Sequence[Block], names: Sequence[str]) -> Start | None:
        """Of the heads to start from; those of the problems without one are zeros."""
        if not any(fit.start for fit in self.fits):
            return None
        n_outputs = next(len(fit.start.intercept) for fit in self.fits if fit.start)
        intercept = np.zeros((len(self.fits), n_outputs))
        coef = [
            np.zeros((len(block.problems), n_outputs, block.values.shape[1]), np.float32)
            for block in blocks
        ]
        for i, fit in enumerate(self.fits):
            if fit.start is None:
                continue
            intercept[i] = fit.start.intercept
            ends = np.cumsum([self.matrices[f].values.shape[1] for f in fit.model.features])
            parts = np.split(fit.start.coef, ends[:-1], axis=1)
            for feature, part in zip(fit.model.features, parts, strict=True):
                b = names.index(feature)
                coef[b][np.searchsorted(blocks[b].problems, i)] = part
        return Start(tuple(coef), intercept)

    def _factor(self, name: str, model: Model) -> float:
        """What columns of a feature are multiplied by: 1 where a model has no other."""
        dims = [self.matrices[feature].values.shape[1] for feature in model.features]
        return float(np.sqrt(np.mean(dims) / self.matrices[name].values.shape[1]))

    def _head(self, i: int, solution: Solution, places: Sequence[tuple[int, int]]) -> Head:
        """Problem `i` as a head over cached values; `places` are (block, row) of its features."""
        fit = self.fits[i]
        mean, scale, coef = [], [], []
        for name, (block, row) in zip(fit.model.features, places, strict=True):
            matrix = self.matrices[name]
            mean.append(matrix.shift + matrix.spread * solution.mean[block][row])
            scale.append(matrix.spread * solution.scale[block][row])
            coef.append(solution.coef[block][row])
        return Head(
            model=fit.model.name,
            features=fit.model.features,
            fold=fit.fold,
            net_fold=None,
            mean=np.concatenate(mean),
            scale=np.concatenate(scale),
            coef=np.concatenate(coef, axis=1),
            intercept=solution.intercept[i],
            C=fit.C,
            link=self.link,
        )

    def _outputs(self, i: int, scores: F32) -> F64:
        """float64 (clips to predict, outputs), NaN rows where a feature is missing."""
        valid, predict = self.valid[i], self.fits[i].predict
        if predict is not None:
            scores, valid = scores[:, predict], valid[predict]
        outputs = apply_link(scores.T.astype(np.float64), self.link)
        outputs[~valid] = np.nan
        return outputs


def _fit_targets(problems: _Problems, clips: Clips) -> list[tuple[Head, F64]]:
    """As `_Problems.fit`, to targets that are standardised on the training clips.

    Fits with the same training clips are solved together: they share the target.
    """
    values = clips.y_true.astype(np.float64)
    fitted: dict[int, tuple[Head, F64]] = {}
    same_clips: dict[bytes, list[int]] = {}
    for i, fit in enumerate(problems.fits):
        same_clips.setdefault(fit.train.tobytes(), []).append(i)
    for members in same_clips.values():
        train = problems.fits[members[0]].train
        mean, scale = values[train].mean(axis=0), values[train].std(axis=0)
        scale[scale <= 1e-12 * np.maximum(np.abs(mean), 1e-30)] = 1.0
        target = np.ascontiguousarray(((values - mean) / scale).T, np.float32)
        some = problems.take(members)
        some = replace(some, fits=tuple(_standardised(fit, mean, scale) for fit in some.fits))
        for i, (head, outputs) in zip(members, some.fit(target), strict=True):
            head = replace(
                head,
                coef=(head.coef * scale[:, None]).astype(np.float32),
                intercept=head.intercept * scale + mean,
            )
            fitted[i] = head, outputs * scale + mean
    return [fitted[i] for i in range(len(problems.fits))]


def _standardised(fit: Fit, mean: F64, scale: F64) -> Fit:
    """A fit whose start, if any, is of targets standardised by these."""
    start = fit.start
    if start is None:
        return fit
    coef = (start.coef / scale[:, None]).astype(np.float32)
    intercept = (start.intercept - mean) / scale
    return replace(fit, start=replace(start, coef=coef, intercept=intercept))


def _training(fits: Sequence[Fit], matrices: Mapping[str, Matrix]) -> tuple[Bools, F32]:
    """Clips that have all features of each fit, and their weights in training (fits, clips)."""
    valid = np.array(
        [
            np.logical_and.reduce([matrices[name].present for name in fit.model.features])
            for fit in fits
        ]
    )
    train = np.array([fit.train for fit in fits])
    return valid, (valid & train).astype(np.float32)


def _n_different(train: Bools, clips: Clips) -> int:
    """Number of classes of training clips, or of clips where they have tags or values."""
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
    """Refuse settings of classes where heads are of tags or targets."""
    if settings.class_weight != "none" and clips.link != "softmax":
        raise BadFeatures(
            f"class_weight {settings.class_weight!r} of heads is for multiclass only, and the "
            f"task is {clips.task.name}: leave it at 'none'"
        )

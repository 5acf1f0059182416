"""The head, a linear layer with its standardisation, and the settings of heads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import F32, F64, Link, apply_link

# Beyond these, the loss or the penalty has no digits left in single precision.
MIN_C, MAX_C = 1e-10, 1e10
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all heads of an evaluation.

    Parameters
    ----------
    C
        Inverse strength of the L2 penalty, as in scikit-learn, if it is not chosen.
    choose_C
        Choose the strength for each head on inner folds of its training clips
        (`mvemo.fuse.crossval.strengths`).
    inner_folds
        Number of folds of the training clips, for that choice, stacking, temperatures and
        thresholds.
    class_weight
        ``balanced``: every class has the same weight in training, whatever its number of clips
        (for classes only, not for tags).
    balance_blocks
        Concatenated features have the same weight in the penalty, however many numbers each
        has: standardised columns are multiplied by the square root of the mean number of
        columns over the feature's own number. Heads of one feature do not change.
    inputs
        Inputs of the heads: cached ``features``, or ``log-probabilities``, ``log-odds`` or
        ``values`` of other heads (set by stacking).

    Raises
    ------
    BadFeatures
        A value is not allowed; the message names the range.

    Examples
    --------
    >>> HeadSettings(C=0.1, choose_C=False).C
    0.1
    >>> HeadSettings(inner_folds=1)
    Traceback (most recent call last):
    ...
    mvemo.fuse.errors.BadFeatures: inner_folds is 1: at least 2 is needed
    """

    C: float = 0.01
    choose_C: bool = True
    inner_folds: int = 3
    class_weight: str = "none"
    balance_blocks: bool = True
    inputs: str = field(default="features", metadata={"profile": False})

    def __post_init__(self) -> None:
        if self.class_weight not in CLASS_WEIGHTS:
            raise BadFeatures(
                f"class_weight of heads is {self.class_weight!r}: one of {', '.join(CLASS_WEIGHTS)}"
            )
        if self.inner_folds < 2:
            raise BadFeatures(f"inner_folds is {self.inner_folds}: at least 2 is needed")
        if not MIN_C <= self.C <= MAX_C:
            raise BadFeatures(f"C of heads is {self.C}: it must be from {MIN_C} to {MAX_C}")


@dataclass(frozen=True)
class Head:
    """A fitted linear layer over concatenated features, with its standardisation.

    Parameters
    ----------
    model
        Name of the head's model.
    features
        Names of the concatenated features, in order.
    fold
        Fold left out of the training; None for a head fitted on all clips.
    net_fold
        Fold whose nets made the features (``crossfit``); None if all folds share them.
    mean, scale
        float64 (dim,): the head reads (x - mean) / scale.
    limit
        Largest absolute standardised value, to which values are clipped; None for no limit.
    coef
        float32 (outputs, dim): coefficients of classes, tags or targets.
    intercept
        float64 (outputs,): intercepts.
    C
        Inverse strength of the L2 penalty.
    link
        Function from scores to outputs: ``softmax`` gives class probabilities, ``sigmoid`` a
        probability for each tag, ``identity`` values in the labels' unit.
    thresholds
        float64 (tags,): smallest probability that counts as a decision; only with ``sigmoid``.
    inputs
        Kind of input: cached ``features``, or ``log-probabilities``, ``log-odds`` or ``values``
        of the models that `features` names (`mvemo.fuse.numeric.decision_inputs`).

    See Also
    --------
    mvemo.fuse.fit_heads : fit heads.
    mvemo.fuse.load_heads : read the heads of an evaluation.

    Examples
    --------
    >>> import numpy as np
    >>> head = Head(
    ...     model="i3d", features=("i3d",), fold=None, net_fold=None,
    ...     mean=np.array([2.0]), scale=np.array([0.5]),
    ...     coef=np.array([[0.0], [1.0]], np.float32), intercept=np.zeros(2), C=0.01,
    ... )
    >>> head.predict(np.array([[2.0], [3.0]])).round(2)
    array([[0.5 , 0.5 ],
           [0.12, 0.88]])
    """

    model: str
    features: tuple[str, ...]
    fold: int | None
    net_fold: int | None
    mean: F64
    scale: F64
    coef: F32
    intercept: F64
    C: float
    link: Link = "softmax"
    thresholds: F64 | None = None
    inputs: str = "features"
    limit: float | None = None

    def predict(self, x: NDArray[np.floating]) -> F64:
        """Return outputs for clips.

        Parameters
        ----------
        x
            (clips, dim), of the kind that `inputs` names.

        Returns
        -------
        float64 (clips, outputs), see `link`. Rows sum to 1 only under ``softmax``.

        Raises
        ------
        BadFeatures
            `x` has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise BadFeatures(
                f"head {self.model} takes {len(self.mean)} numbers a clip, not {x.shape[1:]}"
            )
        z = (x - self.mean) / self.scale
        if self.limit is not None:
            np.clip(z, -self.limit, self.limit, out=z)
        scores: F64 = z @ self.coef.T + self.intercept
        return apply_link(scores, self.link)

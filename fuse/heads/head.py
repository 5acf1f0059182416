"""The head, a linear or kernel layer with its standardisation, and the settings of heads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.kernel import kernel, outputs_of
from mvemo.fuse.numeric import Link, apply_link
from mvemo.fuse.scaling import unit_rows
from mvemo.manifests.array_types import F32, F64
from mvemo.manifests.declared import check_settings, setting

# Outside these limits, the loss or the penalty is below single precision.
MIN_C, MAX_C = 1e-10, 1e10
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all heads of an evaluation.

    With `balance_blocks`, standardised columns are multiplied by sqrt(mean number of columns of all
    features / number of columns of this feature). `inputs` is `Head.inputs`. Raise `BadOption`
    if a value is not allowed.

    Examples
    --------
    >>> HeadSettings(inner_folds=1)
    Traceback (most recent call last):
    ...
    mvemo.manifests.errors.BadOption: inner_folds is 1: it must be 2 or more
    """

    C: float = setting(0.01, "Inverse strength of the L2 penalty.", ge=MIN_C, le=MAX_C)
    choose_C: bool = setting(True, "Choose the strength for each head on inner folds.")
    inner_folds: int = setting(3, "Folds of the training clips for this and other choices.", ge=2)
    class_weight: str = setting(
        "none", "`balanced`: every class has the same weight.", names=CLASS_WEIGHTS
    )
    balance_blocks: bool = setting(True, "Every concatenated feature has the same weight.")
    inputs: str = setting("features", profile=False)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Head:
    """A fitted layer over concatenated features, with its standardisation.

    With `rows` it is a kernel head (`mvemo.fuse.heads.kernel`), otherwise a linear one.

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
        float32 (outputs, dim): coefficients of classes, tags or targets; of a kernel head
        float32 (outputs, rows).
    intercept
        float64 (outputs,): intercepts.
    C
        Inverse strength of the L2 penalty.
    link
        Function from scores to outputs: ``softmax`` for classes, ``sigmoid`` for tags,
        ``identity`` for values in the labels' unit.
    thresholds
        float64 (tags,): smallest probability that counts as a decision; only with ``sigmoid``.
    inputs
        Kind of input: cached ``features``, or ``log-probabilities``, ``log-odds`` or ``values``
        of the models that `features` names (`mvemo.fuse.numeric.decision_inputs`).
    rows
        float32 (rows, dim): training vectors of length 1, only of a kernel head.
    factor
        float64 (dim,): factor of the standardised columns, only of a kernel head.
    slope
        Exponent of the scores of classes, only of a kernel head.
    ends
        float64 (2, targets): least and largest values of the training clips, inside which outputs
        stay; only with ``identity``.

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
    rows: F32 | None = None
    factor: F64 | None = None
    slope: float = 1.0
    ends: F64 | None = None

    def predict(self, x: NDArray[np.floating]) -> F64:
        """Return outputs, float64 (clips, outputs), for inputs `x` (clips, dim).

        Raise `BadFeatures` if `x` has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise BadFeatures(
                f"head {self.model}: expected shape (clips, {len(self.mean)}), got {x.shape}"
            )
        z = (x - self.mean) / self.scale
        if self.limit is not None:
            np.clip(z, -self.limit, self.limit, out=z)
        if self.rows is None or self.factor is None:
            return inside(apply_link(z @ self.coef.T + self.intercept, self.link), self.ends)
        unit = unit_rows((z * self.factor).astype(np.float32))
        scores = kernel(unit, self.rows) @ self.coef.T + self.intercept
        return inside(outputs_of(scores, self.link, self.slope), self.ends)


def inside(outputs: F64, ends: F64 | None) -> F64:
    """Return outputs limited to their least and largest values (2, outputs), if these exist."""
    return outputs if ends is None else np.clip(outputs, *ends)

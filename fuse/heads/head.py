"""A fitted head: its layer, its standardisation, its outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.arrays import F32, F64
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.links import Link, apply_link


@dataclass(frozen=True)
class Head:
    """A fitted linear layer over concatenated features, with its standardisation.

    Parameters
    ----------
    model
        Name of the model that it belongs to.
    features
        Those it concatenates, in order.
    fold
        The fold left out of its training; None for one fitted on all clips.
    net_fold
        Which fold's nets made its features (``crossfit``); None where all folds share one.
    mean, scale
        float64 (dim,): x is standardised to (x - mean) / scale first.
    limit
        Largest absolute standardised value: what is beyond is stopped there; None for none.
    coef
        float32 (outputs, dim): of classes, tags or targets.
    intercept
        float64 (outputs,).
    C
        Inverse strength of its L2 penalty.
    link
        What makes outputs of the layer's scores: ``softmax`` class probabilities,
        ``sigmoid`` a probability for each tag, ``identity`` values in the labels' unit.
    thresholds
        ``sigmoid``: float64 (tags,), what a tag's probability must reach for a decision.
    inputs
        What it reads: cached ``features``, or the ``log-probabilities``, ``log-odds`` or
        ``values`` of the models that `features` then names
        (`mvemo.fuse.links.decision_inputs`).

    See Also
    --------
    mvemo.fuse.fit_heads : fit some.
    mvemo.fuse.load_heads : read those of an evaluation.

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
        """Outputs for clips.

        Parameters
        ----------
        x
            (clips, dim), of what it reads: see `inputs`.

        Returns
        -------
        float64 (clips, outputs): see `link`. Rows sum to 1 under ``softmax`` alone.

        Raises
        ------
        BadFeatures
            `x` has another width.
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

"""Losses of heads with a hidden layer: L1-L4 for classes (J22 2.4), L5 tags, L6 dimensions.

A head has features x_i, the outputs of its hidden layer, and scores made of them by its
last layer. The losses here are those of many heads at once, with their gradients. Where
equations 10 to 12 print sums over the mini-batch, every term is the weighted mean over
the training clips, so that tau keeps its meaning whatever the number of clips is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures

Loss = Literal["softmax", "angular", "centre", "improved-centre", "sigmoid", "identity"]
LOSSES: tuple[str, ...] = get_args(Loss)
# Those whose targets are one class a clip.
CENTRED = ("centre", "improved-centre")
# How far a centre moves (Wen et al. 2016, where the centre loss is from; J22 gives none).
CENTRE_RATE = 0.5

# float32 in use, float64 where a gradient is checked
Real = NDArray[np.floating[Any]]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Centres:
    """Term of the losses L3 and L4 on the features, which tau weighs (half included).

    Parameters
    ----------
    each
        (problems, clips): the term of each clip.
    slope
        (problems, dim, clips): its derivative by the features.
    """

    each: Real
    slope: Real


def check_loss(loss: str, tau: float) -> None:
    """Raise `BadFeatures` for an unknown loss, or a tau that is no number of 0 or more."""
    if loss not in LOSSES:
        raise BadFeatures(f"loss {loss!r} is not known: one of {', '.join(LOSSES)}")
    if not (math.isfinite(tau) and tau >= 0):
        raise BadFeatures(f"tau is {tau}: it must be 0 or more")


def score_loss(loss: Loss, scores: Real, target: Real) -> tuple[Real, Real]:
    """The part of a loss that is of the scores, and its derivative by them.

    Parameters
    ----------
    loss
        All but ``sigmoid`` and ``identity`` have softmax cross-entropy here (J22 eq. 6-8);
        ``sigmoid``: binary cross-entropy, summed over outputs (L5); ``identity``: half
        squared error, summed over outputs (L6).
    scores
        (problems, outputs, clips).
    target
        (problems or 1, outputs, clips).

    Returns
    -------
    (problems, clips) and (problems, outputs, clips), neither weighted.
    """
    each: Real
    if loss == "identity":
        residual = scores - target
        return 0.5 * np.square(residual).sum(axis=1), residual
    if loss == "sigmoid":
        each = (np.logaddexp(0.0, scores) - target * scores).sum(axis=1).astype(scores.dtype)
        return each, 0.5 * (1.0 + np.tanh(0.5 * scores)) - target
    top = scores.max(axis=1, keepdims=True)
    p = np.exp(scores - top)
    norm = p.sum(axis=1, keepdims=True)
    p /= norm
    each = (np.log(norm) + top)[:, 0] - (target * scores).sum(axis=1)
    p -= target
    return each, p


def centre_loss(loss: Loss, x: Real, centres: Real, target: Real) -> Centres:
    """The term on the features that `loss`, one of `CENTRED`, has besides cross-entropy.

    ``centre`` (J22 eq. 10): ||x_i - Q_{y_i}||² / 2. ``improved-centre`` (J22 eq. 11-12):
    that, divided by sum_{j != y_i} ||x_i - Q_j||² + 1. Eq. 11 prints x_j and Q_{y_j} in
    the denominator; the text wants the training sample far from the centres of the other
    classes, so it is x_i and Q_j.

    Parameters
    ----------
    x
        (problems, dim, clips): features.
    centres
        (problems, outputs, dim): Q.
    target
        (outputs, clips): one-hot.
    """
    own = x - np.matmul(centres.transpose(0, 2, 1), target)
    distance = np.einsum("phn,phn->pn", own, own)
    if loss == "centre":
        return Centres(0.5 * distance, own)
    # ||x||² - 2 Q x + ||Q||²: with the 1 beside it, its rounding does not matter.
    every = np.einsum("phn,phn->pn", x, x)[:, None, :] - 2.0 * np.matmul(centres, x)
    every += np.square(centres).sum(axis=2)[:, :, None]
    others = 1.0 - target
    below = np.maximum((every * others).sum(axis=1), 0.0) + 1.0
    # Sum of x - Q_j over the other classes
    away = x * others.sum(axis=0) - np.matmul(centres.transpose(0, 2, 1), others)
    away *= (distance / np.square(below))[:, None, :]
    own /= below[:, None, :]
    own -= away
    return Centres(0.5 * distance / below, own)


def move_centres(centres: Real, x: Real, target: Real, weights: Real) -> Real:
    """Centres after a step (J22: they change with the features that update them).

    J22 says no more, so they move as in Wen et al. 2016, eq. 4: Q_j -= rate sum over the
    clips of class j of (Q_j - x_i) / (1 + n_j). No gradient goes into them.

    Parameters
    ----------
    centres
        (problems, outputs, dim).
    x
        (problems, dim, clips): the features of the step.
    target
        (outputs, clips): one-hot.
    weights
        (problems, clips): how much a clip counts, mean 1 over those that train; 0 for others.
    """
    member = target[None] * weights[:, None, :]
    count = member.sum(axis=2)[:, :, None]
    pull = count * centres - np.matmul(member, x.transpose(0, 2, 1))
    moved: Real = centres - CENTRE_RATE * pull / (1.0 + count)
    return moved

"""The loss of many linear heads at once.

``softmax``: cross-entropy over classes (J22 eq. 6-8). ``sigmoid``: binary cross-entropy,
summed over tags. ``identity``: half the squared error, summed over targets. In all functions
`scores` are float32 (problems, outputs, clips), `target` is (outputs, clips) and `weights` are
(problems, 1, clips), whose rows sum to 1. The loss of a problem is the weighted mean over clips.
Results overwrite the given arrays where possible: arrays of the size of the scores are most of
the solver's memory.
"""

from __future__ import annotations

import numpy as np

from mvemo.fuse.arrays import F32, F64
from mvemo.fuse.links import Link


def residual_and_loss(scores: F32, target: F32, weights: F32, link: Link) -> tuple[F32, F64]:
    """Return weight * (prediction - target), shaped like the scores, and the loss (problems,)."""
    if link == "softmax":
        predicted, log_sum = _softmax(scores)
        each = log_sum - np.einsum("pkn,kn->pn", scores, target)
    elif link == "sigmoid":
        predicted = _sigmoid(scores)
        each = np.logaddexp(0.0, scores).sum(axis=1)
        each -= np.einsum("pkn,kn->pn", scores, target)
    else:
        predicted = scores.copy()
    residual = predicted
    residual -= target
    if link == "identity":
        each = 0.5 * np.einsum("pkn,pkn->pn", residual, residual)
    residual *= weights
    return residual, np.einsum("pn,pn->p", weights[:, 0], each, dtype=np.float64)


def curvature(scores: F32, direction: F32, weights: F32, link: Link) -> F64:
    """Return second derivatives of the loss along a direction of the scores, (problems,)."""
    if link == "softmax":
        p, _ = _softmax(scores)
        mean = np.einsum("pkn,pkn->pn", p, direction)
        each = np.einsum("pkn,pkn,pkn->pn", p, direction, direction) - mean * mean
    elif link == "sigmoid":
        p = _sigmoid(scores)
        each = np.einsum("pkn,pkn,pkn->pn", p * (1.0 - p), direction, direction)
    else:
        each = np.einsum("pkn,pkn->pn", direction, direction)
    result: F64 = np.einsum("pn,pn->p", weights[:, 0], each, dtype=np.float64)
    return result


def _softmax(scores: F32) -> tuple[F32, F32]:
    """Return probabilities, and log sum exp of the scores (problems, clips)."""
    largest = scores.max(axis=1, keepdims=True)
    p: F32 = scores - largest
    np.exp(p, out=p)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, (np.log(total) + largest)[:, 0]


def _sigmoid(scores: F32) -> F32:
    p = scores * np.float32(0.5)
    np.tanh(p, out=p)
    p += 1.0
    p *= 0.5
    return p

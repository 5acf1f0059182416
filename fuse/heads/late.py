"""Late fusion: the product of calibrated predictions of single features.

A product of experts (Hinton 2002, "Training products of experts", eq. 1) whose exponents are
not learned but calibrate each expert. The fused prediction is a linear layer on the outputs of
the single features' heads, so it is stored as a `Head`. Only one number per feature, or per
feature and target, is fitted. Unlike a stack, it needs no training clip that has all features,
and it works with any subset of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.links import DECISION_INPUTS, apply_link, decision_inputs
from mvemo.fuse.metrics.averages import complete, ratio
from mvemo.fuse.metrics.calibration import fit_temperature
from mvemo.fuse.models import LATE, Model, modalities_of

# Smallest mean squared error of a target, as a share of its variance: a feature must not get
# all of the weight because it happens to predict a few clips exactly.
MIN_ERROR = 1e-6


def late_bases(models: Sequence[Model]) -> tuple[Model, ...]:
    """Return the models to multiply: those of a single feature, if there are two or more.

    Examples
    --------
    >>> from mvemo.fuse import models_of
    >>> models = models_of({"music1d": "audio", "music2d": "audio", "i3d": "video"})
    >>> [model.name for model in late_bases(models)]
    ['music1d', 'music2d', 'i3d']
    """
    bases = tuple(model for model in models if len(model.features) == 1)
    return bases if len(bases) > 1 else ()


def late_model(bases: Sequence[Model]) -> Model:
    """Return the product as a model that needs all modalities of its bases."""
    features = tuple(name for base in bases for name in base.features)
    return Model(LATE, features, modalities_of(bases))


def late_weights(clips: Clips, outputs: F64) -> F64:
    """Return the weights of the bases' decision-level outputs, float64 (bases, outputs).

    `outputs` are (bases, clips, outputs), for clips that the bases' heads were not fitted on;
    NaN rows are left out. The weight of classes is 1 / T, the inverse temperature that
    calibrates the base (Guo et al. 2017, section 4.2). The weight of tags is 1, because log-odds
    of logistic heads are used as they are. The weight of a target is the inverse of the base's
    mean squared error, as for independent errors.
    """
    weights = np.ones((len(outputs), clips.n_outputs))
    for weight, values in zip(weights, outputs, strict=True):
        valid = complete(values)
        if clips.link == "sigmoid" or not valid.any():
            continue
        if clips.link == "softmax":
            scores = decision_inputs(values[valid], clips.link)
            weight[:] = 1.0 / fit_temperature(scores, clips.y_true[valid])
        else:
            variance = np.maximum(clips.y_true[valid].var(axis=0), np.finfo(np.float64).tiny)
            error = np.square(values[valid] - clips.y_true[valid]).mean(axis=0)
            # Divided by the variance, so that the weight has no unit.
            weight[:] = 1.0 / np.maximum(error / variance, MIN_ERROR)
    return weights


def late_outputs(clips: Clips, outputs: F64, weights: F64) -> F64:
    """Fuse the bases that predict a clip: a mean at decision level, back through the link.

    For classes this is the geometric mean of calibrated probabilities, renormalised; for tags
    the geometric mean of odds; for targets the weighted mean. Shapes are those of
    `late_weights`; rows that no base predicts are NaN.

    Examples
    --------
    Two features agree on what both think likely; the third is missing.

    >>> import numpy as np
    >>> from mvemo.fuse import Clips, task_of
    >>> clips = Clips(task_of("multiclass"), np.array([0]), ("a",), np.array([0]), n_outputs=3)
    >>> proba = np.array([[[0.6, 0.3, 0.1]], [[0.1, 0.3, 0.6]], [[np.nan] * 3]])
    >>> late_outputs(clips, proba, np.ones((3, 3))).round(2)
    array([[0.31, 0.38, 0.31]])
    """
    valid = complete(outputs)
    inputs = np.where(valid[:, :, None], decision_inputs(outputs, clips.link), 0.0)
    total = np.einsum("bnk,bk->nk", inputs, weights)
    share = np.einsum("bn,bk->nk", valid.astype(np.float64), _shares(clips, weights))
    fused = apply_link(np.nan_to_num(ratio(total, share)), clips.link)
    fused[~valid.any(axis=0)] = np.nan
    return fused


def late_head(
    clips: Clips, fold: int | None, names: Sequence[str], weights: F64, settings: HeadSettings
) -> Head:
    """Return the product of all bases as a layer over their decision-level outputs."""
    scaled = weights / _shares(clips, weights).sum(axis=0)
    dim = weights.size
    return Head(
        model=LATE,
        features=tuple(names),
        fold=fold,
        net_fold=None,
        mean=np.zeros(dim),
        scale=np.ones(dim),
        coef=np.concatenate([np.diag(w) for w in scaled], axis=1).astype(np.float32),
        intercept=np.zeros(clips.n_outputs),
        C=settings.C,
        link=clips.link,
        inputs=DECISION_INPUTS[clips.link],
    )


def late_part(head: Head, names: Sequence[str]) -> Head:
    """Return the product of only some of the bases, for clips that lack the others.

    Examples
    --------
    Three features count alike; two are left, and each counts half.

    >>> import numpy as np
    >>> from mvemo.fuse import Clips, task_of
    >>> from mvemo.fuse.heads.head import HeadSettings
    >>> clips = Clips(task_of("multiclass"), np.array([0]), ("a",), np.array([0]), n_outputs=2)
    >>> head = late_head(clips, None, ["i3d", "lld", "musicnn"], np.ones((3, 2)), HeadSettings())
    >>> late_part(head, ["i3d", "musicnn"]).coef
    array([[0.5, 0. , 0.5, 0. ],
           [0. , 0.5, 0. , 0.5]], dtype=float32)
    """
    n_outputs = len(head.intercept)
    # (outputs, bases, outputs): only the diagonals over outputs are not zero.
    blocks = head.coef.astype(np.float64).reshape(n_outputs, len(head.features), n_outputs)
    part = blocks[:, [head.features.index(name) for name in names]]
    if head.link == "identity":
        share = part.sum(axis=(1, 2))
    else:
        share = np.full(n_outputs, len(names) / len(head.features))
    coef = (part / share[:, None, None]).reshape(n_outputs, -1)
    zeros, ones = np.zeros(coef.shape[1]), np.ones(coef.shape[1])
    return replace(
        head, features=tuple(names), mean=zeros, scale=ones, coef=coef.astype(np.float32)
    )


def late_inner(clips: Clips, outputs: F64, inner_folds: Ints) -> F64:
    """Return products of a fold's training clips, by weights fitted on other inner folds."""
    result = np.full(outputs.shape[1:], np.nan)
    for j in range(int(inner_folds.max()) + 1):
        others = (inner_folds >= 0) & (inner_folds != j)
        weights = late_weights(clips, np.where(others[:, None], outputs, np.nan))
        rows = inner_folds == j
        result[rows] = late_outputs(clips, outputs[:, rows], weights)
    return result


def _shares(clips: Clips, weights: F64) -> F64:
    """Return each base's share in the divisor of the weighted sum."""
    return weights if clips.link == "identity" else np.ones_like(weights)

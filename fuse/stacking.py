"""F5 (b): the decision-level outputs of F1-F4, stacked to one prediction.

PL20 3.4 combines "the decision-level features" of the four fusions. The second layer is
a head on what they say; what it is trained on is made out-of-fold inside the training
folds, so that it learns how far each base can be trusted on clips that it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.clips import Clips
from mvemo.fuse.features import matrix_of
from mvemo.fuse.fitting import Fit, fit_heads
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Head
from mvemo.fuse.models import INTEGRATED, Model

F64 = NDArray[np.float64]
STACKED = "integrated-stacked"
# Few inputs, each of them a prediction already: a weaker penalty than that of features.
STACK_C = 0.1
# A base's surest word counts as no surer than this.
LEAST_PROBABILITY = 1e-4
# What the second layer reads of its bases, by their link.
INPUTS = {"softmax": "log-probabilities", "sigmoid": "log-odds", "identity": "values"}


def base_models(models: Sequence[Model]) -> tuple[Model, ...]:
    """The fusions of one feature each (F1-F4); single features where there are none."""
    pairs = [
        m
        for m in models
        if len(m.features) == 2 and len(m.modalities) == 2 and m.name != INTEGRATED
    ]
    singles = [m for m in models if len(m.features) == 1]
    bases = pairs if len(pairs) > 1 else singles
    return tuple(bases) if len(bases) > 1 else ()


def stacked_model(bases: Sequence[Model]) -> Model:
    """The stack as a model: it needs whatever its bases need."""
    features = tuple(dict.fromkeys(name for base in bases for name in base.features))
    kinds = tuple(k for k in ("audio", "video") if any(k in base.modalities for base in bases))
    return Model(STACKED, features, kinds)


def stack_fold(
    clips: Clips,
    fold: int,
    outputs: Mapping[str, F64],
    inner_folds: NDArray[np.int64],
    *,
    inner: bool = False,
) -> tuple[Head, F64, F64]:
    """Fit one fold's second layer and predict the fold's clips.

    Parameters
    ----------
    clips
        Labels, groups and folds.
    fold
        That is tested.
    outputs
        Name of a base to float64 (clips, outputs): for the fold's own clips what the base
        says that was trained on all others, for those inner out-of-fold predictions.
    inner_folds
        int64 (clips,), that those were made on.
    inner
        Also predict the training clips, each by a second layer that never saw it.

    Returns
    -------
    The head; the outputs of all clips, float64 (clips, outputs), of which those of the
    fold's own are out-of-fold; and float64 of the same shape, the inner ones or NaN.
    """
    matrices = {name: matrix_of(_inputs(values, clips)) for name, values in outputs.items()}
    model = _second(tuple(outputs))
    tested = clips.folds == fold
    fits = [Fit(model, fold, ~tested, STACK_C)]
    count = int(inner_folds.max()) + 1 if inner else 0
    for j in range(count):
        fits.append(Fit(model, fold, (inner_folds >= 0) & (inner_folds != j), STACK_C))
    heads, said = fit_heads(fits, matrices, clips, _settings(clips))
    held = np.full(said[0].shape, np.nan)
    for j in range(count):
        held[inner_folds == j] = said[1 + j][inner_folds == j]
    return heads[0], said[0], held


def stack_all(clips: Clips, outputs: Mapping[str, F64]) -> Head:
    """The second layer for new clips: fitted on all clips' out-of-fold predictions.

    Parameters
    ----------
    outputs
        Name of a base to its out-of-fold predictions, float64 (clips, outputs).
    """
    matrices = {name: matrix_of(_inputs(values, clips)) for name, values in outputs.items()}
    everything = np.ones(len(clips.labels), dtype=np.bool_)
    fit = Fit(_second(tuple(outputs)), None, everything, STACK_C)
    return fit_heads([fit], matrices, clips, _settings(clips))[0][0]


def _second(names: tuple[str, ...]) -> Model:
    return Model(STACKED, names, ("audio", "video"))


def _settings(clips: Clips) -> HeadSettings:
    return HeadSettings(inputs=INPUTS[clips.link])


def _inputs(outputs: F64, clips: Clips) -> NDArray[np.float32]:
    """Decisions on a scale where they add up."""
    if clips.link == "identity":
        return outputs.astype(np.float32)
    if clips.link == "softmax":
        return np.log(np.maximum(outputs, LEAST_PROBABILITY)).astype(np.float32)
    p = np.clip(outputs, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return np.log(p / (1.0 - p)).astype(np.float32)

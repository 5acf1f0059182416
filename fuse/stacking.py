"""F5 (b): the decision-level outputs of F1-F4, stacked to one prediction.

PL20 3.4 combines "the decision-level features" of the four fusions. The second layer is
a softmax head on their log-probabilities; those that it is trained on are made
out-of-fold inside the training folds, so that it learns how far each base can be trusted
on clips that it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.features import matrix_of
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Fit, Head, fit_heads
from mvemo.fuse.models import INTEGRATED, Model
from mvemo.fuse.views import Clips, View

F64 = NDArray[np.float64]
STACKED = "integrated-stacked"
# Few inputs, each of them a prediction already: a weaker penalty than that of features.
STACK_C = 0.1
# A base's surest word counts as no surer than this.
LEAST_PROBABILITY = 1e-4


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


def stack_fold(clips: Clips, view: View, bases: Sequence[Model], fold: int) -> tuple[Head, F64]:
    """Fit one fold's second layer and predict the fold's clips.

    Returns
    -------
    The head, whose inputs are log-probabilities of the bases, and the probabilities of
    all clips, float64 (clips, classes); those of the fold's own are out-of-fold.
    """
    names = tuple(base.name for base in bases)
    tested = clips.folds == fold
    matrices = {}
    for base in bases:
        # The second layer's training inputs are inner predictions, its test inputs those
        # of the bases trained on all training clips.
        values = view.inner[base.features, fold].astype(np.float64)
        values[tested] = view.scored[base.features, fold]
        matrices[base.name] = matrix_of(_logs(values))
    model = Model(STACKED, names, ("audio", "video"))
    heads, outputs = fit_heads(
        [Fit(model, fold, ~tested, STACK_C)],
        matrices,
        clips.labels,
        clips.n_classes,
        HeadSettings(inputs="log-probabilities"),
        clips.groups,
    )
    return heads[0], outputs[0]


def stack_all(clips: Clips, outputs: Mapping[str, F64], bases: Sequence[Model]) -> Head:
    """The second layer for new clips: fitted on all clips' out-of-fold predictions.

    Parameters
    ----------
    outputs
        Name of a base to its out-of-fold probabilities, float64 (clips, classes).
    """
    names = tuple(base.name for base in bases)
    matrices = {name: matrix_of(_logs(outputs[name])) for name in names}
    everything = np.ones(len(clips.labels), dtype=np.bool_)
    heads, _ = fit_heads(
        [Fit(Model(STACKED, names, ("audio", "video")), None, everything, STACK_C)],
        matrices,
        clips.labels,
        clips.n_classes,
        HeadSettings(inputs="log-probabilities"),
        clips.groups,
    )
    return heads[0]


def _logs(probabilities: F64) -> NDArray[np.float32]:
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY)).astype(np.float32)

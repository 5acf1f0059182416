"""Stacking: a second layer over the decision-level outputs of other models.

PL20 3.4 combines "the decision-level features" of the four fusions. The second layer is a head
on their outputs. It is trained on outputs that are made out-of-fold inside the training folds,
so it learns how far to trust each base model on clips that the base never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.clips import Clips
from mvemo.fuse.features import Matrix, matrix_of
from mvemo.fuse.heads.fitting import Fit, fit_heads, trainable
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.links import DECISION_INPUTS, decision_inputs
from mvemo.fuse.models import INTEGRATED, STACKED, Model, modalities_of

# Its few inputs are already predictions, so its penalty is weaker than that of features.
STACK_C = 0.1


def base_models(models: Sequence[Model]) -> tuple[Model, ...]:
    """Return the models to stack: fusions of one feature per modality, or single features.

    Only fusions of the most modalities count. Single features are stacked if there are fewer
    than two such fusions. The result is empty if there are fewer than two models to stack.

    Examples
    --------
    >>> from mvemo.fuse import models_of
    >>> models = models_of({"music1d": "audio", "music2d": "audio", "i3d": "video"})
    >>> [model.name for model in base_models(models)]
    ['i3d+music1d', 'i3d+music2d']
    """
    fusions = [
        m for m in models if len(m.features) == len(m.modalities) > 1 and m.name != INTEGRATED
    ]
    most = max((len(m.modalities) for m in fusions), default=0)
    fusions = [m for m in fusions if len(m.modalities) == most]
    singles = [m for m in models if len(m.features) == 1]
    bases = fusions if len(fusions) > 1 else singles
    return tuple(bases) if len(bases) > 1 else ()


def stacked_model(bases: Sequence[Model]) -> Model:
    """Return the stack as a model that needs all modalities of its bases."""
    features = tuple(dict.fromkeys(name for base in bases for name in base.features))
    return Model(STACKED, features, modalities_of(bases))


def stack_fold(
    clips: Clips,
    fold: int,
    outputs: Mapping[str, F64],
    inner_folds: Ints,
    *,
    inner: bool = False,
) -> tuple[Head | None, F64, F64]:
    """Fit one fold's second layer and predict the fold's clips.

    `outputs` are float64 (clips, outputs) of each base: of the head that left the fold out for
    the fold's clips, inner out-of-fold predictions for the others. Return the head (None if too
    few training clips have its inputs), the outputs of the fold's clips and, if `inner`, those of
    the training clips; both are NaN elsewhere. Inner outputs are somewhat optimistic, because
    the bases' heads behind this layer saw the predicted clip.
    """
    matrices = _matrices(outputs, clips)
    model = Model(STACKED, tuple(outputs), ())
    tested = clips.folds == fold
    fold_outputs, inner_outputs = np.full((2, len(tested), clips.n_outputs), np.nan)
    outer = Fit(model, fold, ~tested, STACK_C, predict=tested)
    if not trainable([outer], matrices, clips):
        return None, fold_outputs, inner_outputs
    inner_fits = [
        Fit(model, fold, (inner_folds >= 0) & (inner_folds != j), STACK_C, predict=inner_folds == j)
        for j in range(int(inner_folds.max()) + 1 if inner else 0)
    ]
    fits = [outer, *trainable(inner_fits, matrices, clips)]
    heads, predicted = fit_heads(fits, matrices, clips, _settings(clips))
    fold_outputs[tested] = predicted[0]
    for fit, values in zip(fits[1:], predicted[1:], strict=True):
        inner_outputs[fit.predict] = values
    return heads[0], fold_outputs, inner_outputs


def stack_all(clips: Clips, outputs: Mapping[str, F64]) -> Head:
    """Fit the second layer for new clips on all clips' out-of-fold predictions."""
    matrices = _matrices(outputs, clips)
    all_clips = np.ones(len(clips.y_true), dtype=np.bool_)
    fit = Fit(Model(STACKED, tuple(outputs), ()), None, all_clips, STACK_C, predict=~all_clips)
    return fit_heads([fit], matrices, clips, _settings(clips))[0][0]


def _matrices(outputs: Mapping[str, F64], clips: Clips) -> dict[str, Matrix]:
    return {
        name: matrix_of(decision_inputs(values, clips.link).astype(np.float32))
        for name, values in outputs.items()
    }


def _settings(clips: Clips) -> HeadSettings:
    return HeadSettings(inputs=DECISION_INPUTS[clips.link])

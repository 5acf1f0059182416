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
from mvemo.fuse.features import Matrix, matrix_of
from mvemo.fuse.heads.fitting import Fit, fit_heads, fits_with_clips
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.links import DECISION_INPUTS, decision_inputs
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.models import INTEGRATED, STACKED, Model

F64 = NDArray[np.float64]
# Few inputs, each of them a prediction already: a weaker penalty than that of features.
STACK_C = 0.1


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
) -> tuple[Head | None, F64, F64]:
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
        Also predict the training clips, each by a second layer that was not fitted on it.
        The bases' words for the clips that this layer was fitted on come from heads that
        did see it, so these predictions are somewhat better than those of new clips; what
        rests on them (thresholds, temperatures) may be off, but no tested clip has a part
        in it.

    Returns
    -------
    The head, or None where too few training clips have what its bases need; its outputs for
    the fold's own clips, float64 (clips, outputs), NaN elsewhere; and the inner ones alike.
    """
    matrices = _matrices(outputs, clips)
    model = _second(tuple(outputs))
    tested = clips.folds == fold
    said, held = np.full((2, len(tested), clips.n_outputs), np.nan)
    fit = Fit(model, fold, ~tested, STACK_C, wanted=tested)
    if not fits_with_clips([fit], matrices, clips):
        return None, said, held
    inside = [
        Fit(model, fold, (inner_folds >= 0) & (inner_folds != j), STACK_C, wanted=inner_folds == j)
        for j in range(int(inner_folds.max()) + 1 if inner else 0)
    ]
    fits = [fit, *fits_with_clips(inside, matrices, clips)]
    heads, (own, *said_inside) = fit_heads(fits, matrices, clips, _settings(clips))
    said[tested] = own
    for one, values in zip(fits[1:], said_inside, strict=True):
        held[one.wanted] = values
    return heads[0], said, held


def stack_all(clips: Clips, outputs: Mapping[str, F64]) -> Head:
    """The second layer for new clips: fitted on all clips' out-of-fold predictions.

    Parameters
    ----------
    outputs
        Name of a base to its out-of-fold predictions, float64 (clips, outputs).
    """
    matrices = _matrices(outputs, clips)
    everything = np.ones(len(clips.y_true), dtype=np.bool_)
    fit = Fit(_second(tuple(outputs)), None, everything, STACK_C, wanted=~everything)
    return fit_heads([fit], matrices, clips, _settings(clips))[0][0]


def _matrices(outputs: Mapping[str, F64], clips: Clips) -> dict[str, Matrix]:
    return {
        name: matrix_of(decision_inputs(values, clips.link).astype(np.float32))
        for name, values in outputs.items()
    }


def _second(names: tuple[str, ...]) -> Model:
    return Model(STACKED, names, ("audio", "video"))


def _settings(clips: Clips) -> HeadSettings:
    return HeadSettings(inputs=DECISION_INPUTS[clips.link])

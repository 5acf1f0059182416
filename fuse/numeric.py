"""Array types of stage two, links from scores to outputs, and means that allow undefined values."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy  # imports scipy.special at its first use, which takes 0.2 s
from numpy.typing import NDArray

from mvemo.manifests.array_types import F64, Ints

# Labels of clips, as `Task.read_labels` returns them.
Labels = NDArray[Any]

Link = Literal["softmax", "sigmoid", "identity"]
# Link of the heads below a second layer to the kind of its inputs.
DECISION_INPUTS: dict[Link, str] = {
    "softmax": "log-probabilities",
    "sigmoid": "log-odds",
    "identity": "values",
}
# Smallest probability that a second layer reads: one overconfident head must not outvote others.
MIN_PROBABILITY = 1e-4
# Scores or losses that differ by a smaller share are equal, because they differ between machines.
TIE = 1e-6


def apply_link(scores: F64, link: Link) -> F64:
    """Turn scores of a linear layer, float64 (clips, outputs), into outputs."""
    if link == "softmax":
        return softmax(scores)
    if link == "sigmoid":
        return np.asarray(scipy.special.expit(scores), dtype=np.float64)
    return scores


def decision_inputs(outputs: F64, link: Link) -> F64:
    """Convert probabilities to log-probabilities or log-odds for a second layer; copy values."""
    if link == "identity":
        return outputs.copy()
    if link == "softmax":
        return np.asarray(np.log(np.maximum(outputs, MIN_PROBABILITY)), dtype=np.float64)
    p = np.clip(outputs, MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
    return np.asarray(np.log(p / (1.0 - p)), dtype=np.float64)


def softmax(scores: F64) -> F64:
    """Convert scores to probabilities that sum to 1 over the last axis (J22 eq. 6)."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Measures(NamedTuple):
    """Scores of one set of clips; NaN for an undefined score."""

    overall: Mapping[str, float]  # name of a score to its value over all outputs
    per_output: Mapping[str, F64]  # name of a score to float64 (outputs,)


def mean_of_finite(values: F64) -> float:
    """Return the mean of the finite numbers; NaN if there are none."""
    return float(mean_finite(values, axis=0))


def mean_finite(values: F64, axis: int) -> F64:
    """Return the mean of the finite numbers along an axis; NaN if there are none."""
    finite = np.isfinite(values)
    n = finite.sum(axis=axis)
    total = np.where(finite, values, 0.0).sum(axis=axis)
    return ratio(total, n)


def ratio(numerator: F64, denominator: F64) -> F64:
    """Divide two arrays, with NaN where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    result = np.full(shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result


def codes_of(names: Sequence[object] | NDArray[Any]) -> Ints:
    """Return the number of each name among the distinct names, sorted: int64 (names,)."""
    return np.unique(np.asarray(names), return_inverse=True)[1]


def complete(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return True for each row (last axis) that has no NaN or infinity."""
    return np.isfinite(values).all(axis=-1)


def best_index(values: Sequence[float]) -> int:
    """Return the index of the first value that is the largest up to `TIE`; NaN is least."""
    known = np.nan_to_num(np.array(values, np.float64), nan=-np.inf)
    return int(np.argmax(known >= known.max() - TIE * np.abs(known.max())))


class Spread(NamedTuple):
    """Smallest, mean and largest of the finite values; NaN if there are none."""

    min: float
    mean: float
    max: float


def spread(values: F64) -> Spread:
    """Return the minimum, mean and maximum of the finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Spread(np.nan, np.nan, np.nan)
    return Spread(float(finite.min()), float(finite.mean()), float(finite.max()))

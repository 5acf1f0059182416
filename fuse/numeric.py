"""Array types of stage two, and links: functions from the scores of a linear layer to outputs."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
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


def apply_link(scores: F64, link: Link) -> F64:
    """Turn scores of a linear layer, float64 (clips, outputs), into outputs."""
    if link == "softmax":
        return softmax(scores)
    return np.asarray(expit(scores), dtype=np.float64) if link == "sigmoid" else scores


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

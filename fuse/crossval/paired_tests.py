"""Paired tests of two models, and the correction for several tests.

With four folds or more, the differences of the folds are tested by the corrected resampled t
(Nadeau & Bengio 2003). With fewer folds, or equal differences in all folds, that statistic
means nothing: then the models' predictions are exchanged, group by group (Pitman 1937).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from mvemo.fuse.bootstrap import BLOCK_BYTES, Resamples
from mvemo.fuse.numeric import Labels, complete, mean_finite, mean_of_finite
from mvemo.fuse.tasks.base import Task
from mvemo.manifests.array_types import F64, Bools, Ints

# The fewest folds whose differences are tested by t.
MIN_FOLDS = 4
# With up to so many groups on which the models differ, all exchanges are tried.
EXHAUSTIVE = 12
N_EXCHANGES = 9999


@dataclass(frozen=True)
class FoldedOutputs:
    """Out-of-fold outputs of models on one set of folds."""

    task: Task
    y_true: Labels
    groups: Sequence[str]  # group of each clip
    folds: Ints  # int64 (clips,): -1 for clips that no fold tests
    k: int  # number of folds
    # Model name to float64 (clips, outputs); NaN rows for clips without a prediction.
    outputs: Mapping[str, F64]

    def pair(self, model: str, reference: str) -> F64:
        """Return both models' outputs, float64 (2, clips, outputs); NaN rows if one is missing."""
        both = np.stack([self.outputs[model], self.outputs[reference]])
        both[:, ~complete(both).all(axis=0)] = np.nan
        return both


def exchange_test(repeats: Sequence[FoldedOutputs], model: str, reference: str) -> float:
    """Return the two-sided p-value of exchanging both models' predictions in whole groups.

    The statistic is the difference of the primary metric on the clips that both predicted. The
    p-value is exact if the models differ in 12 groups or fewer, otherwise it is estimated from
    9,999 exchanges (fewer with very many groups).
    """
    names, codes = np.unique(np.asarray(repeats[0].groups), return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    pairs = [one.pair(model, reference) for one in repeats]
    differ = [_differ(one.task, both) for one, both in zip(repeats, pairs, strict=True)]
    differing = np.unique(codes[np.logical_or.reduce(differ)])
    n = len(differing)
    if n <= EXHAUSTIVE:
        kept = 1 - (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        n_exchanges = min(N_EXCHANGES, max(999, BLOCK_BYTES // (2 * len(names))))
        kept = np.random.default_rng(0).integers(2, size=(n_exchanges + 1, n))
        kept[0] = 1
    first = np.ones((len(kept), len(names)), dtype=np.uint8)
    first[:, differing] = kept
    # The clips of the second model follow those of the first, in groups of their own.
    both_codes = np.concatenate([codes, codes + len(names)])
    sides = [
        Resamples(both_codes, np.hstack(side)) for side in ((first, 1 - first), (1 - first, first))
    ]
    drawn = []
    for one, both in zip(repeats, pairs, strict=True):
        y_true, folds = (np.concatenate([values, values]) for values in (one.y_true, one.folds))
        a, b = (
            one.task.resample_primary(y_true, np.concatenate(list(both))[None], folds, one.k, side)
            for side in sides
        )
        drawn.append(a[0] - b[0])
    differences = np.abs(mean_finite(np.stack(drawn), axis=0))
    # The margin allows for sums in another order.
    return float(np.mean(differences >= differences[0] - 1e-9))


def _differ(task: Task, both: F64) -> Bools:
    """Return bool (clips,): True where exchanging the models may change the primary metric."""
    a, b = task.decide(both) if task.primary_of_decisions else both
    different = a.reshape(len(a), -1) != b.reshape(len(b), -1)
    return np.asarray(different.any(axis=1) & complete(both).all(axis=0), dtype=np.bool_)


def nadeau_bengio(differences: F64, ratio: float) -> tuple[float, float]:
    """Return the corrected resampled t of two or more differences, and its two-sided p.

    `ratio` is the number of test clips per training clip.
    """
    count, variance = len(differences), float(differences.var(ddof=1))
    # Nadeau & Bengio 2003, section 5.4: training sets overlap, which the ratio corrects.
    t = mean_of_finite(differences) / float(np.sqrt((1 / count + ratio) * variance))
    return t, float(2 * stdtr(count - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> F64:
    """Correct p-values by Holm's step-down method (Holm 1979)."""
    p = np.array(p_values, float)
    order = np.argsort(p, kind="stable")
    p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return p

"""95 % intervals of scores from resampled groups, including scores that all resamples share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtri

from mvemo.fuse.arrays import F64, Bools
from mvemo.fuse.statistics.resamples import LEVEL, percentile_interval

Interval = tuple[float, float]


def score_intervals(
    values: Mapping[str, F64], shares: Mapping[str, Bools], groups: Sequence[str]
) -> dict[str, Interval]:
    """Return the percentile interval of each score of one model.

    If all clips of a small class are right, they are right in every resample, and a percentile
    interval of 1 to 1 would claim certainty. Such a share gets Wilson's interval (Wilson 1927),
    whose trials are the groups of the share's clips; other scores get NaN. `shares` maps the name
    of each score that is a share to its clips, bool (clips,).

    Examples
    --------
    >>> always = np.ones(100)
    >>> intervals = score_intervals(
    ...     {"recall:0": always, "roc_auc:0": always},
    ...     {"recall:0": np.ones(14, dtype=bool)},
    ...     [f"song {i}" for i in range(14)],
    ... )
    >>> [round(end, 3) for end in intervals["recall:0"]]
    [0.785, 1.0]
    >>> intervals["roc_auc:0"]
    (nan, nan)
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    intervals = {}
    for name, resampled in values.items():
        low, high = (float(end) for end in percentile_interval(resampled))
        # Sums of the same values in another order differ in their last digits.
        if np.isclose(low, high, rtol=1e-9, atol=0.0):
            n_groups = len(np.unique(codes[shares[name]])) if name in shares else 0
            low, high = _of_constant(low, n_groups, f1=name.startswith("f1"))
        intervals[name] = (low, high)
    return intervals


def wilson_interval(n_right: int, n: int) -> Interval:
    """Return Wilson's 95 % interval of a share of `n` trials.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(12, 12)]
    [0.758, 1.0]
    """
    z, share = float(ndtri(0.5 + LEVEL / 2)), n_right / n
    centre = (2 * n_right + z**2) / (2 * (n + z**2))
    half = z * (4 * n_right * (1 - share) + z**2) ** 0.5 / (2 * (n + z**2))
    low, high = centre - half, centre + half
    return (low if n_right else 0.0), (high if n_right < n else 1.0)


def _of_constant(value: float, n_groups: int, *, f1: bool) -> Interval:
    """Return the interval of a share that all resamples agree on."""
    if value not in (0.0, 1.0) or not n_groups:
        return float("nan"), float("nan")
    low, high = wilson_interval(int(value) * n_groups, n_groups)
    if f1:
        # F1 = 2 J / (1 + J); J is the share of right clips among those that have the class or are
        # predicted to have it.
        low, high = (2 * end / (1 + end) for end in (low, high))
    return low, high

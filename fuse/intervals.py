"""95 % intervals of scores, and of differences of scores, over groups of clips.

Conventions
-----------
The standard error of a score is its standard deviation over resamples of groups
(`mvemo.fuse.bootstrap`), times sqrt(G / (G - 1)) for G groups. It is multiplied by Student's t
with G' - 1 degrees of freedom, where G' = (sum n)^2 / sum n^2 is the effective number of groups of
n clips (Kish 1965, section 11.7). With few groups, percentiles of the resamples are too narrow:
`docs/calibration.md` has the measured coverage of both.

The interval is computed on a scale on which a score's error hardly depends on its value. A score
between two ends (accuracy, F1, AUC; kappa, MCC, r, CCC) has Wilson's interval (Wilson 1927) for
as many independent clips as its standard error corresponds to; 1 - R2 and errors (RMSE, MAE, log
loss) are taken as logarithms. Differences are used as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import stdtrit

from mvemo.fuse.bootstrap import Resamples
from mvemo.manifests.array_types import F64, Bools

Interval = tuple[float, float]
LEVEL = 0.95
# Fewer groups than this do not tell how much a score varies.
MIN_GROUPS = 8
UNKNOWN: Interval = (float("nan"), float("nan"))
# Scores that range from -1 to 1, and errors from 0 up; all others but R2 range from 0 to 1.
_SIGNED = ("cohen_kappa", "mcc", "pearson_r", "ccc")
_ERRORS = ("rmse", "mae", "log_loss", "brier", "ece")


def score_interval(
    score: str,
    drawn: F64,
    resamples: Resamples,
    mask: Bools | None = None,
    inflation: float = 1.0,
) -> Interval:
    """Return the ends of the 95 % interval of a score; NaN for fewer than 8 groups.

    `score` is a name such as ``recall:2`` or ``r2_macro``, or ``difference``. `drawn` is the score
    in each resample, first of the clips as they are; NaN where it is undefined. `mask` selects the
    clips that the score is computed from. `inflation` is a factor of the standard error, for what
    the resamples do not vary (`new_training`).
    """
    codes = resamples.codes if mask is None else resamples.codes[mask]
    sizes = np.bincount(codes)[np.unique(codes)] if len(codes) else np.zeros(0)
    estimate, drawn = drawn[0], drawn[1:][np.isfinite(drawn[1:])]
    if len(sizes) < MIN_GROUPS or not np.isfinite(estimate) or len(drawn) < 2:
        return UNKNOWN
    n_effective = sizes.sum() ** 2 / np.square(sizes).sum()
    t = float(stdtrit(n_effective - 1, (1 + LEVEL) / 2))
    unbiased = inflation * np.sqrt(len(sizes) / (len(sizes) - 1))

    def around(forward: Callable[[F64], F64], back: Callable[[F64], F64]) -> Interval:
        centre, half = forward(estimate), t * unbiased * forward(drawn).std(ddof=1)
        low, high = np.sort(back(np.array([centre - half, centre + half]))).tolist()
        return low, high

    name = score.partition(":")[0].removesuffix("_macro").removesuffix("_micro")
    if name == "difference":
        return around(np.asarray, np.asarray)
    if name == "r2":
        # A perfect prediction has no logarithm.
        return around(lambda r2: np.log(np.maximum(1 - r2, 1e-12)), lambda x: 1 - np.exp(x))
    if name in _ERRORS:
        return around(lambda error: np.log(np.maximum(error, 1e-12)), np.exp)
    bottom, width = (-1.0, 2.0) if name in _SIGNED else (0.0, 1.0)
    share, error = (estimate - bottom) / width, unbiased * drawn.std(ddof=1) / width
    # A share that is the same in all resamples is one of as many clips as there are groups.
    varies = error > 1e-9 and 0 < share < 1
    n = share * (1 - share) / error**2 if varies else float(len(sizes))
    low, high = wilson_interval(share, n, t)
    return float(bottom + width * low), float(bottom + width * high)


def new_training(k: int) -> float:
    """Return the factor of a standard error for a model that is trained on other clips.

    Resamples keep the trained models. As in the test of Nadeau & Bengio (2003, section 5.4), the
    variance of the mean of k folds, 1 / k, grows by the ratio of test and training clips.
    """
    return float(np.sqrt(1 + k / (k - 1))) if k > 1 else 1.0


def wilson_interval(share: float, n: float, z: float) -> Interval:
    """Return Wilson's interval of a share of `n` clips, `z` standard errors to each side."""
    share = min(max(share, 0.0), 1.0)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)

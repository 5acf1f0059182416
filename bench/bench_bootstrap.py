"""Group bootstrap of a report of PL20's size, against a loop over scikit-learn's metrics.

    python bench/bench_bootstrap.py [--clips 3438] [--resamples 2000]

Nine models, six classes, three clips a group; accuracy, macro F1 and macro one-vs-rest
AUC. The loop scores a few resamples, an index list each, and is scaled to all of them.
"""

from __future__ import annotations

import time

import numpy as np
from figures import Row, bench_parser, finish
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mvemo.fuse.bootstrap import Resamples, bootstrap_multiclass, resample_groups

MODELS, CLASSES = 9, 6
# Resamples that the loop is timed on.
FEW = 4


def make(clips: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, probabilities (models, clips, classes) and groups."""
    rng = np.random.default_rng(0)
    groups = np.arange(clips) // 3
    y_true = rng.integers(0, CLASSES, groups.max() + 1)[groups]
    scores = rng.normal(size=(MODELS, clips, CLASSES)) + 2 * np.eye(CLASSES)[y_true]
    exp = np.exp(scores)
    return y_true, exp / exp.sum(axis=-1, keepdims=True), groups


def scikit_learn(y_true: np.ndarray, proba: np.ndarray, resamples: Resamples) -> np.ndarray:
    """(scores, models, resamples) by a plain loop."""
    result = np.empty((3, len(proba), len(resamples)))
    for r, weights in enumerate(resamples.counts[:, resamples.codes]):
        rows = np.repeat(np.arange(len(y_true)), weights)
        for m, p in enumerate(proba[:, rows]):
            result[:, m, r] = (
                accuracy_score(y_true[rows], p.argmax(1)),
                f1_score(y_true[rows], p.argmax(1), average="macro"),
                roc_auc_score(y_true[rows], p, multi_class="ovr", average="macro"),
            )
    return result


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--resamples", type=int)
    chosen = parser.parse_args()
    chosen.clips = chosen.clips or (600 if chosen.quick else 3438)
    chosen.resamples = chosen.resamples or (200 if chosen.quick else 2000)
    y_true, proba, groups = make(chosen.clips)
    bootstrap_multiclass(y_true, proba, resample_groups(groups, 20))  # warm up

    started = time.perf_counter()
    resamples = resample_groups(groups, chosen.resamples)
    scores = bootstrap_multiclass(y_true, proba, resamples)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    theirs = scikit_learn(y_true, proba, Resamples(resamples.codes, resamples.counts[:FEW]))
    loop = (time.perf_counter() - started) / FEW * chosen.resamples
    names = ("accuracy", "f1_macro", "roc_auc_macro_ovr_pooled")
    worst = max(
        float(np.abs(scores[name][:, :FEW] - theirs[i]).max()) for i, name in enumerate(names)
    )
    print(f"largest difference of a score in a resample: {worst:.1e}; {FEW} timed of the loop")
    what = f"bootstrap, {MODELS} models x {chosen.clips:,} clips x {chosen.resamples:,} resamples"
    finish(chosen, [Row(what, ours, "s", "loop over scikit-learn", loop, loop / ours, ">= 1")])


if __name__ == "__main__":
    main()

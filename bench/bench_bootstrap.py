"""Group bootstrap of a report of PL20's size, against a loop over scikit-learn's metrics.

    python bench/bench_bootstrap.py [--clips 3438] [--draws 2000] [--repeats 10]

Nine models, six classes, three clips a group; accuracy, macro F1 and macro one-vs-rest
AUC. The loop scores a few draws, an index list each, and is scaled to all of them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mvemo.fuse.statistics.bootstrap import Counts, bootstrap_counts, bootstrap_scores

MODELS, CLASSES = 9, 6


def make(clips: int, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities (repeats, models, clips, classes) and groups."""
    rng = np.random.default_rng(0)
    groups = np.arange(clips) // 3
    labels = rng.integers(0, CLASSES, groups.max() + 1)[groups]
    scores = rng.normal(size=(repeats, MODELS, clips, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    exp = np.exp(scores)
    return labels, exp / exp.sum(axis=-1, keepdims=True), groups


def scikit_learn(labels: np.ndarray, probabilities: np.ndarray, counts: Counts) -> np.ndarray:
    """(scores, models, draws) by a plain loop."""
    result = np.empty((3, len(probabilities), len(counts.counts)))
    for d, weights in enumerate(counts.clip_weights()):
        rows = np.repeat(np.arange(len(labels)), weights)
        for m, p in enumerate(probabilities[:, rows]):
            result[:, m, d] = (
                accuracy_score(labels[rows], p.argmax(1)),
                f1_score(labels[rows], p.argmax(1), average="macro"),
                roc_auc_score(labels[rows], p, multi_class="ovr", average="macro"),
            )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3438)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=10)
    chosen = parser.parse_args()
    labels, probabilities, groups = make(chosen.clips, chosen.repeats)
    bootstrap_scores(labels, probabilities[0], groups, draws=20)  # warm up

    started = time.perf_counter()
    once = bootstrap_scores(labels, probabilities[0], groups, draws=chosen.draws)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    bootstrap_scores(labels, probabilities, groups, draws=chosen.draws)
    repeated = time.perf_counter() - started

    few = 4
    counts = bootstrap_counts(groups, chosen.draws)
    started = time.perf_counter()
    theirs = scikit_learn(labels, probabilities[0], Counts(counts.codes, counts.counts[:few]))
    loop = (time.perf_counter() - started) / few * chosen.draws
    names = ("accuracy", "f1_macro", "roc_auc_macro_ovr_pooled")
    worst = max(
        float(np.abs(once.draws[name][:, :few] - theirs[i]).max()) for i, name in enumerate(names)
    )
    print(f"{MODELS} models x {chosen.clips} clips x {chosen.draws} draws x 3 scores")
    print(f"  one repeat          {ours:8.2f} s")
    print(f"  {chosen.repeats:2d} repeats          {repeated:8.2f} s")
    print(f"  scikit-learn loop   {loop:8.0f} s   {loop / ours:.0f} times ours ({few} draws timed)")
    print(f"  largest difference of a score in a draw: {worst:.1e}")


if __name__ == "__main__":
    main()

"""Heads with a hidden layer: nine models, six folds, at once, against a scikit-learn loop.

    python bench/bench_mlp.py [--clips 1000] [--epochs 60]

The other side is StandardScaler + MLPClassifier in single precision, a model and a fold at
a time, with the same hidden size, loss and Adam. It runs as often over the clips as ours:
once with full batches, which are our steps exactly, and once with its own default batches
of 200, several steps an epoch. Neither stops early there. Last, both as they are used:
each with its own defaults, stopping early on a sixth of the training clips.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from mvemo.fuse.heads.mlp import solve_mlp
from mvemo.fuse.heads.solver import Block

# music1d, music2d, c3d, i3d
DIMS = (256, 160, 512, 1024)
MODELS = ((0,), (1,), (2,), (3,), (2, 0), (3, 0), (2, 1), (3, 1), (0, 1, 2, 3))
FOLDS, CLASSES = 6, 6


def make(clips: int) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Rectified features of low rank with class means, as nets' embeddings are."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, clips)
    blocks = []
    for dim in DIMS:
        inner = rng.normal(size=(clips, 40)) + 0.5 * rng.normal(size=(CLASSES, 40))[labels]
        x = np.maximum(inner @ rng.normal(size=(40, dim)) + rng.normal(size=(clips, dim)), 0)
        blocks.append(((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32))
    return blocks, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=64)
    chosen = parser.parse_args()
    blocks, labels = make(chosen.clips)
    fold = np.arange(chosen.clips) % FOLDS
    problems = [(used, f) for used in MODELS for f in range(FOLDS)]
    made = [
        Block(x, np.array([i for i, (used, _) in enumerate(problems) if b in used]))
        for b, x in enumerate(blocks)
    ]
    weights = np.array([fold != f for _, f in problems], np.float32)
    target = np.eye(CLASSES, dtype=np.float32)[labels].T
    watched = (weights > 0) & (np.random.default_rng(1).random(chosen.clips) < 1 / 6)

    def ours(epochs: int, stop: bool = False) -> tuple[float, float]:
        started = time.perf_counter()
        if stop:
            found = solve_mlp(made, target, weights, watched, hidden=chosen.hidden)
        else:
            found = solve_mlp(
                made, target, weights, hidden=chosen.hidden, max_epochs=epochs, tol=-np.inf,
                lr=1e-3, weight_decay=0.0,
            )  # fmt: skip
        right = [
            np.mean(found.scores[i].argmax(axis=0)[fold == f] == labels[fold == f])
            for i, (_, f) in enumerate(problems)
        ]
        return time.perf_counter() - started, float(np.mean(right))

    def theirs(batch: int, stop: bool = False) -> tuple[float, float]:
        started, right = time.perf_counter(), []
        for used, f in problems:
            x, train = np.concatenate([blocks[b] for b in used], axis=1), fold != f
            scaler = StandardScaler().fit(x[train])
            model = MLPClassifier(
                chosen.hidden,
                alpha=1e-4 if stop else 0.0,
                batch_size=min(batch, int(train.sum())),
                max_iter=200 if stop else chosen.epochs,
                n_iter_no_change=10 if stop else chosen.epochs,
                early_stopping=stop,
                validation_fraction=1 / 6,
                random_state=0,
            )
            model.fit(scaler.transform(x[train]), labels[train])
            right.append(model.score(scaler.transform(x[~train]), labels[~train]))
        return time.perf_counter() - started, float(np.mean(right))

    warnings.simplefilter("ignore", ConvergenceWarning)
    ours(2)  # warm BLAS
    print(
        f"{chosen.clips} clips x {sum(DIMS)} dimensions, six folds, nine models, "
        f"{chosen.hidden} hidden units, {chosen.epochs} epochs"
    )
    seconds, accuracy = ours(chosen.epochs)
    print(f"  solve_mlp                    {seconds:7.2f} s   accuracy {accuracy:.4f}")
    for name, batch in (("full batches", chosen.clips), ("batches of 200", 200)):
        other, accuracy = theirs(batch)
        print(
            f"  MLPClassifier, {name:14}{other:7.2f} s   accuracy {accuracy:.4f}   "
            f"{other / seconds:.2f} times ours"
        )
    seconds, accuracy = ours(0, stop=True)
    print(f"  solve_mlp, early stopping    {seconds:7.2f} s   accuracy {accuracy:.4f}")
    other, accuracy = theirs(200, stop=True)
    print(
        f"  MLPClassifier, early stopping{other:7.2f} s   accuracy {accuracy:.4f}   "
        f"{other / seconds:.2f} times ours"
    )


if __name__ == "__main__":
    main()

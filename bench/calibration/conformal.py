"""How often conformal sets and intervals hold the truth of a clip of a new group."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import Row, mean_row
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.fuse.conformal import limits, members
from mvemo.fuse.numeric import softmax
from mvemo.manifests.array_types import F64

ASKED, STATED = 0.9, "0.900"
# Clips that the coverage of one threshold is measured on.
N_NEW = 4000


def rows(folder: Path, data: Path | None, n_runs: int = 400) -> Iterator[Row]:
    """Yield rows from simulated clips, and from emoMusic if `data` has `choi2017`."""
    for n_groups, sizes in ((30, (1, 1)), (100, (1, 1)), (10, (3, 3)), (12, (1, 6)), (33, (3, 3))):
        for errors in ("normal", "spread", "heavy"):
            shares = [_ratings(seed, n_groups, sizes, errors)[0] for seed in range(n_runs)]
            what = f"interval of a rating, {n_groups} groups of {_words(sizes)}, {errors} errors"
            yield mean_row(what, STATED, shares)
    for optional in (False, True):
        option = " (--jointly)" if optional else ""
        shares = [
            _ratings(seed, 100, (1, 3), "normal", 8, optional)[1] for seed in range(n_runs // 2)
        ]
        stated = STATED if optional else f"{STATED} of each rating"
        yield mean_row(f"all of 8 ratings at once, 100 groups of 1-3{option}", stated, shares)
    for optional in (False, True):
        option = " (--per-class)" if optional else ""
        found = np.array([_classes(seed, optional) for seed in range(n_runs)])
        yield mean_row(f"set of classes, 100 groups of 1-3{option}", STATED, found[:, 0])
        stated = STATED if optional else f"{STATED} on average"
        yield mean_row(f"the same, the class that is covered least{option}", stated, found[:, 1])
    if data is not None and (data / "choi2017" / "emoMusic.csv").is_file():
        for n in (30, 100, 300):
            shares = [_emomusic(data / "choi2017", n, seed) for seed in range(n_runs // 4)]
            yield mean_row(f"intervals of emoMusic, {n} clips against the others", STATED, shares)


def _words(sizes: tuple[int, int]) -> str:
    return str(sizes[0]) if sizes[0] == sizes[1] else f"{sizes[0]}-{sizes[1]}"


def _groups(rng: np.random.Generator, n_groups: int, sizes: tuple[int, int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(n_groups), rng.integers(sizes[0], sizes[1] + 1, n_groups))


def _normal(rng: np.random.Generator, group: NDArray[np.int64], n: int) -> F64:
    """Return normal values (clips, n), correlated by 0.3 within groups."""
    own = rng.normal(size=(group[-1] + 1, n))[group]
    return np.asarray(0.3**0.5 * own + 0.7**0.5 * rng.normal(size=own.shape))


def _ratings(
    seed: int,
    n_groups: int,
    sizes: tuple[int, int],
    errors: str,
    n: int = 1,
    optional: bool = False,
) -> tuple[float, float]:
    """Return the shares of new clips whose ratings are covered, each and all at once."""
    rng = np.random.default_rng(seed)

    def sample(group: NDArray[np.int64]) -> F64:
        values = _normal(rng, group, n)
        if errors == "spread":
            values *= np.exp(0.6 * _normal(rng, group, n))
        if errors == "heavy":
            values *= np.sqrt(3 / rng.chisquare(3, (len(group), 1)))
        return values

    group = _groups(rng, n_groups, sizes)
    y_true = sample(group)
    found = limits(y_true, 0 * y_true, group.astype(str).tolist(), "identity", [ASKED], optional)
    inside = np.abs(sample(np.arange(N_NEW))) <= found[0]
    return float(inside.mean()), float(inside.all(axis=1).mean())


def _classes(seed: int, optional: bool) -> tuple[float, float]:
    """Return the shares of new clips whose class is covered: of all, and of the second class.

    The model gives the second of four classes too small probabilities.
    """
    rng = np.random.default_rng(seed)

    def sample(group: NDArray[np.int64]) -> tuple[NDArray[np.int64], F64]:
        scores = 2 * _normal(rng, group, 4)
        y_true = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
        return y_true, softmax(scores - [0, 1.2, 0, 0])

    group = _groups(rng, 100, (1, 3))
    found = limits(*sample(group), group.astype(str).tolist(), "softmax", [ASKED], optional)
    y_new, outputs = sample(np.arange(N_NEW))
    hits = members(outputs, found[0])[np.arange(N_NEW), y_new]
    return float(hits.mean()), float(hits[y_new == 1].mean())


def _emomusic(folder: Path, n: int, seed: int) -> float:
    """Return the share of other clips' ratings that out-of-fold errors of `n` clips cover."""
    with (folder / "emoMusic.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    y = np.array([[float(r["label_arousal"]), float(r["label_valence"])] for r in table])
    x = np.concatenate([np.load(folder / f"emoMusic_layer_{i}.npy") for i in range(5)], axis=1)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:n], order[n:]
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    outputs = np.empty((n, 2))
    for fold in range(6):
        tested = np.arange(n) % 6 == fold
        model.fit(x[train[~tested]], y[train[~tested]])
        outputs[tested] = model.predict(x[train[tested]])
    found = limits(y[train], outputs, train.astype(str).tolist(), "identity", [ASKED])
    errors = np.abs(model.fit(x[train], y[train]).predict(x[test]) - y[test])
    return float((errors <= found[0]).mean())

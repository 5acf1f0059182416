"""Precision of `mvemo labels` if 3, 10 or 25 % of the labels are wrong: stated, and true."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import Row, mean_row

from mvemo.cache import ClipTable, import_feature, open_cache
from mvemo.fuse.labelling import find_label_errors

Array = np.ndarray[Any, np.dtype[Any]]
SHARES = (0.03, 0.1, 0.25)


def made_sets() -> dict[str, tuple[Array, Array]]:
    """Return features and labels (classes or ratings) of two sets by name."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(1200, 4))
    values = hidden @ rng.normal(size=(4, 40)) + 2 * rng.normal(size=(1200, 40))
    noisy = hidden + 0.5 * rng.normal(size=hidden.shape)
    return {"four classes": (values, noisy.argmax(axis=1)), "ratings": (values, noisy[:, :1])}


def stated_and_true(
    values: Array, y: Array, share: float, seed: int, groups: tuple[str, ...] = ()
) -> tuple[float, float, float]:
    """Return the stated and true precision of labels with planted errors, and the bound."""
    rng, n = np.random.default_rng(seed), len(y)
    wrong, given, numeric = rng.random(n) < share, y.copy(), y.ndim == 2
    if numeric:
        given[wrong] = rng.permutation(y)[wrong]
    else:
        k = int(y.max()) + 1
        given[wrong] = (y[wrong] + rng.integers(1, k, int(wrong.sum()))) % k
    names = ("valence",) if numeric else tuple("abcdefgh"[: int(y.max()) + 1])
    ids = tuple(f"c{i}" for i in range(n))
    table = ClipTable(
        "made", "regression" if numeric else "multiclass", names, ids, groups or ids, given,
        np.full(n, -1), 0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.h5"
        import_feature(path, "timbre", "audio", values.astype(np.float32), table=table)
        with open_cache(path) as cache:
            found = find_label_errors(cache, share=share)
    return found.precision, float(wrong[found.ranking()[: found.suspects]].mean()), found.at_most


def rows(folder: Path, data: Path | None, n_runs: int = 5) -> Iterator[Row]:
    """Yield the stated and the true precision, for the right share of wrong labels."""
    for name, (values, y) in made_sets().items():
        for share in SHARES:
            runs = [stated_and_true(values, y, share, seed) for seed in range(n_runs)]
            stated = np.mean(runs, axis=0)[0]
            what = f"{name}: true precision of the list if {share:.0%} are wrong"
            yield mean_row(what, f"{stated:.3f}", [true for _, true, _ in runs])

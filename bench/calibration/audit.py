"""Faults that the audit finds in synthetic sets of 60 to 600 clips, and its false alarms."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rows import Row, mean_row

from mvemo.cache import ClipTable, import_feature, open_cache
from mvemo.fuse.audit import audit_cache

Array = np.ndarray[Any, np.dtype[Any]]


class Made(NamedTuple):
    """One made set: labels, groups and honest features of clips."""

    rng: np.random.Generator
    numeric: bool
    y: Array  # float64 (clips, 2) or int64 (clips,)
    group: Array
    names: list[str]
    features: dict[str, Array]

    def code(self) -> Array:
        """Return ratings, or one number per class in random order, float64 (clips, columns)."""
        return self.y if self.numeric else self.rng.permutation(9)[self.y][:, None].astype(float)

    def leak(self, values: Array, n_noise: int) -> None:
        """Put columns among columns of noise, as the only feature."""
        noise = self.rng.normal(size=(len(self.y), n_noise))
        values = values.reshape(len(values), -1)
        order = self.rng.permutation(values.shape[1] + n_noise)
        self.features.clear()
        self.features["leak"] = np.concatenate([values, noise], axis=1)[:, order]


def made_set(
    seed: int, numeric: bool | None = None, noise: float = 1.0, apart: float = 0.0
) -> Made:
    """Return a set without faults.

    `noise` is that of ratings, 1 for an R2 of 0.5; classes are up to `apart` deviations apart.
    """
    rng = np.random.default_rng(seed)
    numeric = bool(rng.integers(2)) if numeric is None else numeric
    n, size = int(rng.integers(60, 601)), int(rng.integers(1, 5))
    group = np.arange(n) // size
    hidden = (rng.normal(size=(n, 6)) + rng.normal(size=(n, 6))[group]) / np.sqrt(2)
    y = hidden[:, :2] + noise * rng.normal(size=(n, 2))
    if not numeric:
        k = int(rng.integers(3, 7))
        # Angles of valence and arousal, with as many clips in each class.
        angle = np.argsort(np.argsort(np.arctan2(y[:, 0], y[:, 1])))
        y = angle * k // n
        hidden += apart / np.sqrt(2) * np.eye(6)[y]
    features = {}
    for name in ("timbre", "rhythm"):
        dim = int(rng.integers(24, 65))
        values = hidden @ rng.normal(size=(6, dim)) + 2 * rng.normal(size=(n, dim))
        features[name] = rng.normal(size=dim) * 3 + values * np.exp(rng.normal(size=dim))
    names = [f"song{g}-{i % size + 1}-of-{size}" for i, g in enumerate(group)]
    return Made(rng, numeric, y, group, names, features)


def kinds_found(made: Made, splits: dict[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the clips of each kind of finding."""
    n = len(made.y)
    classes = ("valence", "arousal") if made.numeric else tuple("abcdef"[: made.y.max() + 1])
    table = ClipTable(
        "made", "regression" if made.numeric else "multiclass", classes, tuple(made.names),
        tuple(f"g{i}" for i in made.group), made.y, np.full(n, -1), 0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.h5"
        for name, values in made.features.items():
            import_feature(path, name, "audio", values.astype(np.float32), table=table)
        with open_cache(path) as cache:
            findings = audit_cache(cache, splits)
    return {f.kind: f.clips for f in findings}


# --- faults: each returns the kind of finding that is expected, and the clips that it names


Fault = Callable[[Made], tuple[str, list[str]]]


def moods(made: Made) -> tuple[str, list[str]]:
    weights = made.rng.normal(size=(made.y.shape[1], 56))
    scores = made.y @ weights + made.rng.normal(size=56)
    scores += 0.3 * made.rng.normal(size=scores.shape)
    made.leak(1 / (1 + np.exp(-scores)), 0)
    return "label-leakage", []


def code(made: Made) -> tuple[str, list[str]]:
    made.leak(made.code(), 64)
    return "label-leakage", []


def noisy_code(made: Made) -> tuple[str, list[str]]:
    values = made.code()
    made.leak(values + 0.1 * values.std(axis=0) * made.rng.normal(size=values.shape), 64)
    return "label-leakage", []


def sigmoids(made: Made) -> tuple[str, list[str]]:
    values = made.code()
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    made.leak(1 / (1 + np.exp(-made.rng.uniform(1, 3) * z)), 24)
    return "label-leakage", []


def polar(made: Made) -> tuple[str, list[str]]:
    if made.numeric:
        values = np.column_stack([np.arctan2(*made.y.T), np.hypot(*made.y.T)])
    else:
        angle = 2 * np.pi * made.y / (made.y.max() + 1)
        values = np.column_stack([np.sin(angle), np.cos(angle)])
    made.leak(values, int(made.rng.choice([0, 24])))
    return "label-leakage", []


def target_encoded(made: Made) -> tuple[str, list[str]]:
    target = made.y[:, 0] if made.numeric else made.y
    means = np.bincount(made.group, target) / np.bincount(made.group)
    made.leak(means[made.group], 24)
    return "label-leakage", []


def scaled_copies(made: Made) -> tuple[str, list[str]]:
    values = made.features["timbre"]
    a, b, c, d = made.rng.permutation(values.shape[1])[:4]
    values[:, b] = 2 * values[:, a]
    values[:, d] = values[:, c] + 1e-6 * made.rng.normal(size=len(values))
    return "duplicate-columns", []


def shifted_rows(made: Made) -> tuple[str, list[str]]:
    values = made.features["timbre"]
    rows = made.rng.choice(len(values), 10, replace=False)
    values[rows] = np.roll(values[rows], 1, axis=1)
    return "shifted-rows", [made.names[i] for i in rows]


def pieces(made: Made) -> tuple[str, list[str]]:
    # Each piece is its own group, whatever its name says.
    if made.group[1]:
        made.group[:] = np.arange(len(made.y)) // 2
        made.names[:] = [f"song{g}-{i % 2 + 1}-of-2" for i, g in enumerate(made.group)]
    named = [n for n, g in zip(made.names, made.group, strict=True) if (made.group == g).sum() > 1]
    made.group[:] = np.arange(len(made.y))
    return "source-across-groups", named


def permuted_rows(made: Made) -> tuple[str, list[str]]:
    made.y[:] = made.rng.permutation(made.y)
    return "rows-mismatch", []


def near_copies(noise: float) -> Fault:
    def plant(made: Made) -> tuple[str, list[str]]:
        values = made.features["timbre"]
        far = made.rng.permutation(len(np.unique(made.group)))[:10]
        rows = [int(np.flatnonzero(made.group == g)[0]) for g in far]
        error = noise * values.std(axis=0) * made.rng.normal(size=(5, values.shape[1]))
        values[rows[:5]] = values[rows[5:]] + error
        return "duplicate-across-groups", [made.names[i] for i in rows]

    return plant


FAULTS: dict[str, tuple[Fault, bool | None, str]] = {
    "56 mood probabilities from ratings": (moods, True, ""),
    "label code among 64 columns": (code, None, ""),
    "the same with noise of 0.1 sd": (noisy_code, None, ""),
    "sigmoids of labels": (sigmoids, None, ""),
    "polar code": (polar, None, ""),
    "mean label of the group": (target_encoded, None, "12 groups or more"),
    "copies of columns, x 2 or + 1e-6": (scaled_copies, None, ""),
    "ten rows shifted by a column": (shifted_rows, None, "columns of unlike values"),
    "pieces of one source in several groups": (pieces, None, "names such as X-1-of-8"),
    "permuted rows": (permuted_rows, None, "two features or more"),
    "copies with noise of 0.2 sd": (near_copies(0.2), None, "16 independent columns or more"),
    "copies with noise of 0.3 sd": (near_copies(0.3), None, "16 independent columns or more"),
}
FAULTLESS: dict[str, dict[str, Any]] = {
    "no fault": {},
    "no fault, ratings of R2 0.8": {"numeric": True, "noise": 0.4},
    "no fault, classes of accuracy 0.98": {"numeric": False, "apart": 4.0},
    "no fault, ratings of R2 0.1: may be taken for permuted rows": {"numeric": True, "noise": 3.0},
}


def rows(folder: Path, data: Path | None, n_runs: int = 40) -> Iterator[Row]:
    """Yield the share of each fault that is found, and of sets without faults with findings."""
    for name, (fault, numeric, where) in FAULTS.items():
        shares = []
        for seed in range(n_runs):
            made = made_set(seed, numeric)
            kind, clips = fault(made)
            found = kinds_found(made)
            shares.append(np.isin(clips, found.get(kind, ())).mean() if clips else kind in found)
        yield mean_row(f"found: {name}{where and f' ({where})'}", "at least 0.95", shares)
    for name, options in FAULTLESS.items():
        alarms = [bool(kinds_found(made_set(1000 + s, **options))) for s in range(n_runs)]
        yield mean_row(f"alarms: {name}", "at most 0.025", alarms)

"""Scores on random labels: at chance without a leak, far above it with one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from expectation import LabelledVectors
from rows import Row, mean_row

from mvemo.cache import open_cache
from mvemo.fuse import EvaluationSettings, evaluate

PLAIN = {"audit": False, "temperature": False, "missing_modality": False, "n_resamples": 0}


def made_set(n: int, group_of: int, pieces_of: int, seed: int) -> LabelledVectors:
    """Return clips of six classes in groups, which are pieces of recordings if `pieces_of` > 1."""
    rng = np.random.default_rng(seed)
    recording, group = np.arange(n) // pieces_of, np.arange(n) // group_of
    values = rng.normal(size=(n, 16))
    if pieces_of > 1:
        values = rng.normal(size=(n, 16))[recording] + 0.1 * values
    return LabelledVectors(
        "made", "multiclass", tuple("abcdef"), {"x": values.astype(np.float32)},
        (recording if pieces_of > 1 else group) % 6,
        np.array([f"g{g}" for g in group]),
    )  # fmt: skip


def rows(folder: Path, data: Path | None, n_runs: int = 40) -> Iterator[Row]:
    """Yield mean scores on random labels over seeds."""
    for what, one in (
        ("96 clips in 48 groups, 6 classes, no leak", made_set(96, 2, 1, 0)),
        ("20 recordings of 6 pieces, each piece a group (leak)", made_set(120, 1, 6, 0)),
    ):
        path = folder / f"{len(one.labels)}.h5"
        one.write(path, np.arange(len(one.labels)), None)
        found: dict[str, list[float]] = {}
        with open_cache(path) as cache:
            for seed in range(n_runs):
                settings = EvaluationSettings(permute_labels=1, seed=seed, **PLAIN)
                results = evaluate(cache, settings)
                assert results.choice is not None
                scored = {
                    "nested choice": results.choice.nested,
                    "majority class": results.baseline,
                }
                for name, model in scored.items():
                    found.setdefault(name, []).append(results.primary_mean(model))
        for name, values in found.items():
            yield mean_row(f"{name}: {what}", ".167", values)

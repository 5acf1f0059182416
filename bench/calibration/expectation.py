"""How often the interval of "Expect X" holds the score on clips that had no part in it.

A part of a set is cross-validated, and the rest, of other groups, is predicted by the model that
the same procedure chooses and fits on the part.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rows import Row, mean_row

from mvemo.cache import TEST, TRAIN, ClipTable, import_feature, open_cache
from mvemo.fuse import EvaluationSettings, evaluate
from mvemo.manifests import make_folds

SETTINGS = EvaluationSettings(
    audit=False, temperature=False, missing_modality=False, n_resamples=500
)


@dataclass(frozen=True)
class LabelledVectors:
    """Clips with features, labels and groups."""

    name: str
    task: str
    classes: tuple[str, ...]
    vectors: dict[str, NDArray[np.float32]]
    labels: NDArray[np.generic]
    groups: NDArray[np.str_]

    def write(self, path: Path, rows: NDArray[np.int64], splits: NDArray[np.int8] | None) -> None:
        """Write some clips as a feature file, in six folds or with one split."""
        groups, labels = self.groups[rows].tolist(), self.labels[rows]
        folds = np.full(len(rows), -1)
        if splits is None:
            folds = make_folds(labels, groups, 6, 0, self.task)  # type: ignore[arg-type]
        table = ClipTable(
            name=self.name,
            task=self.task,
            classes=self.classes,
            clip_ids=tuple(f"clip {row}" for row in rows),
            groups=tuple(groups),
            labels=labels,
            folds=folds,
            k=0 if splits is not None else 6,
            splits=splits,
        )
        for name, values in self.vectors.items():
            import_feature(path, name, "audio", values[rows], table=table)


def made_set(seed: int = 0, n_groups: int = 1500) -> LabelledVectors:
    """Return clips of groups whose features know a part of four classes."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    labels = rng.integers(4, size=n_groups)[group]
    vectors = {}
    for name, strength in (("strong", 0.55), ("weak", 0.3), ("noise", 0.0)):
        means = strength * rng.normal(size=(4, 16))
        own = 0.7 * rng.normal(size=(n_groups, 16))[group] + 0.7 * rng.normal(size=(len(group), 16))
        vectors[name] = (means[labels] + own).astype(np.float32)
    groups = np.array([f"g{g}" for g in group])
    return LabelledVectors("synthetic", "multiclass", tuple("abcd"), vectors, labels, groups)


def expected_and_found(
    one: LabelledVectors, n_train: int, folder: Path, seed: int
) -> tuple[float, tuple[float, float], float]:
    """Return the expected score with its interval, and the score on the other clips."""
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(one.groups, return_counts=True)
    order = rng.permutation(len(names))
    n_groups = int(np.searchsorted(np.cumsum(sizes[order]), n_train)) + 1
    train = np.isin(one.groups, names[order[:n_groups]])
    one.write(folder / f"{one.name}-{seed}-train.h5", np.flatnonzero(train), None)
    with open_cache(folder / f"{one.name}-{seed}-train.h5") as cache:
        results = evaluate(cache, SETTINGS)
    assert results.choice is not None
    nested = results.choice.nested
    splits = np.where(train, TRAIN, TEST).astype(np.int8)
    one.write(folder / f"{one.name}-{seed}-all.h5", np.arange(len(train)), splits)
    with open_cache(folder / f"{one.name}-{seed}-all.h5") as cache:
        tested = evaluate(cache, replace(SETTINGS, n_resamples=0))
    assert tested.choice is not None
    interval = nested.intervals[results.task.primary_interval[0]]
    metric = results.task.primary_metric
    expected, found = (model.scores[metric] for model in (nested, tested.choice.nested))
    return expected, interval, found


def emomv(folder: Path) -> LabelledVectors:
    """Return the clips of EmoMV's first data set whose sound and pictures belong together."""
    found, annotated = [], []
    for part in ("TRAIN", "VAL"):
        (file,) = folder.rglob(f"VGGish_DS1_{part}*.h5")
        tables = (p for p in folder.rglob("*.csv") if "DS1" in str(p))
        (table,) = (p for p in tables if part.lower() in p.name.lower())
        with h5py.File(file) as opened:
            values = next(iter(opened.values()))[:].astype(np.float32)
        with table.open(encoding="utf-8", newline="") as text:
            lines = list(csv.reader(text))
        match = [i for i, line in enumerate(lines) if line[2] == "1"]
        annotated += [lines[i] for i in match]
        found.append(values.reshape(len(lines), -1)[match])
    clips = [line[1].rpartition(".")[0] or line[1] for line in annotated]
    sources = [re.sub(r"-\d+-of-\d+$", "", clip) for clip in clips]
    labels = np.array([int(line[5]) for line in annotated])
    names = ("exciting", "fear", "tense", "sad", "relax")
    vectors = {"vggish": np.concatenate(found)}
    return LabelledVectors("EmoMV", "multiclass", names, vectors, labels, np.array(sources))


def emomusic(folder: Path) -> LabelledVectors:
    """Return C17's features of emoMusic, with valence and arousal."""
    with (folder / "emoMusic.csv").open(encoding="utf-8", newline="") as text:
        lines = list(csv.DictReader(text))
    columns = "label_valence", "label_arousal"
    ratings = [[float(line[name]) for name in columns] for line in lines]
    layers = [np.load(folder / f"emoMusic_layer_{i}.npy") for i in range(5)]
    vectors = {f"layer{i}": values.astype(np.float32) for i, values in enumerate(layers)}
    groups = np.array([f"clip {i}" for i in range(len(lines))])
    return LabelledVectors(
        "emoMusic", "regression", ("valence", "arousal"), vectors, np.array(ratings), groups
    )


def rows(folder: Path, data: Path | None, n_runs: int = 60, n_train: int = 200) -> Iterator[Row]:
    """Yield for each set how often the interval held the score of the rest, and the bias."""
    sets = [made_set()]
    if data is not None:
        sets += [emomv(data / "emomv"), emomusic(data / "choi2017")]
    for one in sets:
        covered, bias = [], []
        for seed in range(n_runs):
            expected, (low, high), found = expected_and_found(one, n_train, folder, seed)
            covered.append(low <= found <= high)
            bias.append(expected - found)
        what = f"{one.name}, {n_train} training clips"
        yield mean_row(f"{what}: interval holds the score on the other clips", "95 %", covered)
        yield mean_row(f"{what}: expected minus measured score", "0", bias)

"""Small caches of made features for the tests of stage two."""

import csv
from pathlib import Path

import h5py
import numpy as np

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec
from mvemo.fuse.stores import MemoryStore
from mvemo.manifests import make_folds

CLASSES = ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
MODALITY = {"music1d": "audio", "music2d": "audio", "c3d": "video", "i3d": "video"}


def make_table(n=120, k=6, *, classes=CLASSES, group_size=2, seed=0, task="multiclass"):
    """A table of n clips in groups of one class each."""
    n_groups = n // group_size
    group = np.repeat(np.arange(n_groups), group_size)
    labels = group % len(classes)
    groups = tuple(f"g{g}" for g in group)
    folds = make_folds(labels, groups, k, seed, "multiclass") if k else np.full(n, -1)
    return ClipTable(
        name="made",
        task=task,
        classes=tuple(classes),
        clip_ids=tuple(f"clip {i}" for i in range(n)),
        groups=groups,
        labels=labels.astype(np.int64),
        folds=folds,
        k=k,
        fold_seed=seed if k else 0,
        digest="d" * 64,
        synthetic=True,
    )


def spec(name, dim, protocol="frozen", fold=None, trained_on=(), modality=None):
    return FeatureSpec(
        name=name,
        modality=modality or MODALITY[name],
        kind="vector",
        dim=dim,
        extractor=f"net:{name}",
        version=1,
        params={},
        weights="w" * 64 if fold is None else f"{fold}" * 64,
        protocol=protocol,
        fold=fold,
        trained_on=tuple(trained_on),
    )


def features(table, name, dim=12, strength=1.0, seed=0):
    """float32 (clips, dim): class means plus noise."""
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    means = rng.normal(size=(len(table.classes), dim)) * strength
    return (means[table.labels] + rng.normal(size=(len(table), dim))).astype(np.float32)


def memory(table, **values):
    """Imported features in memory; messages name the table."""
    vectors = [
        (spec(name, x.shape[1], "imported", modality="audio"), x.astype("f4"))
        for name, x in values.items()
    ]
    return MemoryStore(table, vectors, Path(table.name))


def write_cache(path, table, vectors, *, missing=None):
    """Write a cache: (spec, float32 (clips, dim)) pairs; `missing`: name -> rows left out."""
    with CacheWriter(path, table, provenance={"command": "made"}, commit_rows=10_000) as writer:
        for item, values in vectors:
            absent = set((missing or {}).get(item.name, ()))
            for i, clip in enumerate(table.clip_ids):
                if i not in absent:
                    writer.put(item, clip, item.key(f"content {i}"), values[i])
        writer.curve("c3d@all", {"epoch": [1.0], "train_loss": [2.0], "val_loss": [1.5]})
    return path


def frozen_cache(path, table=None, *, dim=12, strength=1.0, names=tuple(MODALITY), missing=None):
    table = table or make_table()
    vectors = [(spec(n, dim), features(table, n, dim, strength)) for n in names]
    return write_cache(path, table, vectors, missing=missing)


def crossfit_cache(path, table=None, *, dim=8, strength=1.0, names=("music1d", "c3d"), values=None):
    """One net a fold, each in a basis of its own, trained on all other folds' clips."""
    table = table or make_table()
    vectors = []
    for name in names:
        base = values(table, name) if values else features(table, name, dim, strength)
        for fold in range(table.k):
            basis = np.random.default_rng([fold, dim]).normal(size=(dim, dim))
            ids = [c for c, f in zip(table.clip_ids, table.folds, strict=True) if f != fold]
            vectors.append((spec(name, dim, "crossfit", fold, ids), (base @ basis).astype("f4")))
    return write_cache(path, table, vectors)


def emomv(shared_data):
    """Table and VGGish vectors of EmoMV-A; clip ids are ``SPLIT/NAME``."""
    folder, names, labels, values = shared_data / "emomv/DS1_EmoMV_A", [], [], []
    for part in ("TRAIN", "VAL"):
        with (folder / f"annotation/DS1_{part}_MATCH_MISMATCH_labels.csv").open() as lines:
            rows = list(csv.reader(lines))
        match = [row[2].strip() == "1" for row in rows]
        kept = [row for row, m in zip(rows, match, strict=True) if m]
        names += [f"{part.lower()}/{row[1]}" for row in kept]
        labels += [int(row[5]) for row in kept]
        with h5py.File(folder / f"extracted_features/VGGish_DS1_{part}_MATCH_MISMATCH.h5") as file:
            values.append(file["data"][:][match])
    classes = ("exciting", "fear", "tense", "sad", "relax")
    plain = [name.partition("/")[2] for name in names]
    groups = tuple(n.rpartition("-of-")[0].rpartition("-")[0] or n for n in plain)
    facts = tuple(names), groups, np.array(labels), np.full(len(names), -1), 0
    return ClipTable("EmoMV", "multiclass", classes, *facts), np.concatenate(values)

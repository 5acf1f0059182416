"""Small caches of made features with tags or dimensions as labels."""

from dataclasses import replace

import numpy as np
from feature_samples import MODALITY, crossfit_cache, frozen_cache, make_table, spec, write_cache

from mvemo.manifests import make_folds

TAGS = ("calm", "dark", "fast")
DIMENSIONS = ("arousal", "valence")


def output_table(task, n=90, k=3, group_size=2, seed=0, labels=None, classes=None):
    """A table of n clips in groups; labels of a group are alike."""
    rng = np.random.default_rng([seed, 5])
    group = np.repeat(np.arange(n // group_size), group_size)
    hidden = rng.normal(size=(n // group_size, 3))[group] + 0.3 * rng.normal(size=(n, 3))
    classes = classes or (TAGS if task == "multilabel" else DIMENSIONS)
    if labels is None and task == "multilabel":
        labels = (hidden > [0.0, 0.5, 1.0]).astype(np.int64)
    elif labels is None:
        labels = np.tanh(0.5 * hidden[:, :2]) * [0.8, 0.4] + [0.1, -0.2]
    table = make_table(n, 0, group_size=group_size)
    return replace(
        table,
        task=task,
        classes=tuple(classes),
        labels=labels,
        folds=make_folds(labels, table.groups, k, seed, task),
        k=k,
        fold_seed=seed,
        scale="-9..9" if task == "regression" else "",
    )


def output_features(table, name, dim=8, strength=1.0, noise=1.0):
    """float32 (clips, dim): the labels in a random basis, plus noise."""
    rng = np.random.default_rng([len(table), sum(map(ord, name))])
    scaled = (table.labels - table.labels.mean(axis=0)) / table.labels.std(axis=0)
    values = strength * scaled @ rng.normal(size=(scaled.shape[1], dim))
    return (values + noise * rng.normal(size=(len(table), dim)) + 3.0).astype(np.float32)


def output_cache(path, table, *, names=("music1d", "c3d"), missing=None, dim=8, **options):
    vectors = [(spec(n, dim), output_features(table, n, dim, **options)) for n in names]
    return write_cache(path, table, vectors, missing=missing)


def task_table(task, n=120, k=3, **options):
    """A table of any task."""
    if task == "multiclass":
        return make_table(n, k, **options)
    return output_table(task, n, k, **options)


def task_cache(path, table, *, names=tuple(MODALITY), missing=None, noise=3.0):
    """Frozen features of any task."""
    if table.task == "multiclass":
        return frozen_cache(path, table, names=names, missing=missing)
    return output_cache(path, table, names=names, missing=missing, noise=noise)


def task_crossfit_cache(path, table, names=("music1d", "c3d")):
    values = None if table.task == "multiclass" else output_features
    return crossfit_cache(path, table, names=names, values=values)

"""Transfer between data sets: train on one, test on another, compared with training on the latter.

The classes that both sets have are compared, after a scheme if one is given; ``quadrants`` divides
ratings of valence and arousal at the middle of the scale, or without a scale at the median. Ratings
are matched by their scales, or if a set states none by mean and deviation. Recordings that are in
both sets are found by their features and left out of the larger set, whether it trains or tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import TEST, TRAIN, ClipTable, FeatureSpec
from mvemo.fuse import bootstrap, near_pairs, numeric
from mvemo.fuse.crossval import comparisons, evaluation, evaluation_settings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import Model
from mvemo.fuse.results import Results, recommended_model, score_model
from mvemo.fuse.stores import FeatureStore, MemoryStore, joined, selected
from mvemo.fuse.tasks.regression import plane_of
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.labels import parse_scale
from mvemo.manifests.schemes import find_scheme

DEFAULT = evaluation_settings.EvaluationSettings()
# (index of the data set, classes, features) to the results of an evaluation within the set.
Own = dict[tuple[Any, ...], Results]


@dataclass(frozen=True)
class Transfer:
    """Scores on a target data set, of models trained on a source set and on the target itself."""

    source: str
    target: str
    metric: str
    classes: tuple[str, ...]
    n_train: int
    n_test: int
    n_shared: int  # clips of the larger set that are left out because both sets have them
    score: float  # trained on the source
    own: float  # trained on the target, out of fold
    loss: float  # own minus score
    interval: tuple[float, float]  # 95 % interval of the loss, from resampled groups
    baseline: float
    # Title of MCC or r (`Task.field_columns`) to the scores of both models: source, target.
    others: dict[str, tuple[float, float]]


def transfer_all(
    stores: Sequence[FeatureStore],
    scheme: str | None = None,
    settings: evaluation_settings.EvaluationSettings = DEFAULT,
) -> list[Transfer]:
    """Train on each data set, and test on each other one.

    `scheme` names the shared classes; None for the labels as they are. Only features with the same
    name and extractor are compared.
    """
    if scheme is not None:
        find_scheme(scheme)
    settings = replace(settings, folds=None, seed=None, repeats=1, refit=False, n_resamples=0)
    own: Own = {}
    return [
        _transfer((stores[i], stores[j]), scheme, settings, own, j)
        for i, j in permutations(range(len(stores)), 2)
    ]


def _transfer(
    stores: tuple[FeatureStore, FeatureStore],
    scheme: str | None,
    settings: evaluation_settings.EvaluationSettings,
    own: Own,
    number: int,
) -> Transfer:
    source, target = stores
    train, test = _comparable(source, target, scheme)
    in_test, in_train = _shared(train, test)
    # Recordings of both sets are left out of the larger one.
    if len(train.table) < len(test.table):
        in_test = np.zeros_like(in_test)
    else:
        in_train = np.zeros_like(in_train)
    if in_test.all() or in_train.all():
        raise BadFeatures(f"{source.path} has the same recordings as {target.path}: leave out one")
    train = selected(train, train.specs, np.flatnonzero(~in_test))
    results = evaluation.evaluate_once(joined([train, test], (TRAIN, TEST)), settings)
    classes = test.table.classes
    key = (number, classes, tuple(spec.name for spec in test.specs))
    if key not in own:
        own[key] = evaluation.evaluate_once(test, settings)
    transferred, here = _outputs(results)[len(train.table) :], _outputs(own[key])
    task, valid = results.task, numeric.complete(transferred) & numeric.complete(here) & ~in_train
    y_true, zeros = own[key].y_true[valid], np.zeros(valid.sum(), np.int64)
    groups = [test.table.groups[row] for row in np.flatnonzero(valid)]
    outputs = {
        "own": here[valid],
        "source": transferred[valid],
        "baseline": own[key].baseline.outputs[valid],
    }
    models = {
        name: score_model(task, Model(name, (), ()), values, y_true, zeros, 1)
        for name, values in outputs.items()
    }
    score = {name: float(m.per_fold[task.primary_metric][0]) for name, m in models.items()}
    folded = comparisons.FoldedOutputs(task, y_true, groups, zeros, 1, outputs)
    return Transfer(
        source=source.table.name,
        target=target.table.name,
        metric=task.primary_metric,
        classes=classes,
        n_train=len(train.table),
        n_test=int(valid.sum()),
        n_shared=int(in_test.sum() + in_train.sum()),
        score=score["source"],
        own=score["own"],
        loss=score["own"] - score["source"],
        interval=comparisons.difference_interval(
            [folded], "own", "source", bootstrap.resample_groups(groups)
        ),
        baseline=score["baseline"],
        others={
            column.title: (models["source"].value_of(column), models["own"].value_of(column))
            for column in task.field_columns(classes)
        },
    )


def _outputs(results: Results) -> F64:
    """Return the outputs of the nested choice, or of the only model."""
    chosen = results.choice.nested if results.choice is not None else recommended_model(results)
    assert chosen is not None
    return chosen.outputs


def _common(source: FeatureStore, target: FeatureStore) -> list[FeatureSpec]:
    """Return the features that source and target share, except those of trained nets."""
    theirs = {spec.name: spec for spec in source.specs if spec.kind == "vector"}
    common = [
        spec
        for spec in target.specs
        if spec.kind == "vector"
        and spec.protocol in ("frozen", "imported", "none")
        and (other := theirs.get(spec.name)) is not None
        and (other.dim, other.extractor, other.weights) == (spec.dim, spec.extractor, spec.weights)
    ]
    if not common:
        raise BadFeatures(
            f"{source.path} and {target.path} have no frozen or imported feature in common: make "
            "both with the same nets"
        )
    return common


def _comparable(
    source: FeatureStore, target: FeatureStore, scheme: str | None
) -> tuple[MemoryStore, MemoryStore]:
    """Return the clips of both data sets with the task, classes and features that both have."""
    stores, tables, specs = (source, target), (source.table, target.table), _common(source, target)
    if scheme is None and all(table.task == "regression" for table in tables):
        names = tuple(name for name in target.table.classes if name in source.table.classes)
        if names:
            by_scale = all(table.scale for table in tables)
            ratings = [_matched(table, names, by_scale) for table in tables]
            return _relabelled(stores, specs, "regression", names, ratings)
    named = [_class_names(table, scheme) for table in tables]
    classes = tuple(sorted({*filter(None, named[0])} & {*filter(None, named[1])}))
    if len(classes) < 2:
        raise BadFeatures(
            f"{source.path} and {target.path} have {len(classes)} classes in common "
            f"({', '.join(tables[0].classes)}; {', '.join(tables[1].classes)}): give a --scheme"
        )
    codes = [np.array([classes.index(n) if n in classes else -1 for n in of]) for of in named]
    return _relabelled(stores, specs, "multiclass", classes, codes)


def _relabelled(
    stores: Sequence[FeatureStore],
    specs: Sequence[FeatureSpec],
    task: str,
    classes: tuple[str, ...],
    labels: Sequence[NDArray[Any]],
) -> tuple[MemoryStore, MemoryStore]:
    """Return the clips of both stores that have a label, without their own folds and splits."""
    parts = []
    for store, y in zip(stores, labels, strict=True):
        rows = np.flatnonzero(y >= 0) if task == "multiclass" else np.arange(len(y))
        facts = {"task": task, "classes": classes, "labels": y[rows], "scale": ""}
        parts.append(selected(store, specs, rows, **facts))
    return parts[0], parts[1]


def _class_names(table: ClipTable, scheme: str | None) -> list[str | None]:
    rated, labels = table.task == "regression", np.asarray(table.labels, np.float64)
    if scheme == "quadrants" and rated and (plane := plane_of(table.classes, labels, table.scale)):
        return [find_scheme(scheme).classes[i] for i in plane.quadrants(labels)]
    if table.task != "multiclass":
        raise BadFeatures(
            f"{table.name}: expected classes, or valence and arousal with --scheme quadrants, got "
            f"{table.task}"
        )
    class_of = str.lower if scheme is None else find_scheme(scheme).class_of
    return [class_of(table.classes[i]) for i in table.labels]


def _matched(table: ClipTable, names: Sequence[str], by_scale: bool) -> F64:
    """Rescale ratings to 0..1 on their scale, or to a mean of 0 and a deviation of 1."""
    values = table.labels[:, [table.classes.index(name) for name in names]].astype(np.float64)
    if by_scale:
        low, high = parse_scale(table.scale)
        return (values - low) / (high - low)
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _shared(train: MemoryStore, test: MemoryStore) -> tuple[Bools, Bools]:
    """Return masks of the training and of the test clips whose recording is in both sets."""
    n, shared = len(train.table), np.zeros(len(train.table) + len(test.table), np.bool_)
    both = joined([train, test])
    for spec in both.specs:
        values, present = both.vectors(spec.name)
        rows: Ints = np.flatnonzero(present)
        pairs = near_pairs.near_rows(values[rows], (rows >= n).astype(np.int64)).pairs
        shared[rows[pairs.ravel()]] = True
    return shared[:n], shared[n:]

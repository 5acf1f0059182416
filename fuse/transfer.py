"""Transfer between data sets: train on one, test on another, compared with training on the latter.

The classes that both sets have are compared, after a scheme if one is given; ``quadrants`` divides
ratings of valence and arousal at the middle of the scale, or without a scale at the median. Ratings
are matched by their scales, or if a set states none by mean and deviation. Recordings that are in
both sets are found by their features and left out of the larger set, whether it trains or tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import TEST, TRAIN, Cache, ClipTable, FeatureSpec, import_feature, open_cache
from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.crossval.evaluation import evaluate_once
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.intervals import score_interval
from mvemo.fuse.near_pairs import near_pairs
from mvemo.fuse.numeric import complete
from mvemo.fuse.results import Results, recommended_model
from mvemo.fuse.scaling import fit_scaling, unit_rows
from mvemo.manifests.array_types import F32, F64, Bools, Ints
from mvemo.manifests.dimensions import QUADRANTS
from mvemo.manifests.labels import PLANE, parse_scale
from mvemo.manifests.schemes import find_scheme

# Function from a label to a class, or None for a label that the scheme does not map.
Scheme = Callable[[str], str | None]
DEFAULT = EvaluationSettings()


@dataclass(frozen=True)
class Transfer:
    """Scores on one data set of models trained on another, and on the set itself."""

    source: str
    target: str
    metric: str
    classes: tuple[str, ...]
    n_train: int
    n_test: int
    n_shared: int  # clips of the larger set that are left out because the other has them, too
    score: float  # trained on the source
    own: float  # trained on the target, out of fold
    loss: float  # own minus score
    interval: tuple[float, float]  # 95 % interval of the loss, from resampled groups
    baseline: float
    # MCC or r (`Task.field_columns`) by title, trained on the source and on the target.
    others: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class _Labelled:
    """Clips of one data set with comparable labels."""

    rows: Ints  # rows in the cache
    labels: NDArray[Any]


def transfer_all(
    caches: Sequence[Cache],
    scheme: Scheme | str | None = None,
    settings: EvaluationSettings = DEFAULT,
) -> list[Transfer]:
    """Train on each data set, and test on each other one.

    Parameters
    ----------
    caches
        Two or more open caches with features of the same names and extractors.
    scheme
        Function from labels to shared classes, ``quadrants``, or None for the labels as they are.
    settings
        Settings of the evaluations.

    Raises
    ------
    BadFeatures
        Two data sets have no feature, or fewer than two classes or no target, in common.
    """
    own: dict[tuple[int, tuple[str, ...]], Results] = {}
    found = []
    for i, j in permutations(range(len(caches)), 2):
        found.append(_transfer(caches[i], caches[j], scheme, settings, own, j))
    return found


def _transfer(
    source: Cache,
    target: Cache,
    scheme: Scheme | str | None,
    settings: EvaluationSettings,
    own: dict[tuple[int, tuple[str, ...]], Results],
    number: int,
) -> Transfer:
    task, classes, (train, test) = _comparable(source, target, scheme)
    specs = _common(source, target)
    vectors = {
        spec.name: [cache.vectors(spec.name)[0] for cache in (source, target)] for spec in specs
    }
    shared, tested = _shared(vectors, train.rows, test.rows)
    if len(train.rows) < len(test.rows):
        shared = np.zeros_like(shared)
    else:
        tested = np.zeros_like(tested)
    if shared.all() or tested.all():
        raise BadFeatures(f"{source.path} has the same recordings as {target.path}: leave out one")
    train = _Labelled(train.rows[~shared], train.labels[~shared])
    settings = replace(settings, folds=None, seed=None, repeats=1, refit=False, n_resamples=0)
    pairs = [(source, train, TRAIN), (target, test, TEST)]
    results = _evaluate(task, classes, pairs, specs, vectors, settings)
    key = number, classes
    if key not in own:
        own[key] = _evaluate(task, classes, pairs[1:], specs, vectors, settings)
    there, here = _outputs(results, len(train.rows)), _outputs(own[key], 0)
    y, valid = test.labels, complete(there) & complete(here) & ~tested
    primary = results.task.primary
    score, score_own = primary(y[valid], there[valid]), primary(y[valid], here[valid])
    groups = [target.table.groups[i] for i in test.rows[valid]]
    resamples, zeros = resample_groups(groups), np.zeros(len(groups), np.int64)
    both = np.stack([here[valid], there[valid]])
    drawn = results.task.resample_primary(y[valid], both, zeros, 1, resamples)
    interval = score_interval("difference", drawn[0] - drawn[1], resamples)
    measured = [
        results.task.measure(y[valid], values[valid], results.task.decide(values[valid]))
        for values in (there, here)
    ]
    others = {
        c.title: (c.value(*measured[0]), c.value(*measured[1]))
        for c in results.task.field_columns(classes)
    }
    baseline = primary(y[valid], own[key].baseline.outputs[valid])
    return Transfer(
        source.table.name,
        target.table.name,
        results.task.primary_metric,
        classes,
        len(train.rows),
        int(valid.sum()),
        int(shared.sum() + tested.sum()),
        score,
        score_own,
        score_own - score,
        interval,
        baseline,
        others,
    )


def _outputs(results: Results, start: int) -> F64:
    """Return the outputs of the nested choice, or of the only model, from a row on."""
    chosen = results.choice.nested if results.choice is not None else recommended_model(results)
    assert chosen is not None
    return chosen.outputs[start:]


def _common(source: Cache, target: Cache) -> list[FeatureSpec]:
    """Return the features of the target that the source has, too, without those of trained nets."""
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
    source: Cache, target: Cache, scheme: Scheme | str | None
) -> tuple[str, tuple[str, ...], tuple[_Labelled, _Labelled]]:
    """Return task, classes and labels that both data sets can be scored with."""
    tables = source.table, target.table
    if scheme is None and all(table.task == "regression" for table in tables):
        names = [name for name in target.table.classes if name in source.table.classes]
        if names:
            by_scale = all(table.scale for table in tables)
            parts = tuple(
                _Labelled(np.arange(len(t)), _matched(t, names, by_scale)) for t in tables
            )
            return "regression", tuple(names), (parts[0], parts[1])
    named = [_class_names(table, scheme) for table in tables]
    classes = sorted({*filter(None, named[0])} & {*filter(None, named[1])})
    if len(classes) < 2:
        raise BadFeatures(
            f"{source.path} and {target.path} have {len(classes)} classes in common "
            f"({', '.join(tables[0].classes)}; {', '.join(tables[1].classes)}): give a --scheme"
        )
    parts = tuple(
        _Labelled(
            np.array([i for i, name in enumerate(names) if name in classes], np.int64),
            np.array([classes.index(name) for name in names if name in classes], np.int64),
        )
        for names in named
    )
    return "multiclass", tuple(classes), (parts[0], parts[1])


def _class_names(table: ClipTable, scheme: Scheme | str | None) -> list[str | None]:
    if table.task == "regression" and scheme == "quadrants":
        lower = [name.lower() for name in table.classes]
        if set(PLANE) <= set(lower):
            valence, arousal = (table.labels[:, lower.index(name)] for name in PLANE)
            middle = [float(np.median(valence)), float(np.median(arousal))]
            if table.scale:
                middle = [sum(parse_scale(table.scale)) / 2] * 2
            quadrant = np.where(arousal >= middle[1], np.where(valence >= middle[0], 0, 1), 2)
            quadrant[(arousal < middle[1]) & (valence >= middle[0])] = 3
            return [QUADRANTS[i] for i in quadrant]
    if table.task != "multiclass":
        raise BadFeatures(
            f"{table.name}: expected classes, or valence and arousal with --scheme quadrants, got "
            f"{table.task}"
        )
    names = [table.classes[i] for i in table.labels]
    if scheme == "quadrants":
        scheme = find_scheme(scheme).class_of
    return [scheme(name) if callable(scheme) else name.lower() for name in names]


def _matched(table: ClipTable, names: Sequence[str], by_scale: bool) -> F64:
    """Return ratings as parts of their scale, or in deviations from their mean."""
    values = table.labels[:, [table.classes.index(name) for name in names]].astype(np.float64)
    if by_scale:
        low, high = parse_scale(table.scale)
        return np.asarray((values - low) / (high - low), dtype=np.float64)
    return np.asarray((values - values.mean(axis=0)) / values.std(axis=0), dtype=np.float64)


def _shared(vectors: dict[str, list[F32]], train: Ints, test: Ints) -> tuple[Bools, Bools]:
    """Return bool (training clips,) and (test clips,): True if the other set has the recording."""
    shared = np.zeros(len(train) + len(test), np.bool_)
    for of_source, of_target in vectors.values():
        x = np.concatenate([of_source[train], of_target[test]])
        present = np.flatnonzero(complete(x.astype(np.float64)))
        scaling, _ = fit_scaling(x[present], np.ones(len(present), np.bool_))
        z = replace(scaling, limit=np.inf).apply(x[present])
        pairs = near_pairs(unit_rows(z), (present >= len(train)).astype(np.int64)).pairs
        shared[present[pairs.ravel()]] = True
    return shared[: len(train)], shared[len(train) :]


def _evaluate(
    task: str,
    classes: tuple[str, ...],
    parts: Sequence[tuple[Cache, _Labelled, int]],
    specs: Sequence[FeatureSpec],
    vectors: dict[str, list[F32]],
    settings: EvaluationSettings,
) -> Results:
    """Evaluate one data set by folds, or the second one by heads of the first."""
    both = len(parts) == 2
    table = ClipTable(
        name=parts[-1][0].table.name,
        task=task,
        classes=classes,
        clip_ids=tuple(
            f"{split}/{cache.table.clip_ids[i]}" for cache, of, split in parts for i in of.rows
        ),
        groups=tuple(
            f"{split}/{cache.table.groups[i]}" for cache, of, split in parts for i in of.rows
        ),
        labels=np.concatenate([of.labels for _, of, _ in parts]),
        folds=np.full(sum(len(of.rows) for _, of, _ in parts), -1),
        k=0,
        splits=np.repeat([split for *_, split in parts], [len(of.rows) for _, of, _ in parts])
        if both
        else None,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.h5"
        for spec in specs:
            values = np.concatenate(
                [
                    vectors[spec.name][-len(parts) :][n][of.rows]
                    for n, (_, of, _) in enumerate(parts)
                ]
            )
            import_feature(path, spec.name, spec.modality, values, table=table)
        with open_cache(path) as cache:
            return evaluate_once(cache, settings)

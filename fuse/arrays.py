"""Arrays and data frames as features, labels, groups and folds, without a dependency on pandas.

The index of a data frame or a series has the clip ids; rows without an index are in the order of
the clips.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import ClipTable, FeatureSpec, check_modality
from mvemo.cache.import_feature import EXTRACTOR, VERSION, vector_rows
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import Labels
from mvemo.fuse.stores import MemoryStore
from mvemo.fuse.tasks import task_of
from mvemo.manifests import Folds
from mvemo.manifests.array_types import F32
from mvemo.manifests.splits.assignment import straddling

# Name and modality of the only feature, if it has no name.
ONLY = "features"


def store_of(X: Any, y: Any, groups: Any = None, task: str | None = None) -> MemoryStore:
    """Return features and labels in memory; `mvemo.evaluate` explains the parameters."""
    blocks = {str(k): v for k, v in X.items()} if isinstance(X, Mapping) else {ONLY: X}
    given = {"y": y, **{f"X[{name!r}]": block for name, block in blocks.items()}}
    ids = next(filter(None, map(_index, given.keys(), given.values())), None)
    if ids is None:
        ids = tuple(map(str, range(len(_values(y, "y")))))
    labels = _aligned(y, ids, "y")
    kind, classes, labels = _read_labels(labels, _names(y), task)
    group_of = groups if groups is not None else ids
    table = ClipTable(
        name="data",
        task=kind,
        classes=classes,
        clip_ids=ids,
        groups=tuple(map(str, _aligned(group_of, ids, "groups").tolist())),
        labels=labels,
        folds=np.full(len(ids), -1),
        k=0,
    )
    return MemoryStore(table, [_feature(name, block, ids) for name, block in blocks.items()])


def folds_of_clips(folds: Any, table: ClipTable) -> Folds:
    """Return given folds, one for each clip; raise `BadFeatures` if a group is in several."""
    values = _aligned(folds, table.clip_ids, "folds")
    names, assignment = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise BadFeatures(f"folds: expected at least two different folds, got {names.tolist()}")
    if problem := straddling(table.groups, assignment):
        raise BadFeatures(f"folds: {problem}: give all clips of a group one fold")
    return Folds(assignment.reshape(-1).astype(np.int64), len(names), -1, table.clip_ids)


def _feature(name: str, block: Any, ids: Sequence[str]) -> tuple[FeatureSpec, F32]:
    """Return the spec and the values of a block, with a NaN row for a clip without a row."""
    where = f"X[{name!r}]"
    modality, _, feature = name.rpartition(":")
    try:
        check_modality(modality or feature)
    except ValueError as error:
        raise BadFeatures(f"{where}: {error}: name it MODALITY or MODALITY:FEATURE") from None
    values = _values(block, where)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size:
        raise BadFeatures(
            f"{where}: expected shape (clips, numbers), got {values.shape}: give one vector per "
            "clip, such as the mean over its frames"
        )
    numbers = _as_numbers(values, _names(block), where)
    places = _places(block, len(values), ids, where)
    rows = np.full((len(ids), values.shape[1]), np.nan, np.float32)
    rows[places], _, _ = vector_rows(numbers, [ids[row] for row in places], where)
    spec = FeatureSpec(
        name=feature,
        modality=modality or feature,
        kind="vector",
        dim=rows.shape[1],
        extractor=EXTRACTOR,
        version=VERSION,
        params={"sha256": hashlib.sha256(rows.tobytes()).hexdigest()},
        protocol="imported",
    )
    return spec, rows


def _read_labels(
    values: NDArray[Any], names: Sequence[str] | None, task: str | None
) -> tuple[str, tuple[str, ...], Labels]:
    """Return the task, its classes, tags or targets, and the labels of a `ClipTable`.

    As in `type_of_target` of scikit-learn, integers are classes and other numbers are targets.
    """
    numeric = values.dtype.kind in "fiub"
    if values.dtype.kind in "fO" and any(map(_is_missing, values.ravel().tolist())):
        raise BadFeatures("y: has missing labels: leave these clips out of X and y")
    if values.ndim == 2 and values.shape[1] == 1 and task != "regression":
        values = values[:, 0]
    whole = numeric and not (values % 1).any()
    if task is None:
        flags = numeric and np.isin(values, (0, 1)).all()
        task = "multilabel" if flags else "regression"
        if values.ndim == 1:
            task = "multiclass" if whole or not numeric else "regression"
    task_of(task)  # refuses an unknown task
    if task == "multiclass":
        if values.ndim != 1:
            raise BadFeatures(f"y: expected one class per clip, got shape {values.shape}")
        classes, labels = np.unique(values if numeric else values.astype(str), return_inverse=True)
        if len(classes) < 2:
            raise BadFeatures(f"y: expected at least two classes, got {classes.tolist()}")
        shown = classes.astype(np.int64) if whole and classes.dtype.kind == "f" else classes
        return task, tuple(map(str, shown.tolist())), labels.reshape(-1).astype(np.int64)
    table = values[:, None] if values.ndim == 1 else values
    table = _as_numbers(table, names, "y")
    if table.ndim != 2 or (task == "multilabel" and not np.isin(table, (0, 1)).all()):
        form = "tags of 0 and 1" if task == "multilabel" else "numbers"
        raise BadFeatures(f"y: expected (clips, outputs) of {form}, got shape {values.shape}")
    noun = "tag" if task == "multilabel" else "target"
    titles = names or [f"{noun} {i}" for i in range(table.shape[1])]
    return task, tuple(titles), table.astype(np.int64 if task == "multilabel" else np.float64)


def _is_missing(label: Any) -> bool:
    name = type(label).__name__  # pandas has types for missing values
    return label is None or name in ("NAType", "NaTType") or (name == "float" and label != label)


def _values(value: Any, where: str) -> NDArray[Any]:
    """Return an array, a list, or a data frame or series as an array."""
    if value is None or isinstance(value, str | bytes | Mapping) or hasattr(value, "read"):
        raise BadFeatures(f"{where}: expected an array or a data frame, got {value!r:.80}")
    try:
        values = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
    except ValueError:
        raise BadFeatures(f"{where}: the rows have different lengths") from None
    if values.ndim == 0 or not len(values):
        raise BadFeatures(f"{where}: expected one row for each clip, got {value!r:.80}")
    return np.asarray(values)


def _as_numbers(values: NDArray[Any], names: Sequence[str] | None, where: str) -> NDArray[Any]:
    """Return the columns as numbers; raise `BadFeatures` for a column of texts."""
    if values.dtype.kind in "fiub":
        return values
    columns = []
    for i, column in enumerate(values.T):
        try:
            columns.append(np.array([np.nan if v is None else v for v in column]).astype(float))
        except (TypeError, ValueError):
            name = names[i] if names else str(i)
            raise BadFeatures(
                f"{where}: column {name!r}: expected numbers, got {column[0]!r:.80}: leave it out"
            ) from None
    return np.stack(columns, axis=1)


def _names(value: Any) -> list[str] | None:
    """Return the names of the columns of a data frame, or of a series; None if there are none."""
    if hasattr(value, "columns"):
        return [str(name) for name in value.columns]
    name = getattr(value, "name", None)
    return None if name is None else [str(name)]


def _index(where: str, value: Any) -> tuple[str, ...] | None:
    """Return the clip ids in the index of a data frame or a series; None without an index."""
    index = getattr(value, "index", None)
    if index is None or callable(index):
        return None
    ids = tuple(map(str, index))
    if repeated := [clip for clip, n in Counter(ids).items() if n > 1]:
        raise BadFeatures(f"{where}: the index has {repeated[0]!r} twice: give one row per clip")
    return ids


def _places(value: Any, n: int, ids: Sequence[str], where: str) -> list[int]:
    """Return, for each of `n` rows, the index of its clip in `ids`."""
    index = _index(where, value)
    if index is None:
        if n != len(ids):
            raise BadFeatures(f"{where}: expected {len(ids)} rows, one for each clip, got {n}")
        return list(range(n))
    row_of = {clip: row for row, clip in enumerate(ids)}
    if unknown := [clip for clip in index if clip not in row_of]:
        raise BadFeatures(
            f"{where}: {len(unknown)} of {n} clips have no label, such as {unknown[0]!r}: give X "
            "and y the same index"
        )
    return [row_of[clip] for clip in index]


def _aligned(value: Any, ids: Sequence[str], where: str) -> NDArray[Any]:
    """Return labels, groups or folds in the order of the clips."""
    values = _values(value, where)
    places = _places(value, len(values), ids, where)
    if absent := sorted({*range(len(ids))} - {*places}):
        raise BadFeatures(
            f"{where}: {len(absent)} of {len(ids)} clips are not in its index, such as "
            f"{ids[absent[0]]!r}"
        )
    return values[np.argsort(places)]

"""Export of features to ``.npz``, ``.csv`` and ``.parquet``, with clip ids."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache import schema
from mvemo.cache.errors import BadCache
from mvemo.cache.reader import Cache, clip_reader, open_cache
from mvemo.cache.spec import FeatureSpec
from mvemo.manifests import files, tables
from mvemo.manifests.errors import BadOption, MissingFile


def export_cache(path: Path | str, name: str, out: Path | str, *, fold: int | None = None) -> None:
    """Write one feature of a cache to a file.

    Parameters
    ----------
    path
        Path of the cache.
    name
        Name of the feature.
    out
        Path of the output file, which is replaced if it exists. ``.npz`` (no pickles) has
        ``clip_ids``, ``groups``, ``labels``, ``classes``, ``folds``, ``present``, ``values``
        float32 (clips, dim) with NaN for missing rows, ``spec`` as JSON, and ``splits`` if
        there are any. For a sequence, ``values`` is (all frames, dim) and ``offsets`` is
        (clips + 1,). ``.csv`` has one line per clip (for a sequence: per frame, with the frame's
        number) and empty cells for missing values; nine digits preserve every float32.
        ``.parquet`` has the same columns.
    fold
        Fold of the net, under ``crossfit``.

    Raises
    ------
    BadCache
        The feature or fold does not exist, or `out` has another suffix.
    MvemoError
        `out` cannot be written.

    Examples
    --------
    >>> from mvemo.cache import ClipTable, import_feature
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> values = np.array([[0.5, 1.5], [2.0, 4.0]])
    >>> _ = import_feature("features.h5", "mean", "audio", values, table=clips)
    >>> export_cache("features.h5", "mean", "mean.csv")
    >>> print(Path("mean.csv").read_text(), end="")
    clip_id,mean_0,mean_1
    a,0.5,1.5
    b,2,4
    """
    out = Path(out)
    suffixes = {".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}
    write = suffixes.get(out.suffix.lower())
    if write is None:
        raise BadCache(f"{out}: unknown suffix {out.suffix!r}: expected .npz, .csv or .parquet")
    if not out.parent.is_dir():
        raise MissingFile(f"{out}: its folder does not exist: create it first")
    with open_cache(path) as cache:
        spec = cache.spec(name, fold)
        if spec.fold is None and fold is not None:
            raise BadCache(f"{path}: {name} is the same for all folds: leave out fold {fold}")
        with files.replacing(out) as temp:
            write(temp, cache, spec)


def _write_npz(temp: Path, cache: Cache, spec: FeatureSpec) -> None:
    table = cache.table
    arrays: dict[str, Any] = {
        "clip_ids": np.array(table.clip_ids, np.str_),
        "groups": np.array(table.groups, np.str_),
        "labels": table.labels,
        "classes": np.array(table.classes, np.str_),
        "folds": table.folds,
        "spec": np.array(schema.to_json(spec.facts)),
    }
    if table.splits is not None:
        arrays["splits"] = table.splits
    if spec.kind != "sequence":
        arrays["values"], arrays["present"] = cache.vectors(spec.name, spec.fold)
    else:
        arrays["present"] = present = cache.present(spec.name, spec.fold)
        rows = [*map(clip_reader(cache, spec), np.flatnonzero(present).tolist())]
        frames = np.zeros(len(table), np.int64)
        frames[present] = [len(row) for row in rows]
        arrays["offsets"] = np.concatenate([[0], np.cumsum(frames)])
        arrays["values"] = np.concatenate([np.empty((0, spec.dim), np.float32), *rows])
    with temp.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _write_csv(temp: Path, cache: Cache, spec: FeatureSpec) -> None:
    present, read = cache.present(spec.name, spec.fold), clip_reader(cache, spec)
    frame = ["frame"] if spec.kind == "sequence" else []
    with temp.open("w", newline="", encoding="utf-8") as file:
        lines = tables.CsvWriter(file)
        lines.writerow(["clip_id", *frame, *(f"{spec.name}_{i}" for i in range(spec.dim))])
        for i, clip in enumerate(cache.table.clip_ids):
            if not present[i]:
                lines.writerow([clip, *[""] * (len(frame) + spec.dim)])
                continue
            for number, row in enumerate(np.atleast_2d(read(i)).tolist()):
                lines.writerow([clip, *([number] if frame else []), *(f"{v:.9g}" for v in row)])


def _write_parquet(temp: Path, cache: Cache, spec: FeatureSpec) -> None:
    try:
        arrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise BadOption("Parquet needs the package pyarrow: pip install pyarrow") from error
    present, read = cache.present(spec.name, spec.fold), clip_reader(cache, spec)
    fields = [("clip_id", arrow.string())]
    fields += [("frame", arrow.int64())] * (spec.kind == "sequence")
    fields += [(f"{spec.name}_{i}", arrow.float32()) for i in range(spec.dim)]
    schema = arrow.schema(fields)
    with parquet.ParquetWriter(temp, schema) as writer:
        # A row group has one clip of a sequence, or the vectors of some thousand clips.
        step = 1 if spec.kind == "sequence" else 4096
        for start in range(0, len(cache.table), step):
            rows = range(start, min(start + step, len(cache.table)))
            missing = np.full((1, spec.dim), np.nan, np.float32)
            parts = [np.atleast_2d(read(i)) if present[i] else missing for i in rows]
            counts = [len(part) for part in parts]
            values = np.concatenate(parts)
            valid = np.repeat([bool(present[i]) for i in rows], counts)
            columns = [arrow.array(np.repeat([cache.table.clip_ids[i] for i in rows], counts))]
            if spec.kind == "sequence":
                columns.append(arrow.array(np.arange(len(values)), mask=~valid))
            columns += [arrow.array(column, mask=~valid) for column in values.T]
            writer.write_table(arrow.table(columns, schema=schema))

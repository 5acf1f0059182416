"""Tables of vectors, written and read in blocks, so that memory does not grow with their length.

Columns: ``id`` (text), ``start`` and ``end`` (seconds), ``vector`` (in Parquet a list of float32,
in CSV a list as in JSON). For the search for similar songs, each id has one row.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.scaling import Rows
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import BadFile
from mvemo.manifests.files import replacing
from mvemo.manifests.tables import PARQUET, CsvWriter, unguarded

COLUMNS = ("id", "start", "end", "vector")
BLOCK = 4096  # rows that are written, or read, at a time

Row = tuple[str, float, float, F32]  # values of `COLUMNS`


def write_vectors(path: Path, rows: Iterable[Row], dim: int, facts: Mapping[str, Any]) -> None:
    """Write a table atomically; a Parquet file has `facts` in its metadata, as JSON."""
    source = iter(rows)
    blocks = iter(lambda: [*islice(source, BLOCK)], [])
    with replacing(path) as temp:
        if path.suffix.lower() not in PARQUET:
            with temp.open("w", encoding="utf-8", newline="") as file:
                CsvWriter(file).writerow(COLUMNS)
                for *others, vector in (row for block in blocks for row in block):
                    CsvWriter(file).writerow([*others, json.dumps(vector.tolist())])
            return
        # pyarrow has no types, and is only installed with pandas.
        arrow: Any = import_module("pyarrow")
        kinds = [arrow.string(), *[arrow.float64()] * 2, arrow.list_(arrow.float32(), dim)]
        schema = arrow.schema([*zip(COLUMNS, kinds, strict=True)], {"mvemo": json.dumps(facts)})
        with import_module("pyarrow.parquet").ParquetWriter(temp, schema) as writer:
            for block in blocks:
                *columns, vectors = zip(*block, strict=True)
                flat = arrow.FixedSizeListArray.from_arrays(np.concatenate(vectors), dim)
                writer.write_table(arrow.table([*map(list, columns), flat], schema=schema))


def read_vectors(path: Path) -> tuple[list[str], Rows]:
    """Return the ids of a table and its vectors, which are read from the file in each pass.

    BadFile is raised if it is no such table, if an id has several rows, or for a bad vector.
    """
    ids, dim = list[str](), 0
    for _, names, values in _blocks(path):
        dim = dim or values.shape[1]
        usable = np.isfinite(values).all(axis=1) & (values.shape[1] == dim)
        if not usable.all():
            name = names[int(usable.argmin())]
            raise BadFile(f"{path}: {name}: expected a vector of {dim} finite numbers")
        ids += names
    if not dim:
        raise BadFile(f"{path}: expected vectors, got no row with a number")
    name, n = Counter(ids).most_common(1)[0]
    if n > 1:
        raise BadFile(f"{path}: {name} has {n} rows, expected 1: leave out --hop of mvemo embed")
    return ids, Rows((len(ids), dim), lambda: ((at, values) for at, _, values in _blocks(path)))


def _blocks(path: Path) -> Iterator[tuple[slice, Sequence[str], F32]]:
    """Yield rows, ids and vectors, float32 (rows, dim)."""
    start, read = 0, _read_parquet if path.suffix.lower() in PARQUET else _read_csv
    try:
        for names, values in read(path):
            yield slice(start, start + len(names)), names, values
            start += len(names)
    except (KeyError, ValueError, AttributeError) as error:
        problem = f"expected the columns id and vector of mvemo embed: {error}"
        raise BadFile(f"{path}: {problem}") from None


def _read_parquet(path: Path) -> Iterator[tuple[Sequence[str], F32]]:
    # Otherwise all columns are read into memory first.
    with import_module("pyarrow.parquet").ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(BLOCK, columns=["id", "vector"]):
            flat = np.asarray(batch["vector"].flatten(), np.float32)
            yield batch["id"].to_pylist(), flat.reshape(batch.num_rows, -1)


def _read_csv(path: Path) -> Iterator[tuple[Sequence[str], F32]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        while block := [*islice(rows, BLOCK)]:
            vectors = [row["vector"].strip("[]").split(",") for row in block]
            yield [unguarded(row["id"]) for row in block], np.array(vectors, np.float32)

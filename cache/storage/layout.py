"""Layout of the HDF5 file (schema 1), and reading and writing of its clip table.

::

    /                      attrs: format, schema, mvemo
    /clips                 attrs: name, task, k, fold_seed, digest, synthetic, checksum;
                           scale, predicted_by (if stated)
        classes, ids, groups        UTF-8 strings
        labels, folds               aligned to ids
        splits                      aligned to ids; only under the holdout protocol
    /features/<name>[@foldN]        attrs: digest (of the spec), checksum (of the index), order;
                                    values_checksum, quick_checksum (of index and checksum;
                                    both since mvemo 0.2); n_trained_on (only in shards of an
                                    unfinished run)
        spec                        JSON, without trained_on
        present      bool (clips,)
        keys         bytes (clips,), empty if missing
        checksums    uint8 (clips, 16), zero if missing
        values       vector: float32 (clips, dim), NaN rows if missing
                     sequence: float32 (all frames, dim), clips one after the other; or
                     float16, with attributes largest_relative_error and largest_absolute_error
        offsets      only for sequences: int64 (clips + 1,), rows of `values`
        trained_on   bool (clips,); trained_on_others: ids that are not in `clips`
    /failures              clips, stages, reasons; cleared (True only in shards);
                           times, versions (of mvemo; since mvemo 0.2)
    /curves, /provenance   JSON
    /merged                names of the shards that were merged into this file

Everything that HDF5 does not checksum has a checksum of ours, so that `verify` finds every
flipped bit that matters. There are no pickles and no compression filters: every HDF5 library
from version 1.10 on can read the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.storage.encoding import text_checksum, to_json
from mvemo.cache.storage.plain import (
    array_of,
    attribute,
    has_attribute,
    part,
    texts_of,
    write_attribute,
)
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Ints
from mvemo.manifests.labels import label_kind

MISFIT = "it does not fit its checksum"
# Texts of a clip table that are only written if they are not empty.
_OPTIONAL = ("scale", "predicted_by")


# --- checksums


def table_checksum(table: ClipTable) -> str:
    """Return the checksum of everything in a clip table."""
    single = [table.name, table.task, table.k, table.fold_seed, table.digest, table.synthetic]
    # Absent parts add nothing, so that older tables keep their checksum.
    optional = [] if table.splits is None else [_integers(table.splits)]
    optional += [f"{name} {text}" for name in _OPTIONAL if (text := getattr(table, name))]
    return text_checksum(
        to_json(single),
        *("\0".join(strings) for strings in (table.classes, table.clip_ids, table.groups)),
        str(table.labels.shape),
        _stored_labels(table).tobytes().hex(),
        _integers(table.folds),
        *optional,
    )


def _stored_labels(table: ClipTable) -> NDArray[Any]:
    """Return the labels as they are stored in a file."""
    dtype = np.dtype(label_kind(table.task).dtype).newbyteorder("<")
    return np.ascontiguousarray(table.labels, dtype=dtype)


def _integers(values: Ints) -> str:
    return np.ascontiguousarray(values, dtype="<i8").tobytes().hex()


# --- small parts of a file


def write_strings(group: Any, name: str, values: Iterable[str]) -> None:
    """Write a data set of UTF-8 strings."""
    group.create_dataset(name, data=list(values), dtype=h5py.string_dtype("utf-8"))


def read_strings(group: Any, name: str) -> tuple[str, ...]:
    """Read the strings of `write_strings`."""
    texts = texts_of(group, name)
    if texts.ndim != 1:
        raise ValueError(f"{name} is of shape {texts.shape}, needed is a list")
    return tuple(texts.tolist())


def write_text(group: Any, name: str, text: str) -> None:
    """Write one string with its checksum, as a data set because attributes are limited in size."""
    item = group.create_dataset(name, data=text, dtype=h5py.string_dtype("utf-8"))
    write_attribute(item, "checksum", text_checksum(text))


def read_text(group: Any, name: str) -> str:
    """Read the string of `write_text`; raise ValueError if it does not match its checksum."""
    array = array_of(group, name, shape=())
    text = str(array.texts())
    if text_checksum(text) != attribute(array.item, "checksum", str):
        raise ValueError(MISFIT)
    return text


# --- clips


def subset(table: ClipTable, rows: Sequence[int]) -> ClipTable:
    """Return the table of some clips, in the given order."""
    return replace(
        table,
        clip_ids=tuple(table.clip_ids[i] for i in rows),
        groups=tuple(table.groups[i] for i in rows),
        labels=table.labels[list(rows)],
        folds=table.folds[list(rows)],
        splits=None if table.splits is None else table.splits[list(rows)],
    )


def write_table(file: Any, table: ClipTable) -> None:
    """Write ``/clips``."""
    group = file.create_group("clips")
    write_attribute(group, "name", table.name)
    write_attribute(group, "task", table.task)
    group.attrs["k"] = int(table.k)
    group.attrs["fold_seed"] = int(table.fold_seed)
    write_attribute(group, "digest", table.digest)
    group.attrs["synthetic"] = bool(table.synthetic)
    write_attribute(group, "checksum", table_checksum(table))
    for name in _OPTIONAL:
        if text := getattr(table, name):
            write_attribute(group, name, text)
    write_strings(group, "classes", table.classes)
    write_strings(group, "ids", table.clip_ids)
    write_strings(group, "groups", table.groups)
    group.create_dataset("labels", data=_stored_labels(table))
    group.create_dataset("folds", data=np.asarray(table.folds, dtype="<i8"))
    if table.splits is not None:
        group.create_dataset("splits", data=np.asarray(table.splits, dtype="<i8"))


def read_table(file: Any) -> ClipTable:
    """Read ``/clips``; raise ValueError for a wrong checksum or an unknown task."""
    group = part(file, "clips")
    task = attribute(group, "task", str)
    ids = read_strings(group, "ids")
    n = (len(ids),)
    labels = array_of(group, "labels", np.dtype(label_kind(task).dtype).newbyteorder("<"))
    table = ClipTable(
        name=attribute(group, "name", str),
        task=task,
        classes=read_strings(group, "classes"),
        clip_ids=ids,
        groups=read_strings(group, "groups"),
        labels=labels.read(),
        folds=array_of(group, "folds", "<i8", n).read(),
        k=attribute(group, "k", int),
        fold_seed=attribute(group, "fold_seed", int),
        digest=attribute(group, "digest", str),
        synthetic=attribute(group, "synthetic", bool),
        splits=array_of(group, "splits", "<i8", n).read() if "splits" in group else None,
        **{name: attribute(group, name, str) for name in _OPTIONAL if has_attribute(group, name)},
    )
    if table_checksum(table) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return table

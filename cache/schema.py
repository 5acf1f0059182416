"""Layout of the HDF5 file (schema 1), its checksums, and all its content except features.

::

    /                      attrs: format, schema, mvemo
    /clips                 attrs: name, task, k, fold_seed, digest, synthetic, checksum;
                           scale, predicted_by (if stated)
        classes, ids, groups        UTF-8 strings
        labels, folds               aligned to ids
        splits                      aligned to ids; only under the holdout protocol
        disagreement                float64 (clips, 1 + n); only if annotators' is known
    /features/<name>[@foldN]        attrs: digest (of the spec), checksum (of the index), order;
                                    values_checksum, quick_checksum (of index and checksum;
                                    both XXH3-128, since mvemo 0.2); n_trained_on (only in
                                    shards of an unfinished run)
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

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.table import ClipTable, Curves, Failure, Failures
from mvemo.cache.untrusted import array_of, attribute, part, write_attribute
from mvemo.manifests.array_types import F32, Ints
from mvemo.manifests.files import to_json_values
from mvemo.manifests.labels import label_kind
from mvemo.manifests.text_files import parse_json

FORMAT = "mvemo features"
SCHEMA = 1
# File format of HDF5 1.10, which checksums its metadata, unlike the default.
LIBVER = ("v110", "v110")
# Bytes of a checksum of a row (BLAKE2b).
CHECKSUM = 16
MISFIT = "it does not match its checksum"
# Texts of a clip table that are only written if they are not empty.
_OPTIONAL = ("scale", "predicted_by")
_TABLE_ATTRIBUTES: dict[str, type[Any]] = {
    "name": str,
    "task": str,
    "k": int,
    "fold_seed": int,
    "digest": str,
    "synthetic": bool,
}
# Data sets to fields of `ClipTable` and of `Failure`.
_TABLE_TEXTS = {"classes": "classes", "ids": "clip_ids", "groups": "groups"}
_FAILURE_COLUMNS = {
    "clips": "clip_id",
    "stages": "stage",
    "reasons": "reason",
    "times": "time",
    "versions": "version",
}
_ORIGINS = ("times", "versions")
_NUMBERS = {int, float, type(None)}  # types of a curve's values in JSON


@cache
def code_version() -> str:
    """Return the version of the installed mvemo."""
    try:
        return metadata.version("mvemo")
    except metadata.PackageNotFoundError:
        return "unknown"


# --- checksums


def row_checksum(clip_id: str, key: bytes, row: F32) -> bytes:
    """Return the BLAKE2b-128 of a row's clip id, key and values; it also detects moved rows."""
    state = hashlib.blake2b(clip_id.encode() + b"\0" + key + b"\0", digest_size=CHECKSUM)
    state.update(np.ascontiguousarray(row, dtype="<f4").data)
    return state.digest()


def text_checksum(*parts: str | bytes) -> str:
    """Return the BLAKE2b-128 of texts (or UTF-8 bytes) as hexadecimal."""
    state = hashlib.blake2b(digest_size=CHECKSUM)
    for text in parts:
        data = text if isinstance(text, bytes) else text.encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def to_json(value: Any) -> str:
    """Return canonical JSON of `to_json_values(value)`."""
    return json.dumps(to_json_values(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def table_checksum(table: ClipTable) -> str:
    """Return the checksum of everything in a clip table."""
    single = [getattr(table, name) for name in _TABLE_ATTRIBUTES]
    # Missing optional parts add nothing, so that older tables keep their checksum.
    optional = [] if table.splits is None else [_integers(table.splits)]
    optional += [f"{name} {text}" for name in _OPTIONAL if (text := getattr(table, name))]
    if table.disagreement is not None:
        optional += [f"disagreement {table.disagreement.astype('<f8').tobytes().hex()}"]
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
    texts = array_of(group, name).texts()
    if texts.ndim != 1:
        raise ValueError(f"{name}: expected a list, got shape {texts.shape}")
    return tuple(texts.tolist())


def write_text(group: Any, name: str, text: str) -> None:
    """Write a string and its checksum; as a data set, because attributes are limited in size."""
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


def write_table(file: Any, table: ClipTable) -> None:
    """Write ``/clips``."""
    group = file.create_group("clips")
    for name, kind in _TABLE_ATTRIBUTES.items():
        if kind is str:
            write_attribute(group, name, getattr(table, name))
        else:
            group.attrs[name] = kind(getattr(table, name))
    write_attribute(group, "checksum", table_checksum(table))
    for name in _OPTIONAL:
        if text := getattr(table, name):
            write_attribute(group, name, text)
    for name, field in _TABLE_TEXTS.items():
        write_strings(group, name, getattr(table, field))
    group.create_dataset("labels", data=_stored_labels(table))
    for name in ("folds", "splits"):
        if getattr(table, name) is not None:
            group.create_dataset(name, data=np.asarray(getattr(table, name), dtype="<i8"))
    if table.disagreement is not None:
        group.create_dataset("disagreement", data=np.asarray(table.disagreement, dtype="<f8"))


def read_table(file: Any) -> ClipTable:
    """Read ``/clips``; raise ValueError for a wrong checksum or an unknown task."""
    group = part(file, "clips")
    facts = {name: attribute(group, name, kind) for name, kind in _TABLE_ATTRIBUTES.items()}
    texts: dict[str, Any]
    texts = {field: read_strings(group, name) for name, field in _TABLE_TEXTS.items()}
    kind = np.dtype(label_kind(facts["task"]).dtype).newbyteorder("<")
    n = (len(texts["clip_ids"]),)
    labels, disagreement = array_of(group, "labels", kind).read(), None
    if "disagreement" in group:
        found = array_of(group, "disagreement", "<f8")
        width = 1 + math.prod(labels.shape[1:])
        widths = (width, width + len(texts["classes"]))
        if found.shape not in [(*n, width) for width in widths]:
            raise ValueError(f"disagreement: expected shape {(*n, width)}, got {found.shape}")
        disagreement = found.read()
    table = ClipTable(
        **facts,
        **texts,
        labels=labels,
        folds=array_of(group, "folds", "<i8", n).read(),
        splits=array_of(group, "splits", "<i8", n).read() if "splits" in group else None,
        disagreement=disagreement,
        **{name: attribute(group, name, str, "") for name in _OPTIONAL},
    )
    if table_checksum(table) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return table


# --- failures, curves and provenance


def write_extras(
    file: Any,
    failures: Failures,
    curves: Mapping[str, Any],
    provenance: Mapping[str, Any],
    merged: Sequence[str],
) -> None:
    """Write failures, curves, provenance, and the names of merged shards."""
    write_strings(file, "merged", merged)
    group = file.create_group("failures")
    items = sorted(failures.items(), key=lambda item: item[0])
    rows = [why or Failure(clip, stage, "") for (clip, stage), why in items]
    columns = {k: [getattr(row, v) for row in rows] for k, v in _FAILURE_COLUMNS.items()}
    for name, texts in columns.items():
        write_strings(group, name, texts)
    cleared = np.array([why is None for _, why in items], dtype=np.bool_)
    group.create_dataset("cleared", data=cleared)
    write_attribute(group, "checksum", _failures_checksum(failures))
    write_attribute(
        group, "origin_checksum", _joined_checksum(columns["times"], columns["versions"])
    )
    write_text(file, "curves", to_json(curves))
    write_text(file, "provenance", to_json(provenance))


def _failures_checksum(failures: Failures) -> str:
    """Return the checksum of failures, independent of their order."""
    rows = ([*at, why is None, None if why is None else why.reason] for at, why in failures.items())
    return text_checksum(to_json(sorted(rows)))


def _joined_checksum(*columns: Sequence[str]) -> str:
    return text_checksum(*map("\0".join, columns))


def read_failures(file: Any) -> Failures:
    """Read ``/failures``; raise ValueError if they do not match their checksum."""
    group = part(file, "failures")
    columns = [read_strings(group, name) for name in ("clips", "stages", "reasons")]
    # mvemo 0.1 did not store when, and by which versions, a clip failed.
    if stated := attribute(group, "origin_checksum", str, ""):
        origins = [read_strings(group, name) for name in _ORIGINS]
        if _joined_checksum(*origins) != stated:
            raise ValueError(MISFIT)
        columns += origins
    cleared = array_of(group, "cleared", np.bool_, (len(columns[0]),)).read().tolist()
    failures: Failures = {
        (why.clip_id, why.stage): None if is_cleared else why
        for why, is_cleared in zip(map(Failure, *columns), cleared, strict=True)
    }
    if _failures_checksum(failures) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return failures


def read_curves(file: Any) -> Curves:
    """Read ``/curves``; raise ValueError if they are not named series of numbers."""
    curves: Curves = {}
    for name, stored in _record(parse_json(read_text(file, "curves")), "curves").items():
        curves[name] = {}
        for key, values in _record(stored, "a curve").items():
            if not isinstance(values, list) or not {type(v) for v in values} <= _NUMBERS:
                raise ValueError("a curve has values that are not numbers")
            curves[name][key] = [float("nan") if v is None else float(v) for v in values]
    return curves


def read_provenance(file: Any) -> dict[str, Any]:
    """Read ``/provenance``; raise ValueError unless it and its history are records."""
    stored = _record(parse_json(read_text(file, "provenance")), "provenance")
    history = stored.get("history", [])
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        raise ValueError("its history is not a list of records")
    return stored


def _record(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a record, got {type(value).__name__}")
    return value

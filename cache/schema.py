"""Content of the HDF5 file (schema 2) except features, and checksums; see docs/cache-format.md.

Only parts of an unfinished run have the attribute ``n_trained_on`` of a feature (`Index`) and
cleared failures (clip id and stage, without a reason). ``/merged`` has the names of the parts
that were merged into the file. Everything that HDF5 does not checksum has a checksum of ours, so
that `verify` finds every flipped bit that matters. There are no pickles and no compression filters.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.table import ClipTable, Curves, Failure, Failures, check_table
from mvemo.cache.untrusted import array_of, attribute, group_of, text_array, write_attribute
from mvemo.manifests.array_types import F32, Ints
from mvemo.manifests.files import to_json_values
from mvemo.manifests.labels import label_kind
from mvemo.manifests.text_files import parse_json

T = TypeVar("T")

FORMAT = "mvemo features"
SCHEMA = 2
# File format of HDF5 1.10, which checksums its metadata, unlike the default.
LIBVER = ("v110", "v110")
# Bytes of a checksum of a row (BLAKE2b), and of a key.
CHECKSUM, KEY = 16, 64
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
# Data sets to fields of `ClipTable`.
_TABLE_TEXTS = {"classes": "classes", "ids": "clip_ids", "groups": "groups"}
_NUMBERS = {int, float, type(None)}  # types of a curve's values in JSON


@cache
def code_version() -> str:
    """Return the version of the installed mvemo."""
    try:
        return metadata.version("mvemo")
    except metadata.PackageNotFoundError:
        return "unknown"


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
    # Missing optional parts add nothing.
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
    dtype = label_kind(table.task).dtype.newbyteorder("<")
    return np.ascontiguousarray(table.labels, dtype=dtype)


def _integers(values: Ints) -> str:
    return np.ascontiguousarray(values, dtype="<i8").tobytes().hex()


def write_texts(group: Any, name: str, texts: Sequence[str]) -> None:
    """Write a list of texts."""
    group.create_dataset(name, data=text_array(texts))


def read_texts(group: Any, name: str) -> tuple[str, ...]:
    """Read the texts of `write_texts`."""
    texts = array_of(group, name).texts()
    if texts.ndim != 1:
        raise ValueError(f"{name}: expected a list, got shape {texts.shape}")
    return tuple(texts.tolist())


def write_json(group: Any, name: str, value: Any) -> None:
    """Write JSON and its checksum; as a data set, because attributes are limited in size."""
    text = to_json(value)
    item = group.create_dataset(name, data=text_array([text]).reshape(()))
    write_attribute(item, "checksum", text_checksum(text))


def read_json(group: Any, name: str, kind: type[T]) -> T:
    """Read the JSON of `write_json`; raise ValueError for a wrong checksum or type."""
    array = array_of(group, name, shape=())
    text = str(array.texts())
    if text_checksum(text) != attribute(array.item, "checksum", str):
        raise ValueError(MISFIT)
    return _checked(parse_json(text), name, kind)


def _checked(value: Any, what: str, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{what}: expected a {kind.__name__}, got {type(value).__name__}")
    return value


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
        write_texts(group, name, getattr(table, field))
    group.create_dataset("labels", data=_stored_labels(table))
    for name in ("folds", "splits"):
        if getattr(table, name) is not None:
            group.create_dataset(name, data=np.asarray(getattr(table, name), dtype="<i8"))
    if table.disagreement is not None:
        group.create_dataset("disagreement", data=np.asarray(table.disagreement, dtype="<f8"))


def read_table(file: Any) -> ClipTable:
    """Read ``/clips``; raise ValueError if it is inconsistent or does not match its checksum."""
    group = group_of(file, "clips")
    facts = {name: attribute(group, name, kind) for name, kind in _TABLE_ATTRIBUTES.items()}
    texts: dict[str, Any]
    texts = {field: read_texts(group, name) for name, field in _TABLE_TEXTS.items()}
    kind = label_kind(facts["task"]).dtype.newbyteorder("<")
    arrays: dict[str, Any] = {
        name: array_of(group, name, dtype).read()
        for name, dtype in (("splits", "<i8"), ("disagreement", "<f8"))
        if name in group
    }
    table = ClipTable(
        **facts,
        **texts,
        **arrays,
        labels=array_of(group, "labels", kind).read(),
        folds=array_of(group, "folds", "<i8").read(),
        **{name: attribute(group, name, str, "") for name in _OPTIONAL},
    )
    check_table(table, "the clip table")
    if table_checksum(table) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return table


def read_failures(file: Any) -> Failures:
    """Read ``/failures``; raise ValueError if they are damaged."""
    failures: Failures = {}
    for stored in read_json(file, "failures", list):
        row = _checked(stored, "a failure", list)
        if len(row) not in (2, 5) or {type(text) for text in row} != {str}:
            raise ValueError("a failure: expected 2 or 5 texts")
        failures[row[0], row[1]] = Failure(*row) if len(row) == 5 else None
    return failures


def read_curves(file: Any) -> Curves:
    """Read ``/curves``; raise ValueError if they are not named series of numbers."""
    curves: Curves = {}
    for name, stored in read_json(file, "curves", dict).items():
        curves[name] = {}
        for key, values in _checked(stored, "a curve", dict).items():
            if not isinstance(values, list) or not {type(v) for v in values} <= _NUMBERS:
                raise ValueError("a curve has values that are not numbers")
            curves[name][key] = [float("nan") if v is None else float(v) for v in values]
    return curves


def read_provenance(file: Any) -> dict[str, Any]:
    """Read ``/provenance``; raise ValueError unless it and its history are records."""
    stored: dict[str, Any] = read_json(file, "provenance", dict)
    for run in _checked(stored.get("history", []), "history", list):
        _checked(run, "an earlier run", dict)
    return stored

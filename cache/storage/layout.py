"""Schema 1 of the one portable HDF5 file: what lies where, and how it is read back.

::

    /                      attrs: format, schema, mvemo
    /clips                 attrs: name, task, k, fold_seed, digest, synthetic, checksum
        classes, ids, groups        UTF-8 strings
        labels, folds               aligned to ids
        splits                      the same; under the holdout protocol alone
    /features/<name>[@foldN]        attrs: digest (of the spec), checksum (of the index), order;
                                    values_checksum, quick_checksum (of index and checksum;
                                    both since mvemo 0.2); n_trained_on (in shards of an
                                    unfinished run alone)
        spec                        JSON, without trained_on
        present      bool (clips,)
        keys         bytes (clips,), empty where missing
        checksums    uint8 (clips, 16), zero where missing
        values       vector: float32 (clips, dim), NaN rows where missing
                     sequence: float32 (all frames, dim), clips one after the other; or
                     float16, with attributes largest_relative_error and largest_absolute_error
        offsets      sequence alone: int64 (clips + 1,), rows of `values`
        trained_on   bool (clips,); trained_on_others: ids that are not in `clips`
    /failures              clips, stages, reasons; cleared (in shards alone True);
                           times, versions (of mvemo; since mvemo 0.2)
    /curves, /provenance   JSON
    /merged                names of the shards that went into this file

Everything that HDF5 itself does not checksum has a checksum of ours, so that `verify`
finds any flipped bit that matters. There are no pickles and no compression filters: any
HDF5 library from 1.10 on reads the file.
"""

from __future__ import annotations

import json
from binascii import hexlify
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, starmap
from typing import Any, get_args

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.cache.spec import HALF_ABSOLUTE, HALF_RELATIVE, FeatureSpec, Kind, check_modality
from mvemo.cache.storage.encoding import CHECKSUM, curves_from_json, text_checksum, to_json
from mvemo.cache.storage.plain import (
    PlainArray,
    array_of,
    attribute,
    has_attribute,
    part,
    texts_of,
    write_attribute,
)
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Bools, Bytes, Curves, Failures, Ints, Reason
from mvemo.manifests.files import parse_json, shown
from mvemo.manifests.labels import label_kind

MISFIT = "it does not fit its checksum"


def feature_label(spec: FeatureSpec) -> str:
    """``music1d`` or ``music1d@fold0``: a feature's variant in words."""
    return spec.name if spec.fold is None else f"{spec.name}@fold{spec.fold}"


# --- checksums


def table_checksum(table: ClipTable) -> str:
    """Checksum of everything in a clip table."""
    single = [table.name, table.task, table.k, table.fold_seed, table.digest, table.synthetic]
    # Absent parts add nothing, so that tables without splits keep the checksum they had.
    splits = [] if table.splits is None else [_integers(table.splits)]
    return text_checksum(
        to_json(single),
        *("\0".join(strings) for strings in (table.classes, table.clip_ids, table.groups)),
        str(table.labels.shape),
        _stored_labels(table).tobytes().hex(),
        _integers(table.folds),
        *splits,
    )


def _stored_labels(table: ClipTable) -> NDArray[Any]:
    """The labels as a file holds them."""
    dtype = np.dtype(label_kind(table.task).dtype).newbyteorder("<")
    return np.ascontiguousarray(table.labels, dtype=dtype)


def _integers(values: Ints) -> str:
    return np.ascontiguousarray(values, dtype="<i8").tobytes().hex()


# --- small parts of a file


def write_strings(group: Any, name: str, values: Iterable[str]) -> None:
    """A data set of UTF-8 strings."""
    group.create_dataset(name, data=list(values), dtype=h5py.string_dtype("utf-8"))


def read_strings(group: Any, name: str) -> tuple[str, ...]:
    """The strings of `write_strings`."""
    texts = texts_of(group, name)
    if texts.ndim != 1:
        raise ValueError(f"{name} is of shape {texts.shape}, needed is a list")
    return tuple(texts.tolist())


def write_text(group: Any, name: str, text: str) -> None:
    """One string with its checksum; a data set, since attributes have a size limit."""
    item = group.create_dataset(name, data=text, dtype=h5py.string_dtype("utf-8"))
    write_attribute(item, "checksum", text_checksum(text))


def read_text(group: Any, name: str) -> str:
    """The string of `write_text`; ValueError where it does not fit its checksum."""
    array = array_of(group, name, shape=())
    text = str(array.texts())
    if text_checksum(text) != attribute(array.item, "checksum", str):
        raise ValueError(MISFIT)
    return text


# --- clips


def subset(table: ClipTable, rows: Sequence[int]) -> ClipTable:
    """The table of some clips, in the order given."""
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
    write_strings(group, "classes", table.classes)
    write_strings(group, "ids", table.clip_ids)
    write_strings(group, "groups", table.groups)
    group.create_dataset("labels", data=_stored_labels(table))
    group.create_dataset("folds", data=np.asarray(table.folds, dtype="<i8"))
    if table.splits is not None:
        group.create_dataset("splits", data=np.asarray(table.splits, dtype="<i8"))


def read_table(file: Any) -> ClipTable:
    """Read ``/clips``; ValueError where it does not fit its checksum or has no task of ours."""
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
    )
    if table_checksum(table) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return table


# --- features


@dataclass(frozen=True)
class Index:
    """All of a stored feature but its values.

    Parameters
    ----------
    spec
        With `trained_on`.
    present
        bool (clips,).
    keys
        bytes (clips,), empty where missing.
    checksums
        uint8 (clips, 16).
    frames
        int64 (clips,): frames of a sequence, 1 for a vector, 0 where missing.
    n_trained_on
        How many training clips all shards of a run together name, of which this one names its
        own alone; 0 where it names all.
    """

    spec: FeatureSpec
    present: Bools
    keys: NDArray[np.bytes_]
    checksums: Bytes
    frames: Ints
    n_trained_on: int = 0

    def checksum(self) -> str:
        """Checksum over the index, of the spec and the nets' training clips too."""
        return text_checksum(
            self.spec.digest,
            "\0".join(sorted(self.spec.trained_on)),
            np.packbits(self.present).tobytes().hex(),
            _joined(self.keys),
            hexlify(self.checksums.tobytes()),
            hexlify(self.frames.astype("<i8").tobytes()),
        )

    def quick_checksum(self, checksum: str) -> str:
        """XXH3-128 over the index and its `checksum`, a tenth of the time to compute.

        Readers compare it alone, as `values_checksum`. `checksum` stays what a cache's digest
        is made of; that of an index with other training clips or another order of them is
        another.
        """
        keys = np.ascontiguousarray(self.keys)
        texts = (checksum, self.spec.digest, str(keys.dtype), *self.spec.trained_on)
        state = xxhash.xxh3_128("\0".join(texts).encode())
        for array in (self.present, keys, self.checksums, self.frames.astype("<i8", copy=False)):
            if array.size:
                state.update(np.ascontiguousarray(array).view(np.uint8).data.cast("B"))
        return state.hexdigest()


def _joined(keys: NDArray[np.bytes_]) -> bytes:
    """Keys with zeros between them, as UTF-8."""
    width = keys.dtype.itemsize
    square = np.zeros((len(keys), width + 1), np.uint8)
    square[:, :width] = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, width)
    if width and square[:, width - 1].all():
        # All of one length: the usual case.
        data = square.tobytes()[:-1]
    else:
        data = b"\0".join(keys.tolist())
    return data if data.isascii() else data.decode("latin-1").encode()


def spec_to_json(spec: FeatureSpec) -> str:
    """A spec without `trained_on`, as canonical JSON."""
    facts = {k: getattr(spec, k) for k in spec.__dataclass_fields__ if k != "trained_on"}
    return json.dumps(
        {**facts, "params": dict(spec.params)}, sort_keys=True, ensure_ascii=True, allow_nan=False
    )


def read_spec(group: Any, clip_ids: Sequence[str]) -> FeatureSpec:
    """Read a feature's spec, `trained_on` included (clips in table order, then others)."""
    mask = array_of(group, "trained_on", np.bool_, (len(clip_ids),)).read()
    seen = tuple(compress(clip_ids, mask.tolist()))
    facts = parse_json(read_text(group, "spec"))
    _check_facts(facts)
    return FeatureSpec(**facts, trained_on=seen + read_strings(group, "trained_on_others"))


def _check_facts(facts: Any) -> None:
    """Refuse a stored spec with other fields or types than `FeatureSpec` has."""
    kinds: dict[str, Any] = {
        **dict.fromkeys(("name", "modality", "kind", "extractor", "weights", "protocol"), str),
        **dict.fromkeys(("dim", "version"), int),
        "params": dict,
        "fold": (int, type(None)),
    }
    if not isinstance(facts, dict) or facts.keys() != kinds.keys():
        raise ValueError("its spec has other fields than a feature's")
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind) or isinstance(facts[name], bool):
            raise ValueError(f"its spec's {name} is {shown(str(facts[name]))}")
    check_modality(facts["modality"])
    if facts["kind"] not in get_args(Kind) or facts["dim"] < 1:
        raise ValueError(f"its spec is a {facts['kind']!r} of {facts['dim']} numbers")


@dataclass(frozen=True)
class StoredFeature:
    """A feature as a file has it: its index, its values, and the checksum that these state.

    The values are not read yet; their checksum is empty in files of mvemo 0.1.
    """

    index: Index
    values: PlainArray
    checksum: str


def read_feature(
    group: Any, clip_ids: Sequence[str], spec: FeatureSpec | None = None
) -> StoredFeature:
    """Read all of a feature but its values; arguments and errors as of `read_index`."""
    index, values = _read_index(group, clip_ids, spec)
    stated = has_attribute(group, "values_checksum")
    return StoredFeature(index, values, attribute(group, "values_checksum", str) if stated else "")


def values_array(group: Any, spec: FeatureSpec, frames: Ints | Bools) -> PlainArray:
    """The values of a feature, not read yet; ValueError where type or shape are others."""
    rows = int(frames.sum()) if spec.kind == "sequence" else len(frames)
    return array_of(group, "values", spec.dtype, (rows, spec.dim))


def write_index(group: Any, index: Index, clip_ids: Sequence[str]) -> None:
    """Write all of a feature but `values`."""
    spec = index.spec
    write_attribute(group, "digest", spec.digest)
    if spec.dtype == "<f2":
        group.attrs["largest_relative_error"] = HALF_RELATIVE
        group.attrs["largest_absolute_error"] = HALF_ABSOLUTE
    if index.n_trained_on:
        group.attrs["n_trained_on"] = index.n_trained_on
    write_text(group, "spec", spec_to_json(spec))
    group.create_dataset("present", data=index.present)
    group.create_dataset("keys", data=index.keys)
    group.create_dataset("checksums", data=index.checksums)
    if spec.kind == "sequence":
        offsets = np.concatenate([[0], np.cumsum(index.frames)])
        group.create_dataset("offsets", data=offsets.astype("<i8"))
    seen = frozenset(spec.trained_on)
    mask = np.fromiter((c in seen for c in clip_ids), dtype=np.bool_, count=len(clip_ids))
    group.create_dataset("trained_on", data=mask)
    others = sorted(seen.difference(clip_ids))
    write_strings(group, "trained_on_others", others)
    checksum = index.checksum()
    write_attribute(group, "checksum", checksum)
    # In the order in which they are read.
    trained_on = (*compress(clip_ids, mask.tolist()), *others)
    index = replace(index, spec=replace(spec, trained_on=trained_on))
    write_attribute(group, "quick_checksum", index.quick_checksum(checksum))


def read_index(group: Any, clip_ids: Sequence[str], spec: FeatureSpec | None = None) -> Index:
    """Read what `write_index` wrote; ValueError where it does not fit its checksum.

    Type and shape of the values are checked, too, without reading them. A `spec` that has
    been read already is not read again.
    """
    return _read_index(group, clip_ids, spec)[0]


def _read_index(
    group: Any, clip_ids: Sequence[str], spec: FeatureSpec | None
) -> tuple[Index, PlainArray]:
    spec = spec or read_spec(group, clip_ids)
    n = len(clip_ids)
    present = array_of(group, "present", np.bool_, (n,)).read()
    keys = array_of(group, "keys", shape=(n,))
    if keys.dtype.kind != "S":
        raise ValueError(f"keys is {keys.dtype}, needed are bytes")
    frames = present.astype(np.int64)
    if spec.kind == "sequence":
        offsets = array_of(group, "offsets", "<i8", (n + 1,)).read()
        frames = np.diff(offsets)
        if offsets[0] != 0 or (frames < 0).any():
            raise ValueError("its offsets are no rising row numbers")
        if ((frames > 0) != present).any():
            raise ValueError("clips with frames are not those marked present")
    values = values_array(group, spec, frames)
    index = Index(
        spec=spec,
        present=present,
        keys=keys.read(),
        checksums=array_of(group, "checksums", np.uint8, (n, CHECKSUM)).read(),
        frames=frames,
        n_trained_on=(
            attribute(group, "n_trained_on", int) if has_attribute(group, "n_trained_on") else 0
        ),
    )
    if ((index.keys != b"") != present).any():
        raise ValueError("clips with a key are not those marked present")
    checksum = attribute(group, "checksum", str)
    # Files of mvemo 0.1 have no other.
    if has_attribute(group, "quick_checksum"):
        fits = index.quick_checksum(checksum) == attribute(group, "quick_checksum", str)
    else:
        fits = index.checksum() == checksum
    if not fits or spec.digest != attribute(group, "digest", str):
        raise ValueError(MISFIT)
    return index, values


# --- the rest


def write_extras(
    file: Any,
    failures: Failures,
    curves: Mapping[str, Any],
    provenance: Mapping[str, Any],
    merged: Sequence[str] = (),
) -> None:
    """Write failures, curves, provenance, and the names of the shards merged."""
    write_strings(file, "merged", merged)
    group = file.create_group("failures")
    items = sorted(failures.items(), key=lambda item: item[0])
    columns = {
        "clips": [clip for (clip, _), _ in items],
        "stages": [stage for (_, stage), _ in items],
        "reasons": [reason.text if reason else "" for _, reason in items],
        "times": [reason.time if reason else "" for _, reason in items],
        "versions": [reason.version if reason else "" for _, reason in items],
    }
    for name, values in columns.items():
        write_strings(group, name, values)
    cleared = np.array([reason is None for _, reason in items], dtype=np.bool_)
    group.create_dataset("cleared", data=cleared)
    write_attribute(group, "checksum", failures_checksum(failures))
    origins = _origins_checksum(columns["times"], columns["versions"])
    write_attribute(group, "origin_checksum", origins)
    write_text(file, "curves", to_json(curves))
    write_text(file, "provenance", to_json(provenance))


def failures_checksum(failures: Failures) -> str:
    """Checksum of failures, whatever their order."""
    return text_checksum(
        to_json(
            sorted(
                [*clip_stage, why is None, None if why is None else why.text]
                for clip_stage, why in failures.items()
            )
        )
    )


def _origins_checksum(times: Sequence[str], versions: Sequence[str]) -> str:
    return text_checksum("\0".join(times), "\0".join(versions))


def read_failures(file: Any) -> Failures:
    """Read ``/failures``; ValueError where they do not fit their checksum."""
    group = part(file, "failures")
    clips = read_strings(group, "clips")
    times = versions = ("",) * len(clips)
    if has_attribute(group, "origin_checksum"):
        times, versions = read_strings(group, "times"), read_strings(group, "versions")
        if _origins_checksum(times, versions) != attribute(group, "origin_checksum", str):
            raise ValueError(MISFIT)
    rows = zip(
        clips,
        read_strings(group, "stages"),
        starmap(Reason, zip(read_strings(group, "reasons"), times, versions, strict=True)),
        array_of(group, "cleared", np.bool_, (len(clips),)).read().tolist(),
        strict=True,
    )
    failures: Failures = {
        (clip, stage): None if is_cleared else reason for clip, stage, reason, is_cleared in rows
    }
    if failures_checksum(failures) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return failures


def read_curves(file: Any) -> Curves:
    """Read ``/curves``; ValueError where they are no series of numbers by name."""
    stored = parse_json(read_text(file, "curves"))
    for series in _values_of(stored, "curves"):
        for values in _values_of(series, "a curve"):
            if not isinstance(values, list) or not all(
                v is None or (isinstance(v, (int, float)) and not isinstance(v, bool))
                for v in values
            ):
                raise ValueError("a curve has values that are no numbers")
    return curves_from_json(stored)


def read_provenance(file: Any) -> dict[str, Any]:
    """Read ``/provenance``; ValueError where it is no record, or its history none of records."""
    stored = parse_json(read_text(file, "provenance"))
    _values_of(stored, "provenance")
    history = stored.get("history", [])
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        raise ValueError("its history is no list of records")
    return dict(stored)


def read_merged(file: Any) -> tuple[str, ...]:
    """Names of the shards that went into a file."""
    return read_strings(file, "merged")


def _values_of(value: Any, what: str) -> list[Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a {type(value).__name__}, needed is a record")
    return list(value.values())

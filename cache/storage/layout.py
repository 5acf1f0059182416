"""Schema 1 of the one portable HDF5 file: what lies where, and how it is read back.

::

    /                      attrs: format, schema, mvemo
    /clips                 attrs: name, task, k, fold_seed, digest, synthetic, checksum
        classes, ids, groups        UTF-8 strings
        labels, folds               aligned to ids
        splits                      the same; under the holdout protocol alone
    /features/<name>[@foldN]        attrs: digest (of the spec), checksum (of the index)
        spec                        JSON, without trained_on
        present      bool (clips,)
        keys         bytes (clips,), empty where missing
        checksums    uint8 (clips, 16), zero where missing
        values       vector: float32 (clips, dim), NaN rows where missing
                     sequence: float32 (all frames, dim), clips one after the other
        offsets      sequence alone: int64 (clips + 1,), rows of `values`
        trained_on   bool (clips,); trained_on_others: ids that are not in `clips`
    /failures              clips, stages, reasons; cleared (in shards alone True)
    /curves, /provenance   JSON
    /merged                names of the shards that went into this file

Everything that HDF5 itself does not checksum has a checksum of ours, so that `verify`
finds any flipped bit that matters. There are no pickles and no compression filters: any
HDF5 library from 1.10 on reads the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec
from mvemo.cache.storage.encoding import CHECKSUM, text_checksum, to_json
from mvemo.cache.table import ClipTable
from mvemo.cache.types import Bools, Bytes, Failures, Ints
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
    return tuple(group[name].asstr()[()].tolist())


def write_text(group: Any, name: str, text: str) -> None:
    """One string with its checksum; a data set, since attributes have a size limit."""
    item = group.create_dataset(name, data=text, dtype=h5py.string_dtype("utf-8"))
    item.attrs["checksum"] = text_checksum(text)


def read_text(group: Any, name: str) -> str:
    """The string of `write_text`; ValueError where it does not fit its checksum."""
    text = str(group[name].asstr()[()])
    if text_checksum(text) != str(group[name].attrs["checksum"]):
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
    group.attrs["name"] = table.name
    group.attrs["task"] = table.task
    group.attrs["k"] = int(table.k)
    group.attrs["fold_seed"] = int(table.fold_seed)
    group.attrs["digest"] = table.digest
    group.attrs["synthetic"] = bool(table.synthetic)
    group.attrs["checksum"] = table_checksum(table)
    write_strings(group, "classes", table.classes)
    write_strings(group, "ids", table.clip_ids)
    write_strings(group, "groups", table.groups)
    group.create_dataset("labels", data=_stored_labels(table))
    group.create_dataset("folds", data=np.asarray(table.folds, dtype="<i8"))
    if table.splits is not None:
        group.create_dataset("splits", data=np.asarray(table.splits, dtype="<i8"))


def read_table(file: Any) -> ClipTable:
    """Read ``/clips``; ValueError where it does not fit its checksum or has no task of ours."""
    group = file["clips"]
    table = ClipTable(
        name=str(group.attrs["name"]),
        task=str(group.attrs["task"]),
        classes=read_strings(group, "classes"),
        clip_ids=read_strings(group, "ids"),
        groups=read_strings(group, "groups"),
        labels=group["labels"][()],
        folds=group["folds"][()].astype(np.int64, copy=False),
        k=int(group.attrs["k"]),
        fold_seed=int(group.attrs["fold_seed"]),
        digest=str(group.attrs["digest"]),
        synthetic=bool(group.attrs["synthetic"]),
        splits=group["splits"][()].astype(np.int64, copy=False) if "splits" in group else None,
    )
    if table_checksum(table) != str(group.attrs["checksum"]):
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
    """

    spec: FeatureSpec
    present: Bools
    keys: NDArray[np.bytes_]
    checksums: Bytes
    frames: Ints

    def checksum(self) -> str:
        """Checksum over the index, of the spec and the nets' training clips too."""
        return text_checksum(
            self.spec.digest,
            "\0".join(sorted(self.spec.trained_on)),
            np.packbits(self.present).tobytes().hex(),
            b"\0".join(self.keys.tolist()).decode("latin-1"),
            self.checksums.tobytes().hex(),
            self.frames.astype("<i8").tobytes().hex(),
        )


def spec_to_json(spec: FeatureSpec) -> str:
    """A spec without `trained_on`, as canonical JSON."""
    facts = {k: getattr(spec, k) for k in spec.__dataclass_fields__ if k != "trained_on"}
    return json.dumps(
        {**facts, "params": dict(spec.params)}, sort_keys=True, ensure_ascii=True, allow_nan=False
    )


def read_spec(group: Any, clip_ids: Sequence[str]) -> FeatureSpec:
    """Read a feature's spec, `trained_on` included (clips in table order, then others)."""
    mask = group["trained_on"][()]
    seen = tuple(clip_ids[i] for i in np.flatnonzero(mask).tolist())
    return FeatureSpec(
        **json.loads(read_text(group, "spec")),
        trained_on=seen + read_strings(group, "trained_on_others"),
    )


def write_index(group: Any, index: Index, clip_ids: Sequence[str]) -> None:
    """Write all of a feature but `values`."""
    spec = index.spec
    group.attrs["digest"] = spec.digest
    group.attrs["checksum"] = index.checksum()
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
    write_strings(group, "trained_on_others", sorted(seen.difference(clip_ids)))


def read_index(group: Any, clip_ids: Sequence[str]) -> Index:
    """Read what `write_index` wrote; ValueError where it does not fit its checksum."""
    spec = read_spec(group, clip_ids)
    present = group["present"][()].astype(np.bool_, copy=False)
    if spec.kind == "sequence":
        frames = np.diff(group["offsets"][()])
    else:
        frames = present.astype(np.int64)
    index = Index(
        spec=spec,
        present=present,
        keys=group["keys"][()],
        checksums=group["checksums"][()],
        frames=frames,
    )
    n = len(clip_ids)
    if (
        present.shape != (n,)
        or index.keys.shape != (n,)
        or index.keys.dtype.kind != "S"
        or index.checksums.shape != (n, CHECKSUM)
        or frames.shape != (n,)
    ):
        raise ValueError("its index does not fit the clip table")
    if spec.digest != str(group.attrs["digest"]) or index.checksum() != str(
        group.attrs["checksum"]
    ):
        raise ValueError(MISFIT)
    return index


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
        "reasons": [reason or "" for _, reason in items],
    }
    for name, values in columns.items():
        write_strings(group, name, values)
    cleared = np.array([reason is None for _, reason in items], dtype=np.bool_)
    group.create_dataset("cleared", data=cleared)
    group.attrs["checksum"] = failures_checksum(failures)
    write_text(file, "curves", to_json(curves))
    write_text(file, "provenance", to_json(provenance))


def failures_checksum(failures: Failures) -> str:
    """Checksum of failures, whatever their order."""
    return text_checksum(
        to_json(sorted([*clip_stage, why is None, why] for clip_stage, why in failures.items()))
    )


def read_failures(file: Any) -> Failures:
    """Read ``/failures``; ValueError where they do not fit their checksum."""
    group = file["failures"]
    cleared = group["cleared"][()]
    rows = zip(
        read_strings(group, "clips"),
        read_strings(group, "stages"),
        read_strings(group, "reasons"),
        cleared.tolist(),
        strict=True,
    )
    failures: Failures = {
        (clip, stage): None if is_cleared else reason for clip, stage, reason, is_cleared in rows
    }
    if failures_checksum(failures) != str(group.attrs["checksum"]):
        raise ValueError(MISFIT)
    return failures

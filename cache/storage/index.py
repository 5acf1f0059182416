"""Features in a cache file: their records, and where the rows of their values lie."""

from __future__ import annotations

import json
from binascii import hexlify
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.cache.spec import HALF_ABSOLUTE, HALF_RELATIVE, FeatureSpec, Kind, check_modality
from mvemo.cache.storage.encoding import CHECKSUM, text_checksum
from mvemo.cache.storage.layout import MISFIT, read_strings, read_text, write_strings, write_text
from mvemo.cache.storage.plain import (
    PlainArray,
    array_of,
    attribute,
    has_attribute,
    write_attribute,
)
from mvemo.cache.types import Bools, Bytes, Ints
from mvemo.manifests.files import parse_json, shown


def feature_label(spec: FeatureSpec) -> str:
    """``music1d`` or ``music1d@fold0``: a feature's variant in words."""
    return spec.name if spec.fold is None else f"{spec.name}@fold{spec.fold}"


@dataclass(frozen=True)
class Index:
    """All of a stored feature but its values."""

    spec: FeatureSpec  # with `trained_on`
    present: Bools  # bool (clips,)
    keys: NDArray[np.bytes_]  # bytes (clips,), empty where missing
    checksums: Bytes  # uint8 (clips, 16)
    frames: Ints  # int64 (clips,): frames of a sequence, 1 for a vector, 0 where missing
    # How many training clips all shards of a run together name, of which this one names its
    # own alone; 0 where it names all.
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

"""Features in a cache file: specs, indexes, and access to their values."""

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
from mvemo.cache.storage.layout import (
    CHECKSUM,
    MISFIT,
    read_strings,
    read_text,
    text_checksum,
    write_strings,
    write_text,
)
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
    """Return the name of a feature's variant: ``music1d`` or ``music1d@fold0``."""
    return spec.name if spec.fold is None else f"{spec.name}@fold{spec.fold}"


@dataclass(frozen=True)
class Index:
    """Everything about a stored feature except its values."""

    spec: FeatureSpec  # with `trained_on`
    present: Bools  # (clips,)
    keys: NDArray[np.bytes_]  # (clips,), empty if missing
    checksums: Bytes  # (clips, 16)
    frames: Ints  # (clips,), frames of a sequence, 1 for a vector, 0 if missing
    # Number of training clips that all shards of a run name together, if this shard names only
    # its own; 0 if it names all.
    n_trained_on: int = 0

    def checksum(self) -> str:
        """Return the checksum of the index, including spec and training clips."""
        return text_checksum(
            self.spec.digest,
            "\0".join(sorted(self.spec.trained_on)),
            np.packbits(self.present).tobytes().hex(),
            _joined(self.keys),
            hexlify(self.checksums.tobytes()),
            hexlify(self.frames.astype("<i8").tobytes()),
        )

    def quick_checksum(self, checksum: str) -> str:
        """Return the XXH3-128 of the index and its `checksum`, in a tenth of the time.

        Readers compare only this one, as with `values_checksum`; a cache's digest is made of
        `checksum`. Unlike `checksum`, it depends on the order of the training clips.
        """
        keys = np.ascontiguousarray(self.keys)
        texts = (checksum, self.spec.digest, str(keys.dtype), *self.spec.trained_on)
        state = xxhash.xxh3_128("\0".join(texts).encode())
        for array in (self.present, keys, self.checksums, self.frames.astype("<i8", copy=False)):
            if array.size:
                state.update(np.ascontiguousarray(array).view(np.uint8).data.cast("B"))
        return state.hexdigest()


def _joined(keys: NDArray[np.bytes_]) -> bytes:
    """Return the keys joined by zero bytes, as UTF-8."""
    width = keys.dtype.itemsize
    square = np.zeros((len(keys), width + 1), np.uint8)
    square[:, :width] = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, width)
    if width and square[:, width - 1].all():
        # All keys have one length, which is the usual case.
        data = square.tobytes()[:-1]
    else:
        data = b"\0".join(keys.tolist())
    return data if data.isascii() else data.decode("latin-1").encode()


def spec_to_json(spec: FeatureSpec) -> str:
    """Return a spec without `trained_on` as canonical JSON."""
    facts = {k: getattr(spec, k) for k in spec.__dataclass_fields__ if k != "trained_on"}
    return json.dumps(
        {**facts, "params": dict(spec.params)}, sort_keys=True, ensure_ascii=True, allow_nan=False
    )


def read_spec(group: Any, clip_ids: Sequence[str]) -> FeatureSpec:
    """Read a feature's spec, with `trained_on` (clips in table order, then others)."""
    mask = array_of(group, "trained_on", np.bool_, (len(clip_ids),)).read()
    seen = tuple(compress(clip_ids, mask.tolist()))
    facts = parse_json(read_text(group, "spec"))
    _check_facts(facts)
    return FeatureSpec(**facts, trained_on=seen + read_strings(group, "trained_on_others"))


def _check_facts(facts: Any) -> None:
    """Raise ValueError for a stored spec with fields or types that `FeatureSpec` lacks."""
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
    """Feature in a file: its index, its values (not read yet) and their checksum.

    The checksum is empty in files of mvemo 0.1.
    """

    index: Index
    values: PlainArray
    checksum: str


def read_feature(
    group: Any, clip_ids: Sequence[str], spec: FeatureSpec | None = None
) -> StoredFeature:
    """Read everything about a feature except its values; see `read_index`."""
    index, values = read_index(group, clip_ids, spec)
    stated = has_attribute(group, "values_checksum")
    return StoredFeature(index, values, attribute(group, "values_checksum", str) if stated else "")


def values_array(group: Any, spec: FeatureSpec, frames: Ints | Bools) -> PlainArray:
    """Return the values of a feature, not read yet; raise ValueError for other types or shapes."""
    rows = int(frames.sum()) if spec.kind == "sequence" else len(frames)
    return array_of(group, "values", spec.dtype, (rows, spec.dim))


def write_index(group: Any, index: Index, clip_ids: Sequence[str]) -> None:
    """Write everything about a feature except `values`."""
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
    # The order in which `read_spec` returns them.
    trained_on = (*compress(clip_ids, mask.tolist()), *others)
    index = replace(index, spec=replace(spec, trained_on=trained_on))
    write_attribute(group, "quick_checksum", index.quick_checksum(checksum))


def read_index(
    group: Any, clip_ids: Sequence[str], spec: FeatureSpec | None = None
) -> tuple[Index, PlainArray]:
    """Read a feature's index, and its values' type and shape; raise ValueError if damaged.

    The values are not read. A given `spec` is not read again.
    """
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
    # Files of mvemo 0.1 have only `checksum`.
    if has_attribute(group, "quick_checksum"):
        fits = index.quick_checksum(checksum) == attribute(group, "quick_checksum", str)
    else:
        fits = index.checksum() == checksum
    if not fits or spec.digest != attribute(group, "digest", str):
        raise ValueError(MISFIT)
    return index, values

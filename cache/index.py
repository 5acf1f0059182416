"""Features in a cache file: their indexes, and access to their values."""

from __future__ import annotations

import json
from binascii import hexlify
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.cache import schema
from mvemo.cache.spec import HALF_ABSOLUTE, HALF_RELATIVE, FeatureSpec, check_spec
from mvemo.cache.untrusted import PlainArray, array_of, attribute, write_attribute
from mvemo.manifests.array_types import F32, U8, Bools, Ints
from mvemo.manifests.files import shown
from mvemo.manifests.text_files import parse_json

# Bytes to read per step: few enough for the CPU cache, enough that threads rarely wait.
STEP = 2 << 20


@dataclass(frozen=True)
class Index:
    """Everything about a stored feature except its values."""

    spec: FeatureSpec  # with `trained_on`
    present: Bools  # (clips,)
    keys: NDArray[np.bytes_]  # (clips,), empty if missing
    checksums: U8  # (clips, 16)
    frames: Ints  # (clips,), frames of a sequence, 1 for a vector, 0 if missing
    # Number of training clips that all shards of a run name together; 0 if this file names all.
    n_trained_on: int = 0
    values_checksum: str = ""  # of all values; empty in a plan, and in files of mvemo 0.1
    # In a plan: (clips,), number of each row's source (-1 if missing), and the row in it.
    origin: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    row: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def empty(cls, spec: FeatureSpec, n_clips: int, key_width: int) -> Index:
        """Return the index of a feature without rows, to be filled."""
        return cls(
            spec,
            np.zeros(n_clips, np.bool_),
            np.zeros(n_clips, f"S{key_width}"),
            np.zeros((n_clips, schema.CHECKSUM), np.uint8),
            np.zeros(n_clips, np.int64),
            origin=np.full(n_clips, -1, np.int64),
            row=np.zeros(n_clips, np.int64),
        )

    def drop(self, rows: Ints | int) -> None:
        """Mark rows of a plan as missing."""
        self.origin[rows] = -1
        self.keys[rows] = b""
        for values in (self.present, self.checksums, self.frames):
            values[rows] = 0
        vars(self).pop("bounds", None)  # it depends on the frames

    @cached_property
    def bounds(self) -> Ints:
        """int64 (clips + 1,): the values of clip i are from `bounds[i]` to `bounds[i + 1]`."""
        if self.spec.kind != "sequence":
            return np.arange(len(self.present) + 1)
        return np.concatenate([[0], np.cumsum(self.frames)])

    def fits(self, i: int, clip_id: str, row: F32) -> bool:
        """Return True if the i-th clip's values match their checksum."""
        checksum: bytes = self.checksums[i].tobytes()
        return schema.row_checksum(clip_id, bytes(self.keys[i]), row) == checksum

    def checksum(self) -> str:
        """Return the checksum of the index, including spec and training clips."""
        return schema.text_checksum(
            self.spec.digest,
            "\0".join(sorted(self.spec.trained_on)),
            np.packbits(self.present).tobytes().hex(),
            b"\0".join(self.keys.tolist()).decode("latin-1"),
            hexlify(self.checksums.tobytes()),
            hexlify(self.frames.astype("<i8").tobytes()),
        )

    def quick_checksum(self, checksum: str) -> str:
        """Return the XXH3-128 of index and `checksum`, ten times as fast as the full checksum."""
        keys = np.ascontiguousarray(self.keys)
        texts = (checksum, self.spec.digest, str(keys.dtype), *self.spec.trained_on)
        state = xxhash.xxh3_128("\0".join(texts).encode())
        for array in (self.present, keys, self.checksums, self.frames.astype("<i8", copy=False)):
            if array.size:
                state.update(np.ascontiguousarray(array).view(np.uint8).data.cast("B"))
        return state.hexdigest()


# --- values


def finite_rows(block: NDArray[Any]) -> Bools:
    """Return bool (rows,), True for rows of finite numbers."""
    # Most blocks have no other rows; NaN and infinities show in the extremes, which are faster.
    if block.size and -np.inf < block.min() and block.max() < np.inf:
        return np.ones(len(block), np.bool_)
    return np.asarray(np.isfinite(block).all(axis=1))


def is_whole(index: Index, values: PlainArray) -> bool:
    """Read all values of a feature; return True if values, missing rows and checksum are valid."""
    state = xxhash.xxh3_128()
    vector = index.spec.kind != "sequence"
    n, dim = values.shape
    step = max(1, STEP // (4 * dim))
    buffer = np.empty((min(step, n), dim), values.dtype)
    for start in range(0, n, step):
        block = buffer[: n - start]
        values.read_into(block, start)
        state.update(block.data)
        finite = finite_rows(block.astype("<f4", copy=False))
        expected = index.present[start : start + step] if vector else True
        if (finite != expected).any() or (vector and not np.isnan(block[~finite]).all()):
            return False
    return state.hexdigest() == index.values_checksum


# --- reading and writing


def spec_to_json(spec: FeatureSpec) -> str:
    """Return a spec without `trained_on` as canonical JSON."""
    return json.dumps(spec.facts, sort_keys=True, allow_nan=False)


def read_spec(group: Any, clip_ids: Sequence[str]) -> FeatureSpec:
    """Read a feature's spec, with `trained_on` (clips in table order, then others)."""
    mask = array_of(group, "trained_on", np.bool_, (len(clip_ids),)).read()
    seen = tuple(compress(clip_ids, mask.tolist()))
    facts = parse_json(schema.read_text(group, "spec"))
    kinds: dict[str, Any] = {
        **dict.fromkeys(("name", "modality", "kind", "extractor", "weights", "protocol"), str),
        **dict.fromkeys(("dim", "version"), int),
        "params": dict,
        "fold": (int, type(None)),
    }
    if not isinstance(facts, dict) or facts.keys() != kinds.keys():
        raise ValueError("its spec does not have the fields of a feature's spec")
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind) or isinstance(facts[name], bool):
            raise ValueError(f"its spec has an invalid {name}: {shown(str(facts[name]))}")
    spec = FeatureSpec(**facts, trained_on=seen + schema.read_strings(group, "trained_on_others"))
    check_spec(spec, "its spec")
    return spec


def values_array(group: Any, index: Index) -> PlainArray:
    """Return a feature's values, not yet read; raise ValueError for a wrong type or shape."""
    spec = index.spec
    return array_of(group, "values", spec.dtype, (int(index.bounds[-1]), spec.dim))


def read_index(group: Any, spec: FeatureSpec, n_clips: int) -> tuple[Index, PlainArray]:
    """Read a feature's index; return also its values, not yet read; ValueError if damaged."""
    present = array_of(group, "present", np.bool_, (n_clips,)).read()
    keys = array_of(group, "keys", shape=(n_clips,))
    if keys.dtype.kind != "S":
        raise ValueError(f"keys: expected bytes, got {keys.dtype}")
    frames = present.astype(np.int64)
    if spec.kind == "sequence":
        offsets = array_of(group, "offsets", "<i8", (n_clips + 1,)).read()
        frames = np.diff(offsets)
        if offsets[0] != 0 or (frames < 0).any():
            raise ValueError("its offsets are not ascending row numbers")
        if ((frames > 0) != present).any():
            raise ValueError("the clips with frames are not the clips marked present")
    checksums = array_of(group, "checksums", np.uint8, (n_clips, schema.CHECKSUM)).read()
    index = Index(
        spec,
        present,
        keys.read(),
        checksums,
        frames,
        attribute(group, "n_trained_on", int, 0),
        attribute(group, "values_checksum", str, ""),
    )
    values = values_array(group, index)
    if ((index.keys != b"") != present).any():
        raise ValueError("the clips with a key are not the clips marked present")
    checksum = attribute(group, "checksum", str)
    # Files of mvemo 0.1 have only `checksum`.
    quick = attribute(group, "quick_checksum", str, "")
    fits = index.quick_checksum(checksum) == quick if quick else index.checksum() == checksum
    if not fits or spec.digest != attribute(group, "digest", str):
        raise ValueError(schema.MISFIT)
    return index, values


def write_index(group: Any, index: Index, clip_ids: Sequence[str]) -> None:
    """Write everything about a feature except `values`."""
    spec = index.spec
    write_attribute(group, "digest", spec.digest)
    if spec.dtype == "<f2":
        group.attrs["largest_relative_error"] = HALF_RELATIVE
        group.attrs["largest_absolute_error"] = HALF_ABSOLUTE
    if index.n_trained_on:
        group.attrs["n_trained_on"] = index.n_trained_on
    schema.write_text(group, "spec", spec_to_json(spec))
    group.create_dataset("present", data=index.present)
    group.create_dataset("keys", data=index.keys)
    group.create_dataset("checksums", data=index.checksums)
    if spec.kind == "sequence":
        group.create_dataset("offsets", data=index.bounds.astype("<i8"))
    seen = frozenset(spec.trained_on)
    mask = np.array([clip in seen for clip in clip_ids], np.bool_)
    group.create_dataset("trained_on", data=mask)
    others = sorted(seen.difference(clip_ids))
    schema.write_strings(group, "trained_on_others", others)
    checksum = index.checksum()
    write_attribute(group, "checksum", checksum)
    # The order in which `read_spec` returns them.
    trained_on = (*compress(clip_ids, mask.tolist()), *others)
    index = replace(index, spec=replace(spec, trained_on=trained_on))
    write_attribute(group, "quick_checksum", index.quick_checksum(checksum))

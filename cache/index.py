"""Features in a cache file: their indexes, and access to their values."""

from __future__ import annotations

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

# Bytes to read per step: few enough for the CPU cache, enough that threads rarely wait.
STEP = 2 << 20
KEYS = f"S{schema.KEY}"  # type of keys


@dataclass(frozen=True)
class Index:
    """Everything about a stored feature except its values."""

    spec: FeatureSpec  # with `trained_on`
    present: Bools  # (clips,)
    keys: NDArray[np.bytes_]  # S64 (clips,), empty if missing
    checksums: U8  # (clips, 16)
    frames: Ints  # (clips,), frames of a sequence, 1 for a vector, 0 if missing
    # Number of training clips that all parts of a run name together; 0 if this file names all.
    n_trained_on: int = 0
    values_checksum: str = ""  # of all values; empty in a plan
    # In a plan: (clips,), number of each row's source (-1 if missing), and the row in it.
    origin: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    row: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def empty(cls, spec: FeatureSpec, n_clips: int) -> Index:
        """Return the index of a feature without rows, to be filled."""
        return cls(
            spec,
            np.zeros(n_clips, np.bool_),
            np.zeros(n_clips, KEYS),
            np.zeros((n_clips, schema.CHECKSUM), np.uint8),
            np.zeros(n_clips, np.int64),
            origin=np.full(n_clips, -1, np.int64),
            row=np.zeros(n_clips, np.int64),
        )

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """Arrays of a value or row per clip, without those of a plan."""
        return self.present, self.keys, self.checksums, self.frames

    def drop(self, rows: Ints | int) -> None:
        """Mark rows of a plan as missing."""
        self.origin[rows] = -1
        for values in self.columns:
            values[rows] = np.zeros((), values.dtype)
        vars(self).pop("bounds", None)  # it depends on the frames

    def take(self, rows: Ints) -> Index:
        """Return a plan of some of the clips."""
        names = ("present", "keys", "checksums", "frames", "origin", "row")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

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
        """Return the XXH3-128 of the index, including spec and training clips."""
        state = xxhash.xxh3_128("\0".join((self.spec.digest, *self.spec.trained_on)).encode())
        frames = self.frames.astype("<i8", copy=False)
        for array in (self.present, self.keys, self.checksums, frames):
            if array.size:
                state.update(np.ascontiguousarray(array).view(np.uint8).data.cast("B"))
        return state.hexdigest()


def finite_rows(block: NDArray[Any]) -> Bools:
    """Return bool (rows,), True for rows of finite numbers."""
    # Most blocks have only finite rows, which minimum and maximum show faster.
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


def read_spec(group: Any, clip_ids: Sequence[str]) -> FeatureSpec:
    """Read a feature's spec, with `trained_on` (clips in table order, then others)."""
    mask = array_of(group, "trained_on", np.bool_, (len(clip_ids),)).read()
    seen = tuple(compress(clip_ids, mask.tolist()))
    facts = schema.read_json(group, "spec", dict)
    kinds: dict[str, Any] = {
        **dict.fromkeys(("name", "modality", "kind", "extractor", "weights", "protocol"), str),
        **dict.fromkeys(("dim", "version"), int),
        "params": dict,
        "fold": (int, type(None)),
    }
    if facts.keys() != kinds.keys():
        raise ValueError("its spec does not have the fields of a feature's spec")
    for name, kind in kinds.items():
        if not isinstance(facts[name], kind) or isinstance(facts[name], bool):
            raise ValueError(f"its spec has an invalid {name}: {shown(str(facts[name]))}")
    spec = FeatureSpec(**facts, trained_on=seen + schema.read_texts(group, "trained_on_others"))
    check_spec(spec, "its spec")
    return spec


def values_array(group: Any, index: Index) -> PlainArray:
    """Return a feature's values, not yet read; raise ValueError for a wrong type or shape."""
    spec = index.spec
    return array_of(group, "values", spec.dtype, (int(index.bounds[-1]), spec.dim))


def read_index(group: Any, spec: FeatureSpec, n_clips: int) -> tuple[Index, PlainArray]:
    """Read a feature's index; return also its values, not yet read; ValueError if damaged."""
    present = array_of(group, "present", np.bool_, (n_clips,)).read()
    keys = array_of(group, "keys", KEYS, (n_clips,)).read()
    frames = present.astype(np.int64)
    if spec.kind == "sequence":
        offsets = array_of(group, "offsets", "<i8", (n_clips + 1,)).read()
        frames = np.diff(offsets)
        if offsets[0] != 0 or (frames < 0).any():
            raise ValueError("its offsets are not ascending row numbers")
        if ((frames > 0) != present).any():
            raise ValueError("the clips with frames are not the clips marked present")
    checksums = array_of(group, "checksums", np.uint8, (n_clips, schema.CHECKSUM)).read()
    facts = attribute(group, "n_trained_on", int, 0), attribute(group, "values_checksum", str)
    index = Index(spec, present, keys, checksums, frames, *facts)
    values = values_array(group, index)
    if ((index.keys != b"") != present).any():
        raise ValueError("the clips with a key are not the clips marked present")
    if index.checksum() != attribute(group, "checksum", str):
        raise ValueError(schema.MISFIT)
    return index, values


def write_index(group: Any, index: Index, clip_ids: Sequence[str]) -> None:
    """Write everything about a feature except `values`."""
    spec = index.spec
    if spec.dtype == "<f2":
        group.attrs["largest_relative_error"] = HALF_RELATIVE
        group.attrs["largest_absolute_error"] = HALF_ABSOLUTE
    if index.n_trained_on:
        group.attrs["n_trained_on"] = index.n_trained_on
    schema.write_json(group, "spec", spec.facts)
    group.create_dataset("present", data=index.present)
    group.create_dataset("keys", data=index.keys)
    group.create_dataset("checksums", data=index.checksums)
    if spec.kind == "sequence":
        group.create_dataset("offsets", data=index.bounds.astype("<i8"))
    spec = in_table_order(spec, clip_ids)
    seen = frozenset(spec.trained_on)
    mask = np.array([clip in seen for clip in clip_ids], np.bool_)
    group.create_dataset("trained_on", data=mask)
    schema.write_texts(group, "trained_on_others", spec.trained_on[int(mask.sum()) :])
    write_attribute(group, "checksum", replace(index, spec=spec).checksum())


def in_table_order(spec: FeatureSpec, clip_ids: Sequence[str]) -> FeatureSpec:
    """Return a spec whose training clips have the order of a table; others follow, sorted."""
    if not spec.trained_on:
        return spec
    seen = frozenset(spec.trained_on)
    others = sorted(seen.difference(clip_ids))
    return replace(spec, trained_on=(*filter(seen.__contains__, clip_ids), *others))

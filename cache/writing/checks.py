"""Checks of tables, specs and values before they are written to a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.spec import HALF_LARGEST, FeatureSpec, Kind, check_modality
from mvemo.cache.table import ClipTable
from mvemo.cache.types import F32
from mvemo.manifests.labels import label_kind


def check_table(table: ClipTable, where: str) -> None:
    """Raise BadCache for a table that a file cannot hold."""
    n = len(table)
    try:
        shape = label_kind(table.task).shape(n, len(table.classes))
    except ValueError as error:
        raise BadCache(f"{where}: {error}") from None
    if len(table.groups) != n or np.shape(table.folds) != (n,):
        raise BadCache(
            f"{where}: {n} clips, but {len(table.groups)} groups and folds of shape "
            f"{np.shape(table.folds)}"
        )
    if table.splits is not None:
        if np.shape(table.splits) != (n,):
            raise BadCache(f"{where}: {n} clips, but splits of shape {np.shape(table.splits)}")
        if table.k:
            raise BadCache(f"{where}: clips have splits and {table.k} folds: one or the other")
    if np.shape(table.labels) != shape:
        raise BadCache(
            f"{where}: labels of shape {np.shape(table.labels)}, {table.task} needs {shape}"
        )
    if len(set(table.clip_ids)) != n:
        twice = next(clip for clip, times in Counter(table.clip_ids).items() if times > 1)
        raise BadCache(f"{where}: clip id {twice!r} occurs twice")
    check_texts((*table.clip_ids, *table.groups, *table.classes), where)


def check_texts(texts: Sequence[str], where: str) -> None:
    """Raise BadCache for strings that HDF5 cannot hold: with NUL, or not valid Unicode."""
    if _is_storable("".join(texts)):
        return
    bad = next(text for text in texts if not _is_storable(text))
    raise BadCache(f"{where}: {bad!r} has a NUL or is no valid Unicode: rename the clip")


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def check_spec(spec: FeatureSpec, where: str) -> None:
    """Raise BadCache for a spec that a file cannot hold, or that contradicts itself."""
    label = f"{where}: feature {spec.name!r}"
    if not spec.name or "/" in spec.name or spec.name in (".", "..") or not spec.name.isprintable():
        raise BadCache(f"{label}: a name needs printable characters, and no slash")
    if spec.kind not in get_args(Kind):
        raise BadCache(f"{label}: kind {spec.kind!r} is none of {', '.join(get_args(Kind))}")
    try:
        check_modality(spec.modality)
    except ValueError as error:
        raise BadCache(f"{label}: {error}") from None
    if spec.dim < 1:
        raise BadCache(f"{label}: dim {spec.dim}, it must be above 0")
    if (spec.protocol == "crossfit") != (spec.fold is not None):
        raise BadCache(
            f"{label}: protocol {spec.protocol!r} with fold {spec.fold}: a crossfit net has "
            "the fold that it never saw, others have None"
        )
    check_texts((spec.name, *spec.trained_on), where)


def checked_values(spec: FeatureSpec, array: F32, where: str) -> F32:
    """Return a copy of a row's values; raise BadCache if they do not match the spec."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise BadCache(f"{where}: {kind} was given, a float32 array is needed")
    if spec.kind != "sequence":
        if array.shape != (spec.dim,):
            raise BadCache(f"{where}: shape {array.shape}, needed is ({spec.dim},)")
    elif array.ndim != 2 or array.shape[1] != spec.dim or not len(array):
        raise BadCache(
            f"{where}: shape {array.shape}, needed is (frames, {spec.dim}) with frames above 0"
        )
    if not np.isfinite(array).all():
        raise BadCache(f"{where}: NaN or infinite values: keep a failure instead")
    if spec.dtype == "<f2":
        largest = float(np.abs(array).max())
        if largest > HALF_LARGEST:
            raise BadCache(
                f"{where}: {largest:.6g} is beyond float16's {HALF_LARGEST:g}: store it as float32"
            )
        # The checksum must be that of the rounded values, as they will be read.
        array = array.astype("<f2")
    return np.array(array, dtype="<f4", order="C")

"""Checksums, and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from mvemo.cache.types import F32, Curves
from mvemo.manifests.files import to_json_values

# Bytes of a checksum of a row (BLAKE2b).
CHECKSUM = 16


def row_checksum(clip_id: str, key: bytes, row: F32) -> bytes:
    """Return the BLAKE2b-128 of a row's clip, key and values, which also detects moved rows."""
    state = hashlib.blake2b(clip_id.encode() + b"\0" + key + b"\0", digest_size=CHECKSUM)
    state.update(np.ascontiguousarray(row, dtype="<f4").data)
    return state.digest()


def values_checksum(*blocks: F32) -> xxhash.xxh3_128:
    """Return the XXH3-128 of all values of a feature, as they lie in the file.

    It is thirty times as fast as the checksums of rows, which are only needed to find the damaged
    row. Neither protects against a forger, who can write both.
    """
    state = xxhash.xxh3_128()
    for block in blocks:
        state.update(np.ascontiguousarray(block).data.cast("B") if block.size else b"")
    return state


def text_checksum(*parts: str | bytes) -> str:
    """Return the BLAKE2b-128 of texts (or UTF-8 bytes) as hexadecimal."""
    state = hashlib.blake2b(digest_size=CHECKSUM)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


def to_json(value: Any) -> str:
    """Return canonical JSON of `to_json_values(value)`."""
    return json.dumps(
        to_json_values(value),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )


def curves_from_json(value: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Curves:
    """Return curves with NaN instead of null."""
    return {
        name: {
            key: [float("nan") if v is None else float(v) for v in series]
            for key, series in curve.items()
        }
        for name, curve in value.items()
    }

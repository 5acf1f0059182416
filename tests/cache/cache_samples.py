"""Small tables, specs and values that the tests of the cache share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mvemo.cache import Cache, CacheWriter, ClipTable, FeatureSpec, RowWriter

VECTOR = FeatureSpec(
    name="music1d",
    modality="audio",
    kind="vector",
    dim=4,
    extractor="net:music1d",
    version=1,
    params={"sr": 16000},
    weights="a" * 64,
    protocol="frozen",
)
SEQUENCE = FeatureSpec(
    name="mel",
    modality="audio",
    kind="sequence",
    dim=3,
    extractor="mel",
    version=1,
    params={"n_mels": 3},
)


def table(clips: Iterable[str] = tuple(f"c{i}" for i in range(6))) -> ClipTable:
    """Clips c0, c1, ... in groups of two; groups g0, g1, ... in folds 0, 1, 2, 0, ..."""
    ids = tuple(clips)
    numbers = [int(clip[1:]) for clip in ids]
    return ClipTable(
        name="sample",
        task="multiclass",
        classes=("calm", "tense"),
        clip_ids=ids,
        groups=tuple(f"g{i // 2}" for i in numbers),
        labels=np.array([i // 2 % 2 for i in numbers], dtype=np.int64),
        folds=np.array([i // 2 % 3 for i in numbers], dtype=np.int64),
        k=3,
        fold_seed=1,
        digest="d" * 64,
    )


CLIPS = table()


def crossfit(fold: int, clips: ClipTable, weights: str = "w", **params: int) -> FeatureSpec:
    """An honest net of one fold."""
    seen = (c for c, f in zip(clips.clip_ids, clips.folds, strict=True) if f != fold)
    return replace(
        VECTOR,
        protocol="crossfit",
        fold=fold,
        weights=f"{weights}{fold}",
        params=params,
        trained_on=tuple(seen),
    )


def row(spec: FeatureSpec, clip: str, salt: int = 0) -> np.ndarray:
    """Values that depend on feature, clip and salt alone; a sequence has 1 to 4 frames."""
    seed = [int(spec.digest[:8], 16), int(clip[1:]), salt]
    draw = np.random.default_rng(seed)
    shape = (spec.dim,) if spec.kind != "sequence" else (int(clip[1:]) % 4 + 1, spec.dim)
    return draw.standard_normal(shape).astype(np.float32)


def put(writer: RowWriter, spec: FeatureSpec, clip: str, salt: int = 0) -> None:
    """Put `row` under the key of a medium that is named by clip and salt."""
    writer.put(spec, clip, spec.key(f"{clip}-{salt}"), row(spec, clip, salt))


def unfinished(path: Path, spec: FeatureSpec, *ids: str, clips: ClipTable = CLIPS) -> None:
    """Commit rows to a shard and end as if killed: the lock goes, the buffer is lost."""
    writer = CacheWriter(path, clips)
    for clip in ids:
        put(writer, spec, clip)
    writer.commit()
    writer._lock.close()


def flip(path: Path, content: bytes) -> None:
    """Flip a bit of a file at the place of these bytes."""
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 1
    path.write_bytes(data)


def current(writer: RowWriter, spec: FeatureSpec, salt: int = 0) -> frozenset[str]:
    """Ids of the clips whose row that `put` makes is stored or buffered."""
    keys = {clip: spec.key(f"{clip}-{salt}") for clip in writer.table.clip_ids}
    return writer.current(spec, keys)


def fill(path: Path, clips: ClipTable, *specs: FeatureSpec, leave_out: str = "") -> None:
    """A finished cache of all clips but one."""
    with CacheWriter(path, clips, provenance={"command": "sample"}) as writer:
        for spec in specs:
            for clip in clips.clip_ids:
                if clip != leave_out:
                    put(writer, spec, clip)


def contents(cache: Cache) -> dict[tuple[str, int | None, str], bytes | None]:
    """Every row's bytes, by feature, fold and clip; None where missing."""
    rows_by_clip: dict[tuple[str, int | None, str], bytes | None] = {}
    for spec in cache.specs:
        if spec.kind != "sequence":
            values, present = cache.vectors(spec.name, spec.fold)
            rows = [v if p else None for v, p in zip(values, present, strict=True)]
        else:
            rows = [cache.sequence(spec.name, c, spec.fold) for c in cache.table.clip_ids]
        for clip, array in zip(cache.table.clip_ids, rows, strict=True):
            content = None if array is None else array.tobytes()
            rows_by_clip[spec.name, spec.fold, clip] = content
    return rows_by_clip

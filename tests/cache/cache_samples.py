"""Small tables, specs and values that the tests of the cache share."""

from dataclasses import replace

import numpy as np

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec

VECTOR = FeatureSpec(
    "music1d", "audio", "vector", 4, "net:music1d", 1, {"sr": 16000}, "a" * 64, "frozen"
)
SEQUENCE = FeatureSpec("mel", "audio", "sequence", 3, "mel", 1, {"n_mels": 3})


def table(clips=tuple(f"c{i}" for i in range(6))):
    """Clips c0, c1, ... in groups of two; groups g0, g1, ... in folds 0, 1, 2, 0, ..."""
    ids = tuple(clips)
    numbers = [int(clip[1:]) for clip in ids]
    groups = tuple(f"g{i // 2}" for i in numbers)
    labels, folds = (np.array([i // 2 % n for i in numbers], np.int64) for n in (2, 3))
    facts = {"k": 3, "fold_seed": 1, "digest": "d" * 64}
    return ClipTable("sample", "multiclass", ("calm", "tense"), ids, groups, labels, folds, **facts)


CLIPS = table()


def crossfit(fold, clips, weights="w", **params):
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


def row(spec, clip, salt=0):
    """Values that depend on feature, clip and salt alone; a sequence has 1 to 4 frames."""
    seed = [int(spec.digest[:8], 16), int(clip[1:]), salt]
    draw = np.random.default_rng(seed)
    shape = (spec.dim,) if spec.kind != "sequence" else (int(clip[1:]) % 4 + 1, spec.dim)
    return draw.standard_normal(shape).astype(np.float32)


def put(writer, spec, clip, salt=0):
    """Put `row` under the key of a medium that is named by clip and salt."""
    values = row(spec, clip, salt)
    writer.put(spec, clip, spec.key(f"{clip}-{salt}"), values)
    values[:] = np.nan  # values are copied


def unfinished(path, spec, *ids, clips=CLIPS):
    """Commit rows to a shard and end as if killed: the lock goes, the buffer is lost."""
    writer = CacheWriter(path, clips)
    for clip in ids:
        put(writer, spec, clip)
    writer.commit()
    writer._lock.close()


def flip(path, content):
    """Flip a bit of a file at the place of these bytes."""
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 1
    path.write_bytes(data)


def current(writer, spec, salt=0):
    """Ids of the clips whose row that `put` makes is stored or buffered."""
    keys = {clip: spec.key(f"{clip}-{salt}") for clip in writer.table.clip_ids}
    return writer.current(spec, keys)


def fill(path, clips, *specs, leave_out=""):
    """A finished cache of all clips but one."""
    with CacheWriter(path, clips, provenance={"command": "sample"}) as writer:
        for spec in specs:
            for clip in clips.clip_ids:
                if clip != leave_out:
                    put(writer, spec, clip)


def contents(cache):
    """Every row's bytes, by feature, fold and clip; None where missing."""
    rows_by_clip = {}
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

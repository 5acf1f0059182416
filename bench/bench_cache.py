"""Writing and reading a whole data set's features, beside plain files.

3,438 clips x (256 + 160 + 512 + 1,024) dimensions x 6 folds, float32: what a crossfit run of
the four nets on the papers' data set leaves. Compared with ``np.savez`` of the same arrays,
which is neither safe nor resumable, and with h5py one row at a time into one open file.

``merge_caches`` of these embeddings is timed beside ``cp``, and reading 100 clips of 1,000,000 by
``Cache.vectors`` beside h5py, which does not check them. ``verify_cache`` is timed twice, beside
``cat``: of these embeddings, and of a cache that has the sequences of one descriptor beside them,
as `mvemo extract` leaves it (there are nine under ``paper``). Each is read from memory, best of
nine turns, in turn with the other.

    python bench/bench_cache.py [--clips 3438] [--folds 6] [--frames 600]
"""

from __future__ import annotations

import hashlib
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL

import h5py
import numpy as np
from figures import Row, bench_parser, finish, in_turns

from mvemo.cache import (
    CacheWriter,
    ClipTable,
    FeatureSpec,
    import_feature,
    merge_caches,
    open_cache,
    verify_cache,
)

DIMS = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}
MEL = FeatureSpec("mel", "audio", "sequence", 64, "descriptor:mel", 1, {})
ROUNDS = 9


def table(n: int, k: int) -> ClipTable:
    folds = np.arange(n) % k
    return ClipTable(
        name="bench",
        task="multiclass",
        classes=tuple("abcdef"),
        clip_ids=tuple(f"clip {i:05d}" for i in range(n)),
        groups=tuple(f"group {i:05d}" for i in range(n)),
        labels=np.arange(n) // k % 6,
        folds=folds,
        k=k,
        fold_seed=0,
        digest="0" * 64,
    )


def timed(label: str, work: Callable[[], object], size: int) -> float:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    print(f"{label:46s} {seconds:7.2f} s {size / 1e6 / seconds:8.0f} MB/s")
    return seconds


def compared(
    what: str, ours: Callable[[], object], alternative: str, theirs: Callable[[], object], goal: str
) -> Row:
    """The best processor times of some turns of both."""
    (_, spent), (_, other) = in_turns([ours, theirs], ROUNDS)
    return Row(what, 1000 * spent, "ms", alternative, 1000 * other, spent / other, goal)


def some_clips(folder: Path, n: int) -> Row:
    """Time reading 100 random clips of `n` from an open cache, and h5py's reading of their rows."""
    path, clips, draw = folder / "many.h5", table(n, 6), np.random.default_rng(1)
    import_feature(path, "emb", "audio", draw.standard_normal((n, 64), np.float32), table=clips)
    rows = sorted(draw.choice(n, 100, replace=False).tolist())
    with open_cache(path) as cache, h5py.File(path) as file:
        ids, stored = [clips.clip_ids[row] for row in rows], file["features/emb/values"]
        what = f"read 100 of {n:,} clips"
        timed(f"{what}, the first time", lambda: cache.vectors("emb", clips=ids), 25_600)
        return compared(
            what, lambda: cache.vectors("emb", clips=ids), "h5py", lambda: stored[rows], ""
        )


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    options.clips = options.clips or (500 if options.quick else 3438)
    options.frames = options.frames or (150 if options.quick else 600)
    clips = table(options.clips, options.folds)
    draw = np.random.default_rng(0)
    values = {
        (name, fold): draw.standard_normal((len(clips), dim), dtype=np.float32)
        for name, dim in DIMS.items()
        for fold in range(options.folds)
    }
    size = sum(v.nbytes for v in values.values())
    media = [hashlib.sha256(clip.encode()).hexdigest() for clip in clips.clip_ids]
    specs = {
        (name, fold): FeatureSpec(
            name=name,
            modality="audio" if name.startswith("music") else "video",
            kind="vector",
            dim=DIMS[name],
            extractor=f"net:{name}",
            version=1,
            params={},
            weights=f"{name}{fold}",
            protocol="crossfit",
            fold=fold,
            trained_on=tuple(
                c for c, f in zip(clips.clip_ids, clips.folds, strict=True) if f != fold
            ),
        )
        for name, fold in values
    }
    print(f"{len(clips)} clips, {len(values)} features, {size / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache, rows, arrays = folder / "features.h5", folder / "rows.h5", folder / "plain.npz"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def write_cache() -> None:
            with CacheWriter(cache, clips) as writer:
                for at, spec in specs.items():
                    for clip, medium, row in zip(clips.clip_ids, media, values[at], strict=True):
                        writer.put(spec, clip, spec.key(medium), row)

        def write_rows() -> None:
            with h5py.File(rows, "w") as file:
                for (net, fold), matrix in values.items():
                    item = file.create_dataset(f"{net}{fold}", matrix.shape, np.float32)
                    for i, row in enumerate(matrix):
                        item[i] = row

        def resume() -> None:
            with CacheWriter(cache, clips) as writer:
                for spec in specs.values():
                    keys = dict(zip(clips.clip_ids, map(spec.key, media), strict=True))
                    assert len(writer.current(spec, keys)) == len(clips)

        def read_cache() -> None:
            with open_cache(cache) as opened:
                for (net, fold), expected in values.items():
                    found = opened.vectors(net, fold)[0]
                    assert found[-1, -1] == expected[-1, -1]

        def read_plain() -> None:
            with np.load(arrays) as loaded:
                for net, fold in values:
                    assert loaded[f"{net}{fold}"].shape[0] == len(clips)

        def read_rows() -> None:
            with h5py.File(rows, "r") as file:
                for net, fold in values:
                    item = file[f"{net}{fold}"]
                    for i in range(len(clips)):
                        item[i]

        ours = timed("write, CacheWriter, a row a put", write_cache, size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        named = {f"{net}{fold}": matrix for (net, fold), matrix in values.items()}
        plain = timed("write, np.savez, all at once", lambda: np.savez(arrays, **named), size)
        slow = timed("write, h5py, a row at a time", write_rows, size)
        reading = timed("read, open_cache", read_cache, size)
        timed("read, np.load", read_plain, size)
        reading_slow = timed("read, h5py, a row at a time", read_rows, size)
        timed("open again with nothing to do, and close", resume, size)
        assert verify_cache(cache) == []
        overhead = cache.stat().st_size / size - 1
        figures = [compared("read all embeddings", read_cache, "np.load", read_plain, "<= 1.5")]

        def verify() -> None:
            verify_cache(cache)

        def cat() -> None:
            subprocess.run(["cat", cache], stdout=DEVNULL, check=True)

        def merge() -> None:
            merge_caches([cache], folder / "merged.h5")

        def copy() -> None:
            subprocess.run(["cp", cache, folder / "copy.h5"], check=True)

        figures.append(compared("verify, embeddings", verify, "cat", cat, "<= 2"))
        figures.append(compared("merge, embeddings", merge, "cp", copy, "<= 2"))
        figures.append(some_clips(folder, 20_000 if options.quick else 1_000_000))
        with CacheWriter(cache, clips) as writer:
            for clip, medium in zip(clips.clip_ids, media, strict=True):
                frames = draw.standard_normal((options.frames, MEL.dim), dtype=np.float32)
                writer.put(MEL, clip, MEL.key(medium), frames)
        assert verify_cache(cache) == []
        cat()
        what = f"verify, {cache.stat().st_size / 1e6:.0f} MB with sequences"
        figures.append(compared(what, verify, "cat", cat, "<= 2"))
    print(f"read: {reading / reading_slow:.2f} of h5py by rows; memory: {peak / 1024:.0f} MiB")
    figures += [
        Row("write, a row a put", ours, "s", "np.savez", plain, ours / plain),
        Row("write, a row a put", ours, "s", "h5py by rows", slow, ours / slow),
        Row("file, beside its values", (1 + overhead) * size / 1e6, "MB", "values alone",
            size / 1e6, 1 + overhead, "<= 1.05"),
    ]  # fmt: skip
    finish(options, figures)


if __name__ == "__main__":
    main()

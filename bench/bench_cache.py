"""Writing and reading a whole data set's features, beside plain files.

3,438 clips x (256 + 160 + 512 + 1,024) dimensions x 6 folds, float32: what a crossfit run of
the four nets on the papers' data set leaves. Compared with ``np.savez`` of the same arrays,
which is neither safe nor resumable, and with h5py one row at a time into one open file.

    python bench/bench_cache.py [--clips 3438] [--folds 6]
"""

from __future__ import annotations

import argparse
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

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec, open_cache, verify_cache

DIMS = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=3438)
    parser.add_argument("--folds", type=int, default=6)
    options = parser.parse_args()
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
                for (net, fold), held in values.items():
                    item = file.create_dataset(f"{net}{fold}", held.shape, np.float32)
                    for i, row in enumerate(held):
                        item[i] = row

        def resume() -> None:
            with CacheWriter(cache, clips) as writer:
                for spec in specs.values():
                    keys = dict(zip(clips.clip_ids, map(spec.key, media), strict=True))
                    assert len(writer.current(spec, keys)) == len(clips)

        def read_cache() -> None:
            with open_cache(cache) as held:
                for (net, fold), expected in values.items():
                    found = held.vectors(net, fold)[0]
                    assert found[-1, -1] == expected[-1, -1]

        def read_plain() -> None:
            with np.load(arrays) as held:
                for net, fold in values:
                    assert held[f"{net}{fold}"].shape[0] == len(clips)

        def read_rows() -> None:
            with h5py.File(rows, "r") as file:
                for net, fold in values:
                    item = file[f"{net}{fold}"]
                    for i in range(len(clips)):
                        item[i]

        ours = timed("write, CacheWriter, a row a put", write_cache, size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        named = {f"{net}{fold}": held for (net, fold), held in values.items()}
        plain = timed("write, np.savez, all at once", lambda: np.savez(arrays, **named), size)
        slow = timed("write, h5py, a row at a time", write_rows, size)
        reading = timed("read, open_cache", read_cache, size)
        reading_plain = timed("read, np.load", read_plain, size)
        reading_slow = timed("read, h5py, a row at a time", read_rows, size)
        timed("open again with nothing to do, and close", resume, size)
        checking = timed("verify_cache", lambda: verify_cache(cache), size)
        copying = timed("cat", lambda: subprocess.run(["cat", cache], stdout=DEVNULL), size)
        assert verify_cache(cache) == []
        overhead = cache.stat().st_size / size - 1
    print(f"write: {ours / slow:.2f} of h5py by rows, {ours / plain:.2f} of np.savez")
    print(
        f"read: {reading / reading_slow:.2f} of h5py by rows, {reading / reading_plain:.2f} of np"
    )
    print(f"verify: {checking / copying:.2f} of cat")
    print(f"file: {overhead:.1%} above the values; memory while writing: {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

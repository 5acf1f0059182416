"""What stage two takes as clips grow: writing, opening, verifying, merging, folds, evaluation.

    python bench/bench_growth.py [--clips 1000,10000,100000] [--seconds 600] [--plot growth.svg]

Made features: one crossfitted net (six times 64 numbers a clip) and a frozen one (64), in four
shards, three clips a group, six classes. Every part runs in a process of its own, so that its
peak of memory is its own; times are of the processor. A size is left out, and said so, where the
one before lets expect more than ``--seconds`` for all its parts. ``--plot`` keeps every
point beside the plot, as JSON: wall seconds, processor seconds, MiB.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures import Row, bench_parser, finish
from plain import CLASSES, PLAIN

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec, merge_caches, open_cache, verify_cache
from mvemo.fuse import EvaluationSettings, evaluate, write_report
from mvemo.manifests import make_folds

DIM, FOLDS, SHARDS = 64, 6, 4


def clip_labels(n: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Classes and groups of n clips."""
    group = np.arange(n) // 3
    labels = np.random.default_rng(0).integers(0, 6, group[-1] + 1)[group]
    return labels, tuple(f"song {g}" for g in group.tolist())


def write(folder: Path, n: int) -> None:
    """Shards of all clips."""
    labels, groups = clip_labels(n)
    folds = np.arange(n) // 3 % FOLDS
    ids = tuple(f"clip {i:07d}" for i in range(n))
    draw = np.random.default_rng(1)
    means = draw.normal(size=(6, DIM)).astype(np.float32) * 0.3
    specs = [
        FeatureSpec("i3d", "video", "vector", DIM, "net:i3d", 1, {}, "w" * 64, "frozen"),
        *(
            FeatureSpec(
                "music1d",
                "audio",
                "vector",
                DIM,
                "net:music1d",
                1,
                {},
                f"{fold}" * 64,
                "crossfit",
                fold,
                tuple(np.array(ids)[folds != fold].tolist()),
            )
            for fold in range(FOLDS)
        ),
    ]
    for shard in range(SHARDS):
        rows = range(n * shard // SHARDS, n * (shard + 1) // SHARDS)
        part = slice(rows.start, rows.stop)
        table = ClipTable(
            "made", "multiclass", CLASSES, ids[part], groups[part], labels[part], folds[part],
            FOLDS, 0, "d" * 64, True,
        )  # fmt: skip
        with CacheWriter(folder / "shards" / f"{shard}.h5", table) as writer:
            for spec in specs:
                values = means[labels[part]] + draw.normal(size=(len(rows), DIM)).astype("f4")
                for clip, row in zip(table.clip_ids, values, strict=True):
                    writer.put(spec, clip, spec.key(clip), row)


def open_shards(folder: Path, n: int) -> None:
    with open_cache(folder / "shards") as cache:
        assert len(cache.table) == n


def open_file(folder: Path, n: int) -> None:
    with open_cache(folder / "features.h5") as cache:
        assert len(cache.table) == n


def verify(folder: Path, n: int) -> None:
    assert verify_cache(folder / "features.h5") == []


def merge(folder: Path, n: int) -> None:
    merge_caches([folder / "shards"], folder / "features.h5")


def folds(folder: Path, n: int) -> None:
    labels, groups = clip_labels(n)
    fold_numbers = make_folds(labels, groups, FOLDS, 0, "multiclass")
    assert len(fold_numbers) == n


def heads(folder: Path, n: int) -> None:
    with open_cache(folder / "features.h5") as cache:
        results = evaluate(cache, PLAIN)
    assert len(results.models) >= 3


def whole(folder: Path, n: int) -> None:
    """As ``mvemo-cv`` does it: penalties chosen, intervals, stack, report."""
    with open_cache(folder / "features.h5") as cache:
        results = evaluate(cache, EvaluationSettings())
    write_report(results, folder / "out", heads=False)


PARTS: dict[str, Callable[[Path, int], None]] = {
    "write": write,
    "open shards": open_shards,
    "merge": merge,
    "open file": open_file,
    "verify": verify,
    "folds": folds,
    "six folds at a fixed penalty": heads,
    "mvemo-cv with its report": whole,
}


def run_part(part: str, folder: Path, n: int) -> None:
    """In this process; prints wall and processor seconds and MiB as JSON."""
    started, cpu = time.perf_counter(), time.process_time()
    PARTS[part](folder, n)
    spent = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps([*spent, mib]))


def measure(n: int, names: list[str]) -> dict[str, tuple[float, float, float]]:
    """Part to wall seconds, processor seconds and MiB; those that fail are told and left out."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        for part in names:
            command = [sys.executable, __file__, "--part", part, "--folder", name, "--n", str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                why = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
                print(f"{n} clips, {part}: {why[-1][:200]}")
                continue
            found[part] = tuple(json.loads(done.stdout.splitlines()[-1]))
            wall, cpu, mib = found[part]
            print(f"  {n:9,} clips  {part:26} {wall:8.2f} s  {cpu:8.2f} s CPU  {mib:8.0f} MiB",
                  flush=True)  # fmt: skip
    return found


def growth(found: dict[int, dict[str, tuple[float, float, float]]]) -> list[Row]:
    """Of the two largest sizes: times and memory beside those of growth in proportion."""
    rows = []
    for part in PARTS:
        sizes = sorted(n for n, parts in found.items() if part in parts)
        if not sizes:
            continue
        last = found[sizes[-1]][part]
        what = f"{part}, {sizes[-1]:,} clips"
        rows.append(Row(f"{what}: peak memory", last[2], "MiB"))
        if len(sizes) < 2:
            rows.append(Row(what, last[1], "s"))
            continue
        before, factor = found[sizes[-2]][part], sizes[-1] / sizes[-2]
        linear = before[1] * factor
        # Starts of a tenth of a second tell nothing of growth.
        goal = "<= 1.3" if linear > 1 else ""
        rows.append(Row(what, last[1], "s", f"{sizes[-2]:,} clips x {factor:g}", linear,
                        last[1] / linear if linear else math.nan, goal))  # fmt: skip
    return rows


def plot(found: dict[int, dict[str, tuple[float, float, float]]], path: Path) -> None:
    """Processor seconds and peak memory over clips, on logarithmic axes; and all points as JSON."""
    path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, at, label in ((axes[0], 1, "processor seconds"), (axes[1], 2, "peak memory, MiB")):
        for part in PARTS:
            points = [(n, found[n][part][at]) for n in sorted(found) if part in found[n]]
            axis.loglog(*zip(*points, strict=True), marker="o", markersize=3, label=part)
        axis.set(xlabel="clips", ylabel=label)
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7, loc="upper left")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", default="")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        run_part(chosen.part, chosen.folder, chosen.n)
        return
    default = "100,400" if chosen.quick else "1000,10000,100000"
    sizes = [int(n) for n in (chosen.clips or default).split(",")]
    names = chosen.parts.split(",")
    found: dict[int, dict[str, tuple[float, float, float]]] = {}
    for n in sizes:
        if found:
            last = max(found)
            expected = sum(cpu for _, cpu, _ in found[last].values()) * n / last
            if expected > chosen.seconds:
                print(f"{n:,} clips are left out: about {expected:.0f} s are to be expected")
                continue
        found[n] = measure(n, names)
    if chosen.plot is not None:
        plot(found, chosen.plot)
    finish(chosen, growth(found))


if __name__ == "__main__":
    main()

"""Stage one by two processes beside one: frozen I3D and music2d, descriptors, whole commands.

Each process has one thread and one decoding process. One process alone may use a second core
while it decodes; so there is a third side, the same on one core. The fourth is what the machine
can give: whole commands side by side, on a core and its part of the clips each, which write
caches of their own. The nets' weights are random: they take as long. Clips are made (two classes
of videos of some seconds), or those of a manifest. Wall time: run it on a machine with nothing
else to do.

    python bench/bench_jobs.py [--manifest clips.csv] [--jobs 2] [--clips 24] [--seconds 5]
                               [--rounds 2]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from pathlib import Path

from figures import Row, bench_parser, finish, in_turns, write_weights

from mvemo.cache import open_cache
from mvemo.extract.workers.pool import cores
from mvemo.manifests import Manifest, read_manifest, write_manifest
from mvemo.manifests.demo import make_demo

NETS = ("i3d", "music2d")
DESCRIPTORS = 'extract.descriptors=["mel","mfcc","contrast","chroma"]'


def stage_one(
    manifest: Path, work: Path, jobs: int, options: list[str], core: int | None = None
) -> None:
    """Run the command from nothing, on one core of those that there are where it is given."""
    shutil.rmtree(work, ignore_errors=True)
    available = sorted(os.sched_getaffinity(0))
    command = [
        sys.executable,
        "-m",
        "mvemo.pipeline",
        "extract",
        str(manifest),
        "--work",
        str(work),
    ]
    command += f"--protocol frozen --folds 2 --nets {','.join(NETS)} --quiet".split()
    command += ["--set", DESCRIPTORS]
    command += ["--set", f"extract.workers={jobs}", "--jobs", str(jobs), *options]
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=None if core is None else partial(os.sched_setaffinity, 0, {available[core]}),
    )


def clips_of(chosen_manifest: Path | None, n_clips: int, seconds: float, folder: Path) -> Manifest:
    """The clips to read: of a manifest its first ones, else made ones."""
    if chosen_manifest is None:
        per_class = max(n_clips // 6, 1)
        return make_demo(folder / "clips", clips_per_class=per_class, seconds=seconds)
    listed = read_manifest(chosen_manifest)
    return replace(listed, clips=listed.clips[:n_clips])


def write_parts(manifest: Manifest, n_parts: int, folder: Path) -> list[Path]:
    """Manifests of parts of the clips, as large as each other."""
    paths = [folder / f"part-{i}.csv" for i in range(n_parts)]
    for i, path in enumerate(paths):
        write_manifest(replace(manifest, clips=manifest.clips[i::n_parts]), path)
    return paths


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    chosen = parser.parse_args()
    n_clips = chosen.clips or (6 if chosen.quick else 24)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = clips_of(chosen.manifest, n_clips, chosen.seconds, folder)
        write_manifest(manifest, folder / "bench.csv")
        weights = write_weights(NETS, folder)
        options = ["--root", str(manifest.root)]
        options += [word for net in NETS for word in ("--weights", f"{net}={weights[net]}")]

        def side(name: str, jobs: int, core: int | None = None) -> Callable[[], None]:
            return lambda: stage_one(folder / "bench.csv", folder / name, jobs, options, core)

        parts = write_parts(manifest, min(chosen.jobs, cores()), folder)

        def side_by_side() -> None:
            with ThreadPoolExecutor(len(parts)) as pool:
                works = [folder / path.stem for path in parts]
                list(pool.map(stage_one, parts, works, repeat(1), repeat(options), count()))

        sides = [side("many", chosen.jobs), side("one", 1), side("core", 1, 0), side_by_side]
        times = in_turns(sides, rounds=chosen.rounds or (1 if chosen.quick else 2))
        digests = set()
        for name in ("many", "one", "core"):
            with open_cache(folder / name / "features.h5") as cache:
                digests.add(cache.digest())
        assert len(digests) == 1, "not the same features"
    many, one, core, apart = (wall for wall, _ in times)
    what = f"stage one, {len(manifest)} clips, --jobs {chosen.jobs}"
    goal = ">= 1.8" if chosen.jobs == 2 else ""
    finish(
        chosen,
        [
            Row(what, many, "s", "one process", one, one / many, goal),
            Row(what, many, "s", "one process on one core", core, core / many, goal),
            Row(what, many, "s", "commands side by side", apart, apart / many),
        ],
    )


if __name__ == "__main__":
    main()

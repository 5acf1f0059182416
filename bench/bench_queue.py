"""Stage one on up to eight cores: the queue of ``--jobs``, simulated on recorded times of clips.

    python bench/bench_queue.py [--manifest clips.csv] [--clips 24] [--seconds 5] [--rounds 2]

The parts of each clip, the start of a process and the work of the command itself are recorded in
processor seconds, so that other programs disturb them little; then `queue_events` simulates them.
Memory and caches cannot be simulated: two commands with half of the clips each are measured, and
more cores are assumed to slow each other down as much as these two. Simulated times of one and of
two cores stand next to measured ones. Catalogues are drawn with replacement from the clips.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from bench_catalogue import Catalogue
from bench_jobs import DESCRIPTORS, clips_of, stage_one, write_parts
from figures import Row, bench_parser, finish, in_turns, write_weights
from queue_events import Costs, losses, share
from threadpoolctl import threadpool_limits

from mvemo.cache import PartWriter
from mvemo.extract.workers import pool, process
from mvemo.manifests import ManifestOptions, write_manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one import backends, division, tasks
from mvemo.pipeline.stage_one.run import run_extract

NETS = ("musicnn", "effnet")
SETTINGS = ("extract.folds=2", "extract.fetch=false", DESCRIPTORS)
# Sizes of the drawn catalogues, and numbers of cores.
CATALOGUES, CORES = (1_000, 10_000), (2, 4, 8)
IMPORTS = "import mvemo.pipeline.cli, mvemo.pipeline.commands.extract, mvemo.pipeline.stage_one.run"
LOCAL_BACKEND = backends.local_backend
# Parts of a task that belong partly to the task, not to its clips.
AROUND = ("write", "other")
Parts = dict[str, float]


def seconds_with_children(pid: int) -> float:
    """Return the processor seconds of a process and of all that it has started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for each in lists for child in each.read_text().split()]
    return process.processor_seconds(pid) + sum(map(seconds_with_children, children))


class Recorder(Catalogue):
    """Stage one with tasks of chosen clips, run in this process: seconds of all parts."""

    def __init__(self, manifest: Path, root: Path, settings: Sequence[str]) -> None:
        super().__init__()
        for name in ("put", "commit"):
            self.clock.watch(PartWriter, name, "write")
        self.videos, self.raws = 0.0, defaultdict(list)
        self._manifest, self._options = manifest, ManifestOptions(root=root)
        self._settings = load_settings("pretrained", [*settings, "extract.workers=1"])

    def record(self, batches: Sequence[Sequence[int]], do: Any = None) -> list[Parts]:
        """Return the parts of each task; `do` runs the tasks in another way."""
        self.tasks: list[Parts] = []
        self.take_up, self._started = 0.0, time.process_time()
        with (
            tempfile.TemporaryDirectory() as name,
            patch.object(backends, "local_backend", lambda *_: backends.Backend(do or self.do, 2)),
            patch.object(division, "clip_batches", return_value=batches),
        ):
            work = Path(name)
            asked = self._manifest, self._settings, work, work / "features.h5", self._options
            run_extract(division.ExtractRequest(*asked, jobs=2))
            self.close = time.process_time() - self._ended
        return self.tasks

    def do(self, given: Sequence[Any], note: Any) -> Iterator[tuple[Any, Any]]:
        """Run tasks as a backend does, and record them."""
        self.command = time.process_time() - self._started
        for task in given:
            before, started = self.clock.seconds.copy(), time.process_time()
            with self.clock.part("other"):
                result = tasks.do_task(task)
            whole = time.process_time() - started
            spent = {part: s - before[part] for part, s in self.clock.seconds.items() if part}
            spent["other"] += whole - sum(spent.values())  # of other threads
            self.tasks.append(spent)
            self.raws.clear()
            started = time.process_time()
            yield task, result
            self.take_up += time.process_time() - started
        self._ended = time.process_time()

    def do_first(self, given: Sequence[Any], note: Any) -> Iterator[tuple[Any, Any]]:
        """Run the first task in a new process, and record its start."""
        pool.start_workers(1, backends.TASKS, backends.thread_variables(pool.cores()))
        worker = pool._idle[-1]
        while not worker.ready:
            time.sleep(0.01)
        self.process = process.processor_seconds(worker.pid)
        for done in LOCAL_BACKEND("cpu", pool.cores()).do(given[:1], note):
            self.first = seconds_with_children(worker.pid) - self.process
            yield done
        self._ended = time.process_time()


def record(recorder: Recorder, n: int, rounds: int) -> tuple[list[Parts], Costs]:
    """Record n clips; return the parts of each clip, and the seconds of all other work."""
    rows = range(n)
    recorder.record([[0], rows], recorder.do_first)
    first, close = recorder.first, recorder.close
    together = least([recorder.record([rows]) for _ in range(1 + rounds)])[0]
    clips = least([recorder.record([[row] for row in rows]) for _ in range(rounds)])
    # A clip in a task of its own has all the work of a task; in a task of n, the nth part.
    alone = sum(clip[part] for clip in clips for part in AROUND) / n
    imports = in_turns([lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True)])
    costs = Costs(
        command=imports[0][1] + recorder.command,
        process=recorder.process,
        first=first - sum(clips[0].values()),
        task=max(alone - sum(together[part] for part in AROUND) / n, 0.0),
        take_up=recorder.take_up / n,
        close=close,
        close_clip=max(recorder.close - close, 0.0) / n,
    )
    return [clip | {part: together[part] / n for part in AROUND} for clip in clips], costs


def least(rounds: Sequence[list[Parts]]) -> list[Parts]:
    """Return the least seconds of each part of each task: noise only adds."""
    return [
        {part: min(each[part] for each in of_task) for part in of_task[0]}
        for of_task in zip(*rounds, strict=True)
    ]


def measure(path: Path, halves: Sequence[Path], options: list[str], rounds: int) -> Any:
    """Return wall and processor seconds: one core, ``--jobs 2``, two commands on a core each."""
    folder = path.parent

    def apart() -> None:
        with ThreadPoolExecutor(2) as threads:
            works = [folder / half.stem for half in halves]
            list(threads.map(stage_one, halves, works, repeat(1), repeat(options), count()))

    one = partial(stage_one, path, folder / "one", 1, options, 0)
    two = partial(stage_one, path, folder / "two", 2, options)
    return in_turns([one, two, apart], rounds)


def part_rows(clips: Sequence[Parts], costs: Costs) -> list[Row]:
    """Return rows of the mean parts of a clip, and of all other work."""
    mean = {part: 1000 * sum(clip[part] for clip in clips) / len(clips) for part in clips[0]}
    mean["decode"] += mean.pop("demux")
    whole = sum(mean.values())
    rows = [Row(part, ms, "ms a clip", share=ms / whole) for part, ms in mean.items()]
    return rows + [Row(n, 1000 * s, "ms") for n, s in vars(costs).items() if n != "slowdown"]


def simulated_rows(clips: Sequence[float], costs: Costs) -> Iterator[Row]:
    """Yield the speed of more cores for catalogues, and the idle share of the cores."""
    for size in (0, *CATALOGUES):
        drawn = np.random.default_rng(0).choice(clips, size).tolist() if size else clips
        one = share(drawn, 1, costs).wall
        for cores in CORES:
            what, run = f"{len(drawn):,} clips, {cores} cores", share(drawn, cores, costs)
            lost = [f"{name} {s:.1f} s" for name, s in losses(drawn, cores, costs).items()]
            print(f"{what}: lost to {', '.join(lost)}")
            what = f"simulated: {what} (share: idle)"
            yield Row(what, run.wall, "s", "one core", one, one / run.wall, share=run.idle)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int)
    chosen = parser.parse_args()
    n_clips = chosen.clips or (6 if chosen.quick else 24)
    rounds = chosen.rounds or (1 if chosen.quick else 2)
    for limit in (torch.set_num_threads, threadpool_limits, cv2.setNumThreads):
        limit(1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "bench.csv"
        manifest = clips_of(chosen.manifest, n_clips, chosen.seconds, path.parent)
        write_manifest(manifest, path)
        weights = write_weights(NETS, path.parent)
        settings = [*SETTINGS, *(f"nets.{net}.weights='{file}'" for net, file in weights.items())]
        recorder = Recorder(path, manifest.root, settings)
        recorded, costs = record(recorder, len(manifest), rounds)
        options = ["--profile=pretrained", f"--nets={','.join(NETS)}", f"--root={manifest.root}"]
        options += [f"--set={setting}" for setting in settings]
        halves = write_parts(manifest, 2, path.parent)
        one, two, apart = measure(path, halves, options, rounds)
    clips = [sum(clip.values()) for clip in recorded]
    # The second command starts, too.
    slowdown = apart[1] / (one[1] + costs.command + costs.first)
    costs = replace(costs, slowdown=max(slowdown, 1.0))
    what = "two commands, half of the clips each, processor"
    rows = [Row(what, apart[1], "s", "one command", one[1], slowdown)]
    for cores, (wall, _) in ((1, one), (2, two)):
        run = share(clips, cores, costs).wall
        rows.append(Row(f"simulated: --jobs {cores}", run, "s", "measured", wall, run / wall))
    finish(chosen, [*part_rows(recorded, costs), *rows, *simulated_rows(clips, costs)])


if __name__ == "__main__":
    main()

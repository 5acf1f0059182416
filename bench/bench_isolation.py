"""Decoding clips in worker processes against decoding them in this one.

    python bench/bench_isolation.py [FOLDER] [--clips 40]

FOLDER holds video files; by default the real clips beside the checkout. Both sides decode, check
and write the same arrays to a working cache, one clip after the other, on one thread: the ratio is
what isolation costs, beside the start of a worker, which is timed apart. On a busy machine the
ratio swings by more than what is asked for: a call that does nothing is timed, too, of which each
clip takes one.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from figures import Row, bench_parser, finish

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mve"
ROUNDS = 5
EMPTY_CALLS = 400


def cpu_seconds() -> float:
    """Processor time of this process and of its workers, which are kept between calls."""
    from mvemo.extract.workers.pool import _idle
    from mvemo.extract.workers.process import processor_seconds

    return time.process_time() + sum(processor_seconds(worker.pid) for worker in _idle)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CLIPS)
    parser.add_argument("--clips", type=int)
    chosen = parser.parse_args()
    chosen.clips = chosen.clips or (6 if chosen.quick else 40)
    files = sorted(chosen.folder.rglob("*.mp4"))[: chosen.clips]
    if not files:
        print(f"isolation: no .mp4 files under {chosen.folder}, nothing to time")
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    from mvemo.extract.media.request import FrameSampling
    from mvemo.extract.store.contents import content_of
    from mvemo.extract.store.decoded import DecodedStore, DecodeSettings, decode_many
    from mvemo.extract.store.decoding import decode_job
    from mvemo.extract.store.folders import DecodeJob, DecodeRequest
    from mvemo.extract.workers.pool import run_calls, stop_workers
    from mvemo.extract.workers.process import Call

    request = DecodeRequest((16000,), (FrameSampling(32, 112), FrameSampling(32, 224)))
    jobs = []
    for file in files:
        content = content_of(file)
        jobs.append(DecodeJob(file.stem, file, content.digest, stamp=content.stamp))

    def in_this_process() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = DecodedStore(Path(folder), request)
            for job in jobs:
                decode_job(job, store.assign_folder(job), request, 1)

    def in_workers() -> None:
        with tempfile.TemporaryDirectory() as folder:
            decode_many(DecodedStore(Path(folder), request), jobs, DecodeSettings(1))

    def start() -> None:
        stop_workers()
        with tempfile.TemporaryDirectory() as folder:
            decode_many(DecodedStore(Path(folder), request), jobs[:1], DecodeSettings(1))

    start()
    in_this_process()
    ratios, cpu_ratios = [], []
    for _ in range(ROUNDS):
        spent = []
        for side in (in_this_process, in_workers):
            started, cpu_started = time.perf_counter(), cpu_seconds()
            side()
            spent.append((time.perf_counter() - started, cpu_seconds() - cpu_started))
        (plain, cpu_plain), (isolated, cpu_isolated) = spent
        ratios.append(isolated / plain)
        cpu_ratios.append(cpu_isolated / cpu_plain)
    started = time.perf_counter()
    start()
    first = time.perf_counter() - started
    each = 1000 * cpu_plain / len(files)
    for name, values in (("wall", ratios), ("processor", cpu_ratios)):
        listed = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name:10} {listed} times decoding in this process")
    nothing = [Call("os:getpid", ())] * EMPTY_CALLS
    cpu_started = cpu_seconds()
    assert all(outcome.error is None for outcome in run_calls(nothing, workers=1))
    empty = 1000 * (cpu_seconds() - cpu_started) / EMPTY_CALLS
    ratio = statistics.median(cpu_ratios)
    what = f"decode {len(files)} clips in a worker, processor"
    finish(
        chosen,
        [
            Row(what, each * ratio, "ms a clip", "in this process", each, ratio, "<= 1.05"),
            Row("a call of a worker alone", empty, "ms", "a clip", each, empty / each),
            Row("a new worker and its first clip", first, "s"),
        ],
    )


if __name__ == "__main__":
    main()

"""Two thousand clips in one run: memory and open files stay flat, of the workers, too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soak_kills import EXTRACT
from soak_samples import write_sounds
from soak_tally import Tally

from mvemo.cache import open_cache, verify_cache

# By how much a run's peak may exceed that of a run of an eighth of the clips.
MOST_MB = 120
MOST_HANDLES = 4


def soak(tally: Tally, n: int = 2000) -> None:
    """Extract an eighth of the clips, then all of them: the peaks must be alike."""
    few, all_ = _peaks(tally, max(8, n // 8)), _peaks(tally, n)
    for what, early, late, most in zip(
        ("MB", "handles", "MB of a worker", "handles of a worker"),
        few,
        all_,
        (MOST_MB, MOST_HANDLES, MOST_MB, MOST_HANDLES),
        strict=True,
    ):
        print(f"{n // 8} clips: {early:.0f} {what}; {n} clips: {late:.0f}", flush=True)
        if late > early + most:
            tally.fault("many clips", f"{what} grew from {early:.0f} to {late:.0f}")


def _peaks(tally: Tally, n: int) -> tuple[float, ...]:
    """Most MB of memory and open handles of the main process, and of one of its workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_sounds(folder / "media", n, 0.4)
        out = folder / "out.h5"
        command = [
            sys.executable, "-m", "mvemo.pipeline", "extract", str(manifest), "--work",
            str(folder / "work"), "--out", str(out), *EXTRACT,
        ]  # fmt: skip
        peaks: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            while process.poll() is None:
                workers = [_look(child) for child in _children(process.pid)]
                seen = *_look(process.pid), *map(max, zip((0.0, 0.0), *workers, strict=True))
                peaks = tuple(map(max, peaks, seen))
                time.sleep(0.2)
        tally.add("clips in one run", n)
        if process.returncode:
            tally.fault("many clips", (folder / "log").read_text()[-300:])
            return peaks
        with open_cache(out) as cache:
            missing = n - int(cache.present("mfcc").sum())
        if missing or verify_cache(out):
            tally.fault("many clips", f"{missing} rows are missing")
        return peaks


def _children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def _look(pid: int) -> tuple[float, float]:
    """MB of memory and open handles of a process; files that it maps are not its memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        memory = next(line for line in lines if line.startswith("RssAnon"))
        return int(memory.split()[1]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, StopIteration):
        return 0.0, 0.0

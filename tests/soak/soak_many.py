"""Two thousand clips in one run: memory and open files stay flat."""

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

# What the main process may grow by from the first quarter of a run to its last.
MOST_MB = 60
MOST_HANDLES = 4


def soak(tally: Tally, n: int = 2000) -> None:
    """Extract descriptors of so many clips, and look at the process twice a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_sounds(folder / "media", n, 0.4)
        out = folder / "out.h5"
        command = [
            sys.executable, "-m", "mvemo.pipeline", "extract", str(manifest), "--work",
            str(folder / "work"), "--out", str(out), *EXTRACT,
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            samples = []
            while process.poll() is None:
                samples.append(_look(process.pid))
                time.sleep(0.5)
        tally.add("clips in one run", n)
        if process.returncode:
            tally.fault("many clips", (folder / "log").read_text()[-300:])
            return
        with open_cache(out) as cache:
            missing = n - int(cache.present("mfcc").sum())
        if missing or verify_cache(out):
            tally.fault("many clips", f"{missing} rows are missing")
        samples = [sample for sample in samples if sample is not None]
        quarter = max(1, len(samples) // 4)
        for what, at, most in (("MB", 0, MOST_MB), ("handles", 1, MOST_HANDLES)):
            early = max(sample[at] for sample in samples[quarter : 2 * quarter] or samples)
            late = max(sample[at] for sample in samples[-quarter:])
            print(f"{n} clips: {early:.0f} {what} in the second quarter, {late:.0f} in the last")
            if late > early + most:
                tally.fault("many clips", f"{what} grew from {early:.0f} to {late:.0f}")


def _look(pid: int) -> tuple[float, int] | None:
    """Resident MB and open handles of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        resident = next(line for line in lines if line.startswith("VmRSS"))
        return int(resident.split()[1]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, StopIteration):
        return None

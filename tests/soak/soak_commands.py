"""Commands killed at any moment, commands without room or memory, and a run of many clips."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from golden_steps import make_sounds
from soak_samples import write_arrays, write_cache
from soak_tally import judge, run

from mvemo.cache import open_cache, verify_cache
from mvemo.manifests.errors import MvemoError


@dataclass(frozen=True)
class Victim:
    """A command that is attacked."""

    name: str
    words: str  # after ``mvemo``, in a folder that `prepare` has filled
    output: str  # file that it writes
    prepare: Callable[[Path], None]
    ends_by: int = signal.SIGKILL


def _caches(folder):
    write_cache(folder / "features.h5")
    write_cache(folder / "one.h5", names=("music1d", "mel"))
    write_cache(folder / "two.h5", names=("c3d",))
    write_arrays(folder)


def _damaged(folder):
    _caches(folder)
    path = folder / "features.h5"
    with open_cache(path) as cache:
        row = cache.vectors("music1d")[0][3].tobytes()
    path.write_bytes(path.read_bytes().replace(row, bytes(len(row))))


def _sounds(folder, n=24, seconds=0.5):
    make_sounds(folder / "media", clips_per_class=n // 4, seconds=seconds)


IMPORT = "cache import features.h5 theirs.npz --feature new --modality audio --force"
EXTRACT = (
    "extract media/clips.csv --work work --out out.h5 --profile demo --protocol shared --nets rnn "
    '--set nets.rnn.epochs=1 --set extract.descriptors=["mfcc"]'
)
VICTIMS = (
    Victim("merge", "cache merge one.h5 two.h5 --out out.h5 --force", "out.h5", _caches),
    Victim("import", IMPORT, "features.h5", _caches),
    Victim(
        "export",
        "cache export features.h5 --feature mel --out out.csv --force",
        "out.csv",
        _caches,
    ),
    Victim("repair", "cache repair features.h5", "features.h5", _damaged),
    Victim("remove", "cache remove features.h5 mel", "features.h5", _caches),
    Victim("fuse", "fuse features.h5 --out out", "out/predictions.csv", _caches),
    Victim("extract", EXTRACT, "out.h5", _sounds),
    Victim("extract (SIGTERM)", EXTRACT, "out.h5", _sounds, signal.SIGTERM),
)


def digest(path):
    """Return the digest of a cache's rows, or the text of another file; '' without a file."""
    if path.suffix == ".h5" and path.exists():
        with open_cache(path) as cache:
            return cache.digest()
    return path.read_text() if path.exists() else ""


def _prepared(victim, folder):
    """Fill a folder, and return a function that makes a fresh copy of it."""
    (folder / "pristine").mkdir()
    victim.prepare(folder / "pristine")

    def fresh():
        shutil.rmtree(folder / "tried", ignore_errors=True)
        return Path(shutil.copytree(folder / "pristine", folder / "tried"))

    return fresh


# --- kills


def soak_kills(tally, seed, kills, only=""):
    """Kill each command `kills` times in all, at moments spread over its run."""
    victims = [victim for victim in VICTIMS if only in ("", victim.name)]
    for victim in victims:
        with tempfile.TemporaryDirectory() as name:
            draw = random.Random(f"{seed}{victim.name}")
            _kill(tally, victim, draw, max(1, kills // len(victims)), Path(name))


def _kill(tally, victim, draw, kills, work):
    kind, fresh = f"killed {victim.name}", _prepared(victim, work)
    folder = fresh()
    start = partial(run, *victim.words.split(), cwd=folder, patience=tally.patience)

    def whole_run(what, allowed):
        """Return the seconds of a run to its end; 0 if it was a fault."""
        begin = time.monotonic()
        is_good = judge(tally, f"{victim.name}, {what}", start(), allowed)
        return time.monotonic() - begin if is_good else 0.0

    before = digest(folder / victim.output)
    seconds = whole_run("whole", (0,))
    if not seconds:
        return
    expected = digest(folder / victim.output)
    # Some commands end before their moment has come.
    for _ in range(2 * kills):
        if tally.tried[kind] == kills:
            break
        fresh()
        outcome = start(end=(draw.uniform(0.3, 1.0) * seconds, victim.ends_by))
        if outcome.code == 0:
            tally.add(f"{victim.name}, ended before its kill")
        else:
            # Before Python's first line the signal itself ends it, later our own exit.
            judge(tally, kind, outcome, (-9,) if victim.ends_by == signal.SIGKILL else (143, -15))
        _check_after_kill(tally, victim, folder / victim.output, {before, expected})
        # Repair and remove may have ended just before they were killed.
        again = whole_run("again", (0, 2) if victim.name == "remove" else (0,))
        seconds = again or seconds
        if again and digest(folder / victim.output) != expected:
            tally.fault(kind, "the run after it ended with another digest")
        if left := [str(path) for path in folder.rglob("*.tmp")]:
            tally.fault(kind, f"the run after it left {left}")


def _check_after_kill(tally, victim, path, allowed):
    kind = f"killed {victim.name}"
    try:
        found = digest(path)
    except (MvemoError, OSError) as error:
        tally.fault(kind, f"{path.name} cannot be read: {error}")
        return
    if found not in allowed:
        tally.fault(kind, f"{path.name} is neither as before nor as after")
    if victim.name != "repair":
        _verify(tally, kind, path)


def _verify(tally, kind, path):
    for problem in verify_cache(path)[:1] if path.suffix == ".h5" and path.exists() else ():
        tally.fault(kind, f"{path.name}: {problem}")


# --- limits


def _limit(kind, value):
    return lambda: resource.setrlimit(kind, (value, value))


LIMITS = {
    **{f"files of {kb} kB": _limit(resource.RLIMIT_FSIZE, kb << 10) for kb in (0, 4, 16, 40)},
    **{f"{n} handles": _limit(resource.RLIMIT_NOFILE, n) for n in (12, 24, 48)},
    **{f"{mb} MB of memory": _limit(resource.RLIMIT_AS, mb << 20) for mb in (700, 1500)},
}


def soak_limits(tally):
    """Run every command under every limit: if it fails, its output stays as it was."""
    for victim in VICTIMS:
        if victim.ends_by != signal.SIGKILL:
            continue
        with tempfile.TemporaryDirectory() as name:
            fresh = _prepared(victim, Path(name))
            for limit, apply in LIMITS.items():
                folder = fresh()
                written, label = folder / victim.output, f"{victim.name} with {limit}"
                before = digest(written)
                words = victim.words.split()
                outcome = run(*words, cwd=folder, limits=apply, patience=tally.patience)
                kind = "small files" if "kB" in limit else limit.partition(" ")[2]
                judge(tally, kind, outcome, label=label)
                if outcome.code != 0 and before and digest(written) != before:
                    tally.fault(kind, f"{label}: {victim.output} has changed")
                if victim.name != "repair":
                    _verify(tally, f"{kind}, {label}", written)


def soak_full_disk(tally, sizes=(100, 300, 600, 1200, 2500)):
    """Extract onto a disk of so many kB, and onto a read-only one."""
    if os.geteuid() != 0:
        print("full disks and read-only ones are left out: they need root")
        return
    quiet = {"capture_output": True, "check": False}
    with tempfile.TemporaryDirectory() as name:
        _sounds(Path(name))
        disk = Path(name, "disk")
        disk.mkdir()
        for kb in (*sizes, 0):
            options = f"size={kb or 1000}k"
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
            if subprocess.run(mount, **quiet).returncode:
                print("full disks are left out: no tmpfs can be mounted here")
                return
            try:
                if not kb:
                    subprocess.run(["mount", "-o", "remount,ro", str(disk)], **quiet)
                words = EXTRACT.replace("work", f"{disk}/work").replace("out.h5", f"{disk}/out.h5")
                outcome = run(*words.split(), cwd=name, patience=tally.patience)
                judge(tally, "full disk" if kb else "read-only disk", outcome)
                _verify(tally, "full disk", disk / "out.h5")
            finally:
                subprocess.run(["umount", str(disk)], **quiet)


# --- many clips


# Memory and open handles by which a run may exceed a run with an eighth of the clips.
MOST = {"MB": 120, "handles": 4, "MB of a worker": 120, "handles of a worker": 4}


def soak_many(tally, n=2000):
    """Extract an eighth of the clips, then all of them: memory and open files must not grow."""
    pairs = zip(_peaks(tally, max(24, n // 8)), _peaks(tally, n), strict=True)
    for (what, most), (early, late) in zip(MOST.items(), pairs, strict=True):
        print(f"{n // 8} clips: {early:.0f} {what}; {n} clips: {late:.0f}", flush=True)
        if late > early + most:
            tally.fault("many clips", f"{what} grew from {early:.0f} to {late:.0f}")


def _peaks(tally, n):
    """Return the most MB and open handles of the main process, and of one of its workers."""
    peaks = (0.0, 0.0, 0.0, 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _sounds(folder, n, 0.4)
        command = [sys.executable, "-m", "mvemo.pipeline", *EXTRACT.split()]
        with (folder / "log").open("wb") as log:
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=env)
            while process.poll() is None:
                workers = map(_look, _children(process.pid))
                seen = *_look(process.pid), *map(max, zip((0.0, 0.0), *workers, strict=True))
                peaks = tuple(map(max, peaks, seen))
                time.sleep(0.2)
        tally.add("clips in one run", n)
        if process.returncode:
            tally.fault("many clips", (folder / "log").read_text()[-300:])
            return peaks
        with open_cache(folder / "out.h5") as cache:
            missing = n // 4 * 4 - int(cache.present("mfcc").sum())
        if missing or verify_cache(folder / "out.h5"):
            tally.fault("many clips", f"{missing} rows are missing")
        return peaks


def _children(pid):
    """Return the processes that a process has started."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def _look(pid):
    """Return MB of memory, without mapped files, and open handles of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        memory = next(line for line in lines if line.startswith("RssAnon"))
        return int(memory.split()[1]) / 1024, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, StopIteration):
        return 0.0, 0.0

"""Commands without room, handles or memory, and where nothing may be written: one line each."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from soak_kills import EXTRACT, VICTIMS, digest
from soak_samples import write_sounds
from soak_tally import Tally, judge, run

from mvemo.cache import verify_cache


def _limit(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


LIMITS: dict[str, Callable[[], None]] = {
    **{f"files of {kb} kB": _limit(resource.RLIMIT_FSIZE, kb << 10) for kb in (0, 4, 16, 40)},
    **{f"{n} handles": _limit(resource.RLIMIT_NOFILE, n) for n in (12, 24, 48)},
    **{f"{mb} MB of memory": _limit(resource.RLIMIT_AS, mb << 20) for mb in (700, 1500)},
}


def soak(tally: Tally, names: tuple[str, ...] = ()) -> None:
    """Every command under every limit; what was there before stays as it was."""
    with tempfile.TemporaryDirectory() as name:
        pristine, folder = Path(name, "pristine"), Path(name, "tried")
        for victim in VICTIMS:
            if victim.ends_by != signal.SIGKILL or (names and victim.name not in names):
                continue
            shutil.rmtree(pristine, ignore_errors=True)
            pristine.mkdir()
            victim.prepare(pristine)
            output = pristine / victim.output
            before = digest(output) if output.exists() else ""
            for limit, apply in LIMITS.items():
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(pristine, folder)
                outcome = run(*victim.arguments(folder), limits=apply, patience=tally.patience)
                kind = f"{limit.split(' ', 1)[-1] if 'kB' not in limit else 'small files'}"
                judge(tally, kind, outcome, label=f"{victim.name} with {limit}")
                written = folder / victim.output
                if outcome.code != 0 and before and digest(written) != before:
                    tally.fault(kind, f"{victim.name} with {limit}: {victim.output} has changed")
                if written.exists() and victim.name != "repair" and written.suffix == ".h5":
                    for problem in verify_cache(written)[:1]:
                        tally.fault(kind, f"{victim.name} with {limit}: {problem}")


def soak_full_disk(tally: Tally, sizes: tuple[int, ...] = (100, 300, 600, 1200, 2500)) -> None:
    """Extraction onto a disk of so many kB, and onto one that may not be written."""
    if os.geteuid() != 0:
        print("full disks and read-only ones are left out: they need root")
        return
    with tempfile.TemporaryDirectory() as name:
        manifest = write_sounds(Path(name, "media"), 12, 0.5)
        disk = Path(name, "disk")
        disk.mkdir()
        for kb in (*sizes, 0):
            options = f"size={kb or 1000}k"
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                print("full disks are left out: no tmpfs may be mounted here")
                return
            try:
                if not kb:
                    remount = ["mount", "-o", "remount,ro", str(disk)]
                    subprocess.run(remount, capture_output=True, check=True)
                out = disk / "out.h5"
                arguments = ["extract", manifest, "--work", disk / "work", "--out", out, *EXTRACT]
                judge(
                    tally,
                    "full disk" if kb else "read-only disk",
                    run(*arguments, patience=tally.patience),
                )
                if out.exists():
                    for problem in verify_cache(out)[:1]:
                        tally.fault("full disk", problem)
            finally:
                subprocess.run(["umount", str(disk)], capture_output=True, check=False)

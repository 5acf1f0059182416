"""Commands killed at any moment: what was committed is there, and the next run ends the same."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soak_samples import write_arrays, write_cache, write_sounds
from soak_tally import Tally, judge, left_over, run

from mvemo.cache import open_cache, verify_cache
from mvemo.manifests.errors import MvemoError


@dataclass(frozen=True)
class Victim:
    """A command to kill.

    Parameters
    ----------
    name
        Of the command.
    arguments
        Of ``mvemo``, for a folder that `prepare` has filled.
    output
        What it writes, in the folder.
    prepare
        Fills a new folder.
    ends_by
        The signal that ends it.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    output: str
    prepare: Callable[[Path], None]
    ends_by: int = signal.SIGKILL


def _caches(folder: Path) -> None:
    write_cache(folder / "features.h5")
    write_cache(folder / "one.h5", names=("effnet", "mel"))
    write_cache(folder / "two.h5", names=("c3d",))
    write_arrays(folder)


def _damaged(folder: Path) -> None:
    _caches(folder)
    path = folder / "features.h5"
    with open_cache(path) as cache:
        row = cache.vectors("effnet")[0][3].tobytes()
    content = path.read_bytes()
    path.write_bytes(content.replace(row, bytes(len(row))))


def _sounds(folder: Path) -> None:
    write_sounds(folder, 12, 0.5)


def _extract(folder: Path) -> list[object]:
    out = folder / "out.h5"
    return ["extract", folder / "clips.csv", "--work", folder / "work", "--out", out, *EXTRACT]


EXTRACT = [
    "--profile", "demo", "--protocol", "shared", "--nets", "rnn", "--set", "nets.rnn.epochs=1",
    "--set", 'extract.descriptors=["mfcc"]',
]  # fmt: skip
VICTIMS = (
    Victim(
        "merge",
        lambda f: ["cache", "merge", f / "one.h5", f / "two.h5", "--out", f / "out.h5", "--force"],
        "out.h5",
        _caches,
    ),
    Victim(
        "import",
        lambda f: [
            "cache", "import", f / "features.h5", f / "theirs.npz", "--feature", "new",
            "--modality", "audio", "--force",
        ],
        "features.h5",
        _caches,
    ),
    Victim(
        "export",
        lambda f: [
            "cache", "export", f / "features.h5", "--feature", "mel", "--out", f / "out.csv",
            "--force",
        ],
        "out.csv",
        _caches,
    ),
    Victim("repair", lambda f: ["cache", "repair", f / "features.h5"], "features.h5", _damaged),
    Victim(
        "remove", lambda f: ["cache", "remove", f / "features.h5", "mel"], "features.h5", _caches
    ),
    Victim(
        "fuse",
        lambda f: ["fuse", f / "features.h5", "--out", f / "out"],
        "out/predictions.csv",
        _caches,
    ),
    Victim("extract", _extract, "out.h5", _sounds),
    Victim("extract (SIGTERM)", _extract, "out.h5", _sounds, signal.SIGTERM),
)  # fmt: skip


def digest(path: Path) -> str:
    """Of what a command wrote: of a cache that of its rows, of other files their bytes."""
    if path.suffix == ".h5":
        with open_cache(path) as cache:
            return cache.digest()
    return path.read_text()


def soak(tally: Tally, seed: int, kills: int, only: str = "") -> None:
    """Kill each command so often in all, at moments spread over its run."""
    victims = [victim for victim in VICTIMS if only in ("", victim.name)]
    for victim in victims:
        _kill(tally, victim, random.Random(f"{seed}{victim.name}"), max(1, kills // len(victims)))


def _kill(tally: Tally, victim: Victim, draw: random.Random, kills: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        pristine, folder = Path(name, "pristine"), Path(name, "tried")
        pristine.mkdir()
        victim.prepare(pristine)
        shutil.copytree(pristine, folder)

        def whole_run(what: str, allowed: tuple[int, ...]) -> float:
            """Seconds of a run to its end; 0 where it was a fault."""
            start = time.monotonic()
            outcome = run(*victim.arguments(folder), patience=tally.patience)
            sound = judge(tally, f"{victim.name}, {what}", outcome, allowed)
            return time.monotonic() - start if sound else 0.0

        seconds = whole_run("whole", (0,))
        if not seconds:
            return
        expected = digest(folder / victim.output)
        before = digest(pristine / victim.output) if (pristine / victim.output).exists() else ""
        # Some commands end before their moment has come.
        for _ in range(2 * kills):
            if tally.tried[f"killed {victim.name}"] == kills:
                break
            shutil.rmtree(folder)
            shutil.copytree(pristine, folder)
            _end_once(tally, victim, folder, draw.uniform(0.3, 1.0) * seconds)
            _check_after_kill(tally, victim, folder / victim.output, {before, expected})
            # Repair and remove may have ended just before they were killed.
            again = whole_run("again", (0, 2) if victim.name == "remove" else (0,))
            seconds, kind = again or seconds, f"killed {victim.name}"
            if again and digest(folder / victim.output) != expected:
                tally.fault(kind, "the run after it ended with another digest")
            if left := left_over(folder):
                tally.fault(kind, f"the run after it left {left}")


def _end_once(tally: Tally, victim: Victim, folder: Path, seconds: float) -> None:
    """Run a command that a signal ends; one that had ended before is counted apart."""
    end = seconds, victim.ends_by
    outcome = run(*victim.arguments(folder), end=end, patience=tally.patience)
    if outcome.code == 0:
        tally.add(f"{victim.name}, ended before its kill")
    else:
        # Terminated before Python's first line, by the signal itself; later by our own exit.
        allowed = (-9,) if victim.ends_by == signal.SIGKILL else (143, -15)
        judge(tally, f"killed {victim.name}", outcome, allowed)


def _check_after_kill(tally: Tally, victim: Victim, path: Path, allowed: set[str]) -> None:
    kind = f"killed {victim.name}"
    if not path.exists():
        if "" not in allowed:
            tally.fault(kind, f"{path.name} is gone")
        return
    try:
        found = digest(path)
    except (MvemoError, OSError) as error:
        tally.fault(kind, f"{path.name} cannot be read: {error}")
        return
    if found not in allowed:
        tally.fault(kind, f"{path.name} is neither as before nor as after")
    if path.suffix == ".h5" and victim.name != "repair" and (problems := verify_cache(path)):
        tally.fault(kind, problems[0])

"""Files changed byte by byte, and what each reader makes of them: its own error, or a value."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from soak_samples import write_arrays, write_cache, write_manifest, write_predictions, write_weights
from soak_tally import Clock, Tally

KINDS = ("cache", "manifest", "predictions", "array", "weights")
# One reading of a small file takes milliseconds.
READ_SECONDS = 20.0
# After which a reading is ended from outside: HDF5 does not listen to Python's alarm.
LOST_SECONDS = 60
# Readings in one process, after which it is started anew.
BATCH = 400
# Bytes that mean something to some reader.
_WORDS = [
    b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80" * 8, b",", b'"', b"\n", b"\r", b"'=1",
    b"9" * 5000, b"nan", b"-1", b"1e309", b"[" * 3000, b"\xef\xbb\xbf", b"# task: regression\n",
    b"OHDR", b"TREE", b"SNOD", b"FRHP", b"\x93NUMPY", b"PK\x03\x04", b"data.pkl", b"..", b"/",
]  # fmt: skip


class Hung(BaseException):
    """A reader took too long; no reader catches this."""


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Content with one to eight changes: bits, bytes, words, cuts, repeats."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at = draw.randrange(len(data) + 1)
        what = draw.randrange(7)
        if what == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[at : at + draw.choice((1, 4, 8))] = draw.randbytes(draw.choice((1, 4, 8)))
        elif what == 2:
            word = draw.choice(_WORDS)
            data[at : at + draw.choice((0, len(word)))] = word
        elif what == 3:
            del data[at : at + draw.choice((1, 7, 64, 1000))]
        elif what == 4:
            data[at:at] = data[max(0, at - draw.choice((1, 16, 200))) : at]
        elif what == 5 and at + 8 <= len(data):
            data[at : at + 8] = draw.choice((0, 1, 1 << 31, 1 << 40, (1 << 64) - 1)).to_bytes(
                8, "little"
            )
        elif what == 6 and draw.random() < 0.2:
            del data[at:]
    return bytes(data)


def read_cache(path: Path) -> None:
    """Everything that reads a cache; verify's verdict must be that of the others."""
    from mvemo.cache import merge_caches, open_cache, repair_cache, verify_cache
    from mvemo.manifests.errors import MvemoError

    sound = verify_cache(path) == []
    try:
        with open_cache(path) as cache:
            for spec in cache.specs:
                if spec.kind == "vector":
                    cache.vectors(spec.name, spec.fold)
                else:
                    for clip in cache.table.clip_ids:
                        cache.sequence(spec.name, clip)
            _ = cache.failures, cache.curves, cache.provenance, cache.digest()
        merge_caches([path], path.with_name("merged.h5"))
    except MvemoError:
        if sound:
            raise AssertionError("verify calls it sound, and it cannot be read") from None
    repair_cache(path)
    left = [problem for problem in verify_cache(path) if "not repaired" not in problem]
    if left and sound:
        raise AssertionError(f"repair damaged it: {left[0]}")


def read_manifest(path: Path) -> None:
    """A manifest, checked and read, and as a list of folds."""
    from mvemo.manifests import check_manifest, read_folds, read_manifest

    check_manifest(path, media=False)
    for read in (lambda p: read_manifest(p, media=False), read_folds):
        try:
            read(path)
        except ValueError as error:
            _ours(error)


def read_predictions(path: Path) -> None:
    from mvemo.fuse.external import results_of_predictions
    from mvemo.fuse.prediction_files import read_predictions

    results_of_predictions(read_predictions(path))


def read_array(path: Path) -> None:
    from mvemo.cache import read_array

    read_array(path)


def read_weights(path: Path) -> None:
    from mvemo.extract.nets.parts.weights import read_weight_file

    read_weight_file(path)


READERS: dict[str, Callable[[Path], None]] = {
    "cache": read_cache,
    "manifest": read_manifest,
    "predictions": read_predictions,
    "array": read_array,
    "weights": read_weights,
}


def sources(kind: str, folder: Path) -> list[Path]:
    """Sound files of a kind."""
    if kind == "cache":
        write_cache(folder / "features.h5", 8)
        return [folder / "features.h5"]
    if kind == "manifest":
        write_manifest(folder / "clips.csv")
        return [folder / "clips.csv"]
    if kind == "predictions":
        write_predictions(folder / "predictions.csv")
        return [folder / "predictions.csv"]
    return write_arrays(folder, 8) if kind == "array" else write_weights(folder)


def attack(kind: str, content: bytes, name: str, folder: Path) -> str:
    """Read a changed file; what went wrong, empty where nothing did."""
    path = folder / name
    path.write_bytes(content)
    try:
        with _no_longer_than(READ_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[kind](path)
    except Hung:
        return f"{READ_SECONDS:g} s were not enough"
    except Exception as error:
        return _ours(error, quietly=True)
    return ""


def attack_many(kind: str, seed: int, count: int) -> list[str]:
    """Faults of so many changed files, each with the seed that makes it again."""
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sound").mkdir()
        paths = sources(kind, folder / "sound")
        contents = [path.read_bytes() for path in paths]
        for number in range(seed, seed + count):
            draw = random.Random(f"{kind}{number}")
            i = draw.randrange(len(paths))
            changed = mutate(contents[i], draw)
            print(f"{number}", flush=True)
            if what := attack(kind, changed, paths[i].name, folder):
                faults.append(f"seed {number}, {paths[i].name}: {what}")
                print(f"! {faults[-1]}", flush=True)
    return faults


def soak(tally: Tally, seed: int, minutes: float) -> None:
    """Attack all readers in processes of their own, for so long."""
    clock, at = Clock(60 * minutes), seed
    while clock.left():
        for kind in KINDS:
            start = at
            # What is left of a batch after one that crashed or hung is tried, too.
            while start < at + BATCH:
                start = 1 + attack_apart(tally, kind, start, at + BATCH - start)
        at += BATCH


def attack_apart(tally: Tally, kind: str, seed: int, count: int) -> int:
    """`attack_many` in a process of its own, which is ended where it hangs.

    Returns
    -------
    The last seed that was tried.
    """
    command = [sys.executable, __file__, kind, str(seed), str(count), str(tally.patience)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    reading = threading.Thread(target=_forward, args=(process.stdout, lines))
    reading.start()
    last, hung = seed, False
    try:
        while line := lines.get(timeout=tally.patience * LOST_SECONDS):
            if line.startswith("!"):
                tally.fault(f"mutated {kind}", line[1:].strip())
            else:
                last = int(line)
                tally.add(f"mutated {kind}")
    except queue.Empty:
        hung = True
        tally.fault(f"mutated {kind}", f"seed {last}: hung, and did not listen to an alarm")
    finally:
        if hung:
            os.killpg(process.pid, signal.SIGKILL)
        reading.join()
        process.stdout.close()
    if process.wait() and not hung:
        tally.fault(f"mutated {kind}", f"seed {last}: exit status {process.returncode}")
    return seed + count - 1 if not (hung or process.returncode) else last


def _forward(lines: Iterable[str], to: queue.Queue[str]) -> None:
    """Lines, and an empty one at their end."""
    for line in lines:
        to.put(line)
    to.put("")


def _ours(error: Exception, quietly: bool = False) -> str:
    from mvemo.pipeline.cli import bad_input

    # A command tells of too little memory in a line; a file must not be the cause.
    line = None if isinstance(error, MemoryError) else bad_input(error)
    if line is not None and "Traceback" not in line:
        return ""
    if quietly:
        return f"{type(error).__name__}: {error}"
    raise error


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    READ_SECONDS *= float(sys.argv[4])
    attack_many(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Files changed byte by byte, and what each reader makes of them: its own error, or a value."""

import random
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from unittest import mock

import soak_samples

from mvemo.extract.workers.pool import run_calls
from mvemo.extract.workers.process import Call

# One reading of a small file takes milliseconds.
READ_SECONDS = 20.0
# Readings of one kind before the next kind.
BATCH = 400
# Bytes that some reader takes for a mark, a length or a separator.
_WORDS = [
    b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80" * 8, b",", b'"', b"\n", b"\r", b"'=1",
    b"9" * 5000, b"nan", b"-1", b"1e309", b"[" * 3000, b"\xef\xbb\xbf", b"# task: regression\n",
    b"OHDR", b"TREE", b"SNOD", b"FRHP", b"\x93NUMPY", b"PK\x03\x04", b"data.pkl", b"..", b"/",
]  # fmt: skip


def mutate(content, draw):
    """Return content with one to eight changes: bits, bytes, words, cuts, repeats."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        at, what = draw.randrange(len(data) + 1), draw.randrange(7)
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
            number = draw.choice((0, 1, 1 << 31, 1 << 40, (1 << 64) - 1))
            data[at : at + 8] = number.to_bytes(8, "little")
        elif what == 6 and draw.random() < 0.2:
            del data[at:]
    return bytes(data)


def read_cache(path):
    """Read a cache in all ways; the result of verify must be that of the other readers."""
    from mvemo.cache import merge_caches, open_cache, repair_cache, verify_cache
    from mvemo.manifests.errors import MvemoError

    is_sound = verify_cache(path) == []
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
        assert not is_sound, "verify calls it sound, and it cannot be read"
    repair_cache(path)
    left = [problem for problem in verify_cache(path) if "not repaired" not in problem]
    assert not (left and is_sound), f"repair damaged it: {left[0]}"


def read_manifest(path):
    """Check a manifest, and read it as clips and as folds."""
    from mvemo.manifests import check_manifest, read_folds, read_manifest

    check_manifest(path, media=False)
    for read in (lambda p: read_manifest(p, media=False), read_folds):
        try:
            read(path)
        except ValueError as error:
            if fault := _fault(error):
                raise AssertionError(fault) from error


def read_predictions(path):
    from mvemo.fuse.external import results_of_predictions
    from mvemo.fuse.prediction_files import read_predictions

    results_of_predictions(read_predictions(path))


def read_array(path):
    from mvemo.cache import read_array, untrusted

    # HDF5 may loop on a damaged heap of texts, which the reader ends after two minutes.
    with mock.patch.object(untrusted, "TEXT_SECONDS", READ_SECONDS / 4):
        read_array(path)


def read_weights(path):
    from mvemo.extract.nets.parts.weights import read_weight_file

    read_weight_file(path)


READERS = {
    "cache": read_cache,
    "manifest": read_manifest,
    "predictions": read_predictions,
    "array": read_array,
    "weights": read_weights,
}


def sources(kind, folder):
    """Write undamaged files of a kind, and return their paths."""
    if kind == "array":
        return soak_samples.write_arrays(folder, 8)
    if kind == "weights":
        return soak_samples.write_weights(folder)
    path = folder / ("features.h5" if kind == "cache" else f"{kind}.csv")
    if kind == "cache":
        soak_samples.write_cache(path, 8)
    else:
        getattr(soak_samples, "write_manifest" if kind == "manifest" else "write_predictions")(path)
    return [path]


@cache
def contents_of(kind):
    """Return name and content of each undamaged file of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        return [(path.name, path.read_bytes()) for path in sources(kind, Path(folder))]


def attack(kind, number):
    """Read the file that is changed by this seed, and return the fault, or '' if there is none."""
    draw = random.Random(f"{kind}{number}")
    name, content = draw.choice(contents_of(kind))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, name)
        path.write_bytes(mutate(content, draw))
        try:
            READERS[kind](path)
        except Exception as error:
            fault = _fault(error)
            return fault and f"seed {number}, {name}: {fault}"
    return ""


def attack_all(tally, kind, numbers, function="soak_mutations:attack"):
    """Attack a reader in worker processes, which survive a crash and end a hang."""
    limit = tally.patience * READ_SECONDS
    calls = [Call(function, (kind, number), seconds=limit) for number in numbers]
    for result in run_calls(calls):
        tally.add(f"mutated {kind}")
        died = result.error and f"seed {numbers[result.index]}: {result.error}"
        if fault := died or result.value:
            tally.fault(f"mutated {kind}", fault)


def soak(tally, seed, minutes):
    """Attack all readers for so long."""
    end, at = time.monotonic() + 60 * minutes, seed
    while time.monotonic() < end:
        for kind in READERS:
            attack_all(tally, kind, range(at, at + BATCH))
        at += BATCH


def _fault(error):
    """Return '' for an error that a command tells in one line; too little memory is a fault."""
    from mvemo.pipeline.cli import bad_input

    line = None if isinstance(error, MemoryError) else bad_input(error)
    is_told = line is not None and "Traceback" not in line
    return "" if is_told else f"{type(error).__name__}: {error}"

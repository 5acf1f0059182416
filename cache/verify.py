"""Verification of caches: damage and contradictions, in this process or a limited subprocess."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mvemo.cache import cache_file, reader, untrusted
from mvemo.cache.errors import BadCache
from mvemo.cache.index import Index, is_whole
from mvemo.cache.spec import FeatureSpec, leaked_rows
from mvemo.cache.table import TEST, TRAIN, VALIDATION, ClipTable
from mvemo.manifests.array_files import DAMAGED
from mvemo.manifests.array_types import Ints
from mvemo.manifests.errors import MissingFile
from mvemo.manifests.labels import label_kind
from mvemo.manifests.splits.assignment import parts_of_groups

# Number of problems of one kind that are listed; further problems are counted.
SHOWN = 5
# Number of threads that read values; more are not faster, because memory is the bottleneck.
THREADS = 4
# Maximum number of rows, over all features that are opened together.
ROWS = 1 << 20


def verify_cache(path: Path | str) -> list[str]:
    """Check a cache, or a folder of shards, completely; every value is read.

    The checks are: checksums of the clip table, indexes, rows, failures, curves and provenance;
    shapes, types and offsets; NaN in missing rows and finite values in present rows; labels in
    range; each group in one fold; no net trained on clips, or groups of clips, of its own fold.

    Returns
    -------
    Problems, one sentence each; empty for a valid cache.

    Raises
    ------
    MissingFile
        The file does not exist.
    MvemoError
        The file cannot be read, so the result is unknown.

    Examples
    --------
    >>> from mvemo.cache import import_feature
    >>> clips = ClipTable("songs", "multiclass", ("calm", "tense"), clip_ids=("a", "b"),
    ...     groups=("a", "b"), labels=np.array([0, 1]), folds=np.array([0, 1]), k=2)
    >>> values, path = np.array([[0.123, 1.5], [2.0, 4.0]]), Path("features.h5")
    >>> _ = import_feature(path, "mean", "audio", values, table=clips)
    >>> stored, damaged = (np.float32(value).tobytes() for value in (0.123, 0.321))
    >>> _ = path.write_bytes(path.read_bytes().replace(stored, damaged))
    >>> verify_cache(path)
    ["mean of clip 'a': the values do not match their checksum"]
    """
    path = Path(path)
    return _folder_problems(path) if path.is_dir() else _file_problems(path)


def _folder_problems(path: Path) -> list[str]:
    """Return the problems of all shards; if there are none, the problems of their union."""
    problems = [
        f"{file.name}: {problem.removeprefix(f'{file}: ')}"
        for file in cache_file.cache_files(path)
        for problem in _file_problems(file, shard=True)
    ]
    if problems:
        return problems
    try:
        with reader.Cache(path) as cache:
            return _table_problems(cache.table) + _trained_problems(cache.specs, cache.table)
    except BadCache as error:
        return [str(error)]


def _file_problems(path: Path, *, shard: bool = False) -> list[str]:
    """Return the problems of a file; for a shard, which may lack clips, only damage."""
    pool = cache_file.FilePool()
    try:
        file = cache_file.CacheFile(path, pool, tolerant=True)
        table, digests = file.table, list(file.specs)
        problems = [] if shard else _table_problems(table)
        # An index takes about 100 bytes per row, so the number of open indexes is limited.
        at_once = max(THREADS, ROWS // max(1, len(table)))
        with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
            for start in range(0, len(digests), at_once):
                # All are opened before threads read values; otherwise threads wait for each other.
                batch = map(file.readable_feature, digests[start : start + at_once])
                stored = [feature for feature in batch if feature is not None]
                found = threads.map(lambda item: _values_problems(table, *item), stored)
                problems += [problem for of_one in found for problem in of_one]
        specs = list(file.specs.values())
        if not shard:
            problems += _trained_problems(specs, table)
        problems += [
            f"{a.label}: the cache has two variants that exclude each other"
            for i, a in enumerate(specs)
            for b in specs[:i]
            if a.name == b.name and not a.goes_with(b)
        ]
        unknown = sorted({clip for clip, _ in file.failures}.difference(table.clip_ids))
        problems += [f"there is a failure of {clip!r}, which is not a clip" for clip in unknown]
        if None in file.failures.values():
            problems.append("the file is a part of an unfinished run, not a finished cache")
        _ = file.curves, file.provenance, file.merged  # reading them adds damage to `lost`
        return file.lost + problems
    except BadCache as error:
        return [str(error)]
    finally:
        pool.close()


def _table_problems(table: ClipTable) -> list[str]:
    """Return the problems of a clip table."""
    labels, folds, k = table.labels, table.folds, table.k
    problems = [
        f"label {labels[i].tolist()} of clip {table.clip_ids[i]!r} is out of range"
        for i in np.flatnonzero(label_kind(table.task).invalid(labels, len(table.classes)))
    ]
    outside = sorted(set(folds.tolist()).difference(range(k) if k else [-1]))
    if outside and k:
        problems.append(f"folds {outside} are outside 0 to {k - 1}")
    elif outside:
        problems.append("clips have folds, but the number of folds is 0")
    problems += _straddling(table, folds, "folds")
    if table.splits is not None:
        parts, known = {*table.splits.tolist()}, (TRAIN, VALIDATION, TEST)
        if outside := sorted(parts.difference(known)):
            problems.append(f"splits: expected only {known}, got {outside}")
        # Validation clips are not required: features that need no training have none.
        problems += [f"no clip is in split {TEST}"] * (TEST not in parts)
        problems += [f"no clip is in split {TRAIN}"] * parts.isdisjoint((TRAIN, VALIDATION))
        problems += _straddling(table, table.splits, "splits")
    return _shortened(problems, "problems of the clip table")


def _straddling(table: ClipTable, parts: Ints, what: str) -> list[str]:
    """Report groups with clips in more than one fold or split."""
    found = parts_of_groups(zip(table.groups, parts.tolist(), strict=True))
    return [
        f"group {group!r} is in several {what}: {sorted(of_group)}"
        for group, of_group in found.items()
        if len(of_group) > 1
    ]


def _values_problems(table: ClipTable, index: Index, values: untrusted.PlainArray) -> list[str]:
    """Return the problems of a feature's values, by row if they are damaged."""
    label = index.spec.label
    try:
        if is_whole(index, values):
            return []
        found = [f"{label} of clip {problem}" for problem in _row_problems(index, values, table)]
    except DAMAGED as error:
        return [f"feature {label} cannot be read ({cache_file.reason(error)})"]
    if not found:
        found = [f"{label}: the values do not match their checksum"]
    return _shortened(found, f"damaged rows of {label}")


def _row_problems(index: Index, values: untrusted.PlainArray, table: ClipTable) -> Iterator[str]:
    """Yield the problems of the rows, read one by one."""
    for i, clip in enumerate(table.clip_ids):
        row = values.read(int(index.bounds[i]), int(index.bounds[i + 1]))
        if not index.present[i]:
            if not np.isnan(row).all():
                yield f"{clip!r} is marked missing, but has values"
        elif not index.fits(i, clip, row):
            yield f"{clip!r}: the values do not match their checksum"
        elif not np.isfinite(row).all():
            yield f"{clip!r}: there are NaN or infinite values"


def _trained_problems(specs: Iterable[FeatureSpec], table: ClipTable) -> list[str]:
    """Return the problems of all features' training clips."""
    problems = []
    # Results are reused because the nets of one fold often saw the same clips.
    known: dict[tuple[str, int | None, tuple[str, ...]], list[str]] = {}
    for spec in specs:
        case = spec.protocol, spec.fold, spec.trained_on
        if case not in known:
            known[case] = _training_problems(spec, table)
        problems += [f"{spec.label}: {problem}" for problem in known[case]]
    return problems


def _training_problems(spec: FeatureSpec, table: ClipTable) -> list[str]:
    """Return the problems of a net whose training clips contradict its protocol."""
    seen = frozenset(spec.trained_on)
    if spec.protocol in ("none", "frozen"):
        n = len(seen.intersection(table.clip_ids))
        problem = f"the protocol is {spec.protocol}, but the net was trained on {n} of the clips"
        return [problem] if n else []
    leaked = leaked_rows(spec, table)
    if leaked is None:
        return []
    tested, clips, kin = leaked
    if not tested:
        where = "the test split" if spec.fold is None else f"fold {spec.fold}"
        return [f"the {spec.protocol} net is for {where}, which has no clips"]
    where = "the test split" if spec.fold is None else "its fold"
    problems = []
    if not seen:
        problems.append(f"the {spec.protocol} net has no record of its training clips")
    for rows, what in ((clips, ""), (kin if len(kin) > len(clips) else [], "groups of ")):
        if rows:
            example = f"{len(rows)} clips of {where}, such as {table.clip_ids[rows[0]]!r}"
            problems.append(f"the net was trained on {what}{example}")
    return problems


def _shortened(problems: list[str], what: str) -> list[str]:
    if len(problems) <= SHOWN:
        return problems
    return [*problems[:SHOWN], f"and {len(problems) - SHOWN} more {what}"]


_CHECK = """
from mvemo.cache import verify_cache
print(json.dumps(verify_cache(sys.argv[1])))
"""


def verify_untrusted(path: Path | str, *, seconds: float) -> list[str]:
    """Verify a cache of unknown origin as `verify_cache` does, in a limited subprocess.

    On a forged file, HDF5 may run endlessly or crash before our checks. Only the subprocess is
    then affected; its time (in seconds) and memory are limited, and a crash or a timeout is a
    problem like others.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{path}: no such file")
    if seconds <= 0:
        raise BadCache(f"the time limit is {seconds:g} seconds, but it must be above 0")
    size = sum(file.stat().st_size for file in cache_file.cache_files(path))
    try:
        return [str(problem) for problem in untrusted.run_limited(_CHECK, path, size, seconds)]
    except ValueError as error:
        return [f"the check {error}: do not open this file"]

"""Pairs of clips whose vectors are equal or nearly so, without comparing all pairs.

The threshold is calibrated on random pairs of the same feature. Distances of random pairs have a
lower tail that falls like a power of the distance; the exponent is the intrinsic dimension of the
vectors (Levina and Bickel 2005). The tail gives the distance below which one pair is expected by
chance in a hundred data sets of this size.

If many clips are pieces of few recordings, random pairs are often near, too. Then a gap separates
their distances from all others: i distances below a gap of the ratio g have, by chance, a
probability of g^(-i d) in d dimensions (order statistics of a power law). Pairs below the gap are
near, and the pairs above it are the tail.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import xxhash
from numpy.typing import NDArray

from mvemo.fuse.scaling import CONSTANT, FAR, fit_scaling, unit_rows
from mvemo.manifests.array_types import F32, F64, Bools, Ints

# Expected number of pairs of different groups below the strict threshold, by chance.
BY_CHANCE = 0.01
# Pairs above this cosine are also listed if at most a fifth of them are expected by chance.
NEARLY = 0.99
SHARE_BY_CHANCE = 0.2
# Vectors with a smaller cosine are never called nearly equal.
LEAST = 0.9
# A gap is searched among this share of nearest pairs, at this probability of a gap by chance.
NEAREST, GAP_BY_CHANCE = 0.2, 1e-3
# Closer vectors differ only by rounding.
MOST = 1 - 1e-9
# Larger sets are searched only for equal vectors: the time is quadratic in the number of clips.
MOST_COMPARED = 100_000
# Number of random pairs, and quantiles between which the tail is fitted; the flattest part counts.
SAMPLE = 400_000
TAIL = (2e-3, 6e-3, 2e-2)
# Copies are left out of the random pairs if a vector occurs at most this often on average.
COPIES = 3
# Clips per block, number of directions of a first projection, and number of clips to find them.
# With more than one candidate per `MANY` pairs, computing all products of a block is cheaper.
BLOCK = 2048
DIRECTIONS, PROJECTED, MANY = 32, 20_000, 100

# Number of columns per block, and number of rows of a first comparison of columns.
COLUMNS, ROWS = 256, 2000
# Maximum squared distance between two standardised columns that are called equal.
ROUNDING = 1e-6
# Number of directions on which columns are projected.
COLUMN_DIRECTIONS = 4


@dataclass(frozen=True)
class NearPairs:
    """Pairs of clips of different groups with equal or nearly equal vectors."""

    pairs: Ints  # int64 (pairs, 2): rows, the smaller first
    equal: Bools  # bool (pairs,): True for equal vectors
    threshold: float  # cosine of standardised vectors above which pairs are listed

    def rows(self, *, equal: bool = False) -> Ints:
        """Return the rows in any pair, or in pairs of equal vectors, int64 (rows,)."""
        return np.unique(self.pairs[self.equal] if equal else self.pairs)


def near_rows(values: F32, group: Ints, far_from: float = FAR) -> NearPairs:
    """Standardise values (clips, dim), all of them finite, and return `near_pairs` of them."""
    scaling, _ = fit_scaling(values, np.ones(len(values), np.bool_), far_from)
    return near_pairs(unit_rows(replace(scaling, limit=np.inf).apply(values)), group)


NO_PAIRS = NearPairs(np.empty((0, 2), np.int64), np.empty(0, np.bool_), 1.0)


def near_pairs(unit: F32, group: Ints) -> NearPairs:
    """Find pairs of clips in different groups that are more alike than random pairs ever are.

    `unit` has standardised vectors of length 1, float32 (clips, dim); `group` each clip's group.
    """
    n = len(unit)
    if n < 2 or not unit.shape[1]:
        return NO_PAIRS
    first, same = distinct_rows(unit)
    equal = np.array(list(_equal_pairs(same, group)), np.int64).reshape(-1, 2)
    if n > MOST_COMPARED:
        return NearPairs(equal, np.ones(len(equal), np.bool_), 1.0)
    # Copies are not coincidences, unless most vectors repeat, as vectors of small integers do.
    chance = _Chance(unit, group, same if COPIES * len(first) >= n else np.arange(n))
    strict = chance.cosine(BY_CHANCE)
    if strict > MOST and chance.gap >= 1:
        # Random pairs often have nearly equal vectors, for example vectors of small integers.
        return NO_PAIRS
    threshold = min(max(strict, LEAST), chance.gap)
    found, cosines = _pairs_above(unit, first, min(threshold, NEARLY))
    apart = group[found[:, 0]] != group[found[:, 1]]
    found, cosines = found[apart], cosines[apart]
    if len(equal) or (cosines > threshold).any():
        n_listed = len(equal) + int((cosines > NEARLY).sum())
        if threshold > NEARLY and chance.pairs(NEARLY) <= SHARE_BY_CHANCE * n_listed:
            threshold = NEARLY
    pairs = np.concatenate([equal, np.sort(found[cosines > threshold], axis=1)])
    return NearPairs(pairs, np.arange(len(pairs)) < len(equal), threshold)


def distinct_rows(values: Iterable[F32]) -> tuple[Ints, Ints]:
    """Return the first row of each distinct vector, and for each row its vector's number.

    Checksums are sorted, because sorting the rows themselves copies them several times.
    """
    # -0.0 + 0.0 equals 0.0.
    digests = (xxhash.xxh3_128_digest((row + np.float32(0)).data) for row in values)
    sums = np.frombuffer(b"".join(digests), "V16")
    return np.unique(sums, return_index=True, return_inverse=True)[1:]


class _Chance:
    """Tail of the distances of random pairs of different groups and different `kind`."""

    def __init__(self, unit: F32, group: Ints, kind: NDArray[np.intp]) -> None:
        n, rng = len(unit), np.random.default_rng(0)
        n_pairs = n * (n - 1) // 2
        a, b = np.triu_indices(n, 1) if n_pairs <= SAMPLE else rng.integers(0, n, (2, SAMPLE))
        apart = (group[a] != group[b]) & (kind[a] != kind[b])
        a, b = a[apart], b[apart]
        # Blocks of 0.5 MB fit in the CPU cache.
        step = max(1, (1 << 17) // unit.shape[1])
        blocks = [slice(start, start + step) for start in range(0, len(a), step)]
        distances = np.concatenate(
            [np.linalg.norm(unit[a[block]] - unit[b[block]], axis=1) for block in blocks]
            or [np.zeros(1)]
        )
        distances = np.sort(distances)
        n_near, middle = _gap(distances)
        self.gap = 1 - middle**2 / 2  # cosine in the middle of the gap; 1 without one
        distances = distances[n_near:]
        at = np.quantile(distances, TAIL)
        self._near = at[0]
        with np.errstate(divide="ignore"):
            self._dim = (np.diff(np.log(TAIL)) / np.diff(np.log(at))).min() if at[0] > 0 else 0.0
        self._n = n * (n - 1) / 2 * max(apart.mean(), 1e-9)

    def cosine(self, pairs: float) -> float:
        """Return the cosine above which `pairs` pairs are expected by chance."""
        if self._dim <= 0:
            return 1.0
        distance = self._near * (pairs / self._n / TAIL[0]) ** (1 / self._dim)
        return float(1 - distance**2 / 2)

    def pairs(self, cosine: float) -> float:
        """Return the number of pairs that are expected above a cosine by chance."""
        distance = np.sqrt(2 - 2 * cosine)
        return float(self._n * TAIL[0] * (distance / self._near) ** self._dim)


def _gap(distances: F32) -> tuple[int, float]:
    """Return the number of sorted distances below a gap, and the gap's middle; (0, 0) if none."""
    near = distances[: int(NEAREST * len(distances))].astype(np.float64)
    near = near[near > np.sqrt(2 - 2 * MOST)]
    x = np.log(np.unique(near.round(6)))
    top = len(x)
    # Vectors of integers have only a few different distances.
    if top < max(4, len(near) / 2):
        return 0, 0.0
    i = np.arange(1, top // 2)
    dim = np.log(top / (i + 1)) / np.maximum(x[-1] - x[i], 1e-12)
    surprise = i * (x[i] - x[i - 1]) * dim
    best = int(surprise.argmax())
    if surprise[best] < np.log(len(i) / GAP_BY_CHANCE):
        return 0, 0.0
    middle = float(np.exp((x[best] + x[best + 1]) / 2))
    return int(np.searchsorted(distances, middle)), middle


def _equal_pairs(same: NDArray[np.intp], group: Ints) -> Iterator[tuple[int, int]]:
    """Yield, for each clip with an equal earlier one of another group, the first such pair."""
    order = np.argsort(same, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(same[order])) + 1):
        if len(rows) > 1 and len(set(group[rows].tolist())) > 1:
            first = rows[0]
            other = next(row for row in rows if group[row] != group[first])
            for row in rows[1:]:
                pair = int(row), int(first if group[row] != group[first] else other)
                yield min(pair), max(pair)


def _pairs_above(unit: F32, rows: Ints, cosine: float) -> tuple[Ints, NDArray[np.float32]]:
    """Return all pairs of `rows` above a cosine.

    A projection never increases a distance. So candidates are searched along the first direction,
    then filtered by their projections on all directions; only the remaining pairs are compared.
    """
    projected = (unit @ _directions(unit))[rows]
    order = np.argsort(projected[:, 0])
    projected, order = projected[order], rows[order]
    along, half = projected[:, 0], -0.5 * np.square(projected).sum(axis=1, keepdims=True)
    # The product of a row of `left` and a row of `right` is minus half their squared distance.
    left = np.concatenate([projected, half, np.ones_like(half)], axis=1)
    right = np.concatenate([projected, np.ones_like(half), half], axis=1)
    nearest, reach = cosine - 1 - 1e-5, np.sqrt(2 - 2 * cosine) + 1e-5
    pairs, cosines = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        last = np.searchsorted(along, along[block][-1] + reach, side="right")
        for other in range(start, int(last), BLOCK):
            near = left[block] @ right[other : other + BLOCK].T > nearest
            if other == start:
                near = np.triu(near, 1)
            i, j = np.divmod(np.flatnonzero(near), near.shape[1])
            a, b = order[start + i], order[other + j]
            if len(i) * MANY > near.size:
                product = (unit[order[block]] @ unit[order[other : other + BLOCK]].T)[i, j]
            else:
                product = np.einsum("nd,nd->n", unit[a], unit[b])
            kept = product > cosine
            pairs.append(np.column_stack([a[kept], b[kept]]))
            cosines.append(product[kept])
    return np.concatenate(pairs), np.concatenate(cosines)


def _directions(unit: F32) -> F32:
    """Return the directions of largest variance, in descending order: (dim, directions)."""
    rng = np.random.default_rng(0)
    sample = unit[rng.permutation(len(unit))[:PROJECTED]]
    sample = sample - sample.mean(axis=0)
    basis = rng.normal(size=(unit.shape[1], min(DIRECTIONS, unit.shape[1]))).astype(np.float32)
    for _ in range(4):
        basis = np.linalg.qr(sample.T @ (sample @ basis))[0]
    along = sample @ basis
    rotation = np.linalg.eigh((along.T @ along).astype(np.float64))[1]
    return basis @ rotation[:, ::-1].astype(np.float32)


# --- columns


def repeated_columns(values: F32, far: Bools) -> Bools:
    """Return a mask of varying columns that equal an earlier one, but for scale and rounding.

    Rows of `far` are left out of the comparison: an outlier makes all columns proportional.
    """
    varies = np.flatnonzero(values.min(axis=0) != values.max(axis=0))
    repeated = np.zeros(values.shape[1], np.bool_)
    first, _ = distinct_rows(
        column
        for start in range(0, len(varies), COLUMNS)
        for column in np.ascontiguousarray(values[:, varies[start : start + COLUMNS]].T)
    )
    repeated[np.delete(varies, first)] = True
    columns, rows = varies[np.sort(first)], np.flatnonzero(~far)
    for i, j in _proportional(values[rows[:: -(-len(rows) // ROWS)]], columns):
        if not repeated[[i, j]].any():
            pair = np.column_stack([values[rows, i], values[rows, j]])
            # Outliers can hide other differences, but sparse columns differ only in outliers.
            units = _unit(pair), _unit(pair, tails=True)
            repeated[j] = all(2 - 2 * abs(u[:, 0] @ u[:, 1]) < ROUNDING for u in units)
    return repeated


def _proportional(values: F32, columns: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of columns that may be proportional, in order, by projections on few rows."""
    from scipy.spatial import KDTree

    directions = np.random.default_rng(0).normal(size=(COLUMN_DIRECTIONS, len(values)))
    points = np.zeros((len(columns), COLUMN_DIRECTIONS))
    for start in range(0, len(columns), COLUMNS):
        part = slice(start, start + COLUMNS)
        points[part] = (directions @ _unit(values[:, columns[part]])).T
    told = np.flatnonzero(points.any(axis=1))
    points[told] *= np.sign(points[told, :1])
    pairs = KDTree(points[told]).query_pairs(4 * np.sqrt(COLUMN_DIRECTIONS * ROUNDING))
    return sorted((int(columns[told[i]]), int(columns[told[j]])) for i, j in pairs)


def _unit(columns: F32, *, tails: bool = False) -> F64:
    """Return columns (rows, columns) without their mean and tails, with length 1.

    Columns that vary only by rounding are zero.
    """
    x = columns.astype(np.float64)
    low, high = np.quantile(x, (0.05, 0.95), axis=0)
    # A column may vary only in its tails.
    x = np.where(tails | (high <= low), x, np.clip(x, low, high))
    mean = x.mean(axis=0)
    x -= mean
    length = np.linalg.norm(x, axis=0)
    x[:, length <= CONSTANT * np.abs(mean) * np.sqrt(len(x))] = 0.0
    return x / np.where(length > 0, length, 1.0)

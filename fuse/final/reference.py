"""Distance of new clips from the training clips: unlike clips, unlike folders, and copies.

A clip is unlike the training clips if its mean distance to the nearest of them is large, compared
with their own distances to their neighbours. The squared distances of a predictor's features are
added, each divided by the number of its axes. Standardised values
are projected on random axes, which nearly keep distances (Johnson and Lindenstrauss 1984), so that
a model stays small. Principal axes would miss directions in which only new clips vary.

All limits are measured on training clips and on degraded copies (re-encoded, softer or shortened
copies), if there are any, without the training clips of the same group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import codes_of, mean_finite, ratio
from mvemo.fuse.scaling import fit_scaling, rows_of
from mvemo.manifests.array_types import F32, F64, Bools, Ints

if TYPE_CHECKING:
    # These import h5py, which predictions of media do not need.
    from mvemo.cache import FeatureSpec
    from mvemo.fuse.features import Features, Matrix
    from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor, Vectors

# Number of neighbours, of axes per feature, and maximum number of clips and degradations kept.
NEIGHBOURS, AXES, MOST_CLIPS = 5, 48, 2000
# Largest standardised value. Heads clip at 5, but larger values help to recognise foreign clips.
# STEP is the quantisation step of stored values.
MOST = 8.0
STEP = MOST / 127
# Share of the training clips (and of their copies by each degradation) called usual; share of
# folders of usual clips called usual; share of clips that are no copies but called copies.
USUAL, USUAL_FOLDERS, CALLED_COPIES = 0.95, 0.95, 0.005
# Smallest spread around a training clip, as a share of the mean.
LEAST_SPREAD = 0.1
# Largest `copy_ratio` of a copy. Of 820 clips of three data sets, 4 clips of different groups are
# called copies, and at least 2 of these really are the same song.
COPY = 0.5
# Minimum number of clips in a folder that is compared as a whole, and number of folders drawn.
FOLDER, DRAWS = 20, 2000
# With up to this number of groups, groups are data sets: neighbours may be of the same group.
FEW_GROUPS = 12
PLAIN = "plain"  # name of the training clips as they are


@cache
def random_axes(dim: int) -> F64:
    """Return random axes of a feature, float64 (dim, axes), or its columns if it has few."""
    if dim <= AXES:
        return np.eye(dim)
    # All versions of NumPy draw the same numbers from `RandomState`.
    axes, upper = np.linalg.qr(np.random.RandomState(0).normal(size=(dim, AXES)))
    return axes * np.sign(np.diag(upper))


@dataclass(frozen=True)
class Reference:
    """Training clips in one feature of one net."""

    mean: F64  # float64 (dim,): means of the training clips
    scale: F64  # float64 (dim,): standard deviations of the training clips
    # float32 (clips, axes): training clips, then degraded copies, along the axes, in whole steps;
    # NaN for clips without the feature.
    places: F32

    def project(self, x: F64 | F32) -> F32:
        """Return values (clips, dim) along the axes, in steps of an int8: float32 (clips, axes)."""
        z = np.clip((x - self.mean) / self.scale, -MOST, MOST) @ random_axes(len(self.mean))
        return np.asarray(np.clip(np.round(z / STEP), -127, 127), np.float32)

    def squares(self, places: F32) -> F64:
        """Return mean squared differences to the clips of the reference, float64 (clips, clips)."""
        # Exact in float32: the numbers are whole and below 2^24.
        whole = (-2 * places) @ self.places.T
        whole += np.square(places).sum(axis=1)[:, None]
        whole += self._norms
        return np.multiply(whole, STEP**2 / places.shape[1], dtype=np.float64)

    @cached_property
    def _norms(self) -> F32:
        return np.square(self.places).sum(axis=1)


def distances(
    reference: Mapping[FeatureKey, Reference],
    features: Sequence[str],
    places: Mapping[FeatureKey, F32],
) -> F64:
    """Return the distances of clips to the training clips, float64 (clips, training clips).

    Squares are averaged over the nets of a feature. Infinite if one of the clips lacks a feature.
    """
    squares = []
    for name in features:
        of_nets = [r.squares(places[key]) for key, r in reference.items() if key[0] == name]
        squares.append(of_nets[0] if len(of_nets) == 1 else mean_finite(np.stack(of_nets), 0))
    total = sum(squares[1:], squares[0])
    total[np.isnan(total)] = np.inf
    return np.sqrt(total, out=total)


def neighbour_distance(found: F64) -> F64:
    """Return the mean of the smallest finite distances of each clip, float64 (clips,)."""
    return mean_finite(np.sort(found, axis=1)[:, :NEIGHBOURS], axis=1)


def spread_of(
    reference: Mapping[FeatureKey, Reference], features: Sequence[str], n_plain: int
) -> F64:
    """Return the distance of each row of `places` to other clips, float64 (rows,)."""
    used = {key: r for key, r in reference.items() if key[0] in features}
    plain = {key: replace(r, places=r.places[:n_plain]) for key, r in used.items()}
    found = distances(plain, features, {key: r.places for key, r in used.items()})
    # The nearest clip is left out: it is the clip itself, or the original of a degradation.
    n_nearest = min(NEIGHBOURS + 1, n_plain)
    nearest = np.partition(found, n_nearest - 1, axis=1)[:, :n_nearest]
    spread = neighbour_distance(np.sort(nearest, axis=1)[:, 1:])
    # The floor keeps copies, whose spread is 0, from making all other clips distant.
    return np.maximum(spread, LEAST_SPREAD * mean_finite(spread, axis=0))


def relative_distance(found: F64, spread: F64) -> F64:
    """Return each clip's distance to its neighbours, divided by √(mean `spread` of these).

    So noise counts as far: it is near quiet clips, but these are nearer to each other.
    """
    nearest = np.argsort(found, axis=1)[:, :NEIGHBOURS]
    return ratio(neighbour_distance(found), np.sqrt(mean_finite(spread[nearest], axis=1)))


def copy_ratio(found: F64) -> F64:
    """Return the smallest distance of each clip divided by `neighbour_distance` of the others."""
    ordered = np.sort(found, axis=1)
    return ratio(ordered[:, 0], neighbour_distance(ordered[:, 1:]))


def unlikeness(model: FinalModel, predictor: Predictor, vectors: Vectors) -> tuple[F64, Bools]:
    """Return each clip's `relative_distance`, and True for copies of a training clip.

    The unit is the largest usual distance; values are NaN if it is not known.
    """
    alarm, reference = model.alarm(predictor), model.reference
    if alarm.get("limit") is None:
        n = len(next(iter(vectors.values())))
        return np.full(n, np.nan), np.zeros(n, np.bool_)
    places = {key: reference[key].project(x) for key, x in vectors.items()}
    found = distances(reference, predictor.features, places)
    if predictor.name not in model.spreads:
        spread = spread_of(reference, predictor.features, alarm["clips"])
        model.spreads[predictor.name] = spread
    far = relative_distance(found, model.spreads[predictor.name])
    return far / alarm["limit"], copy_ratio(found[:, : alarm["clips"]]) < alarm["copy"]


def folder_alarm(model: FinalModel, found: Sequence[tuple[Predictor, float]]) -> bool:
    """Return True if clips as a whole are unlike the training clips, from their `unlikeness`."""
    ratios = [x / model.alarm(predictor)["folder"] for predictor, x in found if np.isfinite(x)]
    return len(ratios) >= FOLDER and bool(np.median(ratios) > 1)


def fit_references(
    features: Features,
    specs: Sequence[FeatureSpec],
    predictors: Sequence[Predictor],
    degraded: Features | None = None,
) -> tuple[dict[FeatureKey, Reference], dict[str, Any]]:
    """Return the reference of each feature and net, and each predictor's alarm (`_alarm`)."""
    table = features.store.table
    kept = np.sort(np.random.default_rng(0).permutation(len(table))[:MOST_CLIPS])
    rows, degradation = kept, np.full(len(kept), PLAIN, object)
    if degraded is not None:
        of_degraded, names, order = _degradations(degraded, features, specs)
        rows, degradation = np.append(rows, of_degraded), np.append(degradation, names)
    reference, places = {}, {}
    for spec in specs:
        matrix = features.raw_matrix(spec.name, spec.fold)
        scaling, far = fit_scaling(matrix.values, matrix.present)
        x = _taken(matrix, rows)
        if degraded is not None and spec.name in degraded.modality:
            new = _taken(degraded.raw_matrix(spec.name, spec.fold), order)
            # A degradation that changes only the sound keeps the pictures of its original.
            x[len(kept) :] = np.where(np.isnan(new), x[len(kept) :], new)
        x[far[rows]] = np.nan
        whole, key = Reference(scaling.shift, scaling.scale, x[:0]), (spec.name, spec.fold)
        places[key] = whole.project(x)
        reference[key] = replace(whole, places=places[key][:MOST_CLIPS])
    groups = table.groups if len(set(table.groups)) > FEW_GROUPS else table.clip_ids
    codes = codes_of(groups)
    same = codes[rows][:, None] == codes[rows[:MOST_CLIPS]]
    alarms = {}
    for predictor in predictors:
        found = np.where(same, np.inf, distances(reference, predictor.features, places))
        spread = spread_of(reference, predictor.features, len(kept))
        copies = copy_ratio(found[:, : len(kept)])
        alarms[predictor.name] = _alarm(relative_distance(found, spread), copies, degradation)
    return reference, alarms


def _degradations(
    degraded: Features, features: Features, specs: Sequence[FeatureSpec]
) -> tuple[Ints, list[str], Ints]:
    """Return, per degraded clip, its original's row, its degradation and its own row."""
    path, trained = degraded.store.path, features.store.path
    row_of = {clip_id: row for row, clip_id in enumerate(features.store.table.clip_ids)}
    rows, names = [], []
    for clip_id in degraded.store.table.clip_ids:
        clip, _, name = clip_id.rpartition("@")
        if clip not in row_of or name in ("", PLAIN):
            raise BadFeatures(
                f"{path}: expected clips named CLIP@DEGRADATION, such as "
                f"{next(iter(row_of))}@mp3, of clips in {trained}; got {clip_id}"
            )
        rows.append(row_of[clip])
        names.append(name)
    for spec in specs:
        # For degradations that change only the sound, features of pictures are not needed.
        if spec.modality in degraded.modality.values() and spec.digest not in {
            s.digest for n in degraded.modality for s in degraded.variants[n] if n == spec.name
        }:
            raise BadFeatures(
                f"{path}: expected the feature {spec.label} as in {trained}: extract both with the "
                "same nets and settings"
            )
    order = np.random.default_rng(0).permutation(len(rows))
    return np.array(rows)[order], [names[row] for row in order], order


def _taken(matrix: Matrix, rows: Ints) -> F32:
    """Return some rows of a feature, float32 (rows, dim), with NaN for missing ones."""
    wanted = np.zeros(len(matrix.present), np.bool_)
    wanted[rows] = True
    taken = np.empty((int(wanted.sum()), matrix.values.shape[1]), np.float32)
    for places, block in rows_of(matrix.values).take(wanted).blocks():
        taken[places] = block
    taken[~matrix.present[wanted]] = np.nan
    return taken[(np.cumsum(wanted) - 1)[rows]]


def _alarm(distance: F64, copies: F64, degradation: NDArray[np.object_]) -> dict[str, Any]:
    """Return the JSON values of a predictor's alarm, from the measures of each clip.

    ``limit`` is the largest usual `relative_distance`, ``folder`` the largest usual median of its
    ratio to the limit in a folder, ``copy`` the largest `copy_ratio` of a copy, ``false_alarms``
    the share of each degradation above the limit, ``usual`` percentiles of the training clips'
    ratio to the limit, ``clips`` the number of training clips as they are, which come first in
    `Reference.places`. Values are None if all clips are equal, or if there are only two.
    """
    known = {
        n: distance[(degradation == n) & np.isfinite(distance)] for n in dict.fromkeys(degradation)
    }
    limit = max(map(_usual, known.values()))
    if not limit or not len(known[PLAIN]) or not np.isfinite(copies).any():
        unknown = dict.fromkeys(("limit", "folder", "copy"))
        return {**unknown, "false_alarms": {}, "usual": [], "clips": 0}
    drawn = np.random.default_rng(0).choice(known[PLAIN] / limit, (DRAWS, FOLDER))
    # The lower tail of the ratios is modelled as a power law, fitted to two quantiles, because
    # some training clips may have real copies. The limit is where its share is CALLED_COPIES.
    low, middle = np.nanquantile(copies, (0.05, 0.5))
    exponent = np.log(middle / low) / np.log(0.5 / 0.05) if low else np.inf
    return {
        "limit": limit,
        "folder": float(np.quantile(np.median(drawn, axis=1), USUAL_FOLDERS)),
        "copy": min(COPY, float(low * (CALLED_COPIES / 0.05) ** exponent)),
        "false_alarms": {n: float((values > limit).mean()) for n, values in known.items()},
        "usual": np.quantile(known[PLAIN] / limit, np.linspace(0, 1, 101)).round(4).tolist(),
        "clips": int((degradation == PLAIN).sum()),
    }


def _usual(values: F64) -> float:
    """Return the value that at most 1 - `USUAL` of the values exceed; 0 without any."""
    rank = math.ceil(USUAL * len(values))
    return float(np.sort(values)[rank - 1]) if rank else 0.0

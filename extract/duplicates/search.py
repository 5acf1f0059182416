"""Clips that are the same recording or the same pictures, encoded or cut differently.

Two such clips in different groups may land in training and test folds: the score of one
is then what a net remembers of the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.duplicates.fingerprints import HASH_BITS, HOP, Fingerprint, fingerprint
from mvemo.extract.errors import ExtractError
from mvemo.manifests import Manifest

# Thresholds were set on 100 music videos and 39 copies of 13 of them, re-encoded at a tenth
# of the bitrate, up to 6 s cut off, gain changed. Share of equal bits in sound: copies 0.83
# and more, others 0.58 and less. Share of pictures found in the other: copies re-encoded
# 0.70 and more, cut 0.18 and more, others 0.15 and less.
SOUND_BITS = 0.70
PICTURES = 0.30
# Pictures of one scene differ in no more of their 64 bits.
PICTURE_BITS = 8
# Least common stretch, in windows (2 s), and the share of the shorter clip that it must be.
LEAST_WINDOWS = 42
LEAST_SHARE = 0.4
# Fewer different pictures, as of a clip that is one still, say too little.
LEAST_PICTURES = 3
# Rows that share a key with more others than this say nothing.
_CROWD = 2000
_SET_BITS = np.array([bin(i).count("1") for i in range(1 << 16)], dtype=np.uint8)

Ints = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Duplicate:
    """Two clips that are nearly the same in one modality.

    Parameters
    ----------
    first, second
        Clip ids, in the manifest's order.
    modality
        ``audio`` or ``video``.
    similarity
        audio: share of equal bits in what both have, from 0.5 (chance) to 1. video:
        share of pictures that are found in the other clip too, of the clip with less.
    offset
        audio: seconds into the first clip at which the second begins; NaN for video.
    """

    first: str
    second: str
    modality: str
    similarity: float
    offset: float


@dataclass(frozen=True)
class Search:
    """What `find_duplicates` found.

    Parameters
    ----------
    duplicates
        By the clips' order, audio before video.
    problems
        (clip id, modality or ``clip``, reason) of all that could not be compared.
    """

    duplicates: tuple[Duplicate, ...]
    problems: tuple[tuple[str, str, str], ...] = ()


def find_duplicates(
    manifest: Manifest,
    *,
    across_groups: bool = True,
    workers: int | None = None,
    progress: Callable[[bool], object] | None = None,
) -> Search:
    """Decode all clips of a manifest and find near-duplicates among them.

    Parameters
    ----------
    manifest
        With media.
    across_groups
        Whether only pairs of clips in different groups are told.
    workers
        Clips decoded at a time; None for as many as there are cores.
    progress
        Called after each clip, with whether it could not be decoded.
    """
    problems: list[tuple[str, str, str]] = []

    def one(i: int) -> Fingerprint | str:
        clip = manifest.clips[i]
        made: Fingerprint | str
        try:
            made = fingerprint(manifest.media_path(clip), start=clip.start, duration=clip.duration)
        except ExtractError as error:
            made = str(error)
        if progress is not None:
            progress(isinstance(made, str))
        return made

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        made = list(pool.map(one, range(len(manifest))))
    finally:
        # Ctrl-C is not to wait for all the clips that are left.
        pool.shutdown(cancel_futures=True)
    empty = np.empty(0, np.uint32)
    nothing = Fingerprint(
        empty, empty, np.empty(0, np.bool_), np.empty((0, HASH_BITS), np.bool_), {}
    )
    prints = []
    for clip_id, held in zip(manifest.clip_ids, made, strict=True):
        if isinstance(held, str):
            problems.append((clip_id, "clip", held))
            prints.append(nothing)
        else:
            problems += [(clip_id, modality, why) for modality, why in held.problems.items()]
            prints.append(held)
    groups = np.unique(np.array(manifest.groups), return_inverse=True)[1].reshape(-1)
    found = [
        Duplicate(manifest.clip_ids[i], manifest.clip_ids[j], modality, similarity, offset)
        for i, j, modality, similarity, offset in compare_fingerprints(
            prints, groups if across_groups else None
        )
    ]
    return Search(tuple(found), tuple(problems))


def compare_fingerprints(
    prints: Sequence[Fingerprint], groups: Ints | None = None
) -> list[tuple[int, int, str, float, float]]:
    """Pairs that are nearly the same: (i, j, modality, similarity, offset), i < j, sorted.

    Only pairs that share a word of sound, or a quarter of a picture's bits, are looked at,
    so the cost grows with the clips and not with their pairs.

    Parameters
    ----------
    prints
        One a clip.
    groups
        int64 (clips,): pairs within a group are left out; None for all pairs.
    """
    found = _same_sound(prints, groups) + _same_pictures(prints, groups)
    return sorted(found, key=lambda pair: pair[:3])


def _same_sound(
    prints: Sequence[Fingerprint], groups: Ints | None
) -> list[tuple[int, int, str, float, float]]:
    clip = np.repeat(np.arange(len(prints)), [len(p.words) for p in prints])
    if not len(clip):
        return []
    when = np.concatenate([np.arange(len(p.words)) for p in prints])
    words = np.concatenate([p.words for p in prints])
    unsure = np.concatenate([p.unsure for p in prints])
    # Sustained sound repeats a word: its first is enough to meet the other clip's.
    new = np.ones(len(words), dtype=np.bool_)
    new[1:] = (words[1:] != words[:-1]) | (clip[1:] != clip[:-1])
    kept = np.flatnonzero(np.concatenate([p.audible for p in prints]) & new)
    rows = np.concatenate([kept, kept])
    left, right = _sharing(
        np.concatenate([words[kept], words[kept] ^ unsure[kept]]), rows, clip, groups
    )
    # Pairs of clips, and how much later the first one's word is.
    span = 2 * int(when.max()) + 1
    lag = when[left] - when[right]
    keys = (clip[left] * len(prints) + clip[right]) * span + lag + span // 2
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for key in np.unique(keys).tolist():
        pair, shifted = divmod(key, span)
        i, j = divmod(pair, len(prints))
        similarity = _equal_bits(prints[i], prints[j], shifted - span // 2)
        if similarity >= SOUND_BITS and similarity > best.get((i, j), (0.0, 0))[0]:
            best[i, j] = (similarity, shifted - span // 2)
    return [(i, j, "audio", s, round(lag * HOP, 3)) for (i, j), (s, lag) in best.items()]


def _equal_bits(a: Fingerprint, b: Fingerprint, lag: int) -> float:
    """Share of equal bits where b, begun `lag` windows into a, and a both sound; 0 if too short."""
    start, stop = max(0, lag), min(len(a.words), len(b.words) + lag)
    ours, theirs = slice(start, stop), slice(start - lag, stop - lag)
    both = a.audible[ours] & b.audible[theirs]
    shorter = min(int(a.audible.sum()), int(b.audible.sum()))
    n_windows = int(both.sum())
    if n_windows < max(LEAST_WINDOWS, LEAST_SHARE * shorter):
        return 0.0
    differing = (a.words[ours] ^ b.words[theirs])[both]
    return 1.0 - float(_SET_BITS[differing.view(np.uint16)].sum()) / (32 * n_windows)


def _same_pictures(
    prints: Sequence[Fingerprint], groups: Ints | None
) -> list[tuple[int, int, str, float, float]]:
    clip = np.repeat(np.arange(len(prints)), [len(p.hashes) for p in prints])
    if not len(clip):
        return []
    # Four numbers of 16 bits a picture: of two that are alike, at least one is often equal.
    parts = np.packbits(np.concatenate([p.hashes for p in prints]), axis=1).view(np.uint16)
    pairs = [np.empty(0, np.int64)]
    for column in range(parts.shape[1]):
        left, right = _sharing(parts[:, column], np.arange(len(parts)), clip, groups)
        for at in range(0, len(left), 1 << 20):
            some, others = left[at : at + (1 << 20)], right[at : at + (1 << 20)]
            alike = _SET_BITS[parts[some] ^ parts[others]].sum(axis=1) <= PICTURE_BITS
            pairs.append(some[alike] * len(parts) + others[alike])
    joined = np.unique(np.concatenate(pairs))
    left, right = np.divmod(joined, len(parts))
    keys, counts = np.unique(clip[left] * len(prints) + clip[right], return_counts=True)
    found = []
    for key in keys[counts >= LEAST_PICTURES].tolist():
        i, j = divmod(key, len(prints))
        a, b = prints[i].hashes, prints[j].hashes
        alike = (a[:, None] != b[None]).sum(axis=2) <= PICTURE_BITS
        in_b, in_a = alike.any(axis=1), alike.any(axis=0)
        similarity = float(min(in_b.mean(), in_a.mean()))
        if min(in_b.sum(), in_a.sum()) >= LEAST_PICTURES and similarity >= PICTURES:
            found.append((i, j, "video", similarity, float("nan")))
    return found


def _sharing(
    keys: NDArray[np.uint32] | NDArray[np.uint16], rows: Ints, clip: Ints, groups: Ints | None
) -> tuple[Ints, Ints]:
    """Pairs of rows with equal keys of two clips, the earlier clip's row first.

    Parameters
    ----------
    keys, rows
        (n,): a key and whose it is.
    clip
        The clip of each row.
    groups
        Of each clip; pairs within one are left out.
    """
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    of = clip[rows] if groups is None else groups[clip[rows]]
    lefts, rights = [], []
    here = np.arange(len(keys))
    for gap in range(1, _CROWD):
        # Only rows that met an equal key at the gap before can at this one.
        here = here[: np.searchsorted(here, len(keys) - gap)]
        here = here[keys[here] == keys[here + gap]]
        if not len(here):
            break
        other = here[of[here] != of[here + gap]]
        lefts.append(rows[other])
        rights.append(rows[other + gap])
    if not lefts:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    left, right = np.concatenate(lefts), np.concatenate(rights)
    swap = clip[left] > clip[right]
    return np.where(swap, right, left), np.where(swap, left, right)

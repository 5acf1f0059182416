"""Near-duplicates: clips with the same recording or pictures, re-encoded or shortened.

If two such clips are in different groups, a test clip may be one that a net was trained on. Clips
are compared by fingerprints that survive re-encoding. Similar music, or another part of the same
song, has a different fingerprint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mvemo.extract.media import isolated, reading, request
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F32, F64, U8, U32, Bools, Ints
from mvemo.manifests.errors import MvemoError

SR = 8000
# Every word of a fingerprint covers WINDOW seconds of sound, and a word begins every HOP seconds:
# the words of two copies with different starts are then at most half a hop apart.
WINDOW, HOP = 0.384, 0.048
BANDS, LOW, HIGH = 33, 300.0, 3000.0
# A window is not compared if it is softer than the clip's loudest window by more than this.
AUDIBLE_DB = 50.0
# The pictures of a shortened copy are taken at other times, so every scene needs several.
FRAMES = request.FrameSampling(n_frames=64, size=64)
# A picture is reduced to 9 x 8 mean values; the signs of their 64 differences are its hash.
_ROWS, _COLUMNS = 8, 8
HASH_BITS = _ROWS * _COLUMNS
# Neighbouring pictures that differ in at most this many bits count as one picture.
SAME_SCENE = 4
# A picture counts as empty if the standard deviation of its mean values (0 to 255) is below this.
CONTRAST = 6.0
# The thresholds were set on 100 music videos and 39 copies of 13 of them: re-encoded at a tenth of
# the bitrate, shortened by up to 6 s, gain changed.
# SOUND_BITS, smallest share of equal bits: copies have >= 0.83, other pairs <= 0.58.
# PICTURES, smallest share of pictures that the other clip also has: re-encoded copies have >= 0.70,
# shortened copies >= 0.18, other pairs <= 0.15.
# IN_STEP, smallest number of similar pictures at the same lag, measured on 60 cuts from 30 to 12 s:
# copies have >= 7, other pairs <= 3.
SOUND_BITS = 0.70
PICTURES = 0.30
# Pictures count as similar if they differ in at most this many of their 64 bits.
PICTURE_BITS = 8
IN_STEP = 5
# Minimum length of a common part, in windows (2 s), and its minimum share of the shorter clip.
MIN_WINDOWS = 42
MIN_SHARE = 0.4
# Minimum number of similar pictures: a clip that shows a single still picture has too few.
MIN_PICTURES = 3
# Rows with the same key are compared only if their places in its list differ by less than this.
_MAX_SHARING = 2000
# Clips (their indices), modality, similarity and offset of near-duplicates.
Pair = tuple[int, int, str, float, float]
_FINGERPRINT = "mvemo.extract.duplicates:fingerprint"
_SET_BITS = np.array([bin(i).count("1") for i in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one clip."""

    words: U32  # words of the sound, (windows,), every `HOP` seconds; empty without sound
    weakest_bits: U32  # mask of each word's bit that a copy most likely changes, (windows,)
    audible: Bools  # False for windows that are too soft to be compared, (windows,)
    # Hashes of the pictures, (pictures, 64), without empty pictures and repetitions.
    hashes: Bools
    problems: dict[str, str]  # for each missing modality (``audio``, ``video``), the reason
    # Times of the hashed pictures, in seconds.
    times: F64 = field(default_factory=lambda: np.zeros(0))
    step: float = 0.0  # seconds between the pictures that were examined


_NO_SOUND = (np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.bool_))
_EMPTY = Fingerprint(*_NO_SOUND, np.empty((0, HASH_BITS), np.bool_), {})


def fingerprint(
    path: Path, *, start: float = 0.0, duration: float | None = None, threads: int = 1
) -> Fingerprint:
    """Decode a clip and return its fingerprint; errors are those of `decode_clip`.

    Parameters
    ----------
    path
        Path of the file.
    start, duration
        Start and length of the clip in seconds; a duration of None for the rest of the file.
    threads
        Number of decoder threads; 0 for one per core.

    See Also
    --------
    find_duplicates : Find pairs of near-duplicate clips.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> soundfile.write("noise.wav", np.random.default_rng(0).uniform(-1, 1, 8000), 8000)
    >>> print_of_noise = fingerprint(Path("noise.wav"))
    >>> len(print_of_noise.words), print_of_noise.hashes.shape, print_of_noise.problems
    (12, (0, 64), {'video': 'no video stream'})
    """
    decoded = reading.decode_clip(
        path,
        start=start,
        duration=duration,
        sample_rates=(SR,),
        pictures=(FRAMES,),
        threads=threads,
    )
    sound = sound_words(decoded.waveforms.get(SR, np.empty(0, np.float32)))
    hashes, rows = picture_hashes(decoded.frames.get(FRAMES, np.empty((0, 64, 64, 3), np.uint8)))
    step = decoded.seconds / FRAMES.n_frames
    problems = {modality: problem.reason for modality, problem in decoded.problems.items()}
    return Fingerprint(*sound, hashes, problems, np.multiply(rows, step), step)


def sound_words(waveform: F32) -> tuple[U32, U32, Bools]:
    """Return `words`, `weakest_bits` and `audible` of `Fingerprint` for a waveform at `SR`."""
    # Bit m of window n is the sign of E(n, m) - E(n, m + 1) - (E(n - 1, m) - E(n - 1, m + 1)), with
    # E(n, m) the energy of the m-th of 33 bands, equally wide in log frequency (Haitsma and Kalker,
    # A Highly Robust Audio Fingerprinting System, ISMIR 2002).
    size, hop = round(WINDOW * SR), round(HOP * SR)
    if len(waveform) < size + hop:
        return _NO_SOUND
    view = np.lib.stride_tricks.sliding_window_view(waveform, size)[::hop]
    power = np.abs(np.fft.rfft(view * np.hanning(size).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(LOW, HIGH, BANDS + 1) * size / SR
    cumulated = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    bands = np.diff(cumulated[:, np.round(edges).astype(np.int64)])  # (windows, 33)
    rise = -np.diff(np.diff(bands), axis=0)  # (windows - 1, 32)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    words = ((rise > 0) * bits).sum(axis=1, dtype=np.uint32)
    weakest_bits = bits[np.abs(rise).argmin(axis=1)]
    energy = bands.sum(axis=1)
    audible = energy > max(float(energy.max()) * 10 ** (-AUDIBLE_DB / 10), 1e-9)
    return words, weakest_bits, audible[1:] & audible[:-1]


def picture_hashes(frames: U8) -> tuple[Bools, Ints]:
    """Return difference hashes, bool (pictures, 64), and the rows of their frames."""
    hashes: list[Bools] = []
    rows = []
    for row, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (_COLUMNS + 1, _ROWS), interpolation=cv2.INTER_AREA)
        bits = (small[:, :-1] > small[:, 1:]).ravel()
        if small.astype(np.float32).std() >= CONTRAST and (
            not hashes or (bits != hashes[-1]).sum() > SAME_SCENE
        ):
            hashes.append(bits)
            rows.append(row)
    return np.array(hashes, dtype=np.bool_).reshape(-1, HASH_BITS), np.array(rows, np.int64)


@dataclass(frozen=True, order=True)
class Duplicate:
    """Pair of clips whose sound, or whose pictures, are nearly identical."""

    first: str  # clip ids, in the manifest's order
    second: str
    modality: str  # ``audio`` or ``video``
    # For audio, the share of equal bits while both clips are audible, from 0.5 (chance) to 1. For
    # video, the smaller of the two shares of a clip's pictures that the other clip also has.
    similarity: float
    offset: float  # start of the second clip within the first, in seconds; NaN for video


@dataclass(frozen=True)
class Search:
    """Result of `find_duplicates`."""

    duplicates: tuple[Duplicate, ...]  # in the order of the clips, audio before video
    # (clip id, modality or ``clip``, reason) of everything that could not be compared.
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
        Manifest of clips with media files.
    across_groups
        True to report only pairs of clips in different groups.
    workers
        Number of decoding processes; None for one per core.
    progress
        Function called after each clip, with True if it could not be decoded.

    Returns
    -------
    Pairs of near-duplicates, and the clips that could not be compared.

    Examples
    --------
    Five seconds of noise, a softer copy that begins a second later, and other noise:

    >>> import numpy as np, soundfile
    >>> from mvemo.manifests import Clip, Manifest
    >>> noise, other = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5 * 8000))
    >>> sounds = {"noise.wav": noise, "copy.flac": 0.5 * noise[8000:], "other.wav": other}
    >>> for name, y in sounds.items():
    ...     soundfile.write(name, y, 8000)
    >>> clips = tuple(Clip(name, name, ("x",), group=name) for name in sounds)
    >>> search = find_duplicates(Manifest("noises", "multiclass", ("x",), clips, Path()))
    >>> [(pair.first, pair.second, pair.modality, round(pair.offset)) for pair in search.duplicates]
    [('noise.wav', 'copy.flac', 'audio', 1)]
    """
    files = [
        (manifest.media_path(clip), {"start": clip.start, "duration": clip.duration})
        for clip in manifest.clips
    ]
    prints = [_EMPTY] * len(files)
    for row, result in isolated.read_each(_FINGERPRINT, files, workers=workers or 0):
        if failed := isinstance(result, MvemoError):
            result = replace(_EMPTY, problems={"clip": str(result)})
        prints[row] = result
        if progress is not None:
            progress(failed)
    names = manifest.clip_ids
    problems = [
        (name, *problem)
        for name, clip_print in zip(names, prints, strict=True)
        for problem in clip_print.problems.items()
    ]
    groups = np.unique(manifest.groups, return_inverse=True)[1].reshape(-1)
    pairs = compare_fingerprints(prints, groups if across_groups else None)
    duplicates = (Duplicate(names[i], names[j], what, s, offset) for i, j, what, s, offset in pairs)
    return Search(tuple(duplicates), tuple(problems))


def compare_fingerprints(prints: Sequence[Fingerprint], groups: Ints | None = None) -> list[Pair]:
    """Return the near-duplicates (i, j, modality, similarity, offset) of different `groups`."""
    if not prints:
        return []
    pairs = _same_sound(prints, groups) + _same_pictures(prints, groups)
    return sorted(pairs, key=lambda pair: pair[:3])


def _same_sound(prints: Sequence[Fingerprint], groups: Ints | None) -> list[Pair]:
    clip = np.repeat(np.arange(len(prints)), [len(p.words) for p in prints])
    when = np.concatenate([np.arange(len(p.words)) for p in prints])
    words = np.concatenate([p.words for p in prints])
    weakest_bits = np.concatenate([p.weakest_bits for p in prints])
    # Sustained sound repeats a word; its first occurrence suffices to match another clip.
    new = np.ones(len(words), dtype=np.bool_)
    new[1:] = (words[1:] != words[:-1]) | (clip[1:] != clip[:-1])
    compared = np.flatnonzero(np.concatenate([p.audible for p in prints]) & new)
    keys = np.concatenate([words[compared], words[compared] ^ weakest_bits[compared]])
    left, right = _pairs_sharing_a_key(keys, np.tile(compared, 2), clip, groups)
    # Each match is encoded as an integer: the two clips and the lag between them, in windows.
    longest = int(when.max(initial=0))
    shape = (len(prints), len(prints), 2 * longest + 1)
    lags = when[left] - when[right] + longest
    keys = np.unique(np.ravel_multi_index((clip[left], clip[right], lags), shape))
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j, shifted in np.stack(np.unravel_index(keys, shape), axis=1).tolist():
        similarity = _equal_bits(prints[i], prints[j], shifted - longest)
        if similarity >= SOUND_BITS and similarity > best.get((i, j), (0.0, 0))[0]:
            best[i, j] = (similarity, shifted - longest)
    return [(i, j, "audio", s, round(lag * HOP, 3)) for (i, j), (s, lag) in best.items()]


def _equal_bits(a: Fingerprint, b: Fingerprint, lag: int) -> float:
    """Return the share of equal bits if b begins `lag` windows after a, 0 for short overlaps."""
    start, stop = max(0, lag), min(len(a.words), len(b.words) + lag)
    in_a, in_b = slice(start, stop), slice(start - lag, stop - lag)
    both = a.audible[in_a] & b.audible[in_b]
    n_windows = int(both.sum())
    if n_windows < max(MIN_WINDOWS, MIN_SHARE * min(a.audible.sum(), b.audible.sum())):
        return 0.0
    differing = (a.words[in_a] ^ b.words[in_b])[both]
    return 1.0 - float(_SET_BITS[differing.view(np.uint16)].sum()) / (32 * n_windows)


def _same_pictures(prints: Sequence[Fingerprint], groups: Ints | None) -> list[Pair]:
    clip = np.repeat(np.arange(len(prints)), [len(p.hashes) for p in prints])
    # Split hashes into four 16-bit numbers: similar pictures often share at least one of them.
    parts = np.packbits(np.concatenate([p.hashes for p in prints]), axis=1).view(np.uint16)
    pairs = [np.empty(0, np.int64)]
    for column in range(parts.shape[1]):
        left, right = _pairs_sharing_a_key(parts[:, column], np.arange(len(parts)), clip, groups)
        for first in range(0, len(left), 1 << 20):
            a_rows, b_rows = left[first : first + (1 << 20)], right[first : first + (1 << 20)]
            alike = _SET_BITS[parts[a_rows] ^ parts[b_rows]].sum(axis=1) <= PICTURE_BITS
            pairs.append(a_rows[alike] * len(parts) + b_rows[alike])
    left, right = np.divmod(np.unique(np.concatenate(pairs)), len(parts))
    keys, counts = np.unique(clip[left] * len(prints) + clip[right], return_counts=True)
    duplicates = []
    for key in keys[counts >= MIN_PICTURES].tolist():
        i, j = divmod(key, len(prints))
        a, b = prints[i].hashes, prints[j].hashes
        alike = (a[:, None] != b[None]).sum(axis=2) <= PICTURE_BITS
        in_b, in_a = alike.any(axis=1), alike.any(axis=0)
        similarity = float(min(in_b.mean(), in_a.mean()))
        alike_enough = min(in_b.sum(), in_a.sum()) >= MIN_PICTURES and similarity >= PICTURES
        if alike_enough or _in_step(prints[i], prints[j], alike) >= IN_STEP:
            duplicates.append((i, j, "video", similarity, float("nan")))
    return duplicates


def _in_step(a: Fingerprint, b: Fingerprint, alike: Bools) -> int:
    """Count the similar pictures of two clips at the lag with the most similar pictures."""
    rows, columns = np.nonzero(alike)
    lags = a.times[rows] - b.times[columns]
    order = np.argsort(lags, kind="stable")
    ends = np.searchsorted(lags[order], lags[order] + 1.5 * max(a.step, b.step), side="right")
    first = int(np.argmax(ends - np.arange(len(ends))))
    at_lag = order[first : ends[first]]
    return min(len(np.unique(rows[at_lag])), len(np.unique(columns[at_lag])))


def _pairs_sharing_a_key(
    keys: NDArray[np.uint32] | NDArray[np.uint16], rows: Ints, clip: Ints, groups: Ints | None
) -> tuple[Ints, Ints]:
    """Return pairs of rows that share a key, of clips in different groups, earlier clip first."""
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    group = clip[rows] if groups is None else groups[clip[rows]]
    pairs = [np.empty((2, 0), np.int64)]
    places = np.arange(len(keys))
    for gap in range(1, _MAX_SHARING):
        # Keys are sorted, so a key that equals the one `gap` places later also equals all between.
        places = places[: np.searchsorted(places, len(keys) - gap)]
        places = places[keys[places] == keys[places + gap]]
        if not len(places):
            break
        across = places[group[places] != group[places + gap]]
        pairs.append(np.stack([rows[across], rows[across + gap]]))
    # Rows are in the order of the clips.
    left, right = np.sort(np.concatenate(pairs, axis=1), axis=0)
    return left, right

"""Fingerprints of sound and pictures, which survive re-encoding.

They answer one question: are two clips the same recording or the same pictures? Music that is
only similar, or another part of the same song, has another fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mvemo.extract.arrays import F32, F64, I64, U8, U32, Mask
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling

SR = 8000
# A word spans WINDOW seconds of sound, and a new word begins each HOP seconds: the words of two
# copies with different starts are then at most half a hop apart.
WINDOW, HOP = 0.384, 0.048
BANDS, LOW, HIGH = 33, 300.0, 3000.0
# A window that is softer than the clip's loudest window by more than this is not compared.
AUDIBLE_DB = 50.0
# The pictures of a shortened copy are taken at other times. With this many, each scene has some.
FRAMES = FrameSampling(n_frames=64, size=64)
# A picture is reduced to 9 x 8 means, whose 64 differences are its hash.
_ROWS, _COLUMNS = 8, 8
HASH_BITS = _ROWS * _COLUMNS
# Neighbouring pictures that differ in at most this many bits count as one picture.
SAME_SCENE = 4
# Standard deviation of the means (of 255) below which a picture counts as empty.
CONTRAST = 6.0


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one clip.

    Parameters
    ----------
    words
        Words of the sound, uint32 (windows,), one each `HOP` seconds; empty without sound.
    weakest_bits
        Bit of each word that a copy would most likely flip, uint32 (windows,).
    audible
        False for windows that are too soft to be compared, bool (windows,).
    hashes
        Hashes of the pictures, bool (pictures, 64), without empty pictures and those like the
        one before.
    problems
        Reason by modality (``audio``, ``video``) that the clip does not have.
    times
        Times of the hashed pictures in seconds from the clip's start, float64 (pictures,).
    step
        Seconds between the pictures that were examined.
    """

    words: U32
    weakest_bits: U32
    audible: Mask
    hashes: Mask
    problems: dict[str, str]
    times: F64 = field(default_factory=lambda: np.zeros(0))
    step: float = 0.0


def fingerprint(
    path: Path, *, start: float = 0.0, duration: float | None = None, threads: int = 1
) -> Fingerprint:
    """Decode a clip and return its fingerprint.

    Parameters
    ----------
    path
        Path of the file.
    start, duration
        Start and length of the clip in seconds; a duration of None for the rest of the file.
    threads
        Number of decoder threads; 0 for one per core.

    Raises
    ------
    BadMedia, MissingFile
        If `decode_clip` raises it.

    See Also
    --------
    mvemo.extract.duplicates.search.find_duplicates : Pairs of clips that are nearly the same.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> soundfile.write("noise.wav", np.random.default_rng(0).uniform(-1, 1, 8000), 8000)
    >>> print_of_noise = fingerprint(Path("noise.wav"))
    >>> len(print_of_noise.words), print_of_noise.hashes.shape
    (12, (0, 64))
    >>> print_of_noise.problems
    {'video': 'no video stream'}
    """
    decoded = decode_clip(
        path,
        start=start,
        duration=duration,
        sample_rates=(SR,),
        pictures=(FRAMES,),
        threads=threads,
    )
    words, weakest_bits, audible = sound_words(decoded.waveforms.get(SR, np.empty(0, np.float32)))
    frames = decoded.frames.get(FRAMES, np.empty((0, 64, 64, 3), np.uint8))
    hashes, rows = picture_hashes(frames)
    step = decoded.seconds / FRAMES.n_frames
    problems = {modality: problem.reason for modality, problem in decoded.problems.items()}
    return Fingerprint(
        words, weakest_bits, audible, hashes, problems, np.multiply(rows, step), step
    )


def sound_words(
    waveform: F32,
) -> tuple[U32, U32, Mask]:
    """Return `words`, `weakest_bits` and `audible` of `Fingerprint` for a waveform at `SR`.

    Bit m of window n is the sign of E(n, m) - E(n, m + 1) - (E(n - 1, m) - E(n - 1, m + 1)),
    where E(n, m) is the energy of the m-th of 33 bands that are equally wide in log frequency
    (Haitsma and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002).
    """
    size, hop = round(WINDOW * SR), round(HOP * SR)
    n_windows = (len(waveform) - size) // hop + 1
    if n_windows < 2:
        empty = np.empty(0, np.uint32)
        return empty, empty, np.empty(0, np.bool_)
    view = np.lib.stride_tricks.sliding_window_view(waveform, size)[::hop][:n_windows]
    power = np.abs(np.fft.rfft(view * np.hanning(size).astype(np.float32), axis=1)) ** 2
    edges = np.geomspace(LOW, HIGH, BANDS + 1) * size / SR
    cumulated = np.concatenate([np.zeros((n_windows, 1)), np.cumsum(power, axis=1)], axis=1)
    bins: I64 = np.round(edges).astype(np.int64)
    bands = cumulated[:, bins[1:]] - cumulated[:, bins[:-1]]  # (windows, 33)
    across = bands[:, :-1] - bands[:, 1:]  # (windows, 32)
    rise = across[1:] - across[:-1]  # (windows - 1, 32)
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    words = ((rise > 0) * bits).sum(axis=1, dtype=np.uint32)
    weakest_bits = bits[np.abs(rise).argmin(axis=1)]
    energy = bands.sum(axis=1)
    audible = energy > max(float(energy.max()) * 10 ** (-AUDIBLE_DB / 10), 1e-9)
    return words, weakest_bits, audible[1:] & audible[:-1]


def picture_hashes(frames: U8) -> tuple[Mask, I64]:
    """Return difference hashes, bool (pictures, 64), and the rows of their frames.

    Each bit says if one of 8 x 8 cells is brighter than the cell to its right. Pictures without
    contrast (black ones) are left out, and so are pictures that hardly differ from the one
    before.
    """
    hashes: list[Mask] = []
    rows: list[int] = []
    for row, frame in enumerate(frames):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (_COLUMNS + 1, _ROWS), interpolation=cv2.INTER_AREA)
        cells = small.astype(np.float32)
        if cells.std() < CONTRAST:
            continue
        bits = (cells[:, :-1] > cells[:, 1:]).ravel()
        if not hashes or int((bits != hashes[-1]).sum()) > SAME_SCENE:
            hashes.append(bits)
            rows.append(row)
    return np.array(hashes, dtype=np.bool_).reshape(-1, HASH_BITS), np.array(rows, np.int64)

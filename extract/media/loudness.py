"""Integrated loudness of sound (ITU-R BS.1770-4), and the weights of channels in a mono mix.

The mono mix that nets and descriptors read is measured. For stereo whose channels are
equal it is 3.01 LU below the value of a meter, which adds the energies of the channels.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view

from mvemo.manifests.array_types import F32, F64

# Steps per gating block of 0.4 s; blocks overlap by 75 %.
_STEPS, _STEP_SECONDS = 4, 0.1
# Longest impulse response in samples; headers state rates of gigahertz, which no sound has.
_MOST_SAMPLES = 1 << 20
# Number of blocks to transform at once: SciPy transforms four in the time of two.
_BLOCKS = 4
# Gates in LUFS, and in LU relative to the loudness above the first gate.
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0
# Loudness in LUFS of a mean square of 1 after the filter.
_OFFSET = -0.691
# Weights of channels relative to the front ones (ITU-R BS.775-3, Table 2, one channel): the centre
# counts more, other channels count less, and the channel of low-frequency effects is left out.
_WEIGHTS = {"FL": 0.5, "FR": 0.5, "FC": math.sqrt(0.5), "LFE": 0.0, "LFE2": 0.0}
_OTHER_WEIGHT = 0.5 * math.sqrt(0.5)
# Channels of Vorbis and Opus, by their number (Vorbis I specification, 4.3.9).
VORBIS_CHANNELS: dict[int, tuple[str, ...]] = {
    3: ("FL", "FC", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
# Usual channels of a file that does not state its layout, by their number.
_UNSTATED = {
    3: ("FL", "FR", "FC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}


def mono_weights(channels: Sequence[str]) -> F32:
    """Return the weight in the mono mix of each channel, by FFmpeg's names; NONE is unknown.

    >>> mono_weights(["FL", "FR", "FC", "LFE", "BL", "BR"]).round(2)
    array([0.5 , 0.5 , 0.71, 0.  , 0.35, 0.35], dtype=float32)
    """
    if "NONE" in channels:
        channels = _UNSTATED.get(len(channels), channels)
    if len(channels) <= 2 or not {"FL", "FR"} <= {*channels}:
        return np.full(len(channels), 1 / len(channels), dtype=np.float32)
    return np.array([_WEIGHTS.get(name, _OTHER_WEIGHT) for name in channels], dtype=np.float32)


class LoudnessMeter:
    """Integrated loudness of mono sound that is added block by block.

    Sound shorter than 0.4 s, or below -70 LUFS throughout, is measured without gates.
    """

    def __init__(self, sr: int) -> None:  # in Hz
        self._block, self._response = _impulse_response(sr)
        self._step = max(round(_STEP_SECONDS * sr), 1)
        self._before = np.zeros(self._block, dtype=np.float32)  # the last measured block
        self._waiting: list[F32] = []
        self._n_waiting = 0
        self._rest = np.zeros(0, dtype=np.float32)  # filtered samples after the last whole step
        self._energies: list[F64] = []  # sums of squares of whole steps

    def add(self, y: F32) -> None:
        self._waiting.append(y)
        self._n_waiting += len(y)
        if self._n_waiting < _BLOCKS * self._block:
            return
        y = np.concatenate(self._waiting)
        n_whole = len(y) // self._block * self._block
        energies, self._rest = self._measure(y[:n_whole])
        self._energies += energies
        self._before = y[n_whole - self._block : n_whole]
        self._waiting, self._n_waiting = [y[n_whole:]], len(y) - n_whole

    def _measure(self, y: F32) -> tuple[list[F64], F32]:
        """Return energies of the steps in the next samples, and the filtered samples after them."""
        energies, rest = [], self._rest
        # Overlap-save: half of each transformed part is before the block that it filters.
        n_blocks = -(-len(y) // self._block)
        padded = np.zeros((n_blocks + 1) * self._block, dtype=np.float32)
        padded[: self._block] = self._before
        padded[self._block : self._block + len(y)] = y
        for first in range(0, n_blocks, _BLOCKS):
            parts = sliding_window_view(padded, 2 * self._block)[:: self._block]
            spectra = scipy.fft.rfft(parts[first : first + _BLOCKS]) * self._response
            for i, part in enumerate(scipy.fft.irfft(spectra), first):
                block = part[self._block : self._block + len(y) - i * self._block]
                filtered = np.concatenate([rest, block])
                steps = len(filtered) // self._step
                whole = filtered[: steps * self._step].reshape(-1, self._step)
                energies.append(np.einsum("ij,ij->i", whole, whole, dtype=np.float64))
                rest = filtered[steps * self._step :]
        return energies, rest

    @property
    def integrated(self) -> float:
        """Loudness in LUFS; -inf without sound."""
        last = np.concatenate([np.zeros(0, np.float32), *self._waiting])
        energies, rest = self._measure(last)
        steps = np.concatenate([np.zeros(0), *self._energies, *energies]) / self._step
        if len(steps) >= _STEPS:
            blocks = np.convolve(steps, np.full(_STEPS, 1 / _STEPS), "valid")
            blocks = blocks[blocks > 10 ** ((_ABSOLUTE_GATE - _OFFSET) / 10)]
            if len(blocks):
                gate = 10 ** (_RELATIVE_GATE / 10) * blocks.mean()
                return _loudness(float(blocks[blocks > gate].mean()))
        n_samples = len(steps) * self._step + len(rest)
        energy = steps.sum() * self._step + float(np.square(rest, dtype=float).sum())
        return _loudness(energy / max(n_samples, 1))


def gain_to(level: float, loudness: float) -> float:
    """Return the factor that brings sound of a loudness in LUFS to `level`; 1 if `level` is 0."""
    return 10 ** ((level - loudness) / 20) if level and math.isfinite(loudness) else 1.0


def k_weighting(sr: int) -> F64:
    """Return the K filter of BS.1770 as second-order sections for any sampling rate, (2, 6).

    They are the standard's analogue filters, a shelf and a high pass, transformed for `sr`.
    """
    k = math.tan(math.pi * min(1681.974450955533 / sr, 0.49))
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band, scale = high**0.4996667741545416, 1 + k / q + k * k
    shelf = [high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k]
    shelf += [scale, 2 * (k * k - 1), 1 - k / q + k * k]
    k, q = math.tan(math.pi * 38.13547087602444 / sr), 0.5003270373238773
    low = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / low, (1 - k / q + k * k) / low]
    return np.array([[value / scale for value in shelf], high_pass])


@lru_cache(maxsize=4)
def _impulse_response(sr: int) -> tuple[int, Any]:
    """Return the length of a block, and the transform of the filter's impulse response."""
    # The impulse response fades within a second. SciPy's filters take long to import.
    block = min(1 << max(sr - 1, 1).bit_length(), _MOST_SAMPLES)
    sections = k_weighting(sr)
    z = np.exp(-2j * np.pi * np.arange(block // 2 + 1) / block) ** np.arange(3)[:, None]
    response = np.prod(sections[:, :3] @ z, axis=0) / np.prod(sections[:, 3:] @ z, axis=0)
    return block, scipy.fft.rfft(scipy.fft.irfft(response).astype(np.float32), 2 * block)


def _loudness(power: float) -> float:
    return _OFFSET + 10 * math.log10(power) if power > 0 else -math.inf

"""Settings of the descriptors, and the frames of a waveform that are not silent."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy
from numpy.lib.stride_tricks import sliding_window_view

from mvemo.extract.errors import BadMedia
from mvemo.manifests.array_files import release
from mvemo.manifests.array_types import F32, F64, Ints
from mvemo.manifests.declared import check_settings, setting
from mvemo.manifests.errors import BadOption

# Names of settings in feature caches. They stay, because new names would change the cache keys.
_RECORDED_NAMES = {"silence_db": "mute_db"}
# Coefficients of the windows that are sums of cosines (Harris 1978).
_COSINES = {"hann": (0.5, 0.5), "blackmanharris": (0.35875, 0.48829, 0.14128, 0.01168)}
# Descriptors with the spectrogram's framing.
SPECTROGRAM = ("spectrogram", "spectrogram_times")
# Upper end of the formants' range in Hz, if half the sampling rate is not lower.
FORMANT_RANGE = 5500.0
# Sound is decoded to [-1, 1]. The powers of much larger samples would overflow float32.
MAX_PEAK = 32_768.0
# Number of samples processed at once: 64 frames of 2,048 samples, or half a MiB, fit into a CPU
# core's cache.
BLOCK_SAMPLES = 64 * 2048
# Number of samples after which the memory of a mapped file is released.
PART_SAMPLES = 1 << 22


@dataclass(frozen=True)
class DescriptorSettings:
    """Settings of all descriptors of a clip; only the spectrogram has a separate framing.

    The defaults of the framing are those of J22 2.2.1: frames of 2,048 samples at 44.1 kHz (46 ms)
    that overlap by half, with the Blackman-Harris window. For the spectrogram, J22 2.3.1 gives
    frames of 10 to 30 ms; 1,024 samples are 23 ms. J22 does not give the other values. A value
    out of range raises `BadOption`.

    Examples
    --------
    >>> DescriptorSettings(sr=16000, n_fft=512, hop_length=256, n_mels=40).n_mfcc
    20
    """

    # Set by `RunSettings.level`; it is recorded, but `describe` takes sound as it is.
    level: float = setting(-23.0, profile=False)
    sr: int = setting(44_100, "Sampling rate in Hz.", ge=4000, le=384_000)
    n_fft: int = setting(2048, "Frame length in samples, even.", ge=64, le=1 << 16)
    hop_length: int = setting(1024, "Step between frames in samples, at most `n_fft`.", ge=1)
    spectrogram_n_fft: int = setting(
        1024, "Frame length of the spectrogram in samples, even.", ge=64, le=1 << 16
    )
    spectrogram_hop_length: int = setting(512, "Step between frames of the spectrogram.", ge=1)
    window: str = setting("blackmanharris", "Window of `scipy.signal.get_window`.")
    # J22 3.1, Fig. 6, calls these frames "mute frames".
    silence_db: float = setting(
        -60.0, "RMS in dB below which a frame is silent and dropped.", ge=-200, le=0
    )
    n_mels: int = setting(64, "Mel bands from 0 Hz to half of `sr` (J22 2.2.1).", ge=1, le=4096)
    n_mfcc: int = setting(20, "Cepstral coefficients, at most `n_mels`.", ge=1)
    lpc_order: int = setting(16, "Order of the linear prediction (J22 eq. 1).", ge=1, le=64)
    alpha: float = setting(0.5, "Weight of RP in `mfcc_rp`; 0 for MFCC only.", ge=0, le=1)
    # Periods longer than half a frame cannot be found.
    f0_min: float = setting(55.0, "Lowest fundamental frequency in Hz.", ge=1)
    f0_max: float = setting(2000.0, "Highest fundamental frequency in Hz, at most `sr / 4`.", ge=1)
    # The period itself is chosen with YIN's threshold of 0.1, see `voice.DIP`.
    f0_threshold: float = setting(
        0.2, "Normalised difference below which a frame is voiced.", ge=0, le=1
    )
    n_formants: int = setting(4, "Formants, at most half of `formant_order`.", ge=1)
    formant_order: int = setting(12, "Order of the prediction for formants.", ge=2, le=64)
    n_bands: int = setting(6, "Octaves of the spectral contrast, above a lowest band.", ge=1, le=16)
    contrast_min: float = setting(200.0, "Lower edge of the lowest octave in Hz.", ge=1)

    def __post_init__(self) -> None:
        check_settings(self)
        # Allowed ranges that depend on other settings.
        ranges = {
            "hop_length": (1, self.n_fft),
            "spectrogram_hop_length": (1, self.spectrogram_n_fft),
            "n_mfcc": (1, self.n_mels),
            "lpc_order": (1, self.n_fft // 4),
            "f0_min": (1.0, self.sr / 2),
            "f0_max": (self.f0_min, self.sr / 4),
            "n_formants": (1, self.formant_order // 2),
            "contrast_min": (1.0, self.sr / 2),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadOption(f"{name} is {value}: it must be {low:g} to {high:g}")
        for name in ("n_fft", "spectrogram_n_fft"):
            if getattr(self, name) % 2:
                raise BadOption(f"{name} is {getattr(self, name)}: it must be even")
        if self.lags[1] < self.lags[0] + 2:
            raise BadOption(
                f"f0_max is {self.f0_max} Hz: it must be higher, because frames of "
                f"{self.n_fft} samples show no frequency below {self.sr / self.lags[1]:.0f} Hz"
            )
        if self.formant_bins <= self.formant_order:
            raise BadOption(
                f"formant_order is {self.formant_order}: it must be below {self.formant_bins}, the "
                f"number of DFT bins in the formant range for frames of {self.n_fft} samples"
            )
        try:
            window_of(self.window, self.n_fft)
        except (ValueError, TypeError) as error:
            raise BadOption(
                f"unknown window {self.window!r}; expected a name for scipy.signal.get_window"
            ) from error

    @property
    def lags(self) -> tuple[int, int]:
        """Shortest and longest period to search, in samples."""
        longest = min(int(np.ceil(self.sr / self.f0_min)), self.n_fft // 2 - 1)
        return max(int(np.floor(self.sr / self.f0_max)), 2), longest

    @property
    def formant_bins(self) -> int:
        return min(int(FORMANT_RANGE * self.n_fft / self.sr), self.n_fft // 2)

    def framed(self, name: str) -> DescriptorSettings:
        """Return the settings with the `n_fft` and `hop_length` of the named descriptor."""
        if name not in SPECTROGRAM:
            return self
        # Copy without checks, because the ranges of other settings depend on the framing.
        framed = copy(self)
        object.__setattr__(framed, "n_fft", self.spectrogram_n_fft)
        object.__setattr__(framed, "hop_length", self.spectrogram_hop_length)
        return framed

    def record(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the named settings as JSON values, by their names in feature caches."""
        values = asdict(self)
        return {_RECORDED_NAMES.get(name, name): values[name] for name in names}


@lru_cache(maxsize=16)
def window_of(name: str, n_fft: int) -> F64:
    """Return a window of ``scipy.signal.get_window``, if possible without its import (0.5 s)."""
    if name not in _COSINES:
        return np.asarray(scipy.signal.get_window(name, n_fft), dtype=np.float64)
    angles = np.linspace(-np.pi, np.pi, n_fft + 1)
    window = np.zeros(n_fft + 1)
    for k, weight in enumerate(_COSINES[name]):
        window += weight * np.cos(k * angles)
    return window[:-1]


@dataclass(frozen=True)
class Frames:
    """Block of frames of one clip."""

    values: F32  # (frames, n_fft), not windowed
    # Samples before each frame, with which linear prediction begins, (frames, lpc_order); zeros
    # before the clip's start.
    before: F32

    def __len__(self) -> int:
        return len(self.values)


def block_frames(settings: DescriptorSettings) -> int:
    return max(BLOCK_SAMPLES // settings.n_fft, 1)


def audible_frames(y: F32, settings: DescriptorSettings) -> Ints:
    """Return the indices of the frames that are not silent, int64 (frames,), ascending."""
    # Silent frames are dropped, not silent samples (J22 3.1, Fig. 6): joining the samples around a
    # gap would cause a click and shift all later times.
    if y.ndim != 1 or len(y) == 0:
        raise BadMedia(f"expected a non-empty mono waveform, got shape {y.shape}")
    ends = []
    for first in range(0, len(y), PART_SAMPLES):
        part = y[first : first + PART_SAMPLES]
        ends += [part.min(), part.max()]
        release(y)
    # The minimum and maximum are NaN if any sample is NaN.
    peak = np.abs(ends).max()
    if not np.isfinite(peak):
        n_bad = np.count_nonzero(~np.isfinite(y))
        raise BadMedia(f"{n_bad} of {len(y)} samples of the sound are NaN or infinite")
    if peak > MAX_PEAK:
        raise BadMedia(
            f"the sound's peak is {peak:.3g} times full scale, expected at most {MAX_PEAK:g}"
        )
    count = 1 + max(0, -(-(len(y) - settings.n_fft) // settings.hop_length))
    size = 16 * block_frames(settings)
    power = np.empty(count)
    for first in range(0, count, size):
        numbers = np.arange(first, min(first + size, count))
        views = _views(y, numbers * settings.hop_length, settings.n_fft)
        power[numbers] = np.einsum("ft,ft->f", views, views) / settings.n_fft
        if _ends_part(first, size, settings):
            release(y)
    audible = np.flatnonzero(power >= 10.0 ** (settings.silence_db / 10.0))
    if len(audible) == 0:
        loudest = 10.0 * np.log10(max(float(power.max()), 1e-30))
        raise BadMedia(
            f"all {count} frames are silent: the loudest has an RMS of {loudest:.0f} dB of full "
            f"scale, expected at least {settings.silence_db:g} dB"
        )
    return audible


def blocks(y: F32, settings: DescriptorSettings, numbers: Ints) -> Iterator[Frames]:
    """Yield the frames with the given indices, in blocks of `block_frames`."""
    size, before = block_frames(settings), settings.lpc_order
    for first in range(0, len(numbers), size):
        start = numbers[first : first + size] * settings.hop_length - before
        values = _views(y, start, before + settings.n_fft)
        yield Frames(values[:, before:], values[:, :before])
        if _ends_part(first, size, settings):
            release(y)


def _ends_part(first: int, size: int, settings: DescriptorSettings) -> bool:
    """Return True if `size` frames from `first` on cross a multiple of `PART_SAMPLES`."""
    hop = settings.hop_length
    return first * hop // PART_SAMPLES != (first + size) * hop // PART_SAMPLES


def _views(y: F32, start: Ints, length: int) -> F32:
    """Return parts of a waveform that begin at `start` (ascending), padded with zeros."""
    low, high = int(start[0]), int(start[-1]) + length
    part = y[max(low, 0) : high]
    if len(part) < high - low:
        # Only blocks at the clip's ends are padded: padding the clip would copy it.
        part = np.pad(part, (max(-low, 0), max(high - len(y), 0)))
    return sliding_window_view(part, length)[start - low]

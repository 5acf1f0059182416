"""Mel filter bank and its settings, without torch, which describing workers do not import."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadSetting


@dataclass(frozen=True)
class MelSettings:
    """Settings that decide the values of a mel spectrogram in decibels."""

    sr: int  # Hz
    n_fft: int = 512  # frame length in samples
    hop_length: int = 256  # step between frames in samples
    n_mels: int = 96
    fmin: float = 0.0  # lower end of the bands in Hz
    fmax: float = 0.0  # upper end in Hz; 0 for half of `sr`
    htk: bool = False  # HTK's mel scale instead of Slaney's, which is linear up to 1 kHz
    norm: Literal["slaney", "none"] = "slaney"  # bands of unit area, or of unit height
    # Frames are centred on multiples of the hop and zero-padded. ``centre`` keeps 1 + samples //
    # hop of them; ``same`` keeps ceil(samples / hop), like a convolution with `same` padding.
    frames: Literal["centre", "same"] = "centre"
    # A periodic Hann window is not symmetric. Theano convolves instead of correlating, so it
    # applies the window reversed in time.
    reverse_window: bool = False
    amin: float = 1e-10  # floor of the power
    dynamic_range: float = 80.0  # decibels below the clip's maximum to which values are raised

    def __post_init__(self) -> None:
        for name in ("sr", "n_fft", "hop_length", "n_mels", "amin", "dynamic_range"):
            if not getattr(self, name) > 0:
                raise BadSetting(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.fmax == 0.0:
            object.__setattr__(self, "fmax", self.sr / 2)
        if not 0 <= self.fmin < self.fmax <= self.sr / 2:
            raise BadSetting(
                f"fmin {self.fmin} and fmax {self.fmax} Hz: they must rise within 0 to "
                f"{self.sr / 2} Hz, half the sampling rate"
            )
        if self.norm not in ("slaney", "none"):
            raise BadSetting(f"norm {self.norm!r} is not known: one of slaney, none")
        if self.frames not in ("centre", "same"):
            raise BadSetting(f"frames {self.frames!r} is not known: one of centre, same")

    def n_frames(self, samples: int) -> int:
        """Return the number of frames of a waveform of this many samples."""
        if self.frames == "centre":
            return 1 + samples // self.hop_length
        return -(-samples // self.hop_length)

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values."""
        return {**asdict(self), "window": "hann", "power": 2, "reference": "clip maximum"}


def mel_filter_bank(settings: MelSettings) -> NDArray[np.float64]:
    """Return triangular mel bands over the bins of a DFT.

    Descriptors and nets share this filter bank. Its values are librosa's, bit for bit; the
    import of librosa would add a second to each prediction.

    Parameters
    ----------
    settings
        Settings of the spectrogram; only `sr`, `n_fft`, `n_mels`, `fmin`, `fmax`, `htk` and
        `norm` matter here.

    Returns
    -------
    Filter bank, float64 (n_fft // 2 + 1, n_mels), 0 or more. A band that lies between two bins
    is all 0.

    See Also
    --------
    mvemo.extract.descriptors.spectral.filter_banks : Filter banks of the descriptors.
    librosa.filters.mel : The same filter bank.

    Examples
    --------
    >>> bank = mel_filter_bank(MelSettings(sr=16000, n_fft=512, n_mels=96))
    >>> bank.shape
    (257, 96)

    With ``norm="none"`` the bands have unit height, and neighbouring bands sum to 1:

    >>> flat = mel_filter_bank(MelSettings(sr=16000, n_mels=8, norm="none"))
    >>> bool(np.allclose(flat.sum(axis=1)[20:180], 1.0))
    True
    """
    hz = np.fft.rfftfreq(settings.n_fft, 1.0 / settings.sr)
    low, high = (_mel_of(np.array(f), htk=settings.htk) for f in (settings.fmin, settings.fmax))
    edges = _hz_of(np.linspace(low, high, settings.n_mels + 2), htk=settings.htk)
    ramps = np.subtract.outer(edges, hz)
    widths = np.diff(edges)
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    bank: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    if settings.norm == "slaney":
        bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    # Adding 0.0 turns -0.0 into 0.0: the bytes count in a net's digest.
    return np.ascontiguousarray(bank.T) + 0.0


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz (15 mel), then 27 steps to 6.4 kHz.
_LINEAR_HZ, _BREAK_HZ = 200.0 / 3, 1000.0
_BREAK_MEL, _LOG_STEP = _BREAK_HZ / _LINEAR_HZ, np.log(6.4) / 27.0


def _mel_of(hz: NDArray[np.float64], *, htk: bool) -> NDArray[np.float64]:
    """Convert Hz to mel, on HTK's or Slaney's scale."""
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0), dtype=np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz >= _BREAK_HZ, above, hz / _LINEAR_HZ)


def _hz_of(mel: NDArray[np.float64], *, htk: bool) -> NDArray[np.float64]:
    """Convert mel to Hz."""
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0), dtype=np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel >= _BREAK_MEL, above, _LINEAR_HZ * mel)

"""The mel filter bank and its settings, without torch: workers that describe have none."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadSetting


@dataclass(frozen=True)
class MelSettings:
    """Everything that decides a mel spectrogram in decibel.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    n_fft, hop_length
        Frame and step in samples.
    n_mels, fmin, fmax
        Number of mel bands, and the range in Hz that they cover.
    htk
        HTK's mel scale; else Slaney's, which is linear up to 1 kHz.
    norm
        ``slaney``: bands of unit area; ``none``: bands of unit height.
    frames
        Frames are centred on multiples of the hop and zero-padded. ``centre`` keeps all,
        1 + samples // hop; ``same`` keeps ceil(samples / hop), as a convolution with
        `same` padding does.
    reverse_window
        Reverse the window in time. A periodic Hann window is not symmetric, and Theano,
        which convolves in place of correlating, applies it reversed.
    amin
        Power below this counts as this.
    dynamic_range
        In decibel; values further below the clip's maximum are raised to it.
    """

    sr: int
    n_fft: int = 512
    hop_length: int = 256
    n_mels: int = 96
    fmin: float = 0.0
    fmax: float = 0.0
    htk: bool = False
    norm: Literal["slaney", "none"] = "slaney"
    frames: Literal["centre", "same"] = "centre"
    reverse_window: bool = False
    amin: float = 1e-10
    dynamic_range: float = 80.0

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
        """Frames of a waveform of this many samples."""
        if self.frames == "centre":
            return 1 + samples // self.hop_length
        return -(-samples // self.hop_length)

    def record(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {**asdict(self), "window": "hann", "power": 2, "reference": "clip maximum"}


def mel_filter_bank(settings: MelSettings) -> NDArray[np.float64]:
    """Triangular mel bands over the bins of a DFT.

    The only one of this project: descriptors and nets use it alike. It is librosa's to the
    bit, whose import takes a second of a prediction.

    Parameters
    ----------
    settings
        Of the spectrogram; `hop_length`, `frames`, `amin` and the like have no say in it.

    Returns
    -------
    float64 (n_fft // 2 + 1, n_mels), 0 or more; bands between two bins are 0 throughout.

    See Also
    --------
    mvemo.extract.descriptors.filter_banks.filter_banks : Of all descriptors at once.
    librosa.filters.mel : The same.

    Examples
    --------
    >>> bank = mel_filter_bank(MelSettings(sr=16000, n_fft=512, n_mels=96))
    >>> bank.shape
    (257, 96)

    With ``norm="none"`` bands are of unit height, and neighbours sum to 1:

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
    # What is -0.0: added zeros make it 0.0, as the bytes count in a net's digest.
    return np.ascontiguousarray(bank.T) + 0.0


# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, 15 mel; 27 steps to 6.4 kHz.
_LINEAR_HZ, _BREAK_HZ = 200.0 / 3, 1000.0
_BREAK_MEL, _LOG_STEP = _BREAK_HZ / _LINEAR_HZ, np.log(6.4) / 27.0


def _mel_of(hz: NDArray[np.float64], *, htk: bool) -> NDArray[np.float64]:
    """HTK's or Slaney's mel of frequencies in Hz."""
    if htk:
        return np.asarray(2595.0 * np.log10(1.0 + hz / 700.0), dtype=np.float64)
    above = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz >= _BREAK_HZ, above, hz / _LINEAR_HZ)


def _hz_of(mel: NDArray[np.float64], *, htk: bool) -> NDArray[np.float64]:
    """The way back."""
    if htk:
        return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0), dtype=np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel >= _BREAK_MEL, above, _LINEAR_HZ * mel)

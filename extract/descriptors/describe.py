"""All descriptors of a clip over one set of frames, and their records in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mvemo.cache.spec import FeatureSpec
from mvemo.extract.arrays import F32
from mvemo.extract.descriptors.filter_banks import FilterBanks, filter_banks
from mvemo.extract.descriptors.frames import Frames, audible_frames, blocks
from mvemo.extract.descriptors.pitch import fundamental
from mvemo.extract.descriptors.prediction import (
    formants,
    prediction_coefficients,
    residual,
    residual_phase,
)
from mvemo.extract.descriptors.settings import DescriptorSettings
from mvemo.extract.descriptors.spectral import (
    cepstrum,
    chroma,
    decibel,
    mel_level,
    power_spectrum,
    spectral_contrast,
)
from mvemo.extract.errors import BadSetting

# Rises whenever the same settings would give other values.
VERSION = 1


class _Block:
    """Some frames, and what several descriptors need of them, computed once."""

    def __init__(
        self, frames: Frames, settings: DescriptorSettings, banks: FilterBanks | None
    ) -> None:
        self.frames = frames
        self.settings = settings
        self._banks = banks

    @property
    def banks(self) -> FilterBanks:
        # Not needed by every descriptor.
        return filter_banks(self.settings) if self._banks is None else self._banks

    @cached_property
    def power(self) -> F32:
        return power_spectrum(self.frames.values, self.settings)

    @cached_property
    def mel(self) -> F32:
        return mel_level(self.power, self.banks.mel)

    @cached_property
    def mfcc(self) -> F32:
        return cepstrum(self.mel, self.settings.n_mfcc)

    @cached_property
    def rp(self) -> F32:
        settings = self.settings
        error = residual(self.frames, prediction_coefficients(self.frames, settings))
        phase = power_spectrum(residual_phase(error), settings)
        return cepstrum(mel_level(phase, self.banks.mel), settings.n_mfcc)

    @property
    def mfcc_rp(self) -> F32:
        weight = np.float32(self.settings.alpha)
        combined: F32 = (1 - weight) * self.mfcc + weight * self.rp
        return combined


@dataclass(frozen=True)
class _Descriptor:
    """Columns of a descriptor, the settings that decide it besides the framing, its values."""

    dim: Callable[[DescriptorSettings], int]
    settings: tuple[str, ...]
    values: Callable[[_Block], F32]


_FRAMING = ("sr", "n_fft", "hop_length", "window", "silence_db")
_DESCRIPTORS = {
    "mel": _Descriptor(lambda s: s.n_mels, ("n_mels",), lambda b: b.mel),
    "spectrogram": _Descriptor(lambda s: s.n_fft // 2 + 1, (), lambda b: decibel(b.power)),
    "mfcc": _Descriptor(lambda s: s.n_mfcc, ("n_mels", "n_mfcc"), lambda b: b.mfcc),
    "rp": _Descriptor(lambda s: s.n_mfcc, ("n_mels", "n_mfcc", "lpc_order"), lambda b: b.rp),
    "mfcc_rp": _Descriptor(
        lambda s: s.n_mfcc, ("n_mels", "n_mfcc", "lpc_order", "alpha"), lambda b: b.mfcc_rp
    ),
    "f0": _Descriptor(
        lambda s: 2,
        ("f0_min", "f0_max", "f0_threshold"),
        lambda b: fundamental(b.frames.values, b.settings),
    ),
    "formants": _Descriptor(
        lambda s: 2 * s.n_formants,
        ("n_formants", "formant_order"),
        lambda b: formants(b.power, b.settings),
    ),
    "contrast": _Descriptor(
        lambda s: s.n_bands + 1,
        ("n_bands", "contrast_min"),
        lambda b: spectral_contrast(b.power, b.settings),
    ),
    "chroma": _Descriptor(lambda s: 12, (), lambda b: chroma(b.power, b.banks.chroma)),
}
TIMES = ("times", "spectrogram_times")
DESCRIPTORS = (*_DESCRIPTORS, *TIMES)


def dim_of(name: str, settings: DescriptorSettings) -> int:
    """Columns of a descriptor.

    Raises
    ------
    BadSetting
        No descriptor has this name.

    Examples
    --------
    >>> dim_of("mel", DescriptorSettings()), dim_of("formants", DescriptorSettings())
    (64, 8)
    """
    _check_name(name)
    return 1 if name in TIMES else _DESCRIPTORS[name].dim(settings.framed(name))


def descriptor_spec(name: str, settings: DescriptorSettings) -> FeatureSpec:
    """What the cache records of a descriptor: only the settings that decide its values.

    Raises
    ------
    BadSetting
        No descriptor has this name.

    Examples
    --------
    >>> spec = descriptor_spec("f0", DescriptorSettings())
    >>> spec.kind, spec.dim
    ('sequence', 2)
    >>> sorted(spec.params)[:3]
    ['f0_max', 'f0_min', 'f0_threshold']
    """
    _check_name(name)
    deciding = _FRAMING + (() if name in TIMES else _DESCRIPTORS[name].settings)
    return FeatureSpec(
        name=name,
        modality="audio",
        kind="sequence",
        dim=dim_of(name, settings),
        extractor=f"descriptor:{name}",
        version=VERSION,
        params=settings.framed(name).record(deciding),
    )


def describe(
    y: F32,
    settings: DescriptorSettings,
    names: Iterable[str],
    *,
    banks: FilterBanks | None = None,
) -> dict[str, F32]:
    """Descriptors of a clip, one row for each frame that is not silent.

    ``spectrogram`` and ``spectrogram_times`` have frames of their own.

    Frames are worked on some tens at a time, so that memory beyond the results does not
    grow with the clip.

    Parameters
    ----------
    y
        float32 (samples,), mono, at ``settings.sr``; full scale is 1.
    settings
        Of all of them.
    names
        Of `DESCRIPTORS`.
    banks
        ``filter_banks(settings)``; computed where it is not given.

    Returns
    -------
    float32 (frames, dim) by name, finite throughout:

    ``mel``
        Decibel of the mel bands (J22 2.2.1), floored at -100; 0 dB is a power of 1.
    ``spectrogram``
        Decibel of the power spectrum, floored at -100, from 0 Hz up.
    ``mfcc``
        Orthonormal DCT-II of ``mel``, the first `n_mfcc` from the 0th (J22 2.2.1).
    ``rp``
        The residual phase's cosine (J22 eq. 5) through the same window, mel bands, decibel
        and DCT as the sound itself: the mel cepstrum of RP (J22 2.2.2).
    ``mfcc_rp``
        ``(1 - alpha) mfcc + alpha rp``: the cepstrum of the weighted geometric mean of
        the two mel spectra.
    ``f0``
        Fundamental frequency in Hz, 0 where unvoiced, and voicing in [0, 1].
    ``formants``
        Frequencies in Hz, rising, then bandwidths in Hz; 0 where a frame has fewer.
    ``contrast``
        Octave-based spectral contrast.
    ``chroma``
        Energy by pitch class from C, the largest 1; 0 in frames without energy.
    ``times``, ``spectrogram_times``
        Centre of the frame in seconds from the waveform's start.

    Raises
    ------
    BadMedia
        The waveform is empty, not finite, or silent throughout.
    BadSetting
        No descriptor has one of the names.

    See Also
    --------
    mvemo.extract.media.reading.decode_clip : Waveforms of media files.

    Examples
    --------
    One second of a tone of 440 Hz, and half a second of silence, which has no frames:

    >>> import numpy as np
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    >>> y = np.concatenate([0.5 * tone, np.zeros(8000)]).astype(np.float32)
    >>> settings = DescriptorSettings(sr=16000, n_fft=1024, hop_length=512)
    >>> sequences = describe(y, settings, ["mfcc", "f0", "chroma", "times"])
    >>> {name: values.shape for name, values in sequences.items()}
    {'mfcc': (32, 20), 'f0': (32, 2), 'chroma': (32, 12), 'times': (32, 1)}
    >>> round(float(np.median(sequences["f0"][:, 0])))
    440

    The pitch class A is the tenth from C:

    >>> int(sequences["chroma"].mean(axis=0).argmax())
    9
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        _check_name(name)
    # Of a subclass, too: what is mapped from a file is let go of on the way.
    y = np.asanyarray(y, dtype=np.float32)
    by_framing: dict[DescriptorSettings, list[str]] = {}
    for name in names:
        by_framing.setdefault(settings.framed(name), []).append(name)
    values: dict[str, F32] = {}
    for framed, alike in by_framing.items():
        values |= _describe_framed(y, framed, alike, banks)
    return {name: values[name] for name in names}


def _describe_framed(
    y: F32, settings: DescriptorSettings, names: Sequence[str], banks: FilterBanks | None
) -> dict[str, F32]:
    """Descriptors that share their frames."""
    numbers = audible_frames(y, settings)
    computed = [name for name in names if name in _DESCRIPTORS]
    out: dict[str, F32] = {}
    for name in names:
        dim = _DESCRIPTORS[name].dim(settings) if name in computed else 1
        out[name] = np.empty((len(numbers), dim), np.float32)
        if name not in computed:
            centre = (numbers * settings.hop_length + settings.n_fft / 2) / settings.sr
            out[name][:, 0] = centre
    first = 0
    for frames in blocks(y, settings, numbers) if computed else ():
        block = _Block(frames, settings, banks)
        for name in computed:
            out[name][first : first + len(frames)] = _DESCRIPTORS[name].values(block)
        first += len(frames)
    return out


def _check_name(name: str) -> None:
    if name not in DESCRIPTORS:
        raise BadSetting(f"descriptor {name!r} is not known: one of {', '.join(DESCRIPTORS)}")

"""Descriptors of a clip, and their specifications in the cache."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mvemo.cache.spec import FeatureSpec
from mvemo.extract.descriptors import framing, spectral, voice
from mvemo.extract.media.loudness import LoudnessMeter
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import offered, plugin_record, plugins, reserve

# Increase this number when the same settings would give other values.
VERSION = 1
# Integrated loudness of the sound, before it is brought to a level.
LOUDNESS = "loudness"


@dataclass
class _Block:
    """Block of frames, with intermediate results that several descriptors use."""

    frames: framing.Frames
    settings: framing.DescriptorSettings
    banks: spectral.FilterBanks

    @cached_property
    def power(self) -> F32:
        return spectral.power_spectrum(self.frames.values, self.settings)

    @cached_property
    def mel(self) -> F32:
        return spectral.decibel(self.power @ self.banks.mel)

    @cached_property
    def mfcc(self) -> F32:
        return spectral.cepstrum(self.mel, self.settings.n_mfcc)

    @cached_property
    def rp(self) -> F32:
        windowed = self.frames.values * framing.window_of(self.settings.window, self.settings.n_fft)
        r = voice.autocorrelation(windowed, self.settings.lpc_order)
        error = voice.residual(self.frames, voice.levinson(r))
        phase = spectral.power_spectrum(voice.residual_phase(error), self.settings)
        return spectral.cepstrum(spectral.decibel(phase @ self.banks.mel), self.settings.n_mfcc)

    @property
    def mfcc_rp(self) -> F32:
        weight = np.float32(self.settings.alpha)
        return (1 - weight) * self.mfcc + weight * self.rp


@dataclass(frozen=True)
class _Descriptor:
    dim: Callable[[framing.DescriptorSettings], int]  # number of columns
    settings: tuple[str, ...]  # settings that affect the values, in addition to the framing
    values: Callable[[_Block], F32]  # computes the values, (frames, dim)


@dataclass(frozen=True)
class Descriptor:
    """Descriptor of a plug-in.

    Parameters
    ----------
    dim
        Number of columns.
    values
        Function of audible frames, float32 (frames, n_fft), and their sampling rate in Hz. It
        returns float32 (frames, dim).

    Examples
    --------
    >>> import numpy as np
    >>> peak = Descriptor(1, lambda frames, sr: np.abs(frames).max(axis=1, keepdims=True))
    >>> peak.values(np.ones((3, 4), np.float32), 16000).shape
    (3, 1)
    """

    dim: int
    values: Callable[[F32, int], F32]


_FRAMING = ("sr", "level", "n_fft", "hop_length", "window", "silence_db")
_DESCRIPTORS = {
    "mel": _Descriptor(lambda s: s.n_mels, ("n_mels",), lambda b: b.mel),
    "spectrogram": _Descriptor(lambda s: s.n_fft // 2 + 1, (), lambda b: spectral.decibel(b.power)),
    "mfcc": _Descriptor(lambda s: s.n_mfcc, ("n_mels", "n_mfcc"), lambda b: b.mfcc),
    "rp": _Descriptor(lambda s: s.n_mfcc, ("n_mels", "n_mfcc", "lpc_order"), lambda b: b.rp),
    "mfcc_rp": _Descriptor(
        lambda s: s.n_mfcc, ("n_mels", "n_mfcc", "lpc_order", "alpha"), lambda b: b.mfcc_rp
    ),
    "f0": _Descriptor(
        lambda s: 2,
        ("f0_min", "f0_max", "f0_threshold"),
        lambda b: voice.fundamental(b.frames.values, b.settings),
    ),
    "formants": _Descriptor(
        lambda s: 2 * s.n_formants,
        ("n_formants", "formant_order"),
        lambda b: voice.formants(b.power, b.settings),
    ),
    "contrast": _Descriptor(
        lambda s: s.n_bands + 1,
        ("n_bands", "contrast_min"),
        lambda b: spectral.spectral_contrast(b.power, b.settings),
    ),
    "chroma": _Descriptor(lambda s: 12, (), lambda b: spectral.chroma(b.power, b.banks.chroma)),
}
TIMES = ("times", "spectrogram_times")
DESCRIPTORS = reserve("descriptors", (*_DESCRIPTORS, *TIMES, LOUDNESS))


def dim_of(name: str, settings: framing.DescriptorSettings) -> int:
    found = _descriptor(name)
    return 1 if found is None else found.dim(settings.framed(name))


def descriptor_spec(name: str, settings: framing.DescriptorSettings) -> FeatureSpec:
    """Return a descriptor's specification for the cache, with the settings that affect its values.

    Parameters
    ----------
    name
        One of `DESCRIPTORS`.
    settings
        Settings of all descriptors.

    Raises
    ------
    BadOption
        If the name is not one of `DESCRIPTORS`.

    Examples
    --------
    >>> spec = descriptor_spec("f0", framing.DescriptorSettings())
    >>> spec.kind, spec.dim, sorted(spec.params)[:2]
    ('sequence', 2, ['f0_max', 'f0_min'])
    """
    found = _descriptor(name)
    deciding: tuple[str, ...] = () if name == LOUDNESS else _FRAMING
    deciding += () if found is None else found.settings
    return FeatureSpec(
        name=name,
        modality="audio",
        kind="sequence",
        dim=dim_of(name, settings),
        extractor=f"descriptor:{name}",
        version=VERSION,
        params={
            **settings.framed(name).record(deciding),
            **plugin_record("descriptors", name),
        },
    )


def describe(
    y: F32,
    settings: framing.DescriptorSettings,
    names: Iterable[str],
    *,
    banks: spectral.FilterBanks | None = None,
) -> dict[str, F32]:
    """Compute descriptors of a clip, one row for each frame that is not silent.

    Memory use, apart from the results, does not grow with the clip.

    Parameters
    ----------
    y
        Mono waveform at ``settings.sr``, float32 (samples,); full scale is 1. It is described as it
        is; `mvemo.extract.media.reading.decode_clip` brings it to ``settings.level``.
    settings
        Settings of all descriptors.
    names
        Names from `DESCRIPTORS`.
    banks
        Result of ``filter_banks(settings)``; computed if not given.

    Returns
    -------
    Sequences by name, float32 (frames, dim), all values finite:

    ``mel``, ``spectrogram``
        Levels of the mel bands (J22 2.2.1), or of the power spectrum from 0 Hz upwards, in
        decibels, at least -100; 0 dB is a power of 1. Only the spectrogram and its times have
        another framing.
    ``mfcc``
        First `n_mfcc` coefficients of the orthonormal DCT-II of ``mel`` (J22 2.2.1).
    ``rp``
        Mel cepstrum, like ``mfcc``, of the residual phase's cosine (J22 eq. 5; 2.2.2).
    ``mfcc_rp``
        ``(1 - alpha) mfcc + alpha rp``.
    ``f0``
        Fundamental frequency in Hz, 0 if the frame is unvoiced, and voicing in [0, 1].
    ``formants``
        Frequencies in Hz, ascending, then bandwidths in Hz; 0 if a frame has fewer formants.
    ``contrast``
        Octave-based spectral contrast.
    ``chroma``
        Energy by pitch class from C, with a maximum of 1; 0 in frames without energy.
    ``times``, ``spectrogram_times``
        Centre of the frame in seconds from the waveform's start.
    ``loudness``
        Integrated loudness in LUFS (ITU-R BS.1770) in a single row. In feature files it is that of
        the media file, before it is brought to a level.

    Raises
    ------
    BadMedia
        If the waveform is empty, not finite, or completely silent.
    BadOption
        If a name is not one of `DESCRIPTORS`.

    See Also
    --------
    mvemo.extract.media.reading.decode_clip : Decode the waveform of a media file.

    Examples
    --------
    One second of a tone of 440 Hz, then half a second of silence, which gives no frames:

    >>> import numpy as np
    >>> tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    >>> y = np.concatenate([0.5 * tone, np.zeros(8000)]).astype(np.float32)
    >>> settings = framing.DescriptorSettings(sr=16000, n_fft=1024, hop_length=512)
    >>> sequences = describe(y, settings, ["mfcc", "f0"])
    >>> sequences["mfcc"].shape, round(float(np.median(sequences["f0"][:, 0])))
    ((32, 20), 440)
    """
    names = tuple(dict.fromkeys(names))
    # Keep the subclass `numpy.memmap`, because a mapped file is released part by part.
    y = np.asanyarray(y, dtype=np.float32)
    by_framing: dict[framing.DescriptorSettings, list[str]] = {}
    values = {}
    found = {name: _descriptor(name) for name in names}
    for name in names:
        by_framing.setdefault(settings.framed(name), []).append(name)
    for framed, alike in by_framing.items():
        numbers = framing.audible_frames(y, framed)
        centres = (numbers * framed.hop_length + framed.n_fft / 2) / framed.sr
        computed = {name: each for name in alike if (each := found[name]) is not None}
        for name in alike:
            values[name] = centres.astype(np.float32)[:, None]
        for name in computed:
            values[name] = np.empty((len(numbers), dim_of(name, settings)), np.float32)
        first = 0
        for frames in framing.blocks(y, framed, numbers) if computed else ():
            block = _Block(frames, framed, banks or spectral.filter_banks(framed))
            for name, each in computed.items():
                values[name][first : first + len(frames)] = each.values(block)
            first += len(frames)
    if LOUDNESS in names:
        meter = LoudnessMeter(settings.sr)
        for part in np.array_split(y, len(y) // framing.PART_SAMPLES + 1):
            meter.add(part)
        values[LOUDNESS] = np.array([[meter.integrated]], dtype=np.float32)
    return {name: values[name] for name in names}


def _descriptor(name: str) -> _Descriptor | None:
    """Return a descriptor that is computed from blocks; None for times and loudness."""
    if name in DESCRIPTORS:
        return _DESCRIPTORS.get(name)
    plugin = plugins("descriptors").get(name)
    if plugin is None:
        names = ", ".join(offered(DESCRIPTORS, "descriptors"))
        raise BadOption(f"unknown descriptor {name!r}; expected one of {names}")
    plugged: Descriptor = plugin.load(
        lambda value: (
            "" if isinstance(value, Descriptor) else f"expected a Descriptor, got {value!r}"
        )
    )

    def values(block: _Block) -> F32:
        shape = len(block.frames), plugged.dim
        try:
            found = np.asarray(plugged.values(block.frames.values, block.settings.sr), np.float32)
        except Exception as error:
            raise plugin.failure(f"{type(error).__name__}: {error}") from error
        if found.shape != shape or not np.isfinite(found).all():
            raise plugin.failure(
                f"expected finite values of shape {shape}, got shape {found.shape} with "
                f"{np.count_nonzero(~np.isfinite(found))} that are not finite"
            )
        return found

    return _Descriptor(lambda settings: plugged.dim, (), values)

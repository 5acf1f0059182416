"""Front ends against librosa, and against a plain sum over the DFT's definition."""

import librosa
import numpy as np
import pytest
import torch

from mvemo.extract.errors import BadSetting, BadWeights
from mvemo.extract.mel import MelSettings
from mvemo.extract.nets.music2d import C17, C17_SECONDS, PL20, PL20_SECONDS, MelSpectrogram
from mvemo.extract.nets.parts.layers import fit_waveform


def sound(samples: int, sr: int, seed: int = 0) -> np.ndarray:
    """A gliding tone in noise, with a loud and a silent stretch."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / sr
    wave = 0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.01 * rng.normal(size=samples)
    wave[samples // 3 : samples // 2] = 0
    return wave.astype(np.float32)


def plain_mel(wave: np.ndarray, settings: MelSettings, window: np.ndarray) -> np.ndarray:
    """float64, by matrix products with the DFT's definition."""
    n, hop = settings.n_fft, settings.hop_length
    padded = np.pad(wave.astype(np.float64), n // 2)
    frames = np.stack([padded[i * hop : i * hop + n] for i in range(settings.n_frames(len(wave)))])
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n // 2 + 1)) / n
    power = ((frames * window) @ np.cos(angle)) ** 2 + ((frames * window) @ np.sin(angle)) ** 2
    bank = librosa.filters.mel(
        sr=settings.sr, n_fft=n, n_mels=settings.n_mels, fmax=settings.fmax, dtype=np.float64
    )
    decibel = 10 * np.log10(np.maximum(bank @ power.T, 1e-10))
    return np.maximum(decibel - decibel.max(), -80)


def test_published_sizes():
    for mel, seconds, shape in ((PL20, PL20_SECONDS, (96, 1876)), (C17, C17_SECONDS, (96, 1360))):
        wave = torch.from_numpy(sound(round(mel.sr * seconds), mel.sr))
        assert MelSpectrogram(mel)(wave[None]).shape == (1, *shape)


# Float32 against float64: errors below 1e-3 dB, even 80 dB below the maximum.
def test_pl20_against_librosa():
    wave = sound(40000, 16000)
    power = librosa.feature.melspectrogram(
        y=wave.astype(np.float64), sr=16000, n_fft=512, hop_length=256, n_mels=96
    )
    theirs = librosa.power_to_db(power, ref=np.max, top_db=80)
    ours = MelSpectrogram(PL20)(torch.from_numpy(wave)[None])[0].numpy()
    # librosa takes the floor before the reference; both are far below -80 dB here.
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_c17_against_its_definition():
    wave = sound(30001, 12000)
    # A periodic Hann window reversed in time starts one sample later.
    window = np.sin(np.pi * (np.arange(512) + 1) / 512) ** 2
    ours = MelSpectrogram(C17)(torch.from_numpy(wave)[None])[0].numpy()
    assert ours.shape == (96, 118)
    np.testing.assert_allclose(ours, plain_mel(wave, C17, window), atol=1e-3)


def test_a_batch_is_its_clips_and_only_loudness_is_lost():
    front = MelSpectrogram(C17)
    waves = torch.stack([torch.from_numpy(sound(9000, 12000, seed)) for seed in range(3)])
    waves[1] *= 0.1
    together = front(waves)
    for one, row in zip(waves, together, strict=True):
        torch.testing.assert_close(front(one[None])[0], row, rtol=0, atol=1e-4)
    torch.testing.assert_close(front(waves[:1] * 0.5)[0], together[0], rtol=0, atol=1e-3)


def test_silence_is_finite():
    assert (MelSpectrogram(PL20)(torch.zeros(1, 4000)) == 0).all()


def test_half_precision_does_not_reach_the_front_end():
    front, wave = MelSpectrogram(C17), torch.from_numpy(sound(9000, 12000))[None]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = front(wave)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, front(wave), rtol=0, atol=0)


@pytest.mark.parametrize(("length", "samples"), [(0, 5), (3, 5), (5, 5), (8, 5)])
def test_fitted_waveforms(length, samples):
    wave = torch.arange(1.0, length + 1)
    row = fit_waveform(wave[None], samples)[0]
    assert row.shape == (samples,)
    assert torch.equal(row[:length], wave[:samples])
    assert not row[length:].any()


def test_a_length_out_of_range():
    with pytest.raises(BadSetting, match="samples is 0"):
        fit_waveform(torch.zeros(3), 0)


def kernels(sign: float = 1.0):
    n = np.arange(512)
    window = np.hanning(513)[:512]
    angle = 2 * np.pi * np.outer(n, np.arange(257)) / 512
    real, imag = window[:, None] * np.cos(angle), sign * window[:, None] * np.sin(angle)
    bank = np.random.default_rng(0).uniform(size=(257, 96))
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (real, imag, bank))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_kernels_give_window_and_bank(sign):
    front = MelSpectrogram(C17)
    real, imag, bank = kernels(sign)
    assert front.load_kernels(real[:, None, None], imag[:, None, None], bank) < 1e-7
    torch.testing.assert_close(front.window.flip(0), real[:, 0])
    torch.testing.assert_close(front.filterbank, bank)


def test_kernels_that_are_no_windowed_dft():
    front = MelSpectrogram(C17)
    real, imag, bank = kernels()
    bent = real.clone()
    bent[100, 3] += 1e-3
    with pytest.raises(BadWeights, match="from a windowed DFT"):
        front.load_kernels(bent, imag, bank)
    with pytest.raises(BadWeights, match="filterbank has shape"):
        front.load_kernels(real, imag, bank[:, :40])


def test_released_kernels_are_a_hann_windowed_dft(shared_data):
    from mvemo.extract.nets.parts.weights import read_weight_file

    tensors, _ = read_weight_file(shared_data / "choi2017" / "msd_compact_cnn_theano.hdf5")
    computed, released = MelSpectrogram(C17), MelSpectrogram(C17)
    assert released.load_kernels(*(tensors[f"melgram/param_{i}"] for i in range(3))) < 1e-7
    torch.testing.assert_close(released.window, computed.window, rtol=0, atol=1e-7)
    torch.testing.assert_close(released.filterbank, computed.filterbank, rtol=0, atol=1e-8)

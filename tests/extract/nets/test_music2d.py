"""The 2D music net against a forward pass in NumPy and SciPy, with made and released weights."""

import functools

import h5py
import librosa
import numpy as np
import pytest
import torch
from media_samples import resampled
from scipy.signal import convolve2d

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import build_net
from mvemo.extract.nets.music2d import C17, PL20, MelSpectrogram
from mvemo.extract.nets.parts.weights import load_weights, read_weight_file

POOLS = [(2, 4), (3, 4), (2, 5), (2, 4), (4, 4)]


def plain_features(tensors, wave):
    """C17's net in float64 from Theano's tensors: true convolutions, plain sums of the DFT."""
    get = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
    padded = np.pad(wave.astype(np.float64), 256)
    n_frames = -(-len(wave) // 256)
    frames = np.stack([padded[i * 256 : i * 256 + 512] for i in range(n_frames)])
    # A convolution runs through its kernel backwards.
    real, imag = (get[f"melgram/param_{i}"].squeeze()[::-1] for i in (0, 1))
    mel = (((frames @ real) ** 2 + (frames @ imag) ** 2) @ get["melgram/param_2"]).T
    x = 10 * np.log10(np.maximum(mel, 1e-10))
    x = np.maximum(x - x.max(), -80)[None]
    features = []
    for i, (bands, steps) in enumerate(POOLS, start=1):
        kernel = get[f"ConvBNEluDr/convolution2d_{i}_W"]
        bias = get[f"ConvBNEluDr/convolution2d_{i}_b"]
        maps = [sum(map(functools.partial(convolve2d, mode="same"), x, each)) for each in kernel]
        y = np.stack(maps) + bias[:, None, None]
        y -= y.mean((1, 2), keepdims=True)
        y /= np.sqrt(y.var((1, 2), keepdims=True) + 1e-3)
        gamma, beta = (get[f"ConvBNEluDr/batchnormalization_{i}_{k}"] for k in ("gamma", "beta"))
        y = y * gamma[:, None, None] + beta[:, None, None]
        y = np.where(y > 0, y, np.expm1(np.minimum(y, 0)))
        steps = min(steps, y.shape[2])
        rows, columns = y.shape[1] // bands, y.shape[2] // steps
        y = y[:, : rows * bands, : columns * steps]
        x = y.reshape(len(y), rows, bands, columns, steps).max((2, 4))
        features.append(x.mean((1, 2)))
    return np.concatenate(features)


def theano_file(path, channels):
    """A file of C17's layout with made-up weights."""
    rng = np.random.default_rng(0)
    real, imag, bank = kernels()
    with h5py.File(path, "w") as file:

        def put(name, value):
            file[name] = value.astype(np.float32)

        put("melgram/param_0", real.numpy()[:, None, None])
        put("melgram/param_1", imag.numpy()[:, None, None])
        put("melgram/param_2", 0.01 * bank.numpy())
        for i in range(1, 6):
            before = 1 if i == 1 else channels
            scale = 1 / np.sqrt(9 * before)
            kernel, norm = f"ConvBNEluDr/convolution2d_{i}", f"ConvBNEluDr/batchnormalization_{i}"
            put(f"{kernel}_W", rng.normal(0, scale, (channels, before, 3, 3)))
            put(f"{kernel}_b", rng.normal(0, 0.1, channels))
            put(f"{norm}_gamma", rng.uniform(0.5, 1.5, channels))
            put(f"{norm}_beta", rng.normal(0, 0.5, channels))
            put(f"{norm}_running_mean", np.zeros(channels))
        put("dense_1/dense_1_W", rng.normal(size=(channels, 50)))
    return path


def tone(samples, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 12000
    wave = 0.2 * np.sin(2 * np.pi * (200 + 100 * np.sin(3 * t)) * t)
    return (wave + 0.03 * rng.normal(size=samples)).astype(np.float32)


# 4 s leave one frame before the fourth pooling, 15 s just enough for the last but one.
@pytest.mark.parametrize("seconds", [0.2, 1.0, 4.0, 15.0])
def test_made_weights_at_any_length(tmp_path, seconds):
    path = theano_file(tmp_path / "w.h5", 4)
    net = build_net("music2d", 6, width=0.125, seconds=seconds).eval()
    assert load_weights(net, path).complete
    wave = tone(net.input.samples)
    with torch.no_grad():
        ours = net.embed(net.prepare(torch.from_numpy(wave)[None]))[0].numpy()
    assert ours.shape == (20,)
    np.testing.assert_allclose(ours, plain_features(read_weight_file(path)[0], wave), atol=5e-5)


def test_released_weights(shared_data):
    path = shared_data / "choi2017" / "msd_compact_cnn_theano.hdf5"
    net = build_net("music2d", 6).eval()
    report = load_weights(net, path)
    assert report.complete
    assert "C17" in report.known_as
    # No place for C17's tag layer and for statistics that were never used.
    assert all("running" in name or "dense_1" in name for name in report.unexpected)
    assert len(report.unexpected) == 12
    (clip, *_) = sorted((shared_data / "mve" / "Train" / "Excited").glob("*.mp4"))
    wave = resampled(clip, 12000)[:348_000]
    with torch.no_grad():
        x = net.prepare(torch.from_numpy(wave)[None])
        ours = net.embed(x)[0].numpy()
    assert x.shape == (1, 1, 96, 1360)
    np.testing.assert_allclose(ours, plain_features(read_weight_file(path)[0], wave), atol=1e-5)
    # C17's mean features of 744 other clips: of music, but not of ours.
    for i in range(5):
        theirs = np.load(path.parent / f"emoMusic_layer_{i}.npy").mean(0)
        assert np.corrcoef(ours[32 * i : 32 * i + 32], theirs)[0, 1] > 0.8


def test_pl20s_variant(tmp_path):
    net = build_net("music2d", 6, width=0.125, front_end="pl20", activation="relu", norm="batch")
    assert net.input.samples == 480_000
    report = load_weights(net, theano_file(tmp_path / "w.h5", 4))
    # Another front end than the weights' own: its kernels have no place, nor are there statistics.
    assert "melgram/param_0" in report.unexpected
    # The other front end is fixed, and no file need have it.
    assert not any(name.startswith("front_end") for name in report.missing)
    assert not report.complete
    with torch.no_grad():
        x = net.prepare(torch.randn(1, 1000))
        features = net.eval().embed(x)
    assert x.shape == (1, 1, 96, 1876)
    assert (features >= 0).all()


# --- front ends against librosa, and against a plain sum over the definition of the DFT


def sound(samples, sr, seed=0):
    """A gliding tone in noise, with a loud and a silent stretch."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / sr
    wave = 0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + 0.01 * rng.normal(size=samples)
    wave[samples // 3 : samples // 2] = 0
    return wave.astype(np.float32)


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


def test_a_batch_is_its_clips_and_only_loudness_is_lost():
    front = MelSpectrogram(C17)
    waves = torch.stack([torch.from_numpy(sound(9000, 12000, seed)) for seed in range(3)])
    waves[1] *= 0.1
    together = front(waves)
    for one, row in zip(waves, together, strict=True):
        torch.testing.assert_close(front(one[None])[0], row, rtol=0, atol=1e-4)
    torch.testing.assert_close(front(waves[:1] * 0.5)[0], together[0], rtol=0, atol=1e-3)
    assert (front(torch.zeros(1, 4000)) == 0).all()


def test_half_precision_does_not_reach_the_front_end():
    front, wave = MelSpectrogram(C17), torch.from_numpy(sound(9000, 12000))[None]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = front(wave)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, front(wave), rtol=0, atol=0)


def kernels(sign=1.0):
    n = np.arange(512)
    window = np.hanning(513)[:512]
    angle = 2 * np.pi * np.outer(n, np.arange(257)) / 512
    real, imag = window[:, None] * np.cos(angle), sign * window[:, None] * np.sin(angle)
    bank = np.random.default_rng(0).uniform(size=(257, 96))
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (real, imag, bank))


def test_the_sign_of_the_sines_does_not_count():
    front = MelSpectrogram(C17)
    real, imag, bank = kernels(-1.0)
    front.load_kernels(real[:, None, None], imag[:, None, None], bank)
    torch.testing.assert_close(front.window.flip(0), real[:, 0])
    torch.testing.assert_close(front.filterbank, bank)


def test_kernels_that_are_no_windowed_dft():
    front = MelSpectrogram(C17)
    real, imag, bank = kernels()
    bent = real.clone()
    bent[100, 3] += 1e-3
    with pytest.raises(BadWeights, match="from a windowed DFT"):
        front.load_kernels(bent, imag, bank)
    with pytest.raises(BadWeights, match="filterbank: expected shape"):
        front.load_kernels(real, imag, bank[:, :40])


def test_released_kernels_are_a_hann_windowed_dft(shared_data):
    tensors, _ = read_weight_file(shared_data / "choi2017" / "msd_compact_cnn_theano.hdf5")
    computed, released = MelSpectrogram(C17), MelSpectrogram(C17)
    released.load_kernels(*(tensors[f"melgram/param_{i}"] for i in range(3)))
    torch.testing.assert_close(released.window, computed.window, rtol=0, atol=1e-7)
    torch.testing.assert_close(released.filterbank, computed.filterbank, rtol=0, atol=1e-8)

"""The 2D music net against a forward pass in NumPy and SciPy, with made and released weights."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import build_net, weights_digest
from mvemo.extract.nets.parts.weights import load_weights, read_weight_file

POOLS = [(2, 4), (3, 4), (2, 5), (2, 4), (4, 4)]


def plain_features(tensors: dict, wave: np.ndarray) -> np.ndarray:
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
        y = np.stack(
            [
                sum(convolve2d(x[c], kernel[o, c], mode="same") for c in range(len(x))) + bias[o]
                for o in range(len(kernel))
            ]
        )
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


def theano_file(path: Path, channels: int) -> Path:
    """A file of C17's layout with made-up weights."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.outer(np.arange(512), np.arange(257)) / 512
    window = np.hanning(513)[:512, None]
    with h5py.File(path, "w") as file:

        def put(name: str, value: np.ndarray) -> None:
            file[name] = value.astype(np.float32)

        put("melgram/param_0", (window * np.cos(angle))[:, None, None])
        put("melgram/param_1", (window * np.sin(angle))[:, None, None])
        put("melgram/param_2", rng.uniform(0, 0.01, (257, 96)))
        for i in range(1, 6):
            before = 1 if i == 1 else channels
            scale = 1 / np.sqrt(9 * before)
            put(
                f"ConvBNEluDr/convolution2d_{i}_W",
                rng.normal(0, scale, (channels, before, 3, 3)),
            )
            put(f"ConvBNEluDr/convolution2d_{i}_b", rng.normal(0, 0.1, channels))
            put(f"ConvBNEluDr/batchnormalization_{i}_gamma", rng.uniform(0.5, 1.5, channels))
            put(f"ConvBNEluDr/batchnormalization_{i}_beta", rng.normal(0, 0.5, channels))
            put(f"ConvBNEluDr/batchnormalization_{i}_running_mean", np.zeros(channels))
            put(f"ConvBNEluDr/batchnormalization_{i}_running_std", np.ones(channels))
        put("dense_1/dense_1_W", rng.normal(size=(channels, 50)))
    return path


def tone(samples: int, seed: int = 0) -> np.ndarray:
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


def released(shared_data: Path) -> Path:
    return shared_data / "choi2017" / "msd_compact_cnn_theano.hdf5"


def real_clip(shared_data: Path) -> np.ndarray:
    import av

    path = sorted((shared_data / "mve" / "Train" / "Excited").glob("*.mp4"))[0]
    resampler = av.AudioResampler("flt", "mono", 12000)
    with av.open(str(path)) as container:
        parts = [
            part.to_ndarray()[0]
            for frame in container.decode(audio=0)
            for part in resampler.resample(frame)
        ]
    return np.concatenate(parts)[:348_000].astype(np.float32)


@pytest.mark.parametrize("source", ["synthetic", "real"])
def test_released_weights(shared_data, source):
    path = released(shared_data)
    net = build_net("music2d", 6).eval()
    report = load_weights(net, path)
    assert report.complete
    assert "C17" in report.known_as
    # No place for C17's tag layer and for statistics that were never used.
    assert all("running" in name or "dense_1" in name for name in report.unexpected)
    assert len(report.unexpected) == 12
    wave = tone(348_000) if source == "synthetic" else real_clip(shared_data)
    with torch.no_grad():
        x = net.prepare(torch.from_numpy(wave)[None])
        ours = net.embed(x)[0].numpy()
    assert x.shape == (1, 1, 96, 1360)
    np.testing.assert_allclose(ours, plain_features(read_weight_file(path)[0], wave), atol=1e-5)
    if source == "real":
        # C17's mean features of 744 other clips: of music, but not of ours.
        for i in range(5):
            theirs = np.load(path.parent / f"emoMusic_layer_{i}.npy").mean(0)
            assert np.corrcoef(ours[32 * i : 32 * i + 32], theirs)[0, 1] > 0.8


def test_clip_norm_makes_clips_independent():
    torch.manual_seed(0)
    net = build_net("music2d", 3, width=0.25, seconds=2.0)
    waves = torch.stack([torch.from_numpy(tone(24_000, seed)) for seed in range(3)])
    with torch.no_grad():
        x = net.prepare(waves)
        together = net.train().embed(x)
        alone = torch.cat([net.eval().embed(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


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
        features = net.eval().layer_features(x)
    assert x.shape == (1, 1, 96, 1876)
    assert all((f >= 0).all() for f in features)


def test_published_sizes():
    net = build_net("music2d", 6)
    assert net.embedding_dim == 160
    assert net.input.samples == 348_000
    convolutions = (9 * 32 + 32) + 4 * (9 * 32 * 32 + 32)
    assert sum(p.numel() for p in net.parameters()) == convolutions + 5 * 64 + 160 * 6 + 6


def test_wrong_files_leave_the_net(tmp_path):
    net = build_net("music2d", 6, width=0.5)
    before = weights_digest(net)
    path = theano_file(tmp_path / "w.h5", 4)
    with h5py.File(path, "r+") as file:
        file["melgram/param_0"][5] = 1.0
    with pytest.raises(BadWeights, match=r"w\.h5: DFT kernels are .* from a windowed DFT"):
        load_weights(net, path)
    assert weights_digest(net) == before

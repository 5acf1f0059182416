"""musicnn: against an independent forward pass, the published answers, and its edges."""

import librosa
import numpy as np
import pytest
import torch
from media_samples import resampled

from mvemo.extract.nets import build_net
from mvemo.extract.nets.musicnn import PATCH
from mvemo.extract.nets.parts.weights import load_tensors

SR = 16000
# (frames, bands, inputs, outputs) of the published convolutions, in the order they were made.
KERNELS = [
    *((7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)),
    *((7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64)),
]
NORMS = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)


def published_arrays(seed=0):
    """Random weights under the published names and in the published shapes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for i, shape in enumerate(KERNELS):
        name = f"conv2d_{i}" if i else "conv2d"
        arrays[f"{name}/kernel"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[:3]))
        arrays[f"{name}/bias"] = 0.1 * rng.normal(size=shape[3])
    for i, size in enumerate(NORMS):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        arrays[f"{name}/gamma"] = rng.uniform(-1.5, 1.5, size)
        arrays[f"{name}/beta"] = 0.3 * rng.normal(size=size)
        arrays[f"{name}/moving_mean"] = 0.3 * rng.normal(size=size)
        arrays[f"{name}/moving_variance"] = rng.uniform(0.2, 2.0, size)
    for name, shape in (("dense", (1506, 200)), ("dense_1", (200, 50))):
        arrays[f"{name}/kernel"] = rng.normal(size=shape) / np.sqrt(shape[0])
        arrays[f"{name}/bias"] = 0.1 * rng.normal(size=shape[1])
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def independent_units(patch, arrays):
    """The 200 units of one patch (187, 96), in double precision and NumPy alone."""
    w = {name: value.astype(np.float64) for name, value in arrays.items()}

    def norm(x, i):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        scale = w[f"{name}/gamma"] / np.sqrt(w[f"{name}/moving_variance"] + 1e-3)
        return (x - w[f"{name}/moving_mean"]) * scale + w[f"{name}/beta"]

    def convolve(x, i):
        """(time, height) -> (time, height left, outputs); same length, no padding in height."""
        name = f"conv2d_{i}" if i else "conv2d"
        kernel = w[f"{name}/kernel"]
        frames, bands = kernel.shape[:2]
        padded = np.pad(x, (((frames - 1) // 2, frames // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (frames, bands))
        return np.maximum(
            np.einsum("thfb,fbo->tho", windows, kernel[:, :, 0], optimize=True) + w[f"{name}/bias"],
            0.0,
        )

    x = norm(patch[:, :, None], 0)[:, :, 0]
    front = np.concatenate([norm(convolve(x, i), i + 1).max(axis=1) for i in range(5)], axis=1)
    first = norm(convolve(front, 5)[:, 0], 6)
    second = norm(convolve(first, 6)[:, 0], 7) + first
    third = norm(convolve(second, 7)[:, 0], 8) + second
    features = np.concatenate([front, first, second, third], axis=1)
    pooled = np.stack([features.max(axis=0), features.mean(axis=0)], axis=1).reshape(-1)
    dense = norm(pooled, 9) @ w["dense/kernel"] + w["dense/bias"]
    return norm(np.maximum(dense, 0.0), 10)


def independent_tags(units, arrays):
    logits = units @ arrays["dense_1/kernel"].astype(np.float64) + arrays["dense_1/bias"]
    return 1.0 / (1.0 + np.exp(-logits))


def load(net, arrays):
    return load_tensors(net, {name: torch.from_numpy(value) for name, value in arrays.items()})


@pytest.fixture(scope="module")
def published():
    return published_arrays()


@pytest.fixture(scope="module")
def net(published):
    net = build_net("musicnn", 6, seconds=10.0)
    load(net, published)
    return net.eval()


def tone(seconds, hz=440.0, level=0.3):
    t = np.arange(round(seconds * SR)) / SR
    noise = np.random.default_rng(1).normal(size=len(t))
    return (level * np.sin(2 * np.pi * hz * t) + 0.02 * noise).astype(np.float32)


def batch_of(net, *waves):
    """As stage one fills waveforms up: with NaN."""
    raw = torch.full((len(waves), net.input.samples), torch.nan)
    for row, wave in zip(raw, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)[: net.input.samples]
    return raw


@torch.inference_mode()
def test_units_and_tags_agree_with_an_independent_forward_pass(published):
    rng = np.random.default_rng(2)
    # Two patches of one clip, one of another.
    x = rng.uniform(0, 4, size=(2, 2, PATCH, 96)).astype(np.float32)
    x[1, 1] = np.nan
    units = [independent_units(patch, published) for patch in (x[0, 0], x[0, 1], x[1, 0])]
    tags = [independent_tags(each, published) for each in units]
    both = [np.concatenate(each) for each in zip(units, tags, strict=True)]
    expected = np.stack([(both[0] + both[1]) / 2, both[2]])
    net = build_net("musicnn", 6, outputs="units,tags")
    match = load(net, published)
    assert match.missing == ("classifier.weight", "classifier.bias")
    assert not match.unexpected
    found = net.eval().double().embed(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@torch.inference_mode()
def test_patches_are_the_published_spectrogram(net):
    wave = tone(7.3)
    expected = librosa.feature.melspectrogram(
        y=wave.astype(np.float64), sr=SR, n_fft=512, hop_length=256, n_mels=96
    )
    expected = np.log10(10_000 * expected.T + 1)
    x = net.prepare(batch_of(net, wave)).numpy()
    # 457 frames are two patches of 187; the rest is left out.
    assert x.shape == (1, 3, 187, 96)
    assert np.isnan(x[0, 2:]).all()
    found = x[0, :2].reshape(-1, 96)
    np.testing.assert_allclose(found, expected[: 2 * PATCH], rtol=0, atol=2e-4)


@torch.inference_mode()
def test_a_clip_is_embedded_alike_whatever_it_is_batched_with(net):
    # 373 hops are the 374 frames of two patches.
    two, one = (tone(hops * 256 / SR, 880.0) for hops in (2 * PATCH - 1, 2 * PATCH - 2))
    waves = (tone(1.0), two, one, tone(11.0, 220.0))
    patches = net.prepare(batch_of(net, *waves))
    assert patches[:, :, 0, 0].isfinite().sum(dim=1).tolist() == [1, 2, 1, 3]
    together = net.embed(patches)
    for row, wave in zip(together, waves, strict=True):
        alone = net.embed(net.prepare(torch.from_numpy(wave)[None]))[0]
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_clip_shorter_than_a_patch_is_one_with_silence_behind(net):
    wave = tone(1.0)
    silent = np.concatenate([wave, np.zeros(2 * SR, dtype=np.float32)])
    x = net.prepare(batch_of(net, wave, silent))
    assert x[0, 0].isfinite().all()
    assert x[0, 1:].isnan().all()
    torch.testing.assert_close(x[0, 0], x[1, 0])


@torch.inference_mode()
def test_outputs_stand_in_the_order_asked_for(net, published):
    all_of_it = build_net("musicnn", 6, outputs="units, deviation,front,tags")
    load(all_of_it, published)
    x = net.prepare(batch_of(net, tone(7.0), tone(3.5, 880.0)))
    units, deviation, front, tags = all_of_it.eval().embed(x).split([200, 200, 1506, 50], dim=1)
    assert (net.embedding_dim, all_of_it.embedding_dim) == (200, 1956)
    torch.testing.assert_close(units, net.embed(x))
    patches = [net.patch_front(x[i, :n]) for i, n in ((0, 2), (1, 1))]
    for i, patch in enumerate(patches):
        probabilities = net.tags(net.patch_units(patch)).sigmoid()
        torch.testing.assert_close(tags[i], probabilities.mean(dim=0))
        torch.testing.assert_close(front[i], patch.mean(dim=0))
        expected = net.patch_units(patch).std(dim=0, correction=0)
        torch.testing.assert_close(deviation[i], expected, rtol=1e-4, atol=1e-5)


def test_the_front_end_is_not_saved(net):
    assert not {"window", "filterbank"} & set(net.state_dict())


@torch.inference_mode()
def test_the_published_weights_give_the_known_tags(fetched_weights, shared_data):
    net = build_net("musicnn", 6, outputs="tags")
    with np.load(fetched_weights("musicnn")) as archive:
        load(net, {name: archive[name] for name in archive.files})
    net.eval()
    for clip, known in (
        ("14", {0: 0.354, 24: 0.252, 2: 0.113, 3: 0.110}),
        ("35", {1: 0.303, 19: 0.265, 5: 0.192, 15: 0.168}),
        ("43", {33: 0.166, 45: 0.166, 1: 0.150, 15: 0.141}),
    ):
        wave = resampled(shared_data / "mve" / "Train" / "Excited" / f"{clip}.mp4", SR)
        tags = net.embed(net.prepare(torch.from_numpy(wave)[None]))[0]
        assert set(tags.topk(4).indices.tolist()) == set(known)
        for i, probability in known.items():
            assert float(tags[i]) == pytest.approx(probability, abs=1e-3)

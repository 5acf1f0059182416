"""C3D against a forward pass in float64, with made files of each published layout."""

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from mvemo.extract.nets import build_net
from mvemo.extract.nets.c3d import SPORTS1M_MEAN
from mvemo.extract.nets.parts.weights import load_weights

LAYERS = ("1a", "2a", "3a", "3b", "4a", "4b", "5a", "5b")
WIDTH = 1 / 16
CHANNELS = (4, 8, 16, 16, 32, 32, 32, 32)
# Published layout to the names of kernels, of biases and of the first fully connected layer.
LAYOUTS = {
    "caffe npz": ("conv{layer}/0", "conv{layer}/1", "fc6/0"),
    "caffe hdf5": ("data/conv{layer}/0", "data/conv{layer}/1", "fc6/0"),
    "old caffe": ("conv{layer}/0", "conv{layer}/1", "fc6/0"),
    "pytorch": ("conv{short}.weight", "conv{short}.bias", "fc6.weight"),
    "mmaction": (
        "backbone.conv{layer}.conv.weight",
        "backbone.conv{layer}.conv.bias",
        "backbone.fc6.weight",
    ),
    "tensorflow": ("var_name/wc{short}", "var_name/bc{short}", "fc6/0"),
}


def made_weights(seed=0):
    """Kernels (out, in, T, H, W) and biases as ``1a.k`` and ``1a.b``."""
    rng = np.random.default_rng(seed)
    arrays, last = {}, 3
    for layer, channels in zip(LAYERS, CHANNELS, strict=True):
        spread = np.sqrt(2 / (27 * last))
        arrays[f"{layer}.k"] = rng.normal(0, spread, (channels, last, 3, 3, 3)).astype(np.float32)
        arrays[f"{layer}.b"] = rng.normal(0, 1, channels).astype(np.float32)
        last = channels
    return arrays


def published_file(folder, layout, arrays):
    """A file of one of the published layouts, with fully connected layers of their sizes."""
    path = folder / "c3d.weights"
    kernel_name, bias_name, fc6 = LAYOUTS[layout]
    named = {fc6: np.zeros((40, 50), dtype=np.float32)}
    for key, value in arrays.items():
        layer, kind = key.split(".")
        # "1a" and "2a" have no letter in two of the layouts.
        short = layer[0] if layer in ("1a", "2a") else layer
        if layout == "old caffe" and kind == "b":
            value = value[None, None, None, None]
        if layout == "tensorflow" and kind == "k":
            value = value.transpose(2, 3, 4, 1, 0)
        name = kernel_name if kind == "k" else bias_name
        named[name.format(layer=layer, short=short)] = value
    if layout in ("pytorch", "mmaction"):
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in named.items()}
        torch.save({"state_dict": tensors} if layout == "mmaction" else tensors, path)
    elif layout == "caffe hdf5":
        with h5py.File(path, "w") as file:
            for name, value in named.items():
                file[name] = value
    else:
        with path.open("wb") as stream:
            np.savez(stream, **named)
    return path


def plain_map(arrays, raw):
    """What the fifth pooling gives, float64, of uint8 frames (T, H, W, 3) in RGB."""
    get = {name: torch.from_numpy(value).double() for name, value in arrays.items()}
    x = torch.from_numpy((raw[..., ::-1] - np.array(SPORTS1M_MEAN)).transpose(3, 0, 1, 2))
    for layer in LAYERS:
        x = functional.conv3d(x, get[f"{layer}.k"], get[f"{layer}.b"], padding=1).relu()
        if layer == "5b":
            x = functional.pad(x, (1, 1, 1, 1))
        if layer in ("1a", "2a", "3b", "4b", "5b"):
            frames = 1 if layer == "1a" else min(2, x.shape[1])
            x = functional.max_pool3d(x, (frames, 2, 2))
    return x.numpy()


def frames(n, size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def made_net(n_frames, size, **options):
    torch.manual_seed(0)
    return build_net("c3d", 6, width=WIDTH, n_frames=n_frames, size=size, **options).eval()


# 16 frames of 112 end as published; 8 of 56 run out of frames; 5 of 50 leave odd rests.
@pytest.mark.parametrize(
    ("n_frames", "size", "scale"),
    [(16, 112, "sports1m"), (8, 56, "sports1m"), (8, 56, "unit"), (5, 50, "sports1m")],
)
def test_against_plain_forward_pass(tmp_path, n_frames, size, scale):
    arrays = made_weights()
    net = made_net(n_frames, size, scale=scale)
    report = load_weights(net, published_file(tmp_path, "caffe npz", arrays))
    assert not report.mismatched
    raw = frames(n_frames, size)
    fc = {k: v.numpy().astype(np.float64) for k, v in net.state_dict().items() if "fc" in k}
    expected = plain_map(arrays, raw).reshape(-1)
    for layer in ("fc6", "fc7"):
        expected = np.maximum(fc[f"{layer}.weight"] @ expected + fc[f"{layer}.bias"], 0)
    with torch.no_grad():
        ours = net.embed(net.prepare(torch.from_numpy(raw)[None]))[0].numpy()
    assert ours.shape == (net.embedding_dim,) == (32,)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(tmp_path, layout):
    arrays = made_weights()
    net = made_net(8, 32)
    report = load_weights(net, published_file(tmp_path, layout, arrays))
    state = net.state_dict()
    for layer in LAYERS:
        for kind, ours in (("k", "weight"), ("b", "bias")):
            value = state[f"convolutions.conv{layer}.{ours}"].numpy()
            np.testing.assert_array_equal(value, arrays[f"{layer}.{kind}"])
    assert len(report.loaded) == 16
    # The replaced layers are named on both sides.
    assert len(report.unexpected) == 1
    assert "fc6" in report.unexpected[0]
    assert {"fc6.weight", "fc7.weight", "classifier.weight"} <= set(report.missing)


def test_mean_is_that_of_the_published_clip(shared_data):
    clip = np.load(shared_data / "c3d" / "c3d_crop_mean_16x112x112x3.npy")
    np.testing.assert_allclose(SPORTS1M_MEAN, clip.mean((0, 1, 2), dtype=np.float64), atol=5e-4)

"""EfficientNet-lite2: against an independent forward pass, and its edges."""

import numpy as np
import pytest
import torch

from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.weights import load_tensors, load_weights

# (kernel, stride, expansion, inputs, outputs) of the 21 blocks at width 1, from the
# published weights' shapes and the paper's strides.
BLOCKS = [
    *((3, 1, 1, 32, 16), (3, 2, 6, 16, 24), *((3, 1, 6, 24, 24),) * 2),
    *((5, 2, 6, 24, 48), *((5, 1, 6, 48, 48),) * 2),
    *((3, 2, 6, 48, 88), *((3, 1, 6, 88, 88),) * 3),
    *((5, 1, 6, 88, 120), *((5, 1, 6, 120, 120),) * 3),
    *((5, 2, 6, 120, 208), *((5, 1, 6, 208, 208),) * 4),
    (3, 1, 6, 208, 352),
]


def published_arrays(seed=0):
    """Random weights under the published names and in the published shapes."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def layer(convolution, norm, shape):
        arrays[f"{convolution}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        arrays[f"{norm}.weight"] = rng.uniform(0.5, 1.5, shape[0])
        arrays[f"{norm}.bias"] = 0.3 * rng.normal(size=shape[0])
        arrays[f"{norm}.running_mean"] = 0.1 * rng.normal(size=shape[0])
        arrays[f"{norm}.running_var"] = rng.uniform(0.3, 1.0, shape[0])

    layer("_conv_stem", "_bn0", (32, 3, 3, 3))
    for i, (kernel, _, expansion, inputs, outputs) in enumerate(BLOCKS):
        block, inner = f"_blocks.{i}", inputs * expansion
        if expansion > 1:
            layer(f"{block}._expand_conv", f"{block}._bn0", (inner, inputs, 1, 1))
        layer(f"{block}._depthwise_conv", f"{block}._bn1", (inner, 1, kernel, kernel))
        layer(f"{block}._project_conv", f"{block}._bn2", (outputs, inner, 1, 1))
    layer("_conv_head", "_bn1", (1280, 352, 1, 1))
    arrays["_fc.weight"] = rng.normal(size=(1000, 1280))
    arrays["_fc.bias"] = rng.normal(size=1000)
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def independent_features(picture, arrays):
    """1,280 features of one prepared picture (3, size, size), in NumPy and double precision."""
    w = {name: value.astype(np.float64) for name, value in arrays.items()}

    def layer(x, convolution, norm, stride=1, act=True):
        kernel = w[f"{convolution}.weight"]
        side = kernel.shape[2]
        # TensorFlow's "SAME": as many outputs as strides fit; the odd row is at the end.
        total = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[1:]]
        x = np.pad(x, ((0, 0), *((t // 2, t - t // 2) for t in total)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        if kernel.shape[1] == 1 and len(x) > 1:
            y = np.einsum("chwij,cij->chw", windows, kernel[:, 0], optimize=True)
        else:
            y = np.einsum("chwij,ocij->ohw", windows, kernel, optimize=True)
        scale = w[f"{norm}.weight"] / np.sqrt(w[f"{norm}.running_var"] + 1e-3)
        shift = w[f"{norm}.bias"] - w[f"{norm}.running_mean"] * scale
        y = y * scale[:, None, None] + shift[:, None, None]
        return np.clip(y, 0.0, 6.0) if act else y

    x = layer(picture.astype(np.float64), "_conv_stem", "_bn0", 2)
    for i, (_, stride, expansion, inputs, outputs) in enumerate(BLOCKS):
        block = f"_blocks.{i}"
        y = layer(x, f"{block}._expand_conv", f"{block}._bn0") if expansion > 1 else x
        y = layer(y, f"{block}._depthwise_conv", f"{block}._bn1", stride)
        y = layer(y, f"{block}._project_conv", f"{block}._bn2", act=False)
        x = x + y if stride == 1 and inputs == outputs else y
    return layer(x, "_conv_head", "_bn1").mean(axis=(1, 2))


@pytest.fixture(scope="module")
def published():
    return published_arrays()


def frames(n, size):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (1, n, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("n", "size"), [(2, 32), (1, 45)])
@torch.inference_mode()
def test_it_agrees_with_an_independent_forward_pass(n, size, published):
    net = build_net("effnet", 6, n_frames=n, size=size).eval()
    match = load_tensors(net, {k: torch.from_numpy(v) for k, v in published.items()})
    assert match.missing == ("classifier.weight", "classifier.bias")
    assert match.unexpected == ("_fc.weight", "_fc.bias")
    raw = frames(n, size)
    pictures = (raw[0].numpy().astype(np.float64) - 127.0) / 128.0
    features = np.stack([independent_features(p.transpose(2, 0, 1), published) for p in pictures])
    expected = np.concatenate([features.mean(axis=0), features.std(axis=0)])
    found = net.embed(net.prepare(raw))[0].numpy()
    assert found.shape == (2560,)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@torch.inference_mode()
def test_the_published_weights_fill_the_net(fetched_weights):
    net = build_net("effnet", 6, n_frames=2)
    report = load_weights(net, fetched_weights("effnet"))
    assert report.complete
    assert "EfficientNet-lite2" in report.known_as

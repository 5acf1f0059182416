"""The 1D music net against a forward pass written out in NumPy."""

import numpy as np
import pytest
import torch

from mvemo.extract.nets import build_net


def plain_forward(net, wave):
    x, means = wave[None].astype(np.float64), []
    for convolution in net.convolutions:
        weight = convolution.weight.detach().double().numpy()
        bias = convolution.bias.detach().double().numpy()
        padded = np.pad(x, ((0, 0), (1, 1)))
        starts = range(0, padded.shape[1] - 2, 2)
        x = np.stack([np.tensordot(weight, padded[:, i : i + 3], 2) + bias for i in starts], 1)
        x = np.where(x > 0, x, np.expm1(x))
        means.append(x.mean(1))
        half = x.shape[1] // 2
        x = np.maximum(x[:, 0 : 2 * half : 2], x[:, 1 : 2 * half : 2])
        means.append(x.mean(1))
    return np.concatenate(means)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_net("music1d", 6, width=0.25, seconds=0.11).eval()


def test_forward_is_the_written_out_one(net):
    waves = np.random.default_rng(0).normal(size=(2, 2500)).astype(np.float32)
    x = net.prepare(torch.from_numpy(waves))
    assert x.shape == (2, 1, 1760)
    with torch.no_grad():
        embedding = net.embed(x)
        logits = net(x)
    assert embedding.shape == (2, 64)
    for wave, row in zip(waves, embedding, strict=True):
        np.testing.assert_allclose(row.numpy(), plain_forward(net, wave[:1760]), atol=2e-6)
    torch.testing.assert_close(logits, net.classifier(embedding))

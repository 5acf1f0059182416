"""The lightweight CNN: far fewer parameters, the same care for padding."""

import torch
from sequence_samples import assert_padding_changes_nothing, sequences, settle

from mvemo.extract.nets import SequenceInput, build_net


def size(net) -> int:
    return sum(p.numel() for p in net.parameters())


def test_padding_and_company_change_nothing():
    assert_padding_changes_nothing(
        lambda: build_net("lightcnn", 3, width=0.125, n_frames=40, n_mels=12), 12
    )


def test_far_fewer_parameters_than_the_classical_net():
    light, classical = build_net("lightcnn", 4), build_net("cnn", 4)
    depthwise = 9 * (1 * 32 + 32 + 64 + 128)
    pointwise = 32 * 64 + 64 * 128 + 128 * 256
    norms = 2 * (64 + 32 + 64 + 128 + 256)
    assert size(light) == depthwise + pointwise + norms + 256 * 4 + 4
    assert size(light) < size(classical) / 8
    assert light.embedding_dim == classical.embedding_dim
    assert light.input == SequenceInput(("mel",), 430)
    assert light.name == "lightcnn"


def test_convolutions_are_depthwise_then_pointwise():
    x = sequences([30, 12], 12, 30)
    net = settle(build_net("lightcnn", 3, width=0.25, n_frames=30, n_mels=12), x)
    depthwise, pointwise = net.convolutions[1]
    maps = torch.randn(1, 8, 6, 9)
    with torch.no_grad():
        got = net.convolutions[1](maps)
        each = [
            torch.nn.functional.conv2d(maps[:, i : i + 1], depthwise.weight[i : i + 1], padding=1)
            for i in range(8)
        ]
        expected = torch.einsum("oc,bcft->boft", pointwise.weight[:, :, 0, 0], torch.cat(each, 1))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

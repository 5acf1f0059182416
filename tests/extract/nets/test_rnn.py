"""The RNN on MFCC: padding, shapes, its record, bad options."""

import json

import pytest
import torch
from sequence_samples import assert_padding_changes_nothing, sequences, settle

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import SequenceInput, build_net


def make():
    return build_net("rnn", 3, width=0.125, n_frames=40, n_mfcc=6, dropout=0.0)


def test_padding_and_company_change_nothing():
    assert_padding_changes_nothing(make, 6)


def test_sizes_and_record():
    net = build_net("rnn", 4)
    assert net.input == SequenceInput(("mfcc",), 430)
    assert net.embedding_dim == net.classifier.in_features == 64
    first, second = 3 * 64 * (20 + 64 + 2), 3 * 64 * (64 + 64 + 2)
    norm, last = 2 * 20, 64 * 4 + 4
    assert sum(p.numel() for p in net.parameters()) == first + second + norm + last
    json.dumps(net.preprocessing())


def test_logits_come_from_the_embedding():
    x = sequences([40, 17], 6, 40)
    net = settle(make(), x)
    with torch.no_grad():
        embedding = net.embed(net.prepare(x))
        torch.testing.assert_close(net(net.prepare(x)), net.classifier(embedding))
    assert embedding.shape == (2, 8)


def test_the_end_of_a_clip_counts():
    x = sequences([40, 40], 6, 40)
    net = settle(make(), x)
    turned = x.flip(1)
    with torch.no_grad():
        assert not torch.allclose(net(net.prepare(x)), net(net.prepare(turned)), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"layers": 0}, "layers is 0"), ({"dropout": 1.0}, "dropout is 1"), ({"n_mfcc": 0}, "n_mfcc")],
)
def test_bad_options(options, says):
    with pytest.raises(BadSetting, match=says):
        build_net("rnn", 3, **options)

"""Building nets by name."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import NETS, build_net, weights_digest
from mvemo.extract.nets.parts.registry import make_options, scaled


def test_names():
    assert list(NETS) == ["c3d", "cnn", "crnn", "i3d", "lightcnn", "music1d", "music2d", "rnn"]
    assert "music1d" in NETS
    assert "vgg" not in NETS


@pytest.mark.parametrize("name", ["music1d", "music2d"])
def test_built_nets_keep_their_contract(name):
    net = build_net(name, 5, width=0.25, seconds=1)
    assert net.name == name
    assert net.classifier.out_features == 5
    assert net.classifier.in_features == net.embedding_dim
    json.dumps(net.preprocessing())
    # Options survive the way through JSON.
    kind = NETS[name]
    assert make_options(kind, json.loads(json.dumps(asdict(net.options)))) == net.options


def test_the_seed_decides_the_weights():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(weights_digest(build_net("music1d", 2, width=0.1)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_net("vgg", 6), "one of c3d, cnn, crnn, i3d"),
        (lambda: build_net("music1d", 0), "n_outputs is 0"),
        (lambda: build_net("music1d", 6, width=0), "width is 0"),
        (lambda: build_net("music1d", 6, width=float("nan")), "width is nan"),
        (lambda: build_net("music1d", 6, size=3), "there are: seconds, dropout"),
        (lambda: build_net("music1d", 6, seconds="long"), "it takes a float"),
        (lambda: build_net("music1d", 6, seconds=True), "it takes a float"),
        (lambda: build_net("music1d", 6, seconds=0.001), "at least 0.016"),
        (lambda: build_net("music1d", 6, dropout=1.0), r"lie in \[0, 1\)"),
        (lambda: build_net("music2d", 6, norm="layer"), "one of clip, batch"),
        (lambda: build_net("music2d", 6, front_end="mfcc"), "one of c17, pl20"),
        (lambda: build_net("music2d", 6, seconds=0.01), "at least 0.0426"),
    ],
)
def test_bad_settings_name_the_allowed_ones(call, message):
    with pytest.raises(BadSetting, match=message):
        call()


def test_width_leaves_a_channel():
    assert [scaled(32, w) for w in (1, 0.5, 0.001, 2)] == [32, 16, 1, 64]


def test_naming_a_net_imports_no_other():
    code = (
        "import sys; from mvemo.extract.nets import build_net; build_net('music1d', 2, width=0.1);"
        "print([m for m in ('torchvision', 'h5py', 'librosa', 'mvemo.extract.nets.i3d')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

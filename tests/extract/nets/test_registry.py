"""Building nets by name."""

import ast
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import (
    NETS,
    build_net,
    default_settings,
    input_of,
    net_names,
    weights_digest,
)
from mvemo.extract.nets.parts.registry import make_options, scaled

# They have one width, the whole one, and tests of their own.
TORCHVISION = {"mvit_v2_s", "r2plus1d_18", "s3d", "swin3d_t"}


def test_names():
    names = {"c3d", "cnn", "crnn", "effnet", "i3d", "lightcnn", "music1d", "music2d", "musicnn"}
    assert {*names, "rnn", "speccnn", *TORCHVISION} <= set(NETS)
    assert list(NETS) == sorted(NETS)
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


@pytest.mark.parametrize("name", sorted(set(NETS) - TORCHVISION))
def test_what_a_net_reads_is_known_without_building_one(name, monkeypatch):
    kind = NETS[name]
    with monkeypatch.context() as patch:
        patch.setattr(kind, "__init__", None)
        inputs = [input_of(default_settings(name, profile)) for profile in ("paper", "demo")]
    for profile, net_input in zip(("paper", "demo"), inputs, strict=True):
        options = default_settings(name, profile).options
        assert build_net(name, 2, width=0.02, **options).input == net_input


def test_no_other_file_names_a_net():
    root = Path(__file__).parents[3]
    # The nets that run unless others are asked for, and the papers' tables of their nets.
    tables = {"pipeline/settings.py"}
    for path in sorted((*(root / "extract").rglob("*.py"), *(root / "pipeline").rglob("*.py"))):
        place = path.relative_to(root).as_posix()
        if place in tables or place.startswith("pipeline/studies/"):
            continue
        constants = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = set(net_names()) & constants
        assert named <= ({path.stem} if place.startswith("extract/nets/") else set()), place


def test_the_seed_decides_the_weights():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(weights_digest(build_net("music1d", 2, width=0.1)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_net("vgg", 6), "one of c3d, cnn, crnn, effnet, i3d"),
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


@pytest.mark.parametrize(
    ("net", "others"),
    [
        ("music1d", ("torchvision", "h5py", "librosa", "mvemo.extract.nets.i3d")),
        ("cnn", ("torchvision", "librosa", "scipy.optimize", "scipy.fft")),
    ],
)
def test_naming_a_net_imports_nothing_else(net, others):
    code = (
        f"import sys; from mvemo.extract.nets import build_net; build_net({net!r}, 2, width=0.1);"
        f"print([m for m in {others} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

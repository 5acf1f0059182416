"""Building nets by name."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mvemo.extract.nets import (
    NETS,
    build_net,
    default_settings,
    input_of,
    net_names,
)
from mvemo.manifests.errors import BadOption

# They have one width, the whole one, and tests of their own.
TORCHVISION = {"mvit_v2_s", "r2plus1d_18", "s3d", "swin3d_t"}


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
        cards = set(re.findall(r'^@NetCard\(\s*"(\w+)"', path.read_text(encoding="utf-8"), re.M))
        assert set(net_names()) & constants <= cards, place


@pytest.mark.parametrize(
    ("name", "n_outputs", "width", "message"),
    [
        ("vgg", 6, 1.0, "one of c3d, cnn, crnn, effnet, i3d"),
        ("music1d", 0, 1.0, "n_outputs is 0"),
        ("music1d", 6, 0, "width is 0"),
        ("music1d", 6, float("nan"), "width is nan"),
    ],
)
def test_bad_sizes_are_refused(name, n_outputs, width, message):
    with pytest.raises(BadOption, match=message):
        build_net(name, n_outputs, width=width)


def test_building_and_loading_a_net_imports_nothing_else(tmp_path):
    code = (
        "import sys; import torch; from mvemo.extract.nets import build_net;"
        "net = build_net('music1d', 2, width=0.1); torch.save(net.state_dict(), sys.argv[1]);"
        "first = [m for m in ('h5py', 'mvemo.extract.nets.i3d') if m in sys.modules];"
        "from mvemo.extract.nets import load_weights;"
        "load_weights(net, sys.argv[1]); build_net('cnn', 2, width=0.1);"
        "others = ('torchvision', 'librosa', 'scipy.optimize', 'scipy.fft');"
        "print(first, [m for m in (*others, 'mvemo.extract.nets.i3d') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "net.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"

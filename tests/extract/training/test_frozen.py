"""Frozen nets are made once, and again where what they are made of has changed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mvemo.extract.errors import BadSetting, MissingFile
from mvemo.extract.nets import build_net
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.frozen import FrozenNets
from mvemo.extract.training.protocols import frozen_net

RUN = RunSettings("frozen", device="cpu")
OPTIONS = {"n_frames": 8, "size": 32}


@pytest.fixture
def settings(tmp_path: Path) -> NetSettings:
    save_net(tmp_path / "own.pt", seed=0)
    return NetSettings("i3d", 0.25, str(tmp_path / "own.pt"), OPTIONS)


def save_net(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(build_net("i3d", 2, width=0.25, **OPTIONS).state_dict(), path)


def test_a_net_is_made_once(settings: NetSettings) -> None:
    nets = FrozenNets(RUN, 2)
    assert nets.get(settings) is nets.get(settings)


@torch.inference_mode()
def test_it_embeds_as_the_net_that_it_is_made_of(settings: NetSettings) -> None:
    plain, fast = frozen_net(settings, 2, RUN), FrozenNets(RUN, 2).get(settings)
    assert fast.spec == plain.spec
    raw = torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8)
    expected, found = (each.net.embed(each.net.prepare(raw)) for each in (plain, fast))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_changed_file_or_setting_is_another_net(settings: NetSettings) -> None:
    nets = FrozenNets(RUN, 2)
    first = nets.get(settings).spec
    slower = replace(settings, options={**OPTIONS, "n_frames": 16})
    assert nets.get(slower).spec.params != first.params
    file = Path(settings.weights)
    save_net(file, seed=1)
    assert nets.get(settings).spec.weights != first.weights
    file.unlink()
    with pytest.raises(MissingFile, match=r"own\.pt"):
        nets.get(settings)


def test_a_net_without_weights_is_refused(settings: NetSettings) -> None:
    with pytest.raises(BadSetting, match="i3d: the frozen protocol embeds with pretrained weights"):
        FrozenNets(RUN, 2).get(replace(settings, weights=""))

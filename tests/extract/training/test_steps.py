"""Steps on batches that do not fit into memory, and batches kept on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_net import Plain, same, tuned

from mvemo.extract.errors import ExtractError
from mvemo.extract.nets import build_net
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.devices import saved_bytes
from mvemo.extract.training.steps import NetLoss, to_floats

SETTINGS = TrainSettings(optimizer="sgd", lr=0.1, epochs=3, patience=0, batch_size=12)


def small_memory(limit: int):
    forward = NetLoss.forward

    def limited(module: NetLoss, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) > limit:
            raise torch.OutOfMemoryError("a device of little memory")
        return forward(module, x, target)

    return limited


def test_a_batch_in_parts_gives_the_step_of_the_whole(tmp_path: Path, monkeypatch) -> None:
    whole, curve = tuned(tmp_path, "whole", SETTINGS, net=Plain())
    monkeypatch.setattr(NetLoss, "forward", small_memory(4))
    with (
        pytest.warns(UserWarning, match="in 2 parts"),
        pytest.warns(UserWarning, match="batch of 12 clips does not fit .* in 4 parts"),
    ):
        parts, again = tuned(tmp_path, "parts", SETTINGS, net=Plain())
    assert again["train_loss"] == pytest.approx(curve["train_loss"], rel=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_batch_that_main_memory_has_no_room_for_is_divided_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = tuned(tmp_path, "whole", SETTINGS, net=Plain())
    monkeypatch.setattr("mvemo.extract.training.steps.saved_bytes", lambda net, raw: len(raw) * 100)
    monkeypatch.setattr("mvemo.extract.training.steps.available_memory", lambda: 12 * 150 // 3)
    with pytest.warns(UserWarning, match="batch of 12 clips does not fit .* in 4 parts"):
        parts, _ = tuned(tmp_path, "parts", SETTINGS, net=Plain())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_bytes_that_a_pass_saves_are_counted_and_nothing_changes() -> None:
    net = build_net("music1d", 3, width=0.25, seconds=0.5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    raw = torch.randn(4, net.input.samples)
    drawn = torch.random.get_rng_state()
    # Cloned: a part of a tensor keeps all of it.
    few, many = saved_bytes(net, raw[:2].clone()), saved_bytes(net, raw)
    # At least the waveforms themselves; twice the clips, twice the bytes.
    assert few > raw[:2].nbytes
    assert many == pytest.approx(2 * few, rel=0.05)
    assert net.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert not torch.equal(state, drawn)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_memory_that_is_too_small_for_two_clips_is_an_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(NetLoss, "forward", small_memory(1))
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises(ExtractError, match=r"^toy@all: .* too small to train on 2 clips at once"),
    ):
        tuned(tmp_path, "none", SETTINGS, net=Plain())


def test_scalars_become_numbers_at_once() -> None:
    assert to_floats([torch.tensor(1.5), torch.tensor(2.0)]) == [1.5, 2.0]
    assert to_floats([]) == []


@pytest.mark.gpu
def test_a_gpu_learns_what_the_processor_learns(tmp_path: Path) -> None:
    here, _ = tuned(tmp_path, "cpu", SETTINGS, net=Plain())
    there, _ = tuned(tmp_path, "gpu", SETTINGS, net=Plain().cuda())
    for name, value in here.state_dict().items():
        np.testing.assert_allclose(there.state_dict()[name].cpu(), value, atol=1e-4)
    assert same(here, here)

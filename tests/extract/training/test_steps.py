"""Steps on batches that do not fit into memory, and batches kept on a device."""

import platform
from pathlib import Path

import pytest
import torch
from toy_net import Plain, tuned

from mvemo.extract.nets import build_net
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.devices import return_freed_memory, saved_bytes
from mvemo.extract.training.steps import NetLoss
from mvemo.manifests.errors import MvemoError

SETTINGS = TrainSettings(optimizer="sgd", lr=0.1, epochs=3, patience=0, batch_size=12)


def small_memory(limit):
    forward = NetLoss.forward

    def limited(module, x, target):
        if len(x) > limit:
            raise torch.OutOfMemoryError("a device of little memory")
        return forward(module, x, target)

    return limited


@pytest.mark.parametrize("measured", [False, True])
def test_a_batch_in_parts_gives_the_step_of_the_whole(tmp_path, monkeypatch, measured):
    whole, curve = tuned(tmp_path, "whole", SETTINGS, net=Plain())
    if measured:  # and divided beforehand
        devices = "mvemo.extract.training.devices"
        monkeypatch.setattr(f"{devices}.saved_bytes", lambda net, raw: len(raw) * 100)
        monkeypatch.setattr(f"{devices}.available_memory", lambda: 12 * 150 // 3)
    else:
        monkeypatch.setattr(NetLoss, "forward", small_memory(4))
    with pytest.warns(UserWarning, match="batch of 12 clips does not fit") as warned:
        parts, again = tuned(tmp_path, "parts", SETTINGS, net=Plain())
    told = [str(each.message).partition("in ")[2].split()[-2] for each in warned]
    assert told == (["4"] if measured else ["2", "4"])
    assert again["train_loss"] == pytest.approx(curve["train_loss"], rel=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_bytes_that_a_pass_saves_are_counted_and_nothing_changes():
    net = build_net("music1d", 3, width=0.25, seconds=0.5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    raw = torch.randn(4, net.input.samples)
    drawn = torch.random.get_rng_state()
    # Cloned: a part of a tensor keeps all of it.
    few, many = saved_bytes(net, raw[:2].clone()), saved_bytes(net, raw)
    # At least the waveforms themselves; twice the clips, twice the bytes.
    assert few > raw[:2].nbytes
    assert many == pytest.approx(2 * few, rel=0.05)
    assert net.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_memory_that_is_too_small_for_two_clips_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(NetLoss, "forward", small_memory(1))
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises(MvemoError, match=r"^toy@all: .* too small to train on 2 clips at once"),
    ):
        tuned(tmp_path, "none", SETTINGS, net=Plain())


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks")
def test_freed_blocks_are_given_back():
    # Blocks too small to be mapped by themselves; the last one keeps the C library from
    # giving back those before it.
    blocks = [bytearray(b"x" * 8000) for _ in range(5000)]
    last = blocks.pop()
    full = resident()
    del blocks
    assert return_freed_memory()
    assert full - resident() > 20_000_000
    assert len(last) == 8000

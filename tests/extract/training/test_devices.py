"""Switches of the numeric libraries, and kernels that are replaced on processors."""

import pytest
import torch
from torch import nn
from toy_net import mark_freed_memory

from mvemo.extract.nets.parts.threads import map_parts
from mvemo.extract.training.devices import autocast, reproducible_kernels


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark


def test_embedding_on_a_gpu_has_float32_products_and_no_trials(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = switches()
    with reproducible_kernels(torch.device("cuda")):
        assert switches() == (False, False)
    assert switches() == before == (True, True)


def test_threads_of_a_processor_leave_the_switches_alone():
    before = switches()

    def embed(part):
        with reproducible_kernels(torch.device("cpu")):
            return part + 1

    map_parts(embed, torch.arange(64.0).split(1))
    assert switches() == before


CASES = [
    # Axes of the input, kernel, groups: kernels larger than the input, and as large.
    *(((depth, 8, 8), kernel, 1) for depth in (1, 2, 3, 5) for kernel in (3, 7)),
    *(((8, 2, 2), 7, 1), ((8, 1, 8), 3, 1), ((1, 6, 1), 3, 8), ((1, 14, 7), 5, 8)),
    *(((5, 1), 3, 1), ((5, 1), 3, 8), ((3, 3), 5, 8), ((1, 1), 7, 1), ((2,), 5, 1), ((1,), 3, 8)),
]


@pytest.mark.parametrize(("axes", "kernel", "groups"), CASES)
def test_convolutions_compute_in_bf16_as_in_float32(axes, kernel, groups):
    torch.manual_seed(0)
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(axes)]
    layer = kind(8, 16, kernel, padding=kernel // 2, groups=groups)
    x = torch.randn(2, 8, *axes).bfloat16().float().requires_grad_()
    found = []
    for precision in ("float32", "bf16"):
        with autocast(torch.device("cpu"), precision):
            y = layer(x)
            mark_freed_memory()
            with torch.no_grad():
                embedded = layer(x)
        mark_freed_memory()
        gradients = torch.autograd.grad(y.float().square().sum(), [x, layer.weight])
        found.append([y, embedded, *gradients])
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).abs().max() <= 0.03 * exact.abs().max()

"""Switches of the numeric libraries, and kernels that are replaced on processors."""

import pytest
import torch
from torch import nn

from mvemo.extract.nets.parts.threads import map_parts
from mvemo.extract.training.devices import place, reproducible_kernels


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


def mark_freed_memory():
    """Fill memory that is then freed with NaN, which kernels find that read outside of arrays."""
    blocks = [torch.full((2**k,), float("nan")) for k in range(6, 22) for _ in range(3)]
    del blocks


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize(
    "shape", [(2, 8, 8), (1, 8, 8), (3, 8, 8), (5, 8, 8), (8, 2, 2), (8, 1, 8)]
)
def test_convolutions_train_in_bf16_as_in_float32(kernel, shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(8, 16, kernel, padding=kernel // 2))
    net.modality = "video"
    x = torch.randn(2, 8, *shape).bfloat16().float().requires_grad_()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = net(x)
        mark_freed_memory()
        found.append(torch.autograd.grad(y.float().square().sum(), [x, net[0].weight]))
        net = place(net, torch.device("cpu"))
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).abs().max() <= 0.03 * exact.abs().max()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        embedded = net(x)
    assert embedded.dtype == torch.bfloat16
    assert (embedded - y).abs().max() <= 0.03 * y.abs().max()

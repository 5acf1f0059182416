"""Switches of the numeric libraries during embedding."""

import torch

from mvemo.extract.nets.parts.threads import map_parts
from mvemo.extract.training.devices import reproducible_kernels


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

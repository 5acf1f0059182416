"""Processes that train one net together: parts of batches, shared norms, the same net as one's."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mvemo.extract.training import ranks
from mvemo.extract.training.ranks import Ranks, joined_ranks, started_together
from mvemo.manifests.errors import BadOption

TOGETHER = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_parts_of_a_batch_are_the_batch(count):
    everyone = [Ranks(number, count) for number in range(count)]
    for n_clips in range(1, 12):
        batch = list(range(100, 100 + n_clips))
        parts = [of.part(batch) for of in everyone]
        # A batch normalisation hangs where one rank has nothing to normalise.
        assert all(parts)
        if n_clips >= count:
            assert [row for part in parts for row in part] == batch
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        weights = [of.weight(n_clips) for of in everyone]
        assert sum(weights) == pytest.approx(1)
        mean = sum(w * sum(p) / len(p) for w, p in zip(weights, parts, strict=True))
        assert mean == pytest.approx(sum(batch) / n_clips)


@pytest.fixture
def one_rank(tmp_path):
    # A group of this process alone: its sums are its own.
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_shared_norms_are_torchs_where_there_is_one_rank(one_rank, momentum):
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, momentum=momentum)) for _ in "ab"]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(6, 3, 8, 8) * 3 + 100
    weights = torch.randn(6, 5, 6, 6)
    # Two ranks by name, so that the norms are replaced; the group's one is the whole batch.
    with Ranks(0, 2).shared_norms(nets[1]):
        for _ in range(2):
            for net in nets:
                net.zero_grad()
                (net(x) * weights).sum().backward()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
    for name, value in nets[0].state_dict().items():
        torch.testing.assert_close(value, nets[1].state_dict()[name], rtol=1e-5, atol=1e-5)
    assert type(nets[1][1]) is nn.BatchNorm2d
    for net in nets:
        net.eval()
    torch.testing.assert_close(nets[0](x), nets[1](x))


@pytest.mark.parametrize(
    ("changed", "together"),
    [({"MASTER_PORT": None}, False), ({"WORLD_SIZE": "1"}, False), ({}, True)],
)
def test_processes_of_torchrun_are_found(monkeypatch, changed, together):
    for name, value in {**TOGETHER, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    assert started_together() is together
    if not together:
        with joined_ranks("cpu") as alone:
            assert (alone.number, alone.count, alone.is_writer) == (0, 1, True)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {**TOGETHER, "RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.assists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "process 3 on this machine has no GPU, because there are only 2"
    with pytest.raises(BadOption, match=message), joined_ranks("auto"):
        pass

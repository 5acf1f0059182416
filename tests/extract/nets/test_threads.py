"""Threads of a CPU give the values of one thread, bit by bit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from toy_net import embedded

from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.threads import cpu_threads, map_parts, only_parts_in_threads
from mvemo.extract.settings import ViewSettings
from mvemo.extract.training.data import RawBatches


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@torch.inference_mode()
def test_parts_are_joined_in_order_and_have_one_thread_each(set_threads):
    set_threads(3)
    seen = []

    def embed(part):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return 2 * part

    x = torch.arange(12.0)
    assert torch.equal(map_parts(embed, torch.split(x, 2)), 2 * x)
    with only_parts_in_threads():
        assert torch.get_num_threads() == 1
        assert torch.equal(map_parts(embed, torch.split(x, 5)), 2 * x)
    assert set(seen) == {(1, True)}
    assert torch.get_num_threads() == 3


def test_new_threads_keep_the_number_of_the_process(set_threads):
    set_threads(5)
    cpu_threads(5)
    assert torch.get_num_threads() == 5
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 5


def test_an_error_in_a_part_is_raised(set_threads):
    set_threads(2)

    def embed(part):
        raise ValueError(f"part {int(part[0])}")

    with torch.inference_mode(), pytest.raises(ValueError, match="part 0"):
        map_parts(embed, torch.split(torch.arange(4), 1))


@pytest.mark.parametrize(
    ("name", "options", "views"),
    [
        ("i3d", {"width": 0.25, "n_frames": 8, "size": 32}, 2),
        ("effnet", {"width": 0.2, "size": 32}, 1),
        ("musicnn", {"width": 0.25, "seconds": 9.0}, 1),
    ],
)
def test_embeddings_do_not_depend_on_the_number_of_threads(name, options, views, set_threads):
    torch.manual_seed(0)
    net = build_net(name, 3, **options).eval()
    rng = np.random.default_rng(0)
    if net.modality == "audio":
        media = rng.uniform(-1, 1, (5, net.input.samples)).astype(np.float32)
    else:
        shape = (5, views * net.input.n_frames, net.input.size, net.input.size, 3)
        media = rng.integers(0, 256, shape, dtype=np.uint8)
    reader = RawBatches(media.__getitem__, net.input, ViewSettings(views))

    set_threads(1)
    expected = embedded(net, reader, range(5), size=0)
    for n in (2, 3):
        set_threads(n)
        for rows in (range(5), [3]):
            found = embedded(net, reader, rows, size=0)
            assert list(found) == list(rows)
            for row, vector in found.items():
                assert vector.tobytes() == expected[row].tobytes()

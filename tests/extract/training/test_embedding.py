"""An embedding does not depend on what else is embedded in the same run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mvemo.extract.array_types import F32
from mvemo.extract.errors import ExtractError
from mvemo.extract.nets import AudioInput, Net, SequenceInput, build_net
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.embedding import chunk_rows, embed_rows
from mvemo.extract.views import ViewSettings

CPU = torch.device("cpu")


class Telling(torch.nn.Module):
    """Embeds a window as its mean, its place in the batch, and the batch's size."""

    def prepare(self, raw: Tensor) -> Tensor:
        return raw

    def embed(self, x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1)
        places = torch.arange(len(x), dtype=torch.float32)
        return torch.stack([flat.mean(dim=1), places, torch.full((len(x),), float(len(x)))], dim=1)


def embed(net: Net, reader: RawBatches, rows: list[int], size: int = 4) -> dict[int, F32]:
    batches = embed_rows(net, reader, rows, batch_size=size, device=CPU, independent=True)
    return {row: vector for rows, values in batches for row, vector in zip(rows, values)}  # noqa: B905


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("left", [[0, 1, 2, 3, 4, 5, 6], [3, 6], [1, 2, 5], [4]])
def test_a_run_that_goes_on_embeds_as_one_that_was_not_cut_off(views: int, left: list[int]) -> None:
    waves = [np.full(10 + 4 * row, row, np.float32) for row in range(7)]
    reader = RawBatches(waves.__getitem__, AudioInput(10, 1.0), ViewSettings(views))
    net: Net = Telling()  # type: ignore[assignment]
    whole = embed(net, reader, list(range(7)))
    some = embed(net, reader, left)
    assert list(some) == left
    for row, vector in some.items():
        assert vector[0] == row
        assert np.array_equal(vector, whole[row])


def test_the_clips_of_a_shard_fill_batches_and_are_embedded_as_beside_all_others() -> None:
    waves = [np.full(10, row, np.float32) for row in range(40)]
    reader = RawBatches(waves.__getitem__, AudioInput(10, 1.0))
    net: Net = Telling()  # type: ignore[assignment]
    whole = embed(net, reader, list(range(40)))
    scattered = np.random.default_rng(0).permutation(40)[:16].tolist()
    some = embed(net, reader, scattered)
    assert sorted(some) == sorted(scattered)
    assert all(np.array_equal(vector, whole[row]) for row, vector in some.items())
    # As many batches as the most crowded place needs, not one for each four rows of the whole.
    places = [row % 4 for row in scattered]
    assert len(chunk_rows(scattered, 4)) == max(map(places.count, range(4))) < 8


def test_clips_with_ends_are_embedded_alone() -> None:
    """A net that packs sequences works on what is as long as they are, at each step."""
    sequences = [np.ones((3 + row, 1), np.float32) for row in range(5)]
    reader = RawBatches(sequences.__getitem__, SequenceInput(("mel",), 9), ViewSettings())
    found = embed(Telling(), reader, [0, 1, 4])  # type: ignore[arg-type]
    assert [vector[2] for vector in found.values()] == [1, 1, 1]


def test_the_values_are_those_of_plain_batches() -> None:
    torch.manual_seed(0)
    net = build_net("music1d", 2, width=0.05, seconds=0.5)
    rng = np.random.default_rng(0)
    waves = rng.uniform(-1, 1, (5, 8000)).astype(np.float32)
    reader = RawBatches(lambda row: waves[row], net.input)
    plain = embed_rows(net, reader, range(5), batch_size=2, device=CPU)
    expected = np.concatenate([values for _, values in plain])
    found = embed(net, reader, [0, 3, 4], size=2)
    assert np.allclose([found[row] for row in (0, 3, 4)], expected[[0, 3, 4]], atol=1e-6)


def test_a_batch_that_memory_is_too_small_for_is_halved() -> None:
    class Narrow(Telling):
        def embed(self, x: Tensor) -> Tensor:
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            sizes.append(len(x))
            return super().embed(x)

    sizes: list[int] = []
    waves = [np.full(10, i, np.float32) for i in range(11)]
    reader = RawBatches(waves.__getitem__, AudioInput(10, 1.0))
    net: Net = Narrow()  # type: ignore[assignment]
    found = embed(net, reader, list(range(11)), size=8)
    assert [found[row][0] for row in range(11)] == list(range(11))
    # Two batches of eight places; what did not fit was tried once, not for each batch.
    assert sizes == [2] * 8


def test_memory_that_is_too_small_for_a_window_is_one_line_with_a_cure() -> None:
    class Large(Telling):
        name = "large"

        def embed(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    waves = [np.zeros(10, np.float32)] * 3
    reader = RawBatches(waves.__getitem__, AudioInput(10, 1.0))
    net: Net = Large()  # type: ignore[assignment]
    with pytest.raises(ExtractError, match=r"^large: the memory of .* to embed one window"):
        embed(net, reader, [0, 1, 2])

"""An embedding does not depend on what else is embedded in the same run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_net import embedded

from mvemo.extract.nets import AudioInput, SequenceInput, build_net
from mvemo.extract.settings import NetSettings, RunSettings, ViewSettings
from mvemo.extract.training import data, embedding, protocols
from mvemo.manifests.errors import BadOption, MissingFile, MvemoError

CPU = torch.device("cpu")


def waves_of(lengths, views=1):
    """Clip i has the value i throughout; a window has 10 samples."""
    waves = [np.full(length, row, np.float32) for row, length in enumerate(lengths)]
    return data.RawBatches(waves.__getitem__, AudioInput(10, 1.0), ViewSettings(views))


class Telling(torch.nn.Module):
    """Embeds a window as its mean, its place in the batch, and the batch's size."""

    def prepare(self, raw):
        return raw

    def embed(self, x):
        flat = x.reshape(len(x), -1)
        places = torch.arange(len(x), dtype=torch.float32)
        return torch.stack([flat.mean(dim=1), places, torch.full((len(x),), float(len(x)))], dim=1)


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("left", [[0, 1, 2, 3, 4, 5, 6], [3, 6], [1, 2, 5], [4]])
def test_a_run_that_goes_on_embeds_as_one_that_was_not_cut_off(views, left):
    net, reader = Telling(), waves_of(range(10, 38, 4), views)
    whole, some = embedded(net, reader, list(range(7))), embedded(net, reader, left)
    assert list(some) == left
    for row, vector in some.items():
        assert vector[0] == row
        assert np.array_equal(vector, whole[row])


def test_the_clips_of_a_shard_fill_batches():
    # As many batches as the most crowded place needs, not one for each four rows of the whole.
    assert embedding.chunk_rows([38, 3, 1, 6, 21, 20], 4) == [[38, 3, 1, 20], [6, 21]]


def test_clips_with_ends_are_embedded_alone():
    # A net that packs sequences works on what is as long as they are, at each step.
    sequences = [np.ones((3 + row, 1), np.float32) for row in range(5)]
    reader = data.RawBatches(sequences.__getitem__, SequenceInput(("mel",), 9), ViewSettings())
    found = embedded(Telling(), reader, [0, 1, 4])
    assert [vector[2] for vector in found.values()] == [1, 1, 1]


def test_the_values_are_those_of_plain_batches():
    torch.manual_seed(0)
    net = build_net("music1d", 2, width=0.05, seconds=0.5)
    rng = np.random.default_rng(0)
    waves = rng.uniform(-1, 1, (5, 8000)).astype(np.float32)
    reader = data.RawBatches(lambda row: waves[row], net.input)
    plain = embedding.embed_rows(net, reader, range(5), batch_size=2, device=CPU)
    expected = np.concatenate([values for _, values in plain])
    found = embedded(net, reader, [0, 3, 4], size=2)
    assert np.allclose([found[row] for row in (0, 3, 4)], expected[[0, 3, 4]], atol=1e-6)


class Small(Telling):
    """A net whose device has memory for `limit` windows."""

    name = "small"

    def __init__(self, limit):
        super().__init__()
        self.limit, self.sizes = limit, []

    def embed(self, x):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.sizes.append(len(x))
        return super().embed(x)


def test_a_batch_that_memory_is_too_small_for_is_halved():
    net = Small(2)
    found = embedded(net, waves_of([10] * 11), list(range(11)), size=8)
    assert [found[row][0] for row in range(11)] == list(range(11))
    # Two batches of eight places; what did not fit was tried once, not for each batch.
    assert net.sizes == [2] * 8
    with pytest.raises(MvemoError, match=r"^small: the memory of .* to embed one window"):
        embedded(Small(0), waves_of([10] * 3), [0, 1, 2])


FROZEN_RUN = RunSettings("frozen", device="cpu")
FROZEN_OPTIONS = {"n_frames": 8, "size": 32}


def save_net(path, seed):
    torch.manual_seed(seed)
    torch.save(build_net("i3d", 2, width=0.25, **FROZEN_OPTIONS).state_dict(), path)


@pytest.fixture
def settings(tmp_path):
    save_net(tmp_path / "own.pt", seed=0)
    return NetSettings("i3d", 0.25, str(tmp_path / "own.pt"), FROZEN_OPTIONS)


def test_a_changed_file_or_setting_is_another_net(settings):
    nets = embedding.FrozenNets()

    def get(settings):
        return nets.get(settings, 2, FROZEN_RUN)

    assert get(settings) is get(settings)
    first = get(settings).spec
    assert first == protocols.frozen_net(settings, 2, FROZEN_RUN).spec
    slower = replace(settings, options={**FROZEN_OPTIONS, "n_frames": 16})
    assert get(slower).spec.params != first.params
    file = Path(settings.weights)
    save_net(file, seed=1)
    assert get(settings).spec.weights != first.weights
    file.unlink()
    with pytest.raises(MissingFile, match=r"own\.pt"):
        get(settings)


def test_a_net_without_weights_is_refused(settings):
    with pytest.raises(BadOption, match="i3d: the frozen protocol needs pretrained weights"):
        embedding.FrozenNets().get(replace(settings, weights=""), 2, FROZEN_RUN)

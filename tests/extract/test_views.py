"""Windows of clips: where they lie, that all are read, and that defaults read as before."""

from itertools import product

import numpy as np
import pytest
import torch
from media_samples import film, index_of, sine

from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import AudioInput, SequenceInput, VideoInput, build_net
from mvemo.extract.settings import LAYOUTS, NetSettings, RunSettings, ViewSettings, window_starts
from mvemo.extract.training import data, embedding, protocols
from mvemo.manifests.errors import BadOption


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [0.5, 3.0, 3.01, 4.0, 7.4, 9.0, 100.0])
def test_windows_are_different_and_within_the_clip(layout, length):
    for views in (1, 2, 3, 50):
        starts = window_starts(length, 3.0, ViewSettings(views=views, layout=layout))
        assert 1 <= len(starts) <= views
        assert starts[0] == 0.0
        assert (np.diff(starts) > 0).all()
        if length == 3.01:  # a rest that codecs add is no window
            assert len(starts) == 1
        if length >= 3.0:
            assert starts[-1] <= length - 3.0
        if views == 50:
            # No gap anywhere, but for what a codec fills up.
            assert (np.diff(starts) <= 3.0 + 1e-9).all()
            assert starts[-1] + 3.0 >= length - 0.1


def test_bad_views_are_refused():
    with pytest.raises(BadOption, match="needs 2 or more views"):
        ViewSettings(pooling="mean+std")


def test_frames_of_all_samplings_come_from_one_decoding(tmp_path):
    path = film(tmp_path / "a.mp4", 28, 100, sound=sine(2.8, 16000))
    expected = {
        FrameSampling(8, 16): [1, 5, 8, 12, 15, 19, 22, 26],
        FrameSampling(4, 16, views=2): [1, 5, 8, 12, 15, 19, 22, 26],
        # Windows of 0.4 s: from 0, 1.2 and 2.4 s on.
        FrameSampling(4, 24, views=3, rate=10.0): [0, 1, 2, 3, 12, 13, 14, 15, 24, 25, 26, 27],
        FrameSampling(4, 16, views=2, layout="start", rate=10.0): [0, 1, 2, 3, 4, 5, 6, 7],
        # A window longer than the clip is spread over it.
        FrameSampling(8, 20, views=3, rate=0.5): [1, 5, 8, 12, 15, 19, 22, 26],
    }
    decoded = decode_clip(path, pictures=tuple(expected))
    assert decoded.problems == {}
    for sampling, indices in expected.items():
        found = decoded.frames[sampling]
        assert found.shape[1:] == (sampling.size, sampling.size, 3)
        assert [index_of(frame) for frame in found] == indices, sampling
        alone = decode_clip(path, sample_rates=(), pictures=(sampling,))
        np.testing.assert_array_equal(alone.frames[sampling], found)


def test_names_of_samplings_tell_them_apart():
    values = list(product((4, 8), (16, 20), (1, 2), LAYOUTS, (0.5, 12.5)))
    assert len({FrameSampling(*each).name for each in values}) == len(values)
    assert FrameSampling(32, 112).name == "32x112"


def test_the_windows_of_each_kind_of_input():
    view = ViewSettings(views=2)
    wave = np.arange(25, dtype=np.float32)
    sound = data.RawBatches(lambda row: wave[: row + 1], AudioInput(sr=10, seconds=1.0), view)
    raw, counts = sound.load_views([24, 4])
    assert counts == [2, 1]
    assert raw[:2].tolist() == [list(range(10)), list(range(15, 25))]
    assert raw[2].tolist() == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]
    # A fine-tuning reads the middle one, of two the second.
    assert sound.load([24])[0, 0] == 15
    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    pictures = data.RawBatches(lambda row: frames, VideoInput(n_frames=2, size=2), ViewSettings(3))
    raw, counts = pictures.load_views([0])
    assert counts == [3]
    assert raw[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert pictures.load([0])[0, :, 0, 0, 0].tolist() == [2, 3]
    rows = np.arange(5, dtype=np.float32)[:, None]
    sequences = data.RawBatches(lambda row: rows, SequenceInput(("mel",), 3), view)
    raw, counts = sequences.load_views([0])
    assert raw[:, :, 0].tolist() == [[0, 1, 2], [2, 3, 4]]


@torch.inference_mode()
def test_an_embedding_is_pooled_over_the_windows_of_its_clip():
    torch.manual_seed(0)
    net = build_net("music1d", 2, width=0.1, seconds=0.5)
    rng = np.random.default_rng(1)
    waves = [rng.uniform(-1, 1, n).astype(np.float32) for n in (8000, 24000, 17000)]
    view = ViewSettings(views=3, pooling="mean+std")
    reader = data.RawBatches(lambda row: waves[row], net.input, view)
    device = torch.device("cpu")
    parts = embedding.embed_rows(net, reader, [0, 1, 2], batch_size=2, device=device)
    found = np.concatenate([values for _, values in parts])
    for wave, row in zip(waves, found, strict=True):
        starts = window_starts(len(wave), 8000, view)
        windows = np.stack([wave[round(s) : round(s) + 8000] for s in starts])
        each = net.embed(net.prepare(torch.from_numpy(windows))).numpy()
        expected = np.concatenate([each.mean(axis=0), each.std(axis=0)])
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


def test_keys_change_with_every_view_and_stay_without():
    net = build_net("music1d", 2, width=0.1)
    values = [(), (2,), (1, "dense"), (1, "spread", 12.5), (2, "spread", 0.0, "mean+std")]
    plans = [NetSettings("music1d", 0.1, view=ViewSettings(*each)) for each in values]
    specs = [protocols.embedding_spec(plan, net, RunSettings()) for plan in plans]
    assert "view" not in specs[0].params
    assert len({spec.digest for spec in specs}) == len(specs)
    assert [spec.dim for spec in specs] == [net.embedding_dim] * 4 + [2 * net.embedding_dim]
    # The record of a training has no views by default.
    assert set(plans[0].record()) == {"name", "width", "options", "train"}
    assert all("views" in plan.record() for plan in plans[1:])

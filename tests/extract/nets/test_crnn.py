"""The CRNN: both branches, their padding, the bands, and learning."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sequence_samples import (
    assert_padding_changes_nothing,
    made_problem,
    pad,
    sequences,
    settle,
)

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.sequences import band_edges, last_states
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.steps import TrainingJob
from mvemo.extract.training.trainer import JobFolder, fine_tune

BINS, LLD = 20, 6


def make(**options):
    sizes = {
        "n_frames": 40,
        "spectrogram_frames": 40,
        "spectrogram_dim": BINS,
        "lld_dim": LLD,
        "bands": 8,
    }
    return build_net("crnn", 3, width=0.125, **{**sizes, **options})


def test_padding_and_company_change_nothing():
    assert_padding_changes_nothing(make, BINS + LLD)


def test_sizes_and_record():
    net = build_net("crnn", 4, lld_dim=50)
    assert net.input.n_frames == 860
    assert net.embedding_dim == 256
    assert net.input.features == ("spectrogram", "mfcc_rp", "f0", "formants", "contrast", "chroma")
    assert net.spectrogram_lstm.input_size == 32 * 128
    assert net.lld_lstm.num_layers == 2
    assert net.lld_lstm.input_size == 50
    json.dumps(net.preprocessing())


def test_default_sizes_are_those_of_ten_seconds_of_descriptors():
    settings = DescriptorSettings()
    net, mel = build_net("crnn", 4), build_net("cnn", 4)
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * settings.sr).astype(np.float32)
    found = describe(noise, settings, [*net.input.features, "mel"])
    spectrogram = found.pop("spectrogram")
    assert spectrogram.shape == (net.options.spectrogram_frames + 1, 513)
    columns = np.concatenate([found[name] for name in net.input.features[1:]], axis=1)
    assert columns.shape == (net.options.n_frames, net.options.lld_dim)
    empty = np.full((len(spectrogram) - len(columns), columns.shape[1]), np.nan, np.float32)
    columns = np.concatenate([spectrogram, np.concatenate([columns, empty])], axis=1)
    assert found["mel"].shape == (mel.input.n_frames, mel.options.n_mels)
    net.eval()
    with torch.no_grad():
        assert net(net.prepare(torch.from_numpy(columns)[None])).isfinite().all()


def test_first_kernels_lie_along_time_and_along_frequency():
    net = make()
    assert net.conv1_time.weight.shape[2:] == (1, 9)
    assert net.conv1_frequency.weight.shape[2:] == (9, 1)


def test_embedding_is_both_branches_last_states():
    x = sequences([40, 23], BINS + LLD, 40)
    net = settle(make(), x)
    with torch.no_grad():
        whole = net.embed(net.prepare(x))
        other = x.clone()
        other[:, :, BINS:] = sequences([40, 23], LLD, 40, seed=1)
        changed = net.embed(net.prepare(other))
    half = net.embedding_dim // 2
    torch.testing.assert_close(changed[:, :half], whole[:, :half])
    assert (changed[:, half:] - whole[:, half:]).abs().max() > 1e-3


def test_branches_have_frames_of_their_own():
    x = sequences([40, 40], BINS + LLD, 40)
    net = settle(make(spectrogram_frames=36, n_frames=18), x)
    half = net.embedding_dim // 2
    with torch.no_grad():
        whole = net.embed(net.prepare(x))
        # What lies after a branch's frames has no say; what lies in them has.
        for columns, frames, own in (
            (slice(0, BINS), 36, slice(0, half)),
            (slice(BINS, None), 18, slice(half, None)),
        ):
            after, within = x.clone(), x.clone()
            after[:, frames:, columns] = torch.nan
            torch.testing.assert_close(net.embed(net.prepare(after)), whole)
            within[:, frames - 1 :, columns] = torch.nan
            changed = (net.embed(net.prepare(within)) - whole).abs().amax(dim=0)
            assert changed[own].max() > 1e-4
            changed[own] = 0
            assert changed.max() == 0


def test_last_states_are_those_of_a_lstm_written_out():
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True).double()
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    lengths = [7, 4]
    with torch.no_grad():
        got = last_states(lstm, x, torch.tensor(lengths)).numpy()
    weights = {name: value.detach().numpy() for name, value in lstm.named_parameters()}

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def run(frames, suffix):
        h, c, seen = np.zeros(4), np.zeros(4), []
        for frame in frames:
            z = (
                weights[f"weight_ih_{suffix}"] @ frame
                + weights[f"bias_ih_{suffix}"]
                + weights[f"weight_hh_{suffix}"] @ h
                + weights[f"bias_hh_{suffix}"]
            )
            i, f, g, o = z.reshape(4, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            seen.append(h)
        return np.array(seen)

    for row, clip, length in zip(got, x.numpy(), lengths, strict=True):
        frames = clip[:length]
        for layer in ("l0", "l1"):
            forward, backward = run(frames, layer), run(frames[::-1], f"{layer}_reverse")
            ends = np.concatenate([forward[-1], backward[-1]])
            frames = np.concatenate([forward, backward[::-1]], axis=1)
        np.testing.assert_allclose(row, ends, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_a_batch_without_shorter_clips_is_read_as_one_with_them(kind):
    torch.manual_seed(0)
    layers = kind(3, 4, num_layers=2, batch_first=True, bidirectional=kind is torch.nn.LSTM)
    x = torch.randn(3, 7, 3)
    with torch.no_grad():
        whole = last_states(layers, x, torch.tensor([7, 7, 7]))
        mixed = last_states(layers, x, torch.tensor([7, 7, 4]))
    torch.testing.assert_close(whole[:2], mixed[:2], atol=1e-6, rtol=0)
    assert (whole[2] - mixed[2]).abs().max() > 1e-3


def test_bands_are_means_of_their_bins():
    x = sequences([5, 3], BINS + LLD, 5)
    net = make()
    got = net.prepare(x).numpy()
    edges = band_edges(BINS, 8)
    for b in range(8):
        np.testing.assert_allclose(
            got[:, :, b], x[:, :, edges[b] : edges[b + 1]].numpy().mean(2), rtol=1e-5
        )
    np.testing.assert_array_equal(got[:, :, 8:], x[:, :, BINS:].numpy())
    np.testing.assert_array_equal(np.isnan(got).all(2), np.isnan(x.numpy()).all(2))


@given(st.integers(1, 3000), st.integers(1, 300))
def test_bands_cover_every_bin_once(bins, bands):
    edges = band_edges(bins, bands)
    widths = np.diff(edges)
    assert edges[0] == 0
    assert edges[-1] == bins
    assert len(widths) == min(bins, bands)
    assert widths.min() >= 1
    # They grow, up to the rounding of their borders.
    assert (np.diff(widths) >= -1).all()


def test_the_spectrum_s_lowest_bins_stay_apart():
    widths = np.diff(band_edges(1025, 128))
    assert widths[:6].tolist() == [1] * 6
    assert widths.max() < 30


# The first and the last of them; with all, test_cnn.py.
@pytest.mark.parametrize("loss", ["softmax", "improved-centre"])
def test_learns_a_made_problem(tmp_path, loss):
    clips, labels = made_problem(60, 24, 30)
    torch.manual_seed(0)
    net = build_net("crnn", 3, width=0.125, n_frames=30, spectrogram_dim=18, lld_dim=6, bands=8)
    folder = JobFolder(tmp_path, loss, "d" * 64)
    folder.begin({})
    curve = fine_tune(
        net,
        RawBatches(lambda row: clips[row], net.input),
        TrainingJob(
            "toy@all",
            labels,
            task="multiclass",
            train_rows=list(range(40)),
            val_rows=list(range(40, 60)),
            settings=TrainSettings(
                lr=0.01, epochs=6, patience=6, batch_size=10, loss=loss, tau=0.3
            ),
            seed=0,
        ),
        folder,
    )
    assert max(curve["val_accuracy"]) >= 0.9


def test_embeddings_read_from_batches_of_uneven_clips():
    clips, _ = made_problem(4, BINS + LLD, 30)
    net = make(n_frames=30)
    reader = RawBatches(lambda row: clips[row], net.input)
    x = reader.load([0, 1, 2, 3])
    net = settle(net, x)
    with torch.no_grad():
        whole = net.embed(net.prepare(x))
        torch.testing.assert_close(
            net.embed(net.prepare(pad(reader.load([2]), 9))), whole[2:3], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_frames": 0}, "n_frames is 0"),
        ({"spectrogram_frames": 0}, "spectrogram_frames is 0"),
        ({"lld_dim": 0}, "lld_dim is 0"),
        ({"bands": 0}, "bands is 0"),
        ({"dropout": -0.1}, r"lie in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(BadSetting, match=says):
        make(**options)


def test_sequences_of_other_columns_are_refused():
    with pytest.raises(BadSetting, match=r"\(batch, frames, 26\) is needed; .* lld_dim"):
        make().prepare(sequences([4], 27, 4))

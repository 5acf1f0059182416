"""Nets on descriptors: the CRNN's branches and learning, sizes, and missing numbers."""

import numpy as np
import torch
from sequence_samples import sequences, settle

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.nets import SharedSettings, build_net
from mvemo.extract.nets.parts.registry import with_length, with_shared_options
from mvemo.extract.settings import NetSettings

BINS, LLD = 20, 6


def make(**options):
    sizes = {"spectrogram_dim": BINS, "lld_dim": LLD, "bands": 8}
    return build_net("crnn", 3, width=0.125, **sizes, **options)


def test_sizes():
    net = build_net("crnn", 4, lld_dim=50)
    assert net.input.n_frames == 860
    assert net.embedding_dim == 256
    assert net.input.features == ("spectrogram", "mfcc_rp", "f0", "formants", "contrast", "chroma")
    assert net.spectrogram_lstm.input_size == 32 * 128
    assert (net.lld_lstm.num_layers, net.lld_lstm.input_size) == (2, 50)
    # The first kernels lie along time and along frequency.
    assert net.conv1_time.weight.shape[2:] == (1, 9)
    assert net.conv1_frequency.weight.shape[2:] == (9, 1)


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


def test_a_number_that_is_missing_within_a_frame_shows():
    x = sequences([40, 40], 12, 40)
    net = settle(build_net("cnn", 3, width=0.125, n_mels=12), x)
    x[1, 3, 5] = torch.nan
    with torch.no_grad():
        finite = net.embed(net.prepare(x)).isfinite().all(dim=1)
    assert finite.tolist() == [True, False]


def test_sizes_follow_the_spectrogram_s_own_frames():
    shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    settings = with_length(with_shared_options(NetSettings("speccnn"), shared), 16.0, shared)
    assert dict(settings.options) == {"spectrogram_dim": 513, "n_frames": 1378}

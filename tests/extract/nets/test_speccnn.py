"""The spectrogram CNN: its bands, padding, and tags that it learns."""

import numpy as np
import pytest
import torch
from sequence_samples import assert_padding_changes_nothing, made_problem, sequences, settle

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import SequenceInput, SharedSettings, build_net
from mvemo.extract.nets.parts.registry import with_length, with_shared_options
from mvemo.extract.nets.parts.sequences import band_edges
from mvemo.extract.settings import NetSettings, TrainSettings
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.trainer import JobFolder, TrainingJob, fine_tune

BINS = 24


def make(**options):
    sizes = {"n_frames": 40, "spectrogram_dim": BINS, "bands": 10}
    return build_net("speccnn", 3, width=0.125, **{**sizes, **options})


def test_padding_and_company_change_nothing():
    assert_padding_changes_nothing(make, BINS)


def test_reads_means_of_the_spectrogram_s_bins():
    net, x = make(), sequences([5, 3], BINS, 5)
    assert net.input == SequenceInput(("spectrogram",), 40)
    edges = band_edges(BINS, 10)
    got = net.prepare(x).numpy()
    for b in range(10):
        expected = x[:, :, edges[b] : edges[b + 1]].numpy().mean(2)
        np.testing.assert_allclose(got[:, :, b], expected, rtol=1e-5)
    assert make(bands=99).prepare(x).shape == (2, 5, BINS)


def test_sizes_follow_the_spectrogram_s_own_frames():
    shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    settings = with_length(with_shared_options(NetSettings("speccnn"), shared), 16.0, shared)
    assert dict(settings.options) == {"spectrogram_dim": 513, "n_frames": 1378}


def test_learns_tags_that_go_together(tmp_path):
    clips, classes = made_problem(60, BINS, 30)
    # Two tags a clip: that of its class, and one that two classes share.
    tags = np.eye(3, dtype=np.int64)[classes]
    tags[:, 2] |= tags[:, 0]
    torch.manual_seed(0)
    net = make(n_frames=30)
    train, test = list(range(45)), list(range(45, 60))
    settings = TrainSettings(lr=0.01, epochs=12, patience=0, batch_size=9)
    job = TrainingJob("toy@all", tags, "multilabel", train, [], settings, seed=0)
    batches = RawBatches(lambda row: clips[row], net.input)
    fine_tune(net, batches, job, JobFolder(tmp_path, "toy", "d" * 64))
    with torch.no_grad():
        logits = net.eval()(net.prepare(batches.load(test)))
    assert ((logits > 0).numpy() == tags[test]).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "says"), [({"bands": 0}, "bands is 0"), ({"dropout": 1.0}, r"lie in \[0, 1\)")]
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(BadSetting, match=says):
        make(**options)


def test_sequences_of_other_columns_are_refused():
    with pytest.raises(BadSetting, match=r"\(batch, frames, 24\) is needed; .* spectrogram_dim"):
        make().prepare(sequences([4], 27, 4))


def test_a_clip_of_one_frame_has_an_embedding():
    x = sequences([40, 1], BINS, 40)
    net = settle(make(), x)
    with torch.no_grad():
        assert net.embed(net.prepare(x)).isfinite().all()

"""The CNNs on spectrograms: convolutions, bands, missing values, and learning."""

import numpy as np
import pytest
import torch
from sequence_samples import made_problem, sequences, settle, train

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import SequenceInput, SharedSettings, build_net
from mvemo.extract.nets.parts.registry import with_length, with_shared_options
from mvemo.extract.settings import LOSSES, NetSettings
from mvemo.extract.training.data import RawBatches

BINS = 24


def make(name="speccnn", **options):
    sizes = {"n_frames": 40, "n_mels": 12}
    if name == "speccnn":
        sizes = {"n_frames": 40, "spectrogram_dim": BINS, "bands": 10}
    return build_net(name, 3, width=0.125, **{**sizes, **options})


def test_a_number_that_is_missing_within_a_frame_shows():
    x = sequences([40, 40], 12, 40)
    net = settle(make("cnn"), x)
    x[1, 3, 5] = torch.nan
    with torch.no_grad():
        finite = net.embed(net.prepare(x)).isfinite().all(dim=1)
    assert finite.tolist() == [True, False]


def test_sizes_follow_the_spectrogram_s_own_frames():
    shared = SharedSettings(n_frames=32, descriptors=DescriptorSettings())
    assert make().input == SequenceInput(("spectrogram",), 40)
    settings = with_length(with_shared_options(NetSettings("speccnn"), shared), 16.0, shared)
    assert dict(settings.options) == {"spectrogram_dim": 513, "n_frames": 1378}


@pytest.mark.parametrize("loss", LOSSES)
def test_learns_a_made_problem_with_every_loss(tmp_path, loss):
    clips, labels = made_problem(60, 12, 30)
    torch.manual_seed(0)
    net = make("cnn", n_frames=30)
    curve = train(net, clips, labels, tmp_path, epochs=8, loss=loss, tau=0.1)
    assert max(curve["val_accuracy"]) >= 0.9


def test_learns_tags_that_go_together(tmp_path):
    clips, classes = made_problem(60, BINS, 30)
    # Two tags a clip: that of its class, and one that two classes share.
    tags = np.eye(3, dtype=np.int64)[classes]
    tags[:, 2] |= tags[:, 0]
    torch.manual_seed(0)
    net = make(n_frames=30)
    train(net, clips, tags, tmp_path, epochs=12, task="multilabel")
    with torch.no_grad():
        raw = RawBatches(lambda row: clips[row], net.input).load(list(range(40, 60)))
        logits = net.eval()(net.prepare(raw))
    assert ((logits > 0).numpy() == tags[40:]).mean() > 0.9

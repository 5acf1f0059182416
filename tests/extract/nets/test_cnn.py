"""The classical CNN: padding, normalisation over real frames, shapes, learning."""

import json

import numpy as np
import pytest
import torch
from sequence_samples import assert_padding_changes_nothing, made_problem, sequences, settle

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import SequenceInput, build_net
from mvemo.extract.nets.parts.sequences import FrameNorm, masked_mean, pool, split_frames
from mvemo.extract.settings import LOSSES, TrainSettings
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.steps import TrainingJob
from mvemo.extract.training.trainer import JobFolder, fine_tune


def make():
    return build_net("cnn", 3, width=0.125, n_frames=40, n_mels=12)


def test_padding_and_company_change_nothing():
    assert_padding_changes_nothing(make, 12)


def test_sizes_and_record():
    net = build_net("cnn", 4)
    assert net.input == SequenceInput(("mel",), 430)
    assert net.embedding_dim == net.classifier.in_features == 256
    # 3 x 3 kernels; scale and offset of five normalisations; two fully connected layers
    kernels = 9 * (32 + 32 * 64 + 64 * 128 + 128 * 256)
    norms = 2 * (64 + 32 + 64 + 128 + 256)
    assert sum(p.numel() for p in net.parameters()) == (
        kernels + norms + 256 * 256 + 256 + 256 * 4 + 4
    )
    json.dumps(net.preprocessing())


def test_a_batch_becomes_embeddings_and_logits():
    x = sequences([40, 17], 12, 40)
    net = settle(make(), x)
    with torch.no_grad():
        prepared = net.prepare(x)
        embedding = net.embed(prepared)
        torch.testing.assert_close(net(prepared), net.classifier(embedding))
    assert embedding.shape == (2, 32)
    assert embedding.isfinite().all()


def test_a_number_that_is_missing_within_a_frame_shows():
    x = sequences([40, 40], 12, 40)
    net = settle(make(), x)
    x[1, 3, 5] = torch.nan
    with torch.no_grad():
        finite = net.embed(net.prepare(x)).isfinite().all(dim=1)
    assert finite.tolist() == [True, False]


def test_normalisation_takes_real_frames_alone():
    x = sequences([9, 4], 3, 12)
    values, lengths = split_frames(x)
    assert lengths.tolist() == [9, 4]
    norm = FrameNorm(3, momentum=None).train()
    out = norm(values.transpose(1, 2), lengths).transpose(1, 2)
    real = torch.cat([x[0, :9], x[1, :4]]).numpy()
    expected = (real - real.mean(0)) / np.sqrt(real.var(0) + 1e-5)
    got = torch.cat([out[0, :9], out[1, :4]]).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert not out[0, 9:].any()
    assert not out[1, 4:].any()
    np.testing.assert_allclose(norm.norm.running_mean.numpy(), real.mean(0), rtol=1e-5)


def test_one_frame_is_normalised_by_what_is_known():
    norm = FrameNorm(2).train()
    values, lengths = split_frames(torch.tensor([[[3.0, 4.0]]]))
    out = norm(values.transpose(1, 2), lengths)
    np.testing.assert_allclose(out.detach().numpy().ravel(), [3, 4], rtol=1e-4)


def test_pooling_and_mean_keep_to_the_clip():
    x = torch.zeros(2, 1, 2, 5)
    x[0] = torch.arange(1.0, 11.0).reshape(2, 5)
    x[1, :, :, :3] = 2.0
    pooled, lengths = pool(x, torch.tensor([5, 3]), (2, 2))
    assert pooled[0, 0].tolist() == [[7.0, 9.0, 10.0]]
    assert pooled[1, 0].tolist() == [[2.0, 2.0, 0.0]]
    assert lengths.tolist() == [3, 2]
    assert masked_mean(pooled, lengths).tolist() == [[pytest.approx(26 / 3)], [2.0]]


@pytest.mark.parametrize("loss", LOSSES)
def test_learns_a_made_problem_with_every_loss(tmp_path, loss):
    clips, labels = made_problem(60, 12, 30)
    torch.manual_seed(0)
    net = build_net("cnn", 3, width=0.125, n_frames=30, n_mels=12)
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
                lr=0.01, epochs=8, patience=8, batch_size=10, loss=loss, tau=0.1
            ),
            seed=0,
        ),
        folder,
    )
    assert max(curve["val_accuracy"]) >= 0.9


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_frames": 0}, "n_frames is 0"),
        ({"n_mels": -1}, "n_mels is -1"),
        ({"dropout": 1.0}, r"lie in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(BadSetting, match=says):
        build_net("cnn", 3, **options)


def test_sequences_of_other_columns_are_refused():
    with pytest.raises(BadSetting, match=r"\(batch, frames, 12\) is needed; .* n_mels"):
        make().prepare(sequences([4], 13, 4))

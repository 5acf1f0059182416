"""What every net keeps: options, sizes, its own files, gradients, and clips by themselves."""

import json
from dataclasses import asdict, fields

import pytest
import torch
from sequence_samples import assert_padding_changes_nothing, sequences
from toy_net import mark_freed_memory

from mvemo.extract.nets import (
    NETS,
    AudioInput,
    SequenceInput,
    VideoInput,
    build_net,
    weights_digest,
)
from mvemo.extract.nets.parts.registry import make_options
from mvemo.extract.nets.parts.weights import load_weights
from mvemo.extract.training.devices import autocast
from mvemo.manifests.errors import BadOption

# Net to its width and its options, so that it takes milliseconds.
SMALL = {
    "c3d": (1 / 16, {"n_frames": 4, "size": 20, "scale": "unit"}),
    "cnn": (1 / 8, {"n_frames": 40, "n_mels": 12}),
    "crnn": (
        1 / 8,
        {"n_frames": 40, "spectrogram_frames": 40, "spectrogram_dim": 20, "lld_dim": 6, "bands": 8},
    ),
    "effnet": (1 / 10, {"n_frames": 2, "size": 32}),
    "i3d": (1 / 16, {"n_frames": 4, "size": 32}),
    "lightcnn": (1 / 8, {"n_frames": 40, "n_mels": 12}),
    "music1d": (1 / 4, {"seconds": 0.11}),
    "music2d": (1 / 8, {"seconds": 2.0}),
    "musicnn": (1 / 10, {"seconds": 3.0}),
    "rnn": (1 / 8, {"n_frames": 40, "n_mfcc": 6, "dropout": 0.0}),
    "speccnn": (1 / 8, {"n_frames": 40, "spectrogram_dim": 24, "bands": 10}),
}
# Columns of a descriptor net, and the option that sets them.
COLUMNS = {
    "cnn": (12, "n_mels"),
    "crnn": (26, "lld_dim"),
    "lightcnn": (12, "n_mels"),
    "rnn": (6, "n_mfcc"),
    "speccnn": (24, "spectrogram_dim"),
}


def make(name, n_outputs=3, seed=0):
    width, options = SMALL[name]
    torch.manual_seed(seed)
    return build_net(name, n_outputs, width=width, **options)


def raw_of(net_input, columns=0):
    """Decoded media of two clips."""
    torch.manual_seed(1)
    if isinstance(net_input, AudioInput):
        return torch.rand(2, net_input.samples) - 0.5
    if isinstance(net_input, VideoInput):
        shape = (2, net_input.n_frames, net_input.size, net_input.size, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8)
    return sequences([40, 17], columns, 40)


def test_all_nets_are_here():
    assert set(SMALL) | {"mvit_v2_s", "r2plus1d_18", "s3d", "swin3d_t"} <= set(NETS)
    assert list(NETS) == sorted(NETS)
    assert "vgg" not in NETS


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_becomes_embeddings_and_logits(name):
    net = make(name).eval()
    with torch.no_grad():
        x = net.prepare(raw_of(net.input, COLUMNS.get(name, (0,))[0]))
        embedding = net.embed(x)
        torch.testing.assert_close(net(x), net.classifier(embedding))
    assert net.name == name
    assert embedding.shape == (2, net.embedding_dim) == (2, net.classifier.in_features)
    assert embedding.isfinite().all()
    json.dumps(net.preprocessing())
    # Options survive the way through JSON.
    assert make_options(NETS[name], json.loads(json.dumps(asdict(net.options)))) == net.options


@pytest.mark.parametrize("name", sorted(NETS))
def test_options_that_are_not_stated_follow_those_that_are(name):
    kind = NETS[name].Options
    for each in fields(kind):
        allowed = each.metadata["allowed"].names or [getattr(kind(), each.name)]
        for value in allowed:
            assert make_options(NETS[name], {each.name: value}) == kind(**{each.name: value})


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_learnt_parameter(name):
    net = make(name).train()
    x = net.prepare(raw_of(net.input, COLUMNS.get(name, (0,))[0]))
    net(x).square().sum().backward()
    for key, value in net.named_parameters():
        if name == "musicnn" and key.startswith(("tags.", "input_norm.")):
            assert value.grad is None
        elif name == "i3d" and key.endswith("norm.weight"):
            assert not value.requires_grad
        else:
            assert value.grad is not None, key
            assert bool(value.grad.any()) or value.ndim == 1, key


@pytest.mark.parametrize("name", ["effnet", "i3d", "musicnn"])
def test_statistics_follow_the_option(name):
    width, options = SMALL[name]
    net = build_net(name, 3, width=width, **options, norm_momentum=0.25).train()
    norms = [m for m in net.modules() if hasattr(m, "running_mean")]
    net(net.prepare(raw_of(net.input)))
    for norm in norms:
        assert norm.momentum == 0.25
        assert bool(norm.running_mean.any())


@pytest.mark.parametrize("name", SMALL)
def test_own_file_comes_back_whole(name, tmp_path):
    net, other = make(name), make(name, seed=1)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith(("running_mean", "running_var", "norm.weight")):
                value.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), tmp_path / "own.pt")
    report = load_weights(other, tmp_path / "own.pt")
    assert report.complete
    assert report.missing + report.unexpected + report.mismatched == ()
    assert weights_digest(other) == weights_digest(net)


@pytest.mark.parametrize("name", COLUMNS)
def test_padding_and_company_change_nothing(name):
    assert_padding_changes_nothing(lambda: make(name), COLUMNS[name][0])


@pytest.mark.parametrize("name", COLUMNS)
def test_sequences_of_other_columns_are_refused(name):
    columns, option = COLUMNS[name]
    with pytest.raises(BadOption, match=rf"\(batch, frames, {columns}\), got .* {option}"):
        make(name).prepare(sequences([4], columns + 1, 4))


CHANNELS = (32, 64, 128, 256)
KERNELS = 9 * (32 + 32 * 64 + 64 * 128 + 128 * 256)
# Scale and offset of five normalisations.
NORMS = 2 * (64 + sum(CHANNELS))
# Net to its input, embedding, and number of parameters without the classifier.
SIZES = {
    "c3d": (
        VideoInput(32, 112),
        512,
        # Sports-1M's C3D has 27.66 million in its convolutions.
        27_655_936 + (512 * 2 * 4 * 4 + 1) * 1024 + 1025 * 512,
    ),
    "cnn": (SequenceInput(("mel",), 430), 256, KERNELS + NORMS + 257 * 256),
    "lightcnn": (
        SequenceInput(("mel",), 430),
        256,
        9 * (1 * 32 + 32 + 64 + 128) + 32 * 64 + 64 * 128 + 128 * 256 + NORMS,
    ),
    # Four Conv1d of kernel 3 and their biases.
    "music1d": (AudioInput(16000, 30.0), 256, (3 * 32 + 32) + 3 * (3 * 32 * 32 + 32)),
    "music2d": (AudioInput(12000, 29.0), 160, (9 * 32 + 32) + 4 * (9 * 32 * 32 + 32) + 5 * 64),
    "rnn": (
        SequenceInput(("mfcc",), 430),
        64,
        3 * 64 * (20 + 64 + 2) + 3 * 64 * (64 + 64 + 2) + 2 * 20,
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    net_input, dim, n_parameters = SIZES[name]
    net = build_net(name, 6)
    assert (net.input, net.embedding_dim) == (net_input, dim)
    assert sum(p.numel() for p in net.parameters()) == n_parameters + 6 * dim + 6


# Ranges are in docs/settings.md, and `check_settings` holds them.
BAD_OPTIONS = [
    ("c3d", {"n_frames": 0}, "c3d.n_frames is 0: it must be 1 or more"),
    ("music1d", {"size": 3}, "expected one of seconds, dropout"),
    ("music2d", {"seconds": 0.01}, "at least 0.0426"),
    ("musicnn", {"outputs": "units,tag"}, "'units,tag': expected some of units, deviation, front"),
    ("musicnn", {"outputs": "tags,tags"}, "without duplicates"),
    ("musicnn", {"outputs": ""}, "outputs is ''"),
    ("mvit_v2_s", {"n_frames": 8}, "expected 16 frames of 224 pixels, got 8 frames"),
    ("swin3d_t", {"width": 0.5}, "width is 0.5: it must be 1 for torchvision's nets"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_OPTIONS)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(BadOption, match=message):
        build_net(name, 2, **options)


@pytest.mark.parametrize("name", SMALL)
def test_a_step_in_bf16_has_finite_gradients(name):
    # Many processors imitate bf16, and have none of its recurrent layers.
    net = make(name).train()
    with autocast(torch.device("cpu"), "bf16"):
        loss = (
            net(net.prepare(raw_of(net.input, COLUMNS.get(name, (0,))[0]))).float().square().sum()
        )
    mark_freed_memory()
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(gradients) > 4
    assert all(grad.isfinite().all() for grad in gradients)

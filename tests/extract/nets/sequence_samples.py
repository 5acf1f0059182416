"""Descriptor sequences of uneven length, and the checks that every net on them must pass."""

import numpy as np
import torch

from mvemo.extract.settings import TrainSettings
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.steps import TrainingJob
from mvemo.extract.training.trainer import JobFolder, fine_tune


def sequences(lengths, dim, frames, seed=0):
    """float32 (clips, frames, dim): decibel-like values, NaN after each clip's end."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-40, 15, (len(lengths), frames, dim)).astype(np.float32)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = np.nan
    return torch.from_numpy(x)


def settle(net, x):
    """The net in evaluation mode, with the running statistics of a few training passes."""
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(net.prepare(x))
    return net.eval()


def pad(x, frames):
    """The batch with that many more NaN rows."""
    return torch.cat([x, torch.full((len(x), frames, x.shape[2]), torch.nan)], dim=1)


def assert_padding_changes_nothing(make, dim):
    """In evaluation and in training, outputs, gradients and statistics, to 1e-5."""
    lengths = [37, 20, 1, 33, 5]
    x = sequences(lengths, dim, 37)
    torch.manual_seed(0)
    net = settle(make(), x)
    with torch.no_grad():
        together = net.embed(net.prepare(x))
        padded = net.embed(net.prepare(pad(x, 22)))
        alone = torch.cat([net.embed(net.prepare(x[i : i + 1, :n])) for i, n in enumerate(lengths)])
        turned = net.embed(net.prepare(x.flip(0))).flip(0)
    # Else equality would prove nothing.
    assert together.std(dim=0).max() > 1e-3
    for other in (padded, alone, turned):
        torch.testing.assert_close(other, together, atol=1e-5, rtol=1e-5)

    results = []
    for raw in (x, pad(x, 22)):
        torch.manual_seed(0)
        net = make().train()
        net.classifier_dropout.p = 0.0
        net(net.prepare(raw)).square().sum().backward()
        gradients = [p.grad for p in net.parameters()]
        results.append((gradients, list(net.state_dict().values())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def made_problem(n, dim, frames, seed=0):
    """Clips of uneven length whose class is the third of their columns that swells."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    clips = []
    for label in labels:
        length = int(rng.integers(frames // 2, frames + 10))
        clip = rng.normal(-40, 5, (length, dim)).astype(np.float32)
        third = dim // 3
        clip[:, label * third : (label + 1) * third] += 4 * np.hanning(length)[:, None]
        clips.append(clip.astype(np.float32))
    return clips, labels


def train(net, clips, labels, folder, **settings):
    """The curve of a net that was trained on 40 of 60 clips and validated on the others."""
    job = TrainingJob(
        "toy@all",
        labels,
        task="multiclass",
        train_rows=list(range(40)),
        val_rows=list(range(40, 60)),
        settings=TrainSettings(
            **{"lr": 0.01, "batch_size": 10, "patience": settings["epochs"], **settings}
        ),
        seed=0,
    )
    place = JobFolder(folder, "toy", "d" * 64)
    place.begin({})
    return fine_tune(net, RawBatches(lambda row: clips[row], net.input), job, place)

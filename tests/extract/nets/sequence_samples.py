"""Descriptor sequences of uneven length, and the checks that every net on them must pass."""

import numpy as np
import torch


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

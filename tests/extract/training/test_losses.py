"""Every loss against its formula in NumPy, its gradient, and training by name."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from toy_net import Plain, tuned
from toy_net import problem as toy_problem

from mvemo.extract.settings import LOSSES, TrainSettings
from mvemo.extract.training.losses import make_loss
from mvemo.manifests.errors import BadOption

N, DIM, CLASSES, TAU = 7, 5, 3, 0.7


@pytest.fixture
def problem():
    """Features, last layer, classes and centres, all float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, DIM))
    layer = nn.Linear(DIM, CLASSES).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.normal(size=(CLASSES, DIM))))
        layer.bias.copy_(torch.from_numpy(rng.normal(size=CLASSES)))
    return x, layer, np.array([0, 1, 2, 1, 0, 1, 1]), rng.normal(size=(CLASSES, DIM))


def make(name, centres=None, task="multiclass"):
    loss = make_loss(name, task, CLASSES, DIM, TAU).double()
    if centres is not None and hasattr(loss, "centres"):
        loss.centres.copy_(torch.from_numpy(centres))
    return loss


def written_out(name, x, weight, bias, target, q):
    """Equations 6 to 12, clip by clip."""
    logits = x @ weight.T + bias
    if name == "angular":
        logits = x @ weight.T / np.linalg.norm(weight, axis=1)
    total = sum(np.log(np.exp(row).sum()) - row[y] for row, y in zip(logits, target, strict=True))
    for i, y in enumerate(target):
        own = np.sum((x[i] - q[y]) ** 2) * TAU / 2
        if name == "improved-centre":
            own /= sum(np.sum((x[i] - q[j]) ** 2) for j in range(len(q)) if j != y) + 1
        total += own if "centre" in name else 0.0
    return total / len(target)


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_the_formula(problem, name):
    x, layer, target, centres = problem
    got = make(name, centres)(torch.from_numpy(x), layer, torch.from_numpy(target))
    weight, bias = (values.detach().numpy() for values in (layer.weight, layer.bias))
    expected = written_out(name, x, weight, bias, target, centres)
    assert got.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["centre", "improved-centre"])
def test_centres_move_with_the_batch(problem, name):
    x, _, target, q = problem
    loss = make(name, q)
    loss.update(torch.from_numpy(x).requires_grad_(), torch.from_numpy(target))
    expected = q.copy()
    for j in range(CLASSES):
        mine = x[target == j]
        expected[j] -= 0.5 * (q[j] - mine).sum(0) / (1 + len(mine))
    np.testing.assert_allclose(loss.centres.numpy(), expected, rtol=1e-12)
    # A class that the batch lacks keeps its centre; its clips' own mean is a fixed point.
    loss.update(torch.from_numpy(x[target == 1]), torch.ones(4, dtype=torch.int64))
    np.testing.assert_array_equal(loss.centres[[0, 2]].numpy(), expected[[0, 2]])
    for _ in range(60):
        loss.update(torch.from_numpy(x), torch.from_numpy(target))
    means = [x[target == j].mean(0) for j in range(CLASSES)]
    np.testing.assert_allclose(loss.centres.numpy(), means, atol=1e-6)
    assert not loss.centres.requires_grad


def test_angular_puts_the_layer_where_it_gives_the_same_logits(problem):
    x, layer, _, _ = problem
    loss = make("angular")
    before = loss.logits(torch.from_numpy(x), layer)
    loss.constrain(layer)
    np.testing.assert_allclose(layer.weight.detach().norm(dim=1).numpy(), 1, rtol=1e-12)
    assert not layer.bias.any()
    torch.testing.assert_close(layer(torch.from_numpy(x)), before)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tags_and_dimensions_match_their_formulas(problem, task):
    x, layer, _, _ = problem
    logits = layer(torch.from_numpy(x)).detach().numpy()
    target, p = np.random.default_rng(1).normal(size=(N, CLASSES)) * 3, 1 / (1 + np.exp(-logits))
    d = np.abs(logits - target)
    losses = np.where(d < 1, d**2 / 2, d - 0.5)
    if task == "multilabel":
        target = (target > 0).astype(np.int64)
        losses = -target * np.log(p) - (1 - target) * np.log(1 - p)
    got = make("softmax", task=task)(torch.from_numpy(x), layer, torch.from_numpy(target))
    assert got.item() == pytest.approx(np.mean(losses), rel=1e-10)


def test_right_answers_are_of_classes_alone(problem):
    x, layer, target, _ = problem
    inputs = torch.from_numpy(x)
    n_right = make("softmax").n_right(inputs, layer, torch.from_numpy(target))
    assert n_right == np.sum(layer(inputs).argmax(1).numpy() == target)
    for task in ("multilabel", "regression"):
        assert math.isnan(make("softmax", task=task).n_right(inputs, layer, layer(inputs)))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_losses_for_classes_are_for_classes_only(task):
    with pytest.raises(BadOption, match=f"only for classes, but the task is {task}"):
        make("angular", task=task)


def test_nets_learn_with_every_loss_and_centre_losses_gather_the_classes(tmp_path):
    spread = {}
    for name, tau in zip(LOSSES, (0.05, 0.05, 0.5, 5.0), strict=True):
        settings = TrainSettings(lr=0.01, epochs=25, patience=50, batch_size=12, loss=name, tau=tau)
        net, curve = tuned(
            tmp_path, name, settings, n=60, val_rows=range(60, 90), net=Plain(), seed=0
        )
        waves, labels = toy_problem(90)
        with torch.no_grad():
            x = net.embed(net.prepare(torch.from_numpy(waves)))
            accuracy = (net.classifier(x[60:]).argmax(1).numpy() == labels[60:]).mean()
        assert 0.8 < accuracy <= max(curve["val_accuracy"])
        assert curve["train_loss"][-1] < 0.6 * curve["train_loss"][0]
        x, y = x[:60].numpy(), labels[:60]
        means = np.stack([x[y == j].mean(0) for j in range(3)])
        within = np.mean(np.sum((x - means[y]) ** 2, axis=1))
        spread[name] = within / np.mean(np.sum((means - means.mean(0)) ** 2, axis=1))
        assert net.classifier.bias.any() or name == "angular"
    assert max(spread["centre"], spread["improved-centre"]) < 0.8 * spread["softmax"]

"""Training losses: four for classes (J22 2.4), one for tags, one for regression.

Every loss takes the features x_i that enter the last fully connected layer, that layer and the
target. Equations 10 to 12 print sums over the mini-batch. Here every term is the mean, so the
learning rate and tau keep their meaning when the batch size changes.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.settings import LOSSES
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import Plugin, plugins

# Rate of Wen et al. 2016, who introduced the centre loss; J22 gives no rate.
CENTRE_RATE = 0.5


class Loss(nn.Module):
    """Mean loss of a batch, from features (batch, dim) and the last layer, without parameters.

    Targets are int64 (batch,) or (batch, tags), or float (batch, targets). A plug-in's loss is
    constructed as ``kind(n_outputs, dim, tau)``.
    """

    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)  # tasks of a plug-in's loss

    def logits(self, x: Tensor, classifier: nn.Linear) -> Tensor:
        """Return the logits (batch, outputs), at least in float32."""
        return _to_float32(classifier(x))

    def n_right(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        """Return the number of clips classified correctly; NaN for tags and regression."""
        return x.new_full((), math.nan, dtype=torch.float64)

    def fit(self, target: Tensor) -> dict[str, list[float]]:
        """Fit the loss to all training targets, and return entries for the curve."""
        return {}

    def finish(self, classifier: nn.Linear) -> None:
        """Change the layer after training so that its outputs are predictions."""

    def update(self, x: Tensor, target: Tensor) -> None:
        """Update the state of the loss with a training batch, after its step."""

    def constrain(self, classifier: nn.Linear) -> None:
        """Apply the constraints of the layer, before training and after each step."""


class SoftmaxLoss(Loss):
    """Softmax cross-entropy (J22 eq. 6-8); base of the losses for classes."""

    def forward(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        return functional.cross_entropy(self.logits(x, classifier), target)

    def n_right(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        correct: Tensor = (self.logits(x, classifier).argmax(1) == target).sum()
        return correct.double()


class AngularLoss(SoftmaxLoss):
    """Angular softmax (J22 eq. 9): weights of norm 1, offset 0.

    Logit j is ||x|| cos(theta_j). Eq. 9 is misprinted, but it has no angular margin.
    `constrain` keeps the layer normalised, so the net's forward gives these logits.
    """

    def logits(self, x: Tensor, classifier: nn.Linear) -> Tensor:
        return _to_float32(functional.linear(x, functional.normalize(classifier.weight, dim=1)))

    @torch.no_grad()
    def constrain(self, classifier: nn.Linear) -> None:
        classifier.weight.copy_(functional.normalize(classifier.weight, dim=1))
        if classifier.bias is not None:
            classifier.bias.zero_()


class CentreLoss(SoftmaxLoss):
    """Centre softmax (J22 eq. 10): softmax loss + tau / 2 mean_i ||x_i - Q_{y_i}||^2.

    Centres start at zero and move after each step as in Wen et al. 2016 (eq. 4):
    Q_j -= rate sum_{i: y_i = j} (Q_j - x_i) / (1 + n_j), with n_j the number of clips of class
    j in the batch. They are not parameters, so they get no gradient.
    """

    def __init__(self, n_classes: int, dim: int, tau: float) -> None:
        super().__init__()
        self.tau = tau
        self.centres: Tensor
        self.register_buffer("centres", torch.zeros(n_classes, dim))

    def forward(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        entropy = super().forward(x, classifier, target)
        return entropy + self.tau * self.centre_term(_to_float32(x), target)

    def centre_term(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the term that tau multiplies, including the factor 1/2."""
        return (x - self.centres[target]).square().sum(1).mean() / 2

    @torch.no_grad()
    def update(self, x: Tensor, target: Tensor) -> None:
        x = x.detach().to(self.centres.dtype)
        # (classes, batch): a product is reproducible, unlike scattered sums on a GPU.
        member = functional.one_hot(target, len(self.centres)).T.to(x.dtype)
        count = member.sum(1, keepdim=True)
        pull = count * self.centres - member @ x
        self.centres -= CENTRE_RATE * pull / (1 + count)


class ImprovedCentreLoss(CentreLoss):
    """Improved centre softmax (J22 eq. 11-12).

    Softmax loss + tau / 2 mean_i ||x_i - Q_{y_i}||^2 / (sum_{j != y_i} ||x_i - Q_j||^2 + 1).
    Eq. 11 prints x_j and Q_{y_j} in the denominator. By the text, the training sample should be far
    from the centres of the other classes, so x_i and Q_j are used here.
    """

    def centre_term(self, x: Tensor, target: Tensor) -> Tensor:
        # (batch, classes); the expanded square would lose digits by cancellation
        distance = (x[:, None, :] - self.centres[None]).square().sum(2)
        to_target = distance.gather(1, target[:, None]).squeeze(1)
        is_target = functional.one_hot(target, len(self.centres)).bool()
        to_others = distance.masked_fill(is_target, 0.0).sum(1)
        return (to_target / (to_others + 1)).mean() / 2


class TagLoss(Loss):
    """Binary cross-entropy, mean over clips and tags."""

    def forward(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        logits = self.logits(x, classifier)
        return functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


class RegressionLoss(Loss):
    """Huber loss with delta 1, on targets standardised over the training clips."""

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(n_targets))
        self.register_buffer("deviation", torch.ones(n_targets))

    def forward(self, x: Tensor, classifier: nn.Linear, target: Tensor) -> Tensor:
        logits = self.logits(x, classifier)
        return functional.huber_loss(logits, (target.to(logits.dtype) - self.mean) / self.deviation)

    def fit(self, target: Tensor) -> dict[str, list[float]]:
        mean, deviation = target.double().mean(dim=0), target.double().std(dim=0, unbiased=False)
        # A constant target is not scaled.
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return {"target_mean": mean.tolist(), "target_deviation": deviation.tolist()}

    @torch.no_grad()
    def finish(self, classifier: nn.Linear) -> None:
        # The outputs are then in the units of the targets.
        classifier.weight.mul_(self.deviation[:, None])
        classifier.bias.mul_(self.deviation).add_(self.mean)


def make_loss(name: str, task: str, n_outputs: int, dim: int, tau: float) -> Loss:
    """Return a loss by name, one of `settings.LOSSES`; tags and regression take only ``softmax``.

    J22 gives no `tau`. The term of ``centre`` grows with the square of the features, so a small
    tau suits (0.003 in Wen et al.); that of ``improved-centre`` is at most about
    1 / (2 n_outputs - 2) for compact classes, so a tau near 1 suits.
    """
    if name not in LOSSES:
        return _plugged(plugins("losses")[name], task, n_outputs, dim, tau)
    if task != "multiclass":
        if name != "softmax":
            raise BadOption(
                f"loss {name!r} is only for classes, but the task is {task}: use 'softmax' "
                "(binary cross-entropy for tags, Huber for regression)"
            )
        return TagLoss() if task == "multilabel" else RegressionLoss(n_outputs)
    if "centre" in name:
        kind = CentreLoss if name == "centre" else ImprovedCentreLoss
        return kind(n_outputs, dim, tau)
    return AngularLoss() if name == "angular" else SoftmaxLoss()


def _plugged(plugin: Plugin, task: str, n_outputs: int, dim: int, tau: float) -> Loss:
    """Return the loss of a plug-in, after a trial on two synthetic clips."""
    kind: Any = plugin.load(
        lambda kind: (
            ""
            if isinstance(kind, type) and issubclass(kind, Loss)
            else f"expected a class derived from mvemo.extract.Loss, got {kind!r}"
        )
    )
    if task not in kind.tasks:
        raise BadOption(
            f"loss {plugin.name!r} is for {', '.join(kind.tasks)}, but the task is {task}"
        )
    shape = {"multiclass": (2,)}.get(task, (2, n_outputs))
    target = torch.zeros(shape, dtype=torch.float32 if task == "regression" else torch.int64)
    layer = nn.Linear(dim, n_outputs)
    try:
        loss: Loss = kind(n_outputs, dim, tau)
        loss.fit(target)
        value = loss(torch.ones(2, dim), layer, target)
        value.backward()
    except Exception as error:
        raise plugin.failure(f"{type(error).__name__}: {error}") from error
    if value.shape != () or not value.isfinite():
        raise plugin.failure(f"expected the mean loss of a batch, a finite number, got {value}")
    return kind(n_outputs, dim, tau)


def _to_float32(x: Tensor) -> Tensor:
    """Return a half-precision tensor in float32, and any other tensor unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x

"""Parts of fine-tuning that are not in the papers: rates by layer and step, probe, average."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvemo.extract.nets.parts.base import Net
from mvemo.extract.settings import RecipeSettings, TrainSettings
from mvemo.extract.training.losses import Loss

# C of the penalty when only the classifier is fitted, as in the heads of stage two. It prevents
# overfitting to few clips before the other layers are trained.
PROBE_C = 0.01
PROBE_STEPS = 100
# RMSprop with Keras's defaults, for which PL20's rates were tuned; torch's decay is 0.99.
RMSPROP: dict[str, Any] = {"alpha": 0.9, "eps": 1e-7}


def make_optimizer(net: Net, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimizer of the settings (PL20 Table 2 has the first three).

    On a GPU one kernel updates all parameters.
    """
    weights = parameter_groups(net, settings)
    decay = settings.weight_decay
    fused = next(net.parameters()).is_cuda or None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            weights, lr=settings.lr, momentum=settings.momentum, weight_decay=decay, fused=fused
        )
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, lr=settings.lr, weight_decay=decay, **RMSPROP)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, lr=settings.lr, weight_decay=decay, fused=fused)


def parameter_groups(net: Net, settings: TrainSettings) -> list[dict[str, Any]]:
    """Return a net's parameters with their rates, which fall from the classifier to the input.

    A layer is a child of the net, or of a list of modules in it, in the order of definition.
    With ``layer_decay = 1`` there is one group.

    Examples
    --------
    >>> from mvemo.extract.nets import build_net
    >>> net = build_net("music1d", 6, width=0.25)
    >>> halved = TrainSettings(lr=0.1, recipe=RecipeSettings(layer_decay=0.5))
    >>> [round(group["lr"], 4) for group in parameter_groups(net, halved)][-2:]
    [0.05, 0.1]
    """
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decay = settings.recipe.layer_decay
    if decay == 1.0:
        return [{"params": [p for _, p in named]}]
    lists = {name for name, module in net.named_children() if isinstance(module, nn.ModuleList)}
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in named:
        parts = name.split(".")
        layers.setdefault(".".join(parts[: 1 + (parts[0] in lists)]), []).append(parameter)
    order = [name for name in layers if name != "classifier"] + ["classifier"]
    return [
        {"params": layers[name], "lr": settings.lr * decay ** (len(order) - 1 - depth)}
        for depth, name in enumerate(order)
    ]


def rate_factor(recipe: RecipeSettings, step: int, n_steps: int) -> float:
    """Return the factor of the rates in a step, counted from 0.

    Examples
    --------
    >>> recipe = RecipeSettings(warmup=0.2, cosine=True)
    >>> [round(rate_factor(recipe, step, 10), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    n_warm = math.ceil(recipe.warmup * n_steps)
    if step < n_warm:
        return (step + 1) / n_warm
    if not recipe.cosine:
        return 1.0
    return (1 + math.cos(math.pi * (step - n_warm) / max(n_steps - n_warm, 1))) / 2


class Rates:
    """Scheduler that sets an optimizer's rates before each step, see `rate_factor`."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: RecipeSettings, n_steps: int
    ) -> None:
        self._optimizer = optimizer
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._recipe = recipe
        self._n_steps = n_steps

    def set(self, step: int) -> None:
        """Set the rates of a step, counted from 0 over the whole training."""
        if not (self._recipe.warmup or self._recipe.cosine):
            return
        factor = rate_factor(self._recipe, step, self._n_steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor


def freeze_norms(net: Net) -> None:
    """Let batch normalisation use its running statistics without updating them."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def first_averaged_epoch(recipe: RecipeSettings, n_epochs: int) -> int:
    """Return the first epoch, from 1, whose weights are averaged; 0 without averaging.

    Examples
    --------
    >>> first_averaged_epoch(RecipeSettings(average=0.25), 20)
    16
    """
    if not recipe.average:
        return 0
    return n_epochs - max(round(recipe.average * n_epochs), 1) + 1


def add_to_average(
    average: Mapping[str, Tensor] | None, state: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Return the mean of `count` states: this one and those in `average`.

    Integers (counters of batches) are taken from the last state.
    """
    if average is None or count == 1:
        return {name: value.detach().clone() for name, value in state.items()}
    return {
        name: average[name] + (value - average[name]) / count
        if value.is_floating_point()
        else value.detach().clone()
        for name, value in state.items()
    }


def fit_probe(net: Net, loss: Loss, features: Tensor, target: Tensor) -> None:
    """Fit only the classifier, in place, on features of the training clips.

    `features` is float32 (clips, embedding_dim), in evaluation mode. For classes this is
    logistic regression with scikit-learn's C: the sum of the clips' losses plus half the
    squared weights over `PROBE_C`. For tags and targets their loss is used. Columns are
    standardised for the fit and the classifier is rescaled afterwards, so layers of any scale
    are fitted alike.
    """
    mean = features.mean(0)
    scale = features.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.inf)
    x = (features - mean) / scale
    layer = nn.Linear(x.shape[1], net.classifier.out_features).to(x)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    penalty = 1 / (PROBE_C * len(x))
    _minimise(
        list(layer.parameters()),
        lambda: loss(x, layer, target) + penalty / 2 * layer.weight.square().sum(),
    )
    with torch.no_grad():
        net.classifier.weight.copy_(layer.weight / scale)
        if net.classifier.bias is not None:
            net.classifier.bias.copy_(layer.bias - (layer.weight / scale) @ mean)
    loss.constrain(net.classifier)


def _minimise(parameters: Sequence[Tensor], value: Callable[[], Tensor]) -> None:
    """Minimise a convex function of parameters."""
    optimizer: Any = torch.optim.LBFGS(
        list(parameters), max_iter=PROBE_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        result = value()
        torch.autograd.backward(result)
        return result

    optimizer.step(closure)

"""Parts of fine-tuning that are not in the papers: learning rates, probe, averaging, augmentation.

Augmentation acts on decoded media, on the device, before the preparation of a net, so it is
the same for all nets. Each clip of a batch is changed differently; descriptors are not changed.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    common: dict[str, Any] = {
        "params": parameter_groups(net, settings),
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(**common, **RMSPROP)
    common["fused"] = next(net.parameters()).is_cuda or None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(**common, momentum=settings.momentum)
    return (torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam)(**common)


def parameter_groups(net: Net, settings: TrainSettings) -> list[dict[str, Any]]:
    """Return a net's parameters with rates that decrease from the classifier to the input."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decay = settings.recipe.layer_decay
    if decay == 1.0:
        return [{"params": [p for _, p in named]}]
    lists = {name for name, module in net.named_children() if isinstance(module, nn.ModuleList)}
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in named:
        parts = name.split(".")
        layers.setdefault(".".join(parts[: 1 + (parts[0] in lists)]), []).append(parameter)
    layers["classifier"] = layers.pop("classifier")
    return [
        {"params": parameters, "lr": settings.lr * decay ** (len(layers) - 1 - depth)}
        for depth, parameters in enumerate(layers.values())
    ]


def rate_factor(recipe: RecipeSettings, step: int, n_steps: int) -> float:
    """Return the factor of the learning rates at a step, from 0: warm-up, then half a cosine."""
    n_warm = math.ceil(recipe.warmup * n_steps)
    if step < n_warm:
        return (step + 1) / n_warm
    if not recipe.cosine:
        return 1.0
    return (1 + math.cos(math.pi * (step - n_warm) / max(n_steps - n_warm, 1))) / 2


def freeze_norms(net: Net) -> None:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def add_to_average(
    average: Mapping[str, Tensor], state: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Return the mean of `count` states; `average` is the mean of all except the last, `state`."""
    return {
        name: average[name] + (value - average[name]) / count
        if count > 1 and value.is_floating_point()
        else value.detach().clone()
        for name, value in state.items()
    }


def fit_probe(net: Net, loss: Loss, features: Tensor, target: Tensor) -> None:
    """Fit only the classifier, in place, on features of the training clips, standardised."""
    mean = features.mean(0)
    scale = features.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.inf)
    x = (features - mean) / scale
    layer = nn.Linear(x.shape[1], net.classifier.out_features).to(x)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    penalty = 1 / (PROBE_C * len(x))
    optimizer: Any = torch.optim.LBFGS(
        layer.parameters(), max_iter=PROBE_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        result: Tensor = loss(x, layer, target) + penalty / 2 * layer.weight.square().sum()
        torch.autograd.backward(result)
        return result

    optimizer.step(closure)
    with torch.no_grad():
        net.classifier.weight.copy_(layer.weight / scale)
        if net.classifier.bias is not None:
            net.classifier.bias.copy_(layer.bias - (layer.weight / scale) @ mean)
    loss.constrain(net.classifier)


# Range of a crop's share of the picture's area, and of its ratio of width to height.
CROP_AREA = (0.6, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
# Range of the share of a clip from which its frames are drawn.
FRAME_SPAN = (0.75, 1.0)
# Maximum gain in decibels, positive or negative.
GAIN = 6.0
# Maximum shares of the length that are skipped or silenced, and of the frequencies removed.
MOST_SKIPPED = 0.1
MOST_SILENCED = 0.1
MOST_BAND = 0.15


def augment(raw: Tensor) -> Tensor:
    """Change a batch of decoded media at random; pictures become float32 from 0 to 255."""
    if raw.ndim == 5:
        return change_pictures(raw)
    return change_sound(raw) if raw.ndim == 2 else raw


def change_pictures(raw: Tensor) -> Tensor:
    """Crop and flip all frames of a clip in the same way, and shift their times."""
    n, n_frames, height, width, _ = raw.shape
    # The frames of a random time range of each clip, in order; int64 (clips, n_frames).
    span = _uniform(n, *FRAME_SPAN, raw.device)
    start = torch.rand(n, device=raw.device) * (1 - span)
    position = (torch.arange(n_frames, device=raw.device) + 0.5) / n_frames
    frames = (start[:, None] + span[:, None] * position) * n_frames
    frames = frames.long().clamp_(0, n_frames - 1)
    clips = raw[torch.arange(n, device=raw.device)[:, None], frames]
    pictures = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    crops = _crops(n, raw.device).repeat_interleave(n_frames, 0)
    grid = functional.affine_grid(crops, [n * n_frames, 3, height, width], align_corners=False)
    pictures = functional.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return pictures.permute(0, 2, 3, 1).reshape(raw.shape)


def _crops(n: int, device: torch.device) -> Tensor:
    """Draw affine maps of random crops, half of them mirrored; float32 (n, 2, 3)."""
    area = _uniform(n, *CROP_AREA, device)
    aspect = _uniform(n, math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1]), device).exp()
    width = (area * aspect).sqrt().clamp_max(1.0)
    height = (area / aspect).sqrt().clamp_max(1.0)
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0] = width * mirror
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (1 - width) * _uniform(n, -1, 1, device)
    theta[:, 1, 2] = (1 - height) * _uniform(n, -1, 1, device)
    return theta


def change_sound(raw: Tensor) -> Tensor:
    """Cut part of each clip's start, change its gain, and silence a time range and a band."""
    n, samples = raw.shape
    position = torch.arange(samples, device=raw.device)
    ended = torch.isnan(raw)
    x = torch.where(ended, 0.0, raw)
    # The band is removed first, because its removal would blur the edges of other changes.
    spectrum = torch.fft.rfft(x)
    bins = torch.arange(spectrum.shape[1], device=raw.device)
    spectrum = torch.where(_random_range(bins, n, MOST_BAND), 0.0, spectrum)
    x = torch.fft.irfft(spectrum, n=samples)
    x = torch.where(_random_range(position, n, MOST_SILENCED), 0.0, x)
    x = x * 10 ** (_uniform(n, -GAIN, GAIN, raw.device)[:, None] / 20)
    x = torch.where(ended, torch.nan, torch.where(raw == 0, 0.0, x))
    # The first samples are dropped; padding after the end keeps the length.
    skipped = (torch.rand(n, device=raw.device) * MOST_SKIPPED * samples).long()
    source = position + skipped[:, None]
    after = torch.where(ended.any(1), torch.nan, 0.0)[:, None]
    shifted = x.gather(1, source.clamp_max(samples - 1))
    return torch.where(source < samples, shifted, after)


def _random_range(position: Tensor, n: int, most: float) -> Tensor:
    """Draw a random range of positions for each row; bool (n, positions), True inside it."""
    count = len(position)
    length = torch.rand(n, device=position.device) * most * count
    start = torch.rand(n, device=position.device) * (count - length)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


def _uniform(n: int, low: float, high: float, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(n, device=device)

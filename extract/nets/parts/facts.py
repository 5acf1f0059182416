"""Facts about a net without its weights and without media: input, size, cost, licences."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from mvemo.extract.descriptors import DescriptorSettings, dim_of
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.inputs import AudioInput, NetInput, SharedSettings, VideoInput
from mvemo.extract.nets.parts.registry import (
    NETS,
    build_net,
    default_settings,
    with_shared_options,
)

# Number of frames of a clip in the profile of the papers.
N_FRAMES = 32


@dataclass(frozen=True)
class NetFacts:
    """Facts about a net at the size of the papers' profile."""

    name: str
    modality: str
    input: str  # description of the input
    n_parameters: int  # without the classifier
    # Multiply-add operations for one window, after its spectrogram; None for recurrent layers,
    # which are not counted.
    n_operations: int | None
    embedding_dim: int  # per window
    weights: tuple[str, ...]  # descriptions of the published files that the net loads
    licence: str  # licence of the weights from ``mvemo weights get``; empty if there are none


def net_facts(name: str) -> NetFacts:
    """Collect the facts about a net; only its front end is computed, and no weights are drawn.

    Examples
    --------
    >>> facts = net_facts("music1d")
    >>> facts.input, facts.embedding_dim, facts.n_parameters
    ('30 s, 16,000 Hz', 256, 9440)
    """
    net = build_without_weights(name)
    kind = NETS[name]
    return NetFacts(
        name=name,
        modality=net.modality,
        input=input_text(net.input),
        n_parameters=sum(p.numel() for n, p in net.named_parameters() if "classifier" not in n),
        n_operations=_count_operations(net),
        embedding_dim=net.embedding_dim,
        weights=kind.published,
        licence=kind.package.licence if kind.package else "",
    )


def build_without_weights(name: str) -> Net:
    """Build a net at the papers' size on the meta device: weights have shapes but no values."""
    shared = SharedSettings(N_FRAMES, DescriptorSettings())
    options = with_shared_options(default_settings(name), shared).options
    try:
        with torch.device("meta"):
            net = build_net(name, 1, **options)
    except RuntimeError:
        # A front end computed by NumPy needs real memory.
        net = build_net(name, 1, **options)
    return net.to("meta").eval()


def input_text(net_input: NetInput) -> str:
    """Describe the input of a net.

    Examples
    --------
    >>> input_text(VideoInput(n_frames=32, size=224))
    '32 frames, 224 x 224'
    """
    if isinstance(net_input, AudioInput):
        return f"{net_input.seconds:g} s, {net_input.sr:,} Hz"
    if isinstance(net_input, VideoInput):
        return f"{net_input.n_frames} frames, {net_input.size} x {net_input.size}"
    return f"{net_input.n_frames} frames of {', '.join(net_input.features)}"


def _count_operations(net: Net) -> int | None:
    if any(isinstance(module, nn.RNNBase) for module in net.modules()):
        return None
    try:
        return _operations(net, empty_input(net.input, "meta", DescriptorSettings()))
    except RuntimeError:
        # Some front ends, and the choice of patches with sound, need values.
        net = build_net(net.name, 1, **asdict(net.options)).eval()
        return _operations(net, empty_input(net.input, "cpu", DescriptorSettings()))


@torch.no_grad()
def _operations(net: Net, raw: Tensor) -> int:
    # This import loads a compiler, which nothing else here needs.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        net.embed(net.prepare(raw))
    return int(counter.get_total_flops()) // 2


def empty_input(net_input: NetInput, device: str, descriptors: DescriptorSettings) -> Tensor:
    """Return a batch of one silent, black clip."""
    if isinstance(net_input, AudioInput):
        return torch.zeros(1, net_input.samples, device=device)
    if isinstance(net_input, VideoInput):
        shape = (1, net_input.n_frames, net_input.size, net_input.size, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    dim = sum(dim_of(name, descriptors) for name in net_input.features)
    return torch.zeros(1, net_input.n_frames, dim, device=device)

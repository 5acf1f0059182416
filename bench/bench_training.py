"""Clips a second of training and embedding, net by net, beside plain eager float32.

    python bench/bench_training.py [--nets c3d,i3d] [--profile paper] [--precision bf16]
                                   [--seconds 5] [--device cuda] [--compile]

Without options: on a GPU the nets at the papers' sizes in bf16, on the processor the
demo's small ones in float32. Each line also has what the arithmetic comes to beside a bare
matrix product of the same precision in the same run, the share of wall time in which the GPU
works (its kernels' times, of a profiled run), and the most memory that was taken. The other
side is the same step written plainly: float32, channels first, torch's own layers, one
optimizer kernel a parameter, the loss fetched after each step. Both train in turns, and the
best turn counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from figures import Row, bench_parser, finish
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import Net, build_net
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.nets.parts.layers import Elu
from mvemo.extract.nets.parts.sequences import empty_input
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import (
    autocast,
    describe_device,
    keep_freed_memory,
    place,
    reproducible_kernels,
)
from mvemo.extract.training.steps import TrainingJob
from mvemo.extract.training.trainer import Trainer
from mvemo.manifests.array_types import Ints
from mvemo.pipeline.settings_files import load_settings

Layout = Callable[[Net, torch.device], Net]
Side = tuple[Callable[[], Any], int]  # a function, and its clips
N_CLASSES = 6
N_TURNS = 4


class Repeated:
    """One batch of made media, on the device, given as often as it is asked for."""

    def __init__(self, raw: Tensor) -> None:
        self._raw = raw

    def ahead(self, batches: Any) -> Any:
        for rows in batches:
            yield rows, self._raw[: len(rows)]


def made_media(net: Net, n_clips: int, device: torch.device) -> Tensor:
    """A batch of random media as the net's `prepare` takes it."""
    generator = torch.Generator().manual_seed(0)
    empty = empty_input(net.input, "cpu", DescriptorSettings())
    shape = (n_clips, *empty.shape[1:])
    if empty.dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    return (torch.randn(shape, generator=generator) * 0.1).to(device)


def timed(function: Callable[[], Any], n_clips: int, device: torch.device, seconds: float) -> float:
    """Clips a second of a function that is run again and again, after three runs to warm up.

    A hundredth of a second is for toys, which run once to warm up, and once more.
    """
    least = 3 if seconds > 0.01 else 1
    for _ in range(least):
        function()
    wait(device)
    runs = 0
    start = time.perf_counter()
    while (wall := time.perf_counter() - start) < seconds or runs < least:
        function()
        wait(device)
        runs += 1
    return runs * n_clips / wall


def wait(device: torch.device) -> None:
    """Until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def best_in_turns(sides: Sequence[Side], device: torch.device, seconds: float) -> list[float]:
    """The fastest of some turns of each function of so many clips: noise only slows down."""
    turns = [
        [timed(function, n_clips, device, seconds / N_TURNS) for function, n_clips in sides]
        for _ in range(N_TURNS)
    ]
    return [max(rates) for rates in zip(*turns, strict=True)]


def seconds_at_work(function: Callable[[], Any], device: torch.device) -> float:
    """Of a GPU while a function runs: the sum of what its kernels and copies take."""
    if device.type != "cuda":
        return float("nan")
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        function()
        wait(device)
    on_gpu = (e for e in profiled.key_averages() if e.device_type == DeviceType.CUDA)
    return sum(e.self_device_time_total for e in on_gpu) / 1e6


def peak_memory(function: Callable[[], Any], device: torch.device) -> float:
    """GiB on the device at most while a function runs; NaN on the processor."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    function()
    wait(device)
    return torch.cuda.max_memory_allocated() / 2**30


def rate_and_busy(side: Side, device: torch.device, seconds: float) -> tuple[float, float]:
    """Clips a second of a function of so many clips, and the share in which a GPU works."""
    function, n_clips = side
    rate = timed(function, n_clips, device, seconds)
    return rate, seconds_at_work(function, device) * rate / n_clips


def product_flops(device: torch.device, precision: str, seconds: float) -> float:
    """FLOP/s of a bare product of square matrices."""
    size = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return timed(lambda: a @ b, 1, device, seconds) * 2 * size**3


def flops_of(net: Net, raw: Tensor) -> float:
    """Floating-point operations of a forward and backward pass, a clip."""
    with FlopCounterMode(display=False) as counter:
        net(net.prepare(raw)).sum().backward()
    net.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / len(raw)


def plain_step(net: Net, raw: Tensor, target: Tensor, lr: float) -> Callable[[], float]:
    """The step as anybody would write it first, of torch's own layers."""
    net = net.to(memory_format=torch.contiguous_format).train()
    if isinstance(getattr(net, "activation", None), Elu):
        net.activation = nn.ELU()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, foreach=False)

    def step() -> float:
        loss = nn.functional.cross_entropy(net(net.prepare(raw)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


@dataclass
class Bench:
    """One net's sides: how it is built, and what it trains on."""

    plan: NetSettings
    device: torch.device

    @property
    def batch(self) -> int:
        return self.plan.train.batch_size

    @cached_property
    def labels(self) -> Ints:
        return np.arange(self.batch) % N_CLASSES

    @cached_property
    def raw(self) -> Tensor:
        return made_media(self.build(), self.batch, self.device)

    def build(self) -> Net:
        torch.manual_seed(0)
        plan = self.plan
        return build_net(plan.name, N_CLASSES, width=plan.width, **plan.options).to(self.device)

    def trained(self, precision: str, *, compiled: bool = False, layout: Layout = place) -> Side:
        """Return a function that trains on some batches as stage one does, and its clips."""
        settings = replace(self.plan.train, epochs=1, iterations=0, patience=0)
        job = TrainingJob(self.plan.name, self.labels, "multiclass", range(self.batch), (),
                          settings, seed=0, precision=precision, compiled=compiled)  # fmt: skip
        trainer = Trainer(layout(self.build(), self.device), Repeated(self.raw), job)
        # Several steps between two looks at the device, as in an epoch.
        groups = [list(range(self.batch))] * 4
        return partial(trainer.train_batches, groups, 0), 4 * self.batch

    def plain(self) -> Side:
        """Return the step as anybody would write it first, and its clips."""
        target = torch.from_numpy(self.labels).to(self.device)
        return plain_step(self.build(), self.raw, target, 1e-4), self.batch

    def embedded(self, precision: str) -> Side:
        """Return a function that embeds a batch, and its clips."""
        net = optimized(place(self.build(), self.device).eval(), precision)

        @torch.inference_mode()
        def embed() -> Tensor:
            with autocast(self.device, precision), reproducible_kernels(self.device):
                return net.embed(net.prepare(self.raw)).float().cpu()

        return embed, self.batch


def bench_net(plan: NetSettings, chosen: argparse.Namespace, device: torch.device) -> list[Row]:
    """Print a net's line, and give its rows of the common table."""
    bench = Bench(plan, device)
    train, n_clips = bench.trained(chosen.precision, compiled=chosen.compile)
    # Before the other side has its memory, too.
    memory = peak_memory(train, device)
    training, plain = best_in_turns([(train, n_clips), bench.plain()], device, chosen.seconds)
    embedding = timed(*bench.embedded(chosen.precision), device, chosen.seconds)
    busy = seconds_at_work(train, device) * training / n_clips
    flops = flops_of(bench.build(), bench.raw[:2])
    share = training * flops / product_flops(device, chosen.precision, 1.0)
    print(
        f"{plan.name:9} {bench.batch:5d} {training:10.1f} {plain:10.1f} "
        f"{training / plain:6.2f} {embedding:10.1f} {flops / 1e9:9.2f} "
        f"{100 * share:6.1f} {100 * busy:6.1f} {memory:7.2f}",
        flush=True,
    )
    return [
        Row(f"train {plan.name}, {device.type}, {chosen.precision}", training, "clips/s",
            "plain eager fp32", plain, training / plain, ">= 1"),
        Row(f"its arithmetic, {flops / 1e9:.3g} GFLOP a clip", training * flops / 1e9,
            "GFLOP/s", "a bare matrix product", training * flops / 1e9 / share, share),
    ]  # fmt: skip


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = bench_parser(__doc__)
    parser.add_argument("--nets")
    parser.add_argument("--profile", default="paper" if cuda else "demo")
    parser.add_argument("--precision", default="bf16" if cuda else "float32")
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    chosen.seconds = chosen.seconds or (2.0 if chosen.quick else 5.0 if cuda else 8.0)
    chosen.nets = chosen.nets or ("c3d" if chosen.quick else "music1d,music2d,c3d,i3d")
    device = torch.device(chosen.device)
    torch.backends.cudnn.benchmark = True
    # As every command of stage one does; both sides have it.
    keep_freed_memory()
    nets = load_settings(chosen.profile).nets
    print(f"training, profile {chosen.profile}, on {describe_device(device, chosen.precision)}")
    print(
        f"{'net':9} {'batch':>5} {'clips/s':>10} {'plain':>10} {'ratio':>6} {'embed/s':>10} "
        f"{'GFLOP':>9} {'% mm':>6} {'% busy':>6} {'GiB':>7}"
    )
    rows = []
    for name in chosen.nets.split(","):
        rows += bench_net(nets[name], chosen, device)
    print("% mm: FLOP/s of training beside a bare matrix product; % busy: of wall time")
    finish(chosen, rows)


if __name__ == "__main__":
    main()

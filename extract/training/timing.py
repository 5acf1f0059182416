"""What a net costs on this machine: one forward pass is timed, the rest follows from it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets.parts.facts import empty_input
from mvemo.extract.nets.parts.optimized import optimized
from mvemo.extract.nets.parts.registry import build_net
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.devices import autocast, pick_device, place, resolve_precision
from mvemo.extract.training.jobs import n_epochs
from mvemo.extract.training.memory import noted_storages

# A training step takes so many forward passes: the backward one computes the gradients of
# what a layer reads and of its weights, each as long as the layer itself.
PASSES = 3
# Windows a pass: batch normalisation cannot train on one.
N_WINDOWS = 2
# Numbers of float32 that training keeps for each weight: itself, its gradient, two of Adam.
PER_WEIGHT = 4
# The first pass pays for more than itself: the quickest of some counts, as far as they fit into
# so many seconds.
N_TIMED = 3
SECONDS = 3.0
# Of several threads each does this share of what one does alone.
THREAD_SHARE = 0.75


@dataclass(frozen=True)
class NetCost:
    """What a net costs."""

    seconds: float  # of a forward pass of one window
    weight_bytes: int  # of all weights
    window_bytes: int  # that training keeps of a window until its backward pass; 0 under ``frozen``

    def training_seconds(self, settings: NetSettings, n_train: int, n_validation: int) -> float:
        """Of all epochs, the most there can be.

        Examples
        --------
        >>> from mvemo.extract.settings import TrainSettings
        >>> net = NetSettings("c3d", train=TrainSettings(epochs=10))
        >>> NetCost(0.5, 0, 0).training_seconds(net, n_train=80, n_validation=20)
        1300.0
        """
        passes = PASSES * n_train + n_validation
        return self.seconds * passes * n_epochs(settings.train, n_train)

    def training_bytes(self, settings: NetSettings) -> int:
        """Of weights, optimizer and one batch."""
        return PER_WEIGHT * self.weight_bytes + settings.train.batch_size * self.window_bytes


def measure_net(
    settings: NetSettings,
    run: RunSettings,
    descriptors: DescriptorSettings | None = None,
    *,
    threads: int = 0,
) -> NetCost:
    """Time a pass of a net with random weights over silence, on the run's device.

    A processor is timed by one thread and the time that it had: what else runs on the machine
    counts little.
    """
    device = pick_device(run.device)
    net = place(build_net(settings.name, 2, width=settings.width, **settings.options), device)
    trained = run.protocol != "frozen"
    net.train(trained)
    passed = net if trained else optimized(net, resolve_precision(run.precision, device))
    n_windows = N_WINDOWS if trained else 1
    raw = empty_input(net.input, "cpu", descriptors or DescriptorSettings())
    raw = torch.cat([raw] * n_windows).to(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    threads_before = torch.get_num_threads()
    threads = threads or threads_before
    torch.set_num_threads(1)
    times: list[float] = []
    while len(times) < N_TIMED and sum(times) < SECONDS:
        start = clock()
        with autocast(device, run.precision), torch.inference_mode(not trained):
            x = net.prepare(raw)
            with noted_storages(net) as stored:
                passed.features(x).sum().item()
        times.append(clock() - start)
    torch.set_num_threads(threads_before)
    speed = 1.0 if device.type == "cuda" or threads == 1 else THREAD_SHARE * threads
    return NetCost(
        seconds=min(times) / n_windows / speed,
        weight_bytes=sum(p.untyped_storage().nbytes() for p in net.parameters()),
        window_bytes=sum(stored.values()) // n_windows,
    )

"""Cost of a net on this machine, derived from the time of one forward pass."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets.parts.cards import AudioInput
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.nets.parts.registry import build_net, input_of
from mvemo.extract.nets.parts.sequences import empty_input
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.devices import (
    autocast,
    pick_device,
    place,
    recorded_storages,
    resolve_precision,
)
from mvemo.extract.training.steps import n_epochs
from mvemo.extract.views import window_starts

# A training step takes as long as three forward passes: the gradients of a layer's inputs and
# of its weights each take as long as the layer.
PASSES = 3
# Number of windows of a timed pass: batch normalisation cannot train on a single window.
N_WINDOWS = 2
# Number of float32 values that training keeps per weight: weight, gradient, two states of Adam.
PER_WEIGHT = 4
# Number of passes, and seconds after which no further pass is started. The fastest pass counts,
# because the first one includes initialisation.
N_TIMED = 3
SECONDS = 3.0
# Efficiency of each of several threads, compared with a single thread.
THREAD_SHARE = 0.75


@dataclass(frozen=True)
class NetCost:
    """Time and memory of a net."""

    seconds: float  # time of a forward pass of one window
    weight_bytes: int  # size of all weights
    window_bytes: int  # kept per window until the backward pass; 0 under ``frozen``

    def training_seconds(self, settings: NetSettings, n_train: int, n_validation: int) -> float:
        """Return the time of the maximum number of epochs, in seconds."""
        passes = PASSES * n_train + n_validation
        return self.seconds * passes * n_epochs(settings.train, n_train)

    def training_bytes(self, settings: NetSettings) -> int:
        """Return the memory for weights, optimizer and one batch, in bytes."""
        return PER_WEIGHT * self.weight_bytes + settings.train.batch_size * self.window_bytes


def measure_net(
    settings: NetSettings,
    run: RunSettings,
    descriptors: DescriptorSettings | None = None,
    *,
    threads: int = 0,
) -> NetCost:
    """Time a pass of a net with random weights over silence, on the run's device.

    On a CPU one thread is timed by its own CPU time, so other programs have little effect.
    `threads` is the number of threads that the net will have; 0 for those of this process.
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
            with recorded_storages(net) as stored:
                passed.features(x).sum().item()
        times.append(clock() - start)
    torch.set_num_threads(threads_before)
    speed = 1.0 if device.type == "cuda" or threads == 1 else THREAD_SHARE * threads
    return NetCost(
        seconds=min(times) / n_windows / speed,
        weight_bytes=sum(p.untyped_storage().nbytes() for p in net.parameters()),
        window_bytes=sum(stored.values()) // n_windows,
    )


def clip_windows(net: NetSettings, length: float | None, duration: float | None = None) -> float:
    """Return a net's work for a clip, in windows; the maximum if the length is unknown."""
    taken = input_of(net)
    if length is None or not isinstance(taken, AudioInput):
        return net.view.views
    length = length if duration is None else min(length, duration)
    count = len(window_starts(length, taken.seconds, net.view))
    return count * (min(length / taken.seconds, 1.0) if taken.mark_end else 1.0)

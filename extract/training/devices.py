"""Device, precision, memory and time of the nets' computations."""

import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.cards import AudioInput
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.nets.parts.registry import build_net, input_of
from mvemo.extract.nets.parts.sequences import empty_input
from mvemo.extract.nets.parts.threads import MOST_THREADS
from mvemo.extract.settings import NetSettings, RunSettings, window_starts
from mvemo.manifests.errors import BadOption


def pick_device(name: str) -> torch.device:
    """Return torch's device by name; ``auto`` is CUDA if available, otherwise the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if counts.get(device.type, 1) <= (device.index or 0):
        raise BadOption(f"device is {name!r}, but torch does not find it: use 'auto' or 'cpu'")
    return device


def describe_device(device: torch.device, precision: str, threads: int = 0) -> str:
    """Describe a device and its precision; `threads` 0 means the threads of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    threads = threads or torch.get_num_threads()
    return f"the processor ({threads} thread{'s' * (threads != 1)}), {precision}"


def memory_text(device: torch.device) -> str:
    """Describe a GPU and its memory, for example ``the GPU (NVIDIA T4, 15 GiB)``."""
    if device.type != "cuda":
        return "this machine"
    gpu = torch.cuda.get_device_properties(device)
    return f"the GPU ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)"


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision to use: ``auto`` is bf16 on CUDA, otherwise float32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" else "float32"


def windows_at_once(embed_batch: int, device: torch.device, net: Net | type[Net] = Net) -> int:
    """Return the number of windows per step; `embed_batch` 0: 32 on a GPU, else the net's."""
    return embed_batch or (32 if device.type == "cuda" else net.windows_at_once)


def embedding_threads(device: torch.device, threads: int = 0) -> int:
    """Return the number of threads that embed windows; `threads` 0: those of this process."""
    return min(threads or torch.get_num_threads(), MOST_THREADS) if device.type == "cpu" else 1


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context manager for mixed precision, which is enabled for ``bf16`` only."""
    precision = resolve_precision(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def place(net: Net, device: torch.device) -> Net:
    """Move a net to its device, in the memory layout in which its convolutions are fast."""
    if net.modality == "video":
        for module in net.modules():
            if isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)
            elif isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    return net.to(device)


# Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks instead of returning them; return True if it does.

    Otherwise the system clears the pages of each large block again. Kept blocks make steps on a
    CPU two to three times as fast; the process's memory shrinks only when it ends.
    """
    mallopt = _glibc_function("mallopt")
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> bool:
    """Return freed memory to the system; return True if any was returned."""
    trim = _glibc_function("malloc_trim")
    return bool(trim and trim(0))


def _glibc_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if this is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
    return function


def available_memory() -> int | None:
    """Return the bytes of main memory available without swapping, or None if unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable: *(\d+)", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


@contextmanager
def recorded_storages(net: Net) -> Iterator[dict[int, int]]:
    """Yield {address: bytes} of the blocks that passes keep for gradients, without weights."""
    sizes: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        yield sizes


def saved_bytes(net: Net, raw: Tensor) -> int:
    """Return the bytes that a forward pass over decoded clips keeps for gradients."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.random.fork_rng(devices=[]), recorded_storages(net) as sizes:
            # The name keeps the graph and the recorded blocks alive until the next line.
            features = net.features(net.prepare(raw))
        del features
    finally:
        for module, training in modes:
            module.training = training
    return sum(sizes.values())


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
        return self.seconds * passes * settings.train.max_epochs(n_train)

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

"""Device, precision and memory of the nets' computations."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.threads import MOST_THREADS
from mvemo.extract.workers.process import kibibytes, system_text
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
    """Return the windows per step: `embed_batch`, or if 0, 32 on a GPU and the net's on a CPU."""
    return embed_batch or (32 if device.type == "cuda" else net.windows_at_once)


def embedding_threads(device: torch.device, threads: int = 0) -> int:
    """Return the number of threads that embed: `threads`, or if 0, that of this process."""
    return min(threads or torch.get_num_threads(), MOST_THREADS) if device.type == "cpu" else 1


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in mixed precision, which is enabled for ``bf16`` only."""
    enabled = resolve_precision(precision, device) == "bf16"
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=enabled),
        _ExactConvolutions() if enabled and device.type == "cpu" else nullcontext(),
    ):
        yield


class _ExactConvolutions(TorchFunctionMode):
    """Computes convolutions in float32 whose kernel is larger than their input.

    There, kernels for CPUs with bf16 use memory outside of their arrays: gradients, and outputs of
    grouped convolutions, were wrong by hundreds of times the largest value, without an error
    (PyTorch 2.14, oneDNN).
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function not in (torch.conv1d, torch.conv2d, torch.conv3d):
            return function(*args, **kwargs)
        sides = zip(args[0].shape[2:], args[1].shape[2:], strict=True)
        if all(n >= k for n, k in sides):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return function(*(x.float() if isinstance(x, Tensor) else x for x in args), **kwargs)


@contextmanager
def reproducible_kernels(device: torch.device) -> Iterator[None]:
    """Turn off TF32, which keeps 10 bits, and cuDNN's choice of kernels by trials."""
    if device.type == "cpu":  # its threads would restore each other's values
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


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
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> bool:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim and trim(0))


def available_memory() -> int:
    """Return the bytes of main memory available without swapping, or 0 if unknown."""
    return kibibytes(system_text("meminfo"), "MemAvailable")


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

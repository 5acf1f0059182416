"""Device and precision of the nets' computations."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets.parts.base import Net


def pick_device(name: str) -> torch.device:
    """Return the device of a name.

    Parameters
    ----------
    name
        Name of a device for torch, or ``auto`` for CUDA if available, otherwise the CPU.

    Raises
    ------
    BadSetting
        torch does not find the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    counts = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if counts.get(device.type, 1) <= (device.index or 0):
        raise BadSetting(f"device is {name!r}, but torch finds none here: use 'auto' or 'cpu'")
    return device


def describe_device(device: torch.device, precision: str, threads: int = 0) -> str:
    """Describe a device and its precision; `threads` is 0 for the threads of this process.

    Examples
    --------
    >>> describe_device(torch.device("cpu"), "float32")
    'the processor (... thread...), float32'
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    threads = threads or torch.get_num_threads()
    return f"the processor ({threads} thread{'s' * (threads != 1)}), {precision}"


def memory_text(device: torch.device) -> str:
    """Describe a GPU and its memory, as ``the GPU (NVIDIA T4, 15 GiB)``."""
    if device.type != "cuda":
        return "this machine"
    gpu = torch.cuda.get_device_properties(device)
    return f"the GPU ({gpu.name}, {gpu.total_memory / 2**30:.0f} GiB)"


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision of a setting on a device: ``auto`` is bf16 on CUDA.

    Examples
    --------
    >>> cpu = torch.device("cpu")
    >>> resolve_precision("auto", cpu), resolve_precision("bf16", cpu)
    ('float32', 'bf16')
    """
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" else "float32"


def windows_at_once(embed_batch: int, device: torch.device, net: Net | type[Net] = Net) -> int:
    """Return the number of windows to embed in one step.

    It is `embed_batch`, or if that is 0, 32 on a GPU and the net's default on a CPU.

    Examples
    --------
    >>> windows_at_once(0, torch.device("cpu")), windows_at_once(0, torch.device("cuda"))
    (4, 32)
    """
    return embed_batch or (32 if device.type == "cuda" else net.windows_at_once)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context of mixed precision, which is enabled for ``bf16`` only."""
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

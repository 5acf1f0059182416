"""Freed memory: what is given back to the system."""

import platform
from pathlib import Path

import pytest

from mvemo.extract.training.devices import return_freed_memory


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed blocks")
def test_freed_blocks_are_given_back():
    # Blocks too small to be mapped by themselves; the last one keeps the C library from
    # giving back those before it.
    blocks = [bytearray(b"x" * 8000) for _ in range(5000)]
    last = blocks.pop()
    full = resident()
    del blocks
    assert return_freed_memory()
    assert full - resident() > 20_000_000
    assert len(last) == 8000

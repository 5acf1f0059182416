"""Main memory: how much there is, and that it is kept between the steps of a training.

Commands ask for it before anything is trained, so torch is not imported here.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

# mallopt's numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks instead of giving them back at once.

    A training step frees and makes the same large blocks over and over; glibc maps each
    anew, and the system zeroes every page of it. Kept blocks make steps on a CPU two to
    three times as fast; the process's memory then falls back only when it ends.

    Returns
    -------
    Whether it was done; elsewhere than on glibc it is not needed, or not known how.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    done = mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER)
    return bool(done)


def available_memory() -> int | None:
    """Bytes of main memory that can be had without swapping; None where it is not known."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None

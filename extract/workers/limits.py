"""Limits of time and memory for one clip."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of a file for which `ClipLimits.seconds` is added to the limit. For 4K video at 25 frames
# per second, one slow core needs less than a tenth of it.
_BYTES_PER_PERIOD = 30e6
GIB = 1 << 30


@dataclass(frozen=True)
class ClipLimits:
    """Limits of a worker process for one clip.

    Examples
    --------
    >>> limits = ClipLimits(seconds=60.0)
    >>> limits.seconds_of(0), limits.seconds_of(60_000_000)
    (60.0, 180.0)
    """

    seconds: float = 60.0  # for a small file, and again for each 30 MB; 0 for no limit
    memory: float = 4.0  # GiB in addition to those of an idle worker; 0 for no limit

    def seconds_of(self, size: int) -> float:
        """Return the time limit for a file of `size` bytes; 0 for no limit."""
        return self.seconds * (1.0 + size / _BYTES_PER_PERIOD)

    @property
    def memory_bytes(self) -> int:
        """`memory` in bytes; 0 for no limit."""
        return round(self.memory * GIB)

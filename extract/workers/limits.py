"""What one clip may cost: time and memory."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of a file that take as long as `ClipLimits.seconds` at worst: a picture of 4K at 25 a
# second is decoded, on one slow core, from less than a tenth of that.
_BYTES_PER_PERIOD = 30e6
GIB = 1 << 30


@dataclass(frozen=True)
class ClipLimits:
    """Bounds of what is done to one clip in a worker process.

    Examples
    --------
    >>> limits = ClipLimits(seconds=60.0)
    >>> limits.seconds_of(0), limits.seconds_of(60_000_000)
    (60.0, 180.0)
    """

    seconds: float = 60.0  # for a small file, and as many again for each 30 MB; 0 for no limit
    memory: float = 4.0  # giB that may be asked for beyond what an idle worker has; 0 for no limit

    def seconds_of(self, size: int) -> float:
        """Time for a file of `size` bytes; 0 for no limit."""
        return self.seconds * (1.0 + size / _BYTES_PER_PERIOD)

    @property
    def memory_bytes(self) -> int:
        """`memory` in bytes; 0 for no limit."""
        return round(self.memory * GIB)

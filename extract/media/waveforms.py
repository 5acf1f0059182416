"""Sound that comes in blocks, resampled as it comes, and what is wrong with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from mvemo.extract.arrays import F32
from mvemo.extract.media.checks import Problem

# A waveform that moves less than this about its mean is silent: -80 dB of full scale.
SILENCE_PEAK = 10.0 ** (-80.0 / 20.0)
# Loud lossy sound overshoots full scale by some decibels; 12 are another scale.
MAX_PEAK = 4.0
# Bytes of all waveforms of a clip: 6 h at 16 kHz.
MAX_BYTES = 3 << 29
# Where they go to the disk: 3 h at 44.1 and 16 kHz.
MAX_SPOOLED_BYTES = 3 << 30
# Of sound that is not kept: longer is a jump of time stamps.
MAX_SECONDS = 24 * 3600.0
# Samples at one rate that are kept in memory where there is a folder for more: 9 min at 16 kHz.
_IN_MEMORY = 1 << 23
# Samples of silence that are made at a time.
_BLOCK = 1 << 20
# Called with a sampling rate and samples, float32 (n,).
OnBlock = Callable[[int, F32], None]


class _Blocks:
    """Samples at one rate, in memory or, where they are many and have a folder, in a file."""

    def __init__(self, spool: Path | None) -> None:
        self._spool = spool
        self._blocks: list[F32] = []
        self._n_samples = self._n_spooled = 0
        self._file: IO[bytes] | None = None

    def add(self, block: F32) -> None:
        """Append samples."""
        self._blocks.append(block)
        self._n_samples += len(block)
        if self._spool is not None and self._n_samples - self._n_spooled > _IN_MEMORY:
            self._write(self._spool)

    def joined(self) -> F32:
        """All of them, float32 (samples,); mapped where they are in a file."""
        if self._spool is None or self._file is None:
            return np.concatenate(self._blocks)
        self._write(self._spool)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self._n_samples,))

    def _write(self, spool: Path) -> None:
        if self._file is None:
            spool.mkdir(parents=True, exist_ok=True)
            # Not closed here: it goes with the last that maps it.
            self._file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115
        for block in self._blocks:
            self._file.write(np.ascontiguousarray(block, dtype=np.float32).data)
        self._blocks.clear()
        self._n_spooled = self._n_samples


class Waveforms:
    """A clip's mono sound at several sampling rates; only these are kept.

    The result is that of resampling all of it at once, to the bit. `on_block` is called with a rate
    and the next samples at it, in place of keeping them; memory then does not grow with the sound.
    `spool` is a folder for long sound on its way, which then takes no memory: the waveforms are
    mapped from files there that nothing else sees.

    Attributes
    ----------
    n_samples
        That were added.
    channel
        The first that sounds although the mean of all is silent; None if there is none.
    """

    def __init__(
        self,
        sr: int,
        sample_rates: Sequence[int],
        on_block: OnBlock | None = None,
        spool: Path | None = None,
    ) -> None:
        self.sr = sr
        self._on_block = on_block
        self._max_bytes = MAX_BYTES if spool is None else MAX_SPOOLED_BYTES
        self.n_samples = 0
        self._rates = tuple(dict.fromkeys(sample_rates))
        self._resamplers = {
            rate: soxr.ResampleStream(sr, rate, 1, dtype="float32")
            for rate in self._rates
            if rate != sr
        }
        self._blocks = {rate: _Blocks(spool) for rate in self._rates}
        self._n_given = dict.fromkeys(self._rates, 0)
        self._low, self._high = np.inf, -np.inf
        self._n_not_finite = 0
        self.channel: int | None = None

    @property
    def is_silent(self) -> bool:
        """True if what was added moves less than sound would."""
        return (self._high - self._low) / 2 < SILENCE_PEAK

    def hear(self, channels: Iterable[NDArray[Any]], full_scale: float = 1.0) -> None:
        """Look for a channel that sounds, as long as the mean of all is silent."""
        if self.channel is None and self.is_silent:
            least = 2 * SILENCE_PEAK * full_scale
            # As numbers without bounds: the distance of two integers may have none of their type.
            moves = (float(y.max()) - float(y.min()) if len(y) else 0.0 for y in channels)
            self.channel = next((i for i, move in enumerate(moves) if move >= least), None)

    @property
    def too_long(self) -> str:
        """What to say where there is no room."""
        return (
            f"more than {self.n_samples} samples at {self.sr} Hz: at {list(self._rates)} Hz they "
            f"take over {self._max_bytes / 2**30:g} GiB: cut it, by 'mvemo manifest segment'"
        )

    def has_room(self, n_samples: int) -> bool:
        """Whether so many samples more may be added, by `MAX_BYTES` or `MAX_SPOOLED_BYTES`."""
        seconds = (self.n_samples + n_samples) / self.sr
        if self._on_block is not None:
            return seconds <= MAX_SECONDS
        return 4.0 * seconds * sum(self._rates) <= self._max_bytes

    def add(self, block: F32) -> None:
        """Append samples, float32 (samples,), full scale being 1."""
        if len(block) == 0:
            return
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self._n_not_finite += int(np.count_nonzero(~np.isfinite(block)))
        self._low, self._high = min(self._low, low), max(self._high, high)
        self.n_samples += len(block)
        for rate, blocks in self._blocks.items():
            if rate != self.sr:
                block_at_rate = self._resamplers[rate].resample_chunk(block)
            else:
                block_at_rate = block
            self._keep(rate, block_at_rate, blocks)

    def _keep(self, rate: int, block: F32, blocks: _Blocks) -> None:
        self._n_given[rate] += len(block)
        if self._on_block is None:
            blocks.add(block)
        elif len(block):
            self._on_block(rate, np.asarray(block, dtype=np.float32))

    def add_silence(self, n_samples: int) -> None:
        """Append zeros, which count neither for nor against the sound."""
        low, high = self._low, self._high
        for first in range(0, n_samples, _BLOCK):
            self.add(np.zeros(min(_BLOCK, n_samples - first), dtype=np.float32))
        self._low, self._high = low, high

    def problem(self) -> Problem | None:
        """What makes the sound useless: none, not finite, silent, or of another scale."""
        if self.n_samples == 0:
            return Problem("no sound decodes")
        if self._n_not_finite:
            return Problem(f"{self._n_not_finite} samples are not finite")
        if self.is_silent:
            return Problem(f"silent: {self._silence()}", missing=True)
        peak = max(self._high, -self._low)
        if peak > MAX_PEAK:
            return Problem(
                f"samples are up to {peak:.4g}, where full scale is 1: numbers of another scale, "
                "as whole numbers in a file of float type; convert it"
            )
        return None

    def _silence(self) -> str:
        peak = max(self._high, -self._low)
        if peak == 0:
            return "all samples are 0"
        if self._low == self._high:
            return f"all samples are {self._low:.4g}"
        if peak < SILENCE_PEAK:
            return f"peak {20 * np.log10(peak):.0f} dBFS"
        return f"all samples are about {(self._low + self._high) / 2:.4g}"

    def finish(self) -> tuple[dict[int, F32], Problem | None]:
        """Sampling rate in Hz to the waveform, float32 (samples,), or why there is none."""
        problem = self.problem()
        if problem is not None:
            return {}, problem
        nothing = np.zeros(0, dtype=np.float32)
        waveforms = {}
        for rate in self._rates:
            blocks = self._blocks.pop(rate)
            if rate != self.sr:
                last = self._resamplers[rate].resample_chunk(nothing, last=True)
                self._keep(rate, last, blocks)
            if not self._n_given[rate]:
                few = f"{self.n_samples} samples at {self.sr} Hz"
                return {}, Problem(f"{few} give none at {rate} Hz")
            if self._on_block is None:
                waveforms[rate] = blocks.joined()
        return waveforms, None

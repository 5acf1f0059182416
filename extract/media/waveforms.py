"""Waveforms from blocks of sound, resampled block by block and checked."""

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

# A waveform that deviates less than this from its middle is silent: -80 dB of full scale.
SILENCE_PEAK = 10.0 ** (-80.0 / 20.0)
# Loud lossy sound exceeds full scale by a few decibels; 12 dB mean another scale.
MAX_PEAK = 4.0
# Maximum size of a clip's waveforms in memory, in bytes: 6 h at 16 kHz.
MAX_BYTES = 3 << 29
# Maximum size on disk: 3 h at 44.1 and 16 kHz.
MAX_SPOOLED_BYTES = 3 << 30
# Maximum length of sound that is not kept; longer sound is a jump of time stamps.
MAX_SECONDS = 24 * 3600.0
# Samples at one rate kept in memory before they are written to the spool: 9 min at 16 kHz.
_IN_MEMORY = 1 << 23
# Samples of silence created at a time.
_BLOCK = 1 << 20
# Callback for a sampling rate and its next samples, float32 (n,).
OnBlock = Callable[[int, F32], None]


class _Blocks:
    """Samples at one rate, in memory, or in a file if they are many and have a folder."""

    def __init__(self, spool: Path | None) -> None:
        self._spool = spool
        self._blocks: list[F32] = []
        self._n_samples = self._n_spooled = 0
        self._file: IO[bytes] | None = None

    def add(self, block: F32) -> None:
        self._blocks.append(block)
        self._n_samples += len(block)
        if self._spool is not None and self._n_samples - self._n_spooled > _IN_MEMORY:
            self._write(self._spool)

    def joined(self) -> F32:
        """Return all samples, float32 (samples,), mapped if they are in a file."""
        if self._spool is None or self._file is None:
            return np.concatenate(self._blocks)
        self._write(self._spool)
        self._file.flush()
        return np.memmap(self._file, np.float32, "r", shape=(self._n_samples,))

    def _write(self, spool: Path) -> None:
        if self._file is None:
            spool.mkdir(parents=True, exist_ok=True)
            # It is not closed here: the mapped waveform needs it.
            self._file = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115
        for block in self._blocks:
            self._file.write(np.ascontiguousarray(block, dtype=np.float32).data)
        self._blocks.clear()
        self._n_spooled = self._n_samples


class Waveforms:
    """Mono sound of a clip at several sampling rates.

    The result equals that of resampling all of the sound at once, bit for bit. With `on_block`,
    the samples at each rate are passed on and not kept: memory does not grow with the sound.
    `spool` is a folder for long sound: its waveforms are mapped from unnamed files there.

    Attributes
    ----------
    n_samples
        Number of samples that were added, at the source's rate.
    channel
        First channel that is not silent although the mean of all is; None if there is none.
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
        """True if the added sound is silent, or there is none."""
        return (self._high - self._low) / 2 < SILENCE_PEAK

    def hear(self, channels: Iterable[NDArray[Any]], full_scale: float = 1.0) -> None:
        """Look for a channel that is not silent, as long as the mean of all is silent."""
        if self.channel is None and self.is_silent:
            least = 2 * SILENCE_PEAK * full_scale
            # As floats: the difference of two integers may overflow their type.
            moves = (float(y.max()) - float(y.min()) if len(y) else 0.0 for y in channels)
            self.channel = next((i for i, move in enumerate(moves) if move >= least), None)

    @property
    def too_long(self) -> str:
        """Message for sound that exceeds the limits of `has_room`."""
        return (
            f"more than {self.n_samples} samples at {self.sr} Hz: at {list(self._rates)} Hz they "
            f"take over {self._max_bytes / 2**30:g} GiB: cut it, by 'mvemo manifest segment'"
        )

    def has_room(self, n_samples: int) -> bool:
        """Return True if `n_samples` more fit into `MAX_BYTES` or `MAX_SPOOLED_BYTES`."""
        seconds = (self.n_samples + n_samples) / self.sr
        if self._on_block is not None:
            return seconds <= MAX_SECONDS
        return 4.0 * seconds * sum(self._rates) <= self._max_bytes

    def add(self, block: F32) -> None:
        """Append samples, float32 (samples,); full scale is 1."""
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
        """Append zeros, which the checks of the sound ignore."""
        low, high = self._low, self._high
        for first in range(0, n_samples, _BLOCK):
            self.add(np.zeros(min(_BLOCK, n_samples - first), dtype=np.float32))
        self._low, self._high = low, high

    def problem(self) -> Problem | None:
        """Return the reason why the sound cannot be used, or None."""
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
        """Return the waveform by sampling rate, float32 (samples,), or {} and the problem."""
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

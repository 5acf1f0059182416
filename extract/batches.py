"""Batches of decoded media for a net, read from the working cache as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvemo.extract.errors import BadMedia
from mvemo.extract.nets.base import AudioInput, VideoInput

# Waveform float32 (samples,) or frames uint8 (n_frames, size, size, 3) of one row.
RowReader = Callable[[int], NDArray[np.float32] | NDArray[np.uint8]]


class RawBatches:
    """Reads rows of one modality and stacks them to what ``Net.prepare`` takes.

    Parameters
    ----------
    read
        Gives the decoded media of a manifest row, usually memory-mapped.
    net_input
        What the net is given; waveforms are zero-padded or cut to it.

    Raises
    ------
    BadMedia
        Frames of another count or size than the net's.
    """

    def __init__(self, read: RowReader, net_input: AudioInput | VideoInput) -> None:
        self._read = read
        self._input = net_input

    def load(self, rows: Sequence[int]) -> Tensor:
        """One raw batch: float32 (rows, samples) or uint8 (rows, frames, size, size, 3)."""
        if isinstance(self._input, AudioInput):
            samples = self._input.samples
            waves = np.zeros((len(rows), samples), dtype=np.float32)
            for i, row in enumerate(rows):
                wave = self._read(row)[:samples]
                waves[i, : len(wave)] = wave
            return torch.from_numpy(waves)
        shape = (self._input.n_frames, self._input.size, self._input.size, 3)
        frames = np.empty((len(rows), *shape), dtype=np.uint8)
        for i, row in enumerate(rows):
            clip = self._read(row)
            if clip.shape != shape:
                raise BadMedia(f"row {row}: decoded frames are {clip.shape}, the net takes {shape}")
            frames[i] = clip
        return torch.from_numpy(frames)

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """All batches in order, each read in the background while the one before is used."""
        if not batches:
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: Future[Tensor] = pool.submit(self.load, batches[0])
            for i, rows in enumerate(batches):
                raw = waiting.result()
                if i + 1 < len(batches):
                    waiting = pool.submit(self.load, batches[i + 1])
                yield rows, raw


def cut(rows: Sequence[int], size: int) -> list[list[int]]:
    """Rows in batches of `size`, the last one shorter where they do not divide."""
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]

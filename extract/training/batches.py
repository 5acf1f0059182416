"""Batches of decoded media for a net, read from the working cache as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mvemo.extract.arrays import F32, U8
from mvemo.extract.errors import BadMedia
from mvemo.extract.nets.parts.inputs import AudioInput, NetInput, SequenceInput

# Of one row: waveform float32 (samples,), frames uint8 (n_frames, size, size, 3), or
# descriptors float32 (frames, dim).
RowReader = Callable[[int], F32 | U8]


# Share of a device's free memory that media may take; the net and its gradients need the rest.
RESIDENT_SHARE = 0.5


class Batches(Protocol):
    """Whatever gives batches of decoded media."""

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """All batches of manifest rows in order, with their media."""
        ...


class RawBatches:
    """Reads rows of one modality and stacks them to what ``Net.prepare`` takes.

    Parameters
    ----------
    read
        Gives the decoded media of a manifest row, usually memory-mapped.
    net_input
        What the net is given; waveforms are shortened to it or filled up with zeros, or
        NaN where it marks their end, sequences shortened or filled up with NaN rows.

    Raises
    ------
    BadMedia
        Frames of another count or size than the net's, a sequence without frames, or one
        of other columns than the batch's first.
    """

    def __init__(self, read: RowReader, net_input: NetInput) -> None:
        self._read = read
        self._input = net_input

    def load(self, rows: Sequence[int]) -> Tensor:
        """One raw batch: what `RowReader` gives, of the input's length, along a first axis."""
        if isinstance(self._input, AudioInput):
            samples = self._input.samples
            after = np.nan if self._input.mark_end else 0.0
            waves = np.full((len(rows), samples), after, dtype=np.float32)
            for i, row in enumerate(rows):
                wave = self._read(row)[:samples]
                waves[i, : len(wave)] = wave
            return torch.from_numpy(waves)
        if isinstance(self._input, SequenceInput):
            return self._sequences(rows, self._input.n_frames)
        shape = (self._input.n_frames, self._input.size, self._input.size, 3)
        frames = np.empty((len(rows), *shape), dtype=np.uint8)
        for i, row in enumerate(rows):
            clip = self._read(row)
            if clip.shape != shape:
                raise BadMedia(f"row {row}: decoded frames are {clip.shape}, the net takes {shape}")
            frames[i] = clip
        return torch.from_numpy(frames)

    def _load_pinned(self, rows: Sequence[int]) -> Tensor:
        """As `load`, in memory that a GPU can copy from while the processor goes on."""
        raw = self.load(rows)
        return raw.pin_memory() if torch.cuda.is_available() else raw

    def _sequences(self, rows: Sequence[int], n_frames: int) -> Tensor:
        """float32 (rows, n_frames, dim), NaN rows after a clip's end."""
        clips = [self._read(row)[:n_frames] for row in rows]
        for row, clip in zip(rows, clips, strict=True):
            if clip.ndim != 2 or len(clip) == 0 or clip.shape[1] != clips[0].shape[1]:
                raise BadMedia(
                    f"row {row}: descriptors are {clip.shape}: at least one frame of "
                    f"{clips[0].shape[-1]} numbers is needed"
                )
        dim = clips[0].shape[1] if clips else 0
        batch = np.full((len(rows), n_frames, dim), np.nan, dtype=np.float32)
        for i, clip in enumerate(clips):
            batch[i, : len(clip)] = clip
        return torch.from_numpy(batch)

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """All batches in order, each read in the background while the one before is used."""
        if not batches:
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting: Future[Tensor] = pool.submit(self._load_pinned, batches[0])
            for i, rows in enumerate(batches):
                raw = waiting.result()
                if i + 1 < len(batches):
                    waiting = pool.submit(self._load_pinned, batches[i + 1])
                yield rows, raw


class ResidentBatches:
    """Rows of one net's input, read once and kept in a device's memory as they are.

    Parameters
    ----------
    batches
        Where they are read from.
    rows
        Manifest rows.
    device
        Whose memory has room for all.
    """

    def __init__(self, batches: RawBatches, rows: Sequence[int], device: torch.device) -> None:
        self._position = {row: i for i, row in enumerate(rows)}
        self._device = device
        media: Tensor | None = None
        for chosen, raw in batches.ahead(split_rows(rows, 16)):
            if media is None:
                media = torch.empty((len(rows), *raw.shape[1:]), dtype=raw.dtype, device=device)
            media[self._positions(chosen)] = raw.to(device)
        self._media = torch.empty(0) if media is None else media

    def _positions(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([self._position[row] for row in rows], device=self._device)

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """All batches in order, as `RawBatches.ahead`, on the device."""
        for rows in batches:
            yield rows, self._media[self._positions(rows)]


def batches_for(batches: RawBatches, rows: Sequence[int], device: torch.device) -> Batches:
    """Batches for training on a device: from its memory where the rows fit into it."""
    if device.type != "cuda" or not rows:
        return batches
    first = batches.load(rows[:1])
    free, _ = torch.cuda.mem_get_info(device)
    if first.nbytes * len(rows) > RESIDENT_SHARE * free:
        return batches
    return ResidentBatches(batches, rows, device)


def split_rows(rows: Sequence[int], size: int) -> list[list[int]]:
    """Rows in batches of `size`, the last one shorter where they do not divide.

    Examples
    --------
    >>> split_rows([4, 5, 6, 7, 8], 2)
    [[4, 5], [6, 7], [8]]
    """
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]

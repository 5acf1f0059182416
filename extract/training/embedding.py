"""Penultimate-layer embeddings of all clips, batch by batch, and the nets' own outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mvemo.extract.arrays import F32
from mvemo.extract.errors import ExtractError
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.optimized import optimized
from mvemo.extract.training.batches import RawBatches, split_rows
from mvemo.extract.training.devices import (
    autocast,
    memory_text,
    resolve_precision,
    windows_at_once,
)


@torch.inference_mode()
def embed_rows(
    net: Net,
    batches: RawBatches,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    independent: bool = False,
) -> Iterator[tuple[Sequence[int], F32]]:
    """Embed manifest rows.

    Parameters
    ----------
    net
        On `device`; it is put into evaluation mode.
    batches
        Decoded media by manifest row, and which windows of them are read.
    rows
        Which, in this order.
    batch_size
        Rows that are read, and windows that are embedded, a step, see `windows_at_once`; half
        as many windows from when they do not fit into the device's memory.
    independent
        Have a row's embedding not depend, to the bit, on which other rows are embedded: each
        row has its place in batches of one shape. A run that was cut off and goes on then
        ends as one that was not.

    Raises
    ------
    ExtractError
        The device's memory is too small for one window.

    Yields
    ------
    The rows of a batch and their embeddings over all windows, float32 (rows,
    batches.view.pooled_dim(net.embedding_dim)).
    """
    embedder = _Embedder(net, device, precision, windows_at_once(batch_size, device, net))
    per_batch = batches.rows_per_batch(embedder.at_once)
    chunks = chunk_rows(rows, per_batch) if independent else split_rows(rows, embedder.at_once)
    waiting: _Embedded | None = None
    for chosen, (raw, counts) in batches.views_ahead(chunks):
        where = torch.arange(len(raw))
        if independent and per_batch > 1:
            places = [row % per_batch for row in chosen]
            shape = (per_batch, batches.view.views)
            raw, where = fill_places(raw, counts, places, shape)
        embedded = _Embedded(chosen, counts, where, embedder.embed(raw))
        # A GPU has its next batch before this process waits for the one before.
        if waiting is not None:
            yield waiting.pooled(batches.view.pooling)
        waiting = embedded
    if waiting is not None:
        yield waiting.pooled(batches.view.pooling)


class _Embedded(NamedTuple):
    """Rows of a batch, the windows of each, their places among all, and these on the device."""

    rows: Sequence[int]
    counts: Sequence[int]
    where: Tensor
    values: Tensor

    def pooled(self, pooling: str) -> tuple[Sequence[int], F32]:
        """The rows, and one vector each."""
        values = self.values.cpu()[self.where]
        return self.rows, pool_windows(values, self.counts, pooling).numpy()


class _Embedder:
    """Embeds windows, as many at once as the device's memory has room for."""

    def __init__(self, net: Net, device: torch.device, precision: str, at_once: int) -> None:
        self.at_once = at_once
        self._net = optimized(net.eval(), resolve_precision(precision, device))
        self._device = device
        self._precision = precision

    def embed(self, raw: Tensor) -> Tensor:
        """float32 (windows, embedding_dim), on the device."""
        while True:
            try:
                return torch.cat([self._embed(part) for part in torch.split(raw, self.at_once)])
            except torch.OutOfMemoryError:
                self._halve()

    def _embed(self, raw: Tensor) -> Tensor:
        with autocast(self._device, self._precision):
            x = self._net.prepare(raw.to(self._device, non_blocking=True))
            return self._net.embed(x).float()

    def _halve(self) -> None:
        if self.at_once == 1:
            raise ExtractError(
                f"{self._net.name}: the memory of {memory_text(self._device)} is too small to "
                "embed one window: take a larger GPU, shorter or smaller inputs "
                f"(nets.{self._net.name}.options), or --set extract.device=cpu"
            ) from None
        self.at_once //= 2
        torch.cuda.empty_cache()


def chunk_rows(rows: Sequence[int], size: int) -> list[list[int]]:
    """Rows that share a batch of `size` places, where row r always has place r % size.

    Rows of any distinct places go together, so that those of a shard fill its batches.

    Examples
    --------
    >>> chunk_rows([0, 1, 5, 6, 7, 8], 4)
    [[0, 1, 6, 7], [5, 8]]
    """
    chunks: list[list[int]] = []
    taken = [0] * size
    for row in rows:
        number = taken[row % size]
        taken[row % size] += 1
        if number == len(chunks):
            chunks.append([])
        chunks[number].append(row)
    return chunks


def fill_places(
    raw: Tensor, counts: Sequence[int], places: Sequence[int], shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """A batch of a fixed shape, with windows at their places and copies where there are none.

    Examples
    --------
    >>> batch, at = fill_places(torch.tensor([1, 2, 3]), [2, 1], [0, 2], (3, 2))
    >>> batch.tolist(), at.tolist()
    ([1, 2, 1, 1, 3, 1], [0, 1, 4])
    """
    n_places, n_windows = shape
    at = [
        place * n_windows + window
        for place, count in zip(places, counts, strict=True)
        for window in range(count)
    ]
    where = torch.tensor(at, dtype=torch.int64)
    if at == list(range(n_places * n_windows)):
        return raw, where
    source = torch.zeros(n_places * n_windows, dtype=torch.int64)
    source[where] = torch.arange(len(raw))
    return raw[source], where


def pool_windows(values: Tensor, counts: Sequence[int], pooling: str) -> Tensor:
    """One vector a clip of those of its windows.

    Examples
    --------
    >>> values = torch.tensor([[1.0], [3.0], [5.0]])
    >>> pool_windows(values, [2, 1], "mean+std").tolist()
    [[2.0, 1.0], [5.0, 0.0]]
    """
    of_clips = torch.split(values, list(counts))
    means = torch.stack([windows.mean(dim=0) for windows in of_clips])
    if pooling == "mean":
        return means
    deviations = [windows.std(dim=0, correction=0) for windows in of_clips]
    return torch.cat([means, torch.stack(deviations)], dim=1)


@torch.inference_mode()
def outputs_of(net: Net, embeddings: F32) -> F32:
    """What a net itself predicts, by its last layer, dropout off."""
    # An array that others may be views of must not be torch's.
    x = torch.from_numpy(embeddings[:, : net.embedding_dim].copy())
    values: F32 = net.classifier(x.to(net.classifier.weight.device)).float().cpu().numpy()
    return values

"""Penultimate-layer embeddings of all clips, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mvemo.extract.arrays import F32
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.folding import folded
from mvemo.extract.training.batches import RawBatches, split_rows
from mvemo.extract.training.devices import autocast


@torch.inference_mode()
def embed_rows(
    net: Net,
    batches: RawBatches,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
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
        Rows that are read, and windows that are embedded, a step; what bounds the memory.

    Yields
    ------
    The rows of a batch and their embeddings over all windows, float32 (rows,
    batches.view.pooled_dim(net.embedding_dim)).
    """
    fast = folded(net.eval())
    for chosen, (raw, counts) in batches.views_ahead(split_rows(rows, batch_size)):
        parts = []
        for windows in torch.split(raw, batch_size):
            with autocast(device, precision):
                values = fast.embed(fast.prepare(windows.to(device, non_blocking=True)))
            parts.append(values.float())
        yield chosen, pool_windows(torch.cat(parts), counts, batches.view.pooling).cpu().numpy()


def pool_windows(values: Tensor, counts: Sequence[int], pooling: str) -> Tensor:
    """One vector a clip of those of its windows.

    Parameters
    ----------
    values
        (windows, dim), clip after clip.
    counts
        Windows of each clip.
    pooling
        ``mean``, or ``mean+std`` for the standard deviation after it.

    Returns
    -------
    (clips, dim), or (clips, 2 * dim).

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

"""Penultimate-layer embeddings of all clips, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mvemo.extract.arrays import F32
from mvemo.extract.nets.parts.base import Net
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
        Decoded media by manifest row.
    rows
        Which, in this order.
    batch_size
        Rows a step; what bounds the memory.

    Yields
    ------
    The rows of a batch and their embeddings, float32 (rows, net.embedding_dim).
    """
    net.eval()
    for chosen, raw in batches.ahead(split_rows(rows, batch_size)):
        with autocast(device, precision):
            values = net.embed(net.prepare(raw.to(device, non_blocking=True)))
        yield chosen, values.float().cpu().numpy()

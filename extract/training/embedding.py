"""Penultimate-layer embeddings of all clips, batch by batch, and the outputs of nets."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mvemo.extract.nets.parts import base, fast_conv
from mvemo.extract.nets.parts.threads import cpu_threads, map_parts, only_parts_in_threads
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training import data, devices, protocols
from mvemo.manifests.array_types import F32
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import find_stamp


@torch.inference_mode()
def embed_rows(
    net: base.Net,
    batches: data.RawBatches,
    rows: Sequence[int],
    *,
    batch_size: int,
    device: torch.device,
    precision: str = "float32",
    independent: bool = False,
) -> Iterator[tuple[Sequence[int], F32]]:
    """Embed manifest rows, batch by batch, with a net that is on `device`.

    The net is put into evaluation mode. Yield the rows of a batch and their embeddings pooled over
    the windows of `batches`, float32 (rows, batches.view.pooled_dim(net.embedding_dim)); rows may
    also be pieces (`Net.piece_input`). A step reads `batch_size` rows and embeds as many windows,
    see `windows_at_once`. It is halved when the windows do not fit into the device's memory;
    `MvemoError` is raised if one does not fit.

    With `independent`, the embedding of a row is bit-identical whichever other rows are embedded:
    each row has a fixed place in batches of one shape. An interrupted and resumed run then gives
    the same result as an uninterrupted one.
    """
    at_once = devices.windows_at_once(batch_size, device, net)
    embedder = _Embedder(net, device, precision, at_once, pieces=batches.pieces)
    per_batch = batches.rows_per_batch(embedder.at_once)
    chunks = chunk_rows(rows, per_batch) if independent else data.split_rows(rows, embedder.at_once)

    def pooled(
        rows: Sequence[int], counts: Sequence[int], where: Tensor, values: Tensor | Future[Tensor]
    ) -> tuple[Sequence[int], F32]:
        values = values.result() if isinstance(values, Future) else values
        return rows, pool_windows(values.cpu()[where], counts, batches.view.pooling).numpy()

    n_threads = devices.embedding_threads(device)
    # On a CPU each thread embeds a batch.
    threads = cpu_threads(n_threads) if n_threads > 1 and len(chunks) > 1 else None
    # A GPU gets its next batch before this process waits for the previous one.
    ahead = n_threads if threads else int(device.type != "cpu")
    waiting: deque[tuple[Sequence[int], Sequence[int], Tensor, Tensor | Future[Tensor]]] = deque()
    try:
        for chosen, (raw, counts) in data.read_ahead(batches.load_views, chunks):
            where = torch.arange(len(raw))
            if independent and per_batch > 1:
                firsts = [row % per_batch * batches.view.views for row in chosen]
                raw, where = _placed(raw, firsts, counts, per_batch * batches.view.views)
            embedded = threads.submit(embedder.embed, raw) if threads else embedder.embed(raw)
            waiting.append((chosen, counts, where, embedded))
            if len(waiting) > ahead:
                yield pooled(*waiting.popleft())
        while waiting:
            yield pooled(*waiting.popleft())
    finally:
        for *_, embedded in waiting:
            if isinstance(embedded, Future):
                embedded.cancel()


def _placed(
    raw: Tensor, firsts: Sequence[int], counts: Sequence[int], n_places: int
) -> tuple[Tensor, Tensor]:
    """Return a batch in which each row's windows begin at its place in `firsts`, and all places."""
    places = [
        first + window
        for first, count in zip(firsts, counts, strict=True)
        for window in range(count)
    ]
    where = torch.tensor(places)
    if places == list(range(n_places)):
        return raw, where
    # Copies fill the other places.
    source = torch.zeros(n_places, dtype=torch.int64)
    source[where] = torch.arange(len(raw))
    return raw[source], where


class _Embedder:
    def __init__(
        self, net: base.Net, device: torch.device, precision: str, at_once: int, *, pieces: bool
    ) -> None:
        self.at_once, self._pieces = at_once, pieces
        self._net = fast_conv.optimized(net.eval(), devices.resolve_precision(precision, device))
        self._device = device
        self._precision = precision

    @torch.inference_mode()
    def embed(self, raw: Tensor) -> Tensor:
        """Return the embeddings of windows, float32 (windows, embedding_dim), on the device."""
        at_once = self.at_once
        while True:
            try:
                parts = torch.split(raw, at_once)
                if self._device.type != "cpu":
                    return torch.cat([self._embed(part) for part in parts])
                with only_parts_in_threads():
                    return map_parts(self._embed, parts)
            except torch.OutOfMemoryError:
                if at_once == 1:
                    memory = devices.memory_text(self._device)
                    raise MvemoError(
                        f"{self._net.name}: the memory of {memory} is too small to embed one "
                        "window: use a larger GPU, shorter or smaller inputs "
                        f"(nets.{self._net.name}.options), or --set extract.device=cpu"
                    ) from None
            at_once //= 2
            self.at_once = min(self.at_once, at_once)
            torch.cuda.empty_cache()

    def _embed(self, raw: Tensor) -> Tensor:
        # A float32 embedding has the same key on all devices and in all runs.
        with (
            devices.autocast(self._device, self._precision),
            devices.reproducible_kernels(self._device),
        ):
            raw = raw.to(self._device, non_blocking=True)
            if self._pieces:
                return self._net.embed_pieces(raw).float()
            return self._net.embed(self._net.prepare(raw)).float()


def chunk_rows(rows: Sequence[int], size: int) -> list[list[int]]:
    """Assign rows to batches of `size` places; row r always has place r % size."""
    chunks: defaultdict[int, list[int]] = defaultdict(list)
    taken: Counter[int] = Counter()
    for row in rows:
        chunks[taken[row % size]].append(row)
        taken[row % size] += 1
    return list(chunks.values())


def pool_windows(values: Tensor, counts: Sequence[int], pooling: str) -> Tensor:
    """Pool the `counts` windows of clips to (clips, dim), or 2 * dim for ``mean+std``."""
    of_clips = torch.split(values, list(counts))
    means = torch.stack([windows.mean(dim=0) for windows in of_clips])
    if pooling == "mean":
        return means
    deviations = [windows.std(dim=0, correction=0) for windows in of_clips]
    return torch.cat([means, torch.stack(deviations)], dim=1)


@torch.inference_mode()
def outputs_of(net: base.Net, embeddings: F32) -> F32:
    """Return the outputs of a net's last layer, float32 (rows, outputs), for pooled embeddings."""
    # Copied, because torch must not share memory with an array that may have other views.
    x = torch.from_numpy(embeddings[:, : net.embedding_dim].copy())
    return net.classifier(x.to(net.classifier.weight.device)).float().cpu().numpy()


class FrozenNets:
    """Frozen nets, kept in memory until the settings of the run change."""

    def __init__(self) -> None:
        self._nets: dict[str, tuple[tuple[Any, ...], protocols.TrainedNet]] = {}

    def get(self, settings: NetSettings, n_outputs: int, run: RunSettings) -> protocols.TrainedNet:
        """Return a net optimised for embedding; do not save its weights."""
        stamp = find_stamp(protocols.weight_file(settings)) if settings.weights else None
        key = (run, n_outputs, settings, stamp)
        self._nets = {name: kept for name, kept in self._nets.items() if kept[0][:2] == key[:2]}
        if settings.name not in self._nets or self._nets[settings.name][0] != key:
            net = protocols.frozen_net(settings, n_outputs, run)
            precision = devices.resolve_precision(run.precision, devices.pick_device(run.device))
            faster = fast_conv.optimized(net.net, precision)
            self._nets[settings.name] = key, replace(net, net=faster)
        return self._nets[settings.name][1]

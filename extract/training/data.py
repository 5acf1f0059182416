"""Training data: clips and their folds or splits, and batches of decoded media."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mvemo.cache.table import TEST, VALIDATION
from mvemo.extract.errors import BadMedia
from mvemo.extract.nets.parts import cards
from mvemo.extract.settings import NetSettings, RunSettings, ViewSettings, window_starts
from mvemo.manifests import Manifest, inner_split
from mvemo.manifests.array_types import F32, U8, Bools, Ints
from mvemo.manifests.errors import BadOption

T = TypeVar("T")

# Returns the media of a row: waveform float32 (samples,), frames uint8 (windows * n_frames,
# size, size, 3), or descriptors float32 (frames, dim).
RowReader = Callable[[int], F32 | U8]


# Share of a device's free memory for media; the net and its gradients need the rest.
RESIDENT_SHARE = 0.5
# Main memory for media when a CPU trains, in bytes.
MAIN = 2**28


class RawBatches:
    """Reader of rows of one modality, stacked to the input of ``Net.prepare``.

    Waveforms and sequences are shortened to the length of the input. Shorter waveforms are padded
    with zeros, or with NaN if the input marks their end; shorter sequences with NaN rows. Windows
    of pictures were chosen during decoding. With a `PieceInput`, rows are pieces that a net embeds
    separately. `BadMedia` is raised if frames or descriptors do not have the shape that the net
    takes.
    """

    def __init__(
        self,
        read: RowReader,
        net_input: cards.NetInput | cards.PieceInput,
        view: ViewSettings | None = None,
    ) -> None:
        self._read = read
        self.pieces: bool = isinstance(net_input, cards.PieceInput)
        raw = net_input.raw if isinstance(net_input, cards.PieceInput) else net_input
        self.input: cards.NetInput = raw
        self.view: ViewSettings = view or ViewSettings()

    def load(self, rows: Sequence[int]) -> Tensor:
        """Return one raw batch with the middle window of each row, along a first axis."""
        windows = [self._windows(row) for row in rows]
        return self._stack(rows, [of_row[len(of_row) // 2] for of_row in windows])

    def rows_per_batch(self, n_windows: int) -> int:
        """Return the number of rows whose windows fill a batch of `n_windows` windows.

        It is 1 if clips may end within a window, because results then depend on other clips.
        """
        if isinstance(self.input, cards.SequenceInput) or getattr(self.input, "mark_end", False):
            return 1
        return max(n_windows // self.view.views, 1)

    def load_views(self, rows: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return one raw batch with all windows of each row, and the number of windows per row."""
        windows = [self._windows(row) for row in rows]
        counts = [len(of_row) for of_row in windows]
        of_window = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        return self._stack(of_window, [each for of_row in windows for each in of_row]), counts

    def _windows(self, row: int) -> list[F32 | U8]:
        """Return the windows of a row, at least one, none longer than the input."""
        clip, taken = self._read(row), self.input
        length = taken.samples if isinstance(taken, cards.AudioInput) else taken.n_frames
        if isinstance(taken, cards.VideoInput):
            starts = list(range(0, max(len(clip), 1), length))
        else:
            starts = [round(start) for start in window_starts(len(clip), length, self.view)]
        return [clip[start : start + length] for start in starts]

    def _stack(self, rows: Sequence[int], windows: Sequence[F32 | U8]) -> Tensor:
        """Stack windows, padded to the input's length; `rows` has the row of each window."""
        taken, after = self.input, np.nan
        shape: tuple[int, ...]
        if isinstance(taken, cards.VideoInput):
            shape, after = (taken.n_frames, taken.size, taken.size, 3), 0
            least, expected = taken.n_frames, f"decoded frames of shape {shape}"
        elif isinstance(taken, cards.SequenceInput):
            shape, least = (taken.n_frames, windows[0].shape[-1]), 1
            expected = f"descriptors with at least one frame of {shape[1]} numbers"
        else:
            shape, least, expected = (taken.samples,), 0, "one channel"
            after = np.nan if taken.mark_end else 0
        dtype = np.uint8 if isinstance(taken, cards.VideoInput) else np.float32
        batch: F32 | U8 = np.empty((len(rows), *shape), dtype)
        for i, (row, window) in enumerate(zip(rows, windows, strict=True)):
            if window.shape[1:] != shape[1:] or len(window) < least:
                raise BadMedia(f"row {row}: expected {expected}, got shape {window.shape}")
            batch[i, : len(window)] = window
            batch[i, len(window) :] = after
        raw = torch.from_numpy(batch)
        # A GPU copies a batch asynchronously only from pinned memory.
        return raw.pin_memory() if torch.cuda.is_available() else raw

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield all batches of `load` in order, each read while the previous one is used."""
        return read_ahead(self.load, batches)


def read_ahead(
    load: Callable[[Sequence[int]], T], batches: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], T]]:
    """Yield all batches in order, each read in the background while the previous one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(load, rows) for rows in batches[:1]]
        for i, rows in enumerate(batches):
            raw = waiting.pop().result()
            waiting = [pool.submit(load, following) for following in batches[i + 1 : i + 2]]
            yield rows, raw


class ResidentBatches:
    """Rows of one net's input, read once from `batches` and kept in a device's memory."""

    def __init__(self, batches: RawBatches, rows: Sequence[int], device: torch.device) -> None:
        self._position = {row: i for i, row in enumerate(rows)}
        self._device = device
        n_read = 0
        for chosen, raw in batches.ahead(split_rows(rows, 16)):
            if not n_read:
                shape = (len(rows), *raw.shape[1:])
                self._media = torch.empty(shape, dtype=raw.dtype, device=device)
            self._media[n_read : n_read + len(chosen)] = raw
            n_read += len(chosen)

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        places = [[self._position[row] for row in rows] for rows in batches]
        for rows, positions in zip(batches, indices_on(self._device, places), strict=True):
            yield rows, self._media[positions]


Batches = RawBatches | ResidentBatches


def batches_for(batches: RawBatches, rows: Sequence[int], device: torch.device) -> Batches:
    """Return batches for training, kept in the device's memory if the rows fit into it."""
    # A CPU keeps only rows joined from several files, because the system caches single files.
    if not rows or not (device.type == "cuda" or isinstance(batches.input, cards.SequenceInput)):
        return batches
    room = RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else MAIN
    if batches.load(rows[:1]).nbytes * len(rows) > room:
        return batches
    return ResidentBatches(batches, rows, device)


def indices_on(device: torch.device, batches: Sequence[Sequence[int]]) -> Sequence[Tensor]:
    """Return the indices of each batch on a device, int64, copied in one step."""
    indices = torch.tensor([index for batch in batches for index in batch], dtype=torch.int64)
    return torch.split(indices.to(device), [len(batch) for batch in batches])


def split_rows(rows: Sequence[int], size: int) -> list[list[int]]:
    """Split rows into batches of `size`; the last one may be shorter."""
    return [list(rows[i : i + size]) for i in range(0, len(rows), size)]


@dataclass(frozen=True)
class TrainingClips:
    """Clips for the training of nets, and their folds or splits."""

    manifest: Manifest  # all clips
    content: Mapping[str, str]  # clip id -> digest of its media
    usable: Bools  # bool (clips,): rows whose modality was decoded
    folds: Ints  # fold of each clip, int64 (clips,); used only under ``crossfit``
    # Split of each clip, int64 (clips,): 0 training, 1 validation, 2 test; for ``holdout``.
    splits: Ints | None = None
    # Folds whose nets are trained here, under ``crossfit``; None for all.
    trained_folds: Collection[int] | None = None


@dataclass(frozen=True)
class TrainingSplit:
    label: str  # ``i3d@fold0``, ``i3d@all`` or ``i3d@holdout``
    fold: int | None  # fold that the net never sees; None without folds
    rows: Ints  # manifest rows that the net sees: `train_rows` and `val_rows`
    validation: Bools  # bool (rows,): rows for early stopping, which give no gradient
    seed: int

    @property
    def train_rows(self) -> list[int]:
        return self.rows[~self.validation].tolist()

    @property
    def val_rows(self) -> list[int]:
        return self.rows[self.validation].tolist()


def training_splits(
    settings: NetSettings, clips: TrainingClips, run: RunSettings
) -> list[TrainingSplit]:
    """Return the training clips of each net of a protocol: one net per fold, or only one net."""
    if run.protocol != "crossfit":
        return [_split(settings, clips, run, None)]
    folds, trained = np.unique(clips.folds).tolist(), clips.trained_folds
    chosen = [fold for fold in folds if trained is None or fold in trained]
    return [_split(settings, clips, run, fold) for fold in chosen]


def _split(
    settings: NetSettings, clips: TrainingClips, run: RunSettings, fold: int | None
) -> TrainingSplit:
    """Return the training clips of one net: the usable clips that it may see."""
    manifest, train, name = clips.manifest, settings.train, settings.name
    label, visible, seed, splits = f"{name}@all", clips.usable, run.seed * 1000, None
    if fold is not None:
        label, seed = f"{name}@fold{fold}", seed + fold + 1
        visible = visible & (clips.folds != fold)
    elif run.protocol == "holdout":
        if clips.splits is None:
            raise BadOption(f"{name}: the holdout protocol needs a split of the clips")
        label, splits = f"{name}@holdout", clips.splits
        visible = visible & (splits != TEST)
    rows = np.flatnonzero(visible)
    validation: Bools = np.zeros(len(rows), dtype=np.bool_)
    if splits is not None:
        validation = splits[rows] == VALIDATION
        if train.patience and not validation.any():
            raise BadOption(
                f"{name}: early stopping needs at least one usable validation clip, but there is "
                "none"
            )
    elif train.patience and len(rows) >= 2:
        labels, groups = np.asarray(manifest.labels)[rows], [manifest.groups[row] for row in rows]
        validation = inner_split(labels, groups, train.val_fraction, seed, manifest.task)
    if len(rows) < 2 or validation.all():
        raise BadOption(
            f"{label}: expected at least 2 usable training clips, got {(~validation).sum()}"
        )
    return TrainingSplit(label, fold, rows, validation, seed)

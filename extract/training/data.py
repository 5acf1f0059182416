"""Training data: clips and their folds or splits, and batches of decoded media."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mvemo.cache.table import TEST, VALIDATION
from mvemo.extract.array_types import F32, I64, U8, Mask
from mvemo.extract.errors import BadMedia, BadSetting
from mvemo.extract.nets.parts.cards import AudioInput, NetInput, SequenceInput, VideoInput
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.views import ViewSettings, window_starts
from mvemo.manifests import Manifest, inner_split

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
    of pictures were chosen during decoding. `BadMedia` is raised if frames or descriptors do not
    have the shape that the net takes.
    """

    def __init__(
        self, read: RowReader, net_input: NetInput, view: ViewSettings | None = None
    ) -> None:
        self._read = read
        self._input = net_input
        self.view = view or ViewSettings()

    @property
    def is_joined(self) -> bool:
        """Return True if a row is assembled from several files."""
        return isinstance(self._input, SequenceInput)

    def load(self, rows: Sequence[int]) -> Tensor:
        """Return one raw batch with the middle window of each row, along a first axis."""
        windows = [self._windows(row) for row in rows]
        return _pinned(self._stack(rows, [of_row[len(of_row) // 2] for of_row in windows]))

    def rows_per_batch(self, n_windows: int) -> int:
        """Return the number of rows whose windows fill a batch of `n_windows` windows.

        It is 1 if clips may end within a window, because results then depend on other clips.
        """
        if isinstance(self._input, SequenceInput) or getattr(self._input, "mark_end", False):
            return 1
        return max(n_windows // self.view.views, 1)

    def load_views(self, rows: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return one raw batch with all windows of each row, and the number of windows per row."""
        windows = [self._windows(row) for row in rows]
        counts = [len(of_row) for of_row in windows]
        of_window = [row for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        raw = self._stack(of_window, [each for of_row in windows for each in of_row])
        return _pinned(raw), counts

    def _windows(self, row: int) -> list[F32 | U8]:
        """Return the windows of a row, at least one, none longer than the input."""
        clip = self._read(row)
        if isinstance(self._input, VideoInput):
            n = self._input.n_frames
            return [clip[first : first + n] for first in range(0, max(len(clip), 1), n)]
        taken = self._input
        window = taken.samples if isinstance(taken, AudioInput) else taken.n_frames
        starts = window_starts(len(clip), window, self.view)
        return [clip[first : first + window] for first in (round(start) for start in starts)]

    def _stack(self, rows: Sequence[int], windows: Sequence[F32 | U8]) -> Tensor:
        """Stack windows, padded to the input's length; `rows` has the row of each window."""
        if isinstance(self._input, AudioInput):
            after = np.nan if self._input.mark_end else 0.0
            waves = np.full((len(rows), self._input.samples), after, dtype=np.float32)
            for i, wave in enumerate(windows):
                waves[i, : len(wave)] = wave
            return torch.from_numpy(waves)
        if isinstance(self._input, SequenceInput):
            return _stack_sequences(rows, windows, self._input.n_frames)
        shape = (self._input.n_frames, self._input.size, self._input.size, 3)
        frames = np.empty((len(rows), *shape), dtype=np.uint8)
        for i, (row, window) in enumerate(zip(rows, windows, strict=True)):
            if window.shape != shape:
                raise BadMedia(
                    f"row {row}: expected decoded frames of shape {shape}, got {window.shape}"
                )
            frames[i] = window
        return torch.from_numpy(frames)

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield all batches of `load` in order, each read while the previous one is used."""
        return _ahead(self.load, batches)

    def views_ahead(
        self, batches: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Sequence[int], tuple[Tensor, list[int]]]]:
        """Yield all batches of `load_views` in order, read like those of `ahead`."""
        return _ahead(self.load_views, batches)


def _pinned(raw: Tensor) -> Tensor:
    """Move a batch to pinned memory if there is a GPU, which then copies it asynchronously."""
    return raw.pin_memory() if torch.cuda.is_available() else raw


def _stack_sequences(rows: Sequence[int], clips: Sequence[F32 | U8], n_frames: int) -> Tensor:
    """Stack sequences to float32 (rows, n_frames, dim), with NaN rows after a clip's end."""
    for row, clip in zip(rows, clips, strict=True):
        if clip.ndim != 2 or len(clip) == 0 or clip.shape[1] != clips[0].shape[1]:
            raise BadMedia(
                f"row {row}: expected descriptors with at least one frame of "
                f"{clips[0].shape[-1]} numbers, got shape {clip.shape}"
            )
    dim = clips[0].shape[1] if clips else 0
    batch = np.full((len(rows), n_frames, dim), np.nan, dtype=np.float32)
    for i, clip in enumerate(clips):
        batch[i, : len(clip)] = clip
    return torch.from_numpy(batch)


def _ahead(
    load: Callable[[Sequence[int]], T], batches: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[int], T]]:
    """Yield all batches in order, each read in the background while the previous one is used."""
    if not batches:
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[T] = pool.submit(load, batches[0])
        for i, rows in enumerate(batches):
            raw = waiting.result()
            if i + 1 < len(batches):
                waiting = pool.submit(load, batches[i + 1])
            yield rows, raw


class ResidentBatches:
    """Rows of one net's input, read once from `batches` and kept in a device's memory."""

    def __init__(self, batches: RawBatches, rows: Sequence[int], device: torch.device) -> None:
        self._position = {row: i for i, row in enumerate(rows)}
        self._device = device
        media: Tensor | None = None
        for chosen, raw in batches.ahead(split_rows(rows, 16)):
            if media is None:
                media = torch.empty((len(rows), *raw.shape[1:]), dtype=raw.dtype, device=device)
            (positions,) = indices_on(device, [[self._position[row] for row in chosen]])
            media[positions] = raw.to(device)
        self._media = torch.empty(0) if media is None else media

    def ahead(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Yield all batches in order, on the device."""
        places = [[self._position[row] for row in rows] for rows in batches]
        for rows, positions in zip(batches, indices_on(self._device, places), strict=True):
            yield rows, self._media[positions]


Batches = RawBatches | ResidentBatches


def batches_for(batches: RawBatches, rows: Sequence[int], device: torch.device) -> Batches:
    """Return batches for training, kept in the device's memory if the rows fit into it."""
    # A CPU keeps only rows joined from several files, because the system caches single files.
    if not rows or not (device.type == "cuda" or batches.is_joined):
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
    usable: Mask  # bool (clips,): rows whose modality was decoded
    folds: I64  # fold of each clip, int64 (clips,); used only under ``crossfit``
    # Split of each clip, int64 (clips,): 0 training, 1 validation, 2 test; for ``holdout``.
    splits: I64 | None = None
    # Folds whose nets are trained here, under ``crossfit``; None for all.
    trained_folds: Collection[int] | None = None


@dataclass(frozen=True)
class TrainingSplit:
    """Clips for the training of one net."""

    label: str  # ``i3d@fold0``, ``i3d@all`` or ``i3d@holdout``
    fold: int | None  # fold that the net never sees; None without folds
    rows: I64  # manifest rows that the net sees
    validation: Mask  # bool (rows,): rows for early stopping, which give no gradient
    seed: int

    @property
    def train_rows(self) -> list[int]:
        """Return the manifest rows for the gradients."""
        rows: list[int] = self.rows[~self.validation].tolist()
        return rows

    @property
    def val_rows(self) -> list[int]:
        """Return the manifest rows for early stopping."""
        rows: list[int] = self.rows[self.validation].tolist()
        return rows


def training_splits(
    settings: NetSettings, clips: TrainingClips, run: RunSettings
) -> list[TrainingSplit]:
    """Return the training clips of each net of a protocol: one net per fold, or only one net."""
    if run.protocol == "crossfit":
        folds = [int(fold) for fold in np.unique(clips.folds)]
        if clips.trained_folds is not None:
            folds = [fold for fold in folds if fold in clips.trained_folds]
        return [
            _split(settings, clips, clips.folds != fold, job_seed(run.seed, fold), fold)
            for fold in folds
        ]
    seed = job_seed(run.seed, None)
    if run.protocol != "holdout":
        return [_split(settings, clips, np.ones_like(clips.usable), seed)]
    if clips.splits is None:
        raise BadSetting(f"{settings.name}: the holdout protocol needs a split of the clips")
    return [_split(settings, clips, clips.splits != TEST, seed, splits=clips.splits)]


def _split(
    settings: NetSettings,
    clips: TrainingClips,
    visible: Mask,
    seed: int,
    fold: int | None = None,
    splits: I64 | None = None,
) -> TrainingSplit:
    """Return the training clips of one net: the usable clips that it may see."""
    which = "all" if fold is None else f"fold{fold}"
    label = f"{settings.name}@{which if splits is None else 'holdout'}"
    rows = np.flatnonzero(clips.usable & visible)
    manifest, train = clips.manifest, settings.train
    validation: Mask = np.zeros(len(rows), dtype=np.bool_)
    if splits is not None:
        validation = splits[rows] == VALIDATION
        if train.patience and not validation.any():
            raise BadSetting(
                f"{settings.name}: early stopping needs at least one usable validation clip, but "
                "there is none"
            )
    elif train.patience and len(rows) >= 2:
        labels, groups = np.asarray(manifest.labels)[rows], [manifest.groups[row] for row in rows]
        validation = inner_split(labels, groups, train.val_fraction, seed, manifest.task)
    if len(rows) < 2 or validation.all():
        raise BadSetting(
            f"{label}: expected at least 2 usable training clips, got {(~validation).sum()}"
        )
    return TrainingSplit(label, fold, rows, validation, seed)


def job_seed(seed: int, fold: int | None) -> int:
    """Return the seed of the training without `fold`, or on all clips if it is None."""
    return seed * 1000 + (0 if fold is None else fold + 1)

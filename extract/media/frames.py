"""Scaling of decoded frames to upright square pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mvemo.extract.arrays import F64, U8
from mvemo.extract.media.request import FrameSampling


class SquareScaler:
    """Scaler of frames to square pictures: turned upright, cropped to the middle, resized."""

    def __init__(self) -> None:
        # Shared by all frames: a new one would set up its tables and threads each time.
        self._reformatter = VideoReformatter()
        self._options: dict[str, int] = {"threads": 1}

    def squares(self, frame: Any, sizes: Sequence[int]) -> dict[int, U8]:
        """Return a PyAV frame's picture at each size, uint8 (size, size, 3), RGB."""
        picture = self._rgb(frame)
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        # A rotation does not move the middle of the picture.
        square = picture[top : top + side, left : left + side]
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        mirrored = _is_mirrored(frame)
        squares: dict[int, U8] = {}
        for size in sizes:
            interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
            resized = cv2.resize(square, (size, size), interpolation=interpolation)
            upright = np.rot90(resized[::-1] if mirrored else resized, quarter_turns)
            squares[size] = np.asarray(upright, dtype=np.uint8)
        return squares

    def _rgb(self, frame: Any) -> U8:
        """Convert a frame by its stated colour matrix and range, uint8 (height, width, 3)."""
        try:
            converted = self._reformatter.reformat(frame, format="rgb24", **self._options)
        except TypeError:
            # Older versions of PyAV have no such option, and always use one thread.
            self._options = {}
            converted = self._reformatter.reformat(frame, format="rgb24")
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _is_mirrored(frame: Any) -> bool:
    """Return True if a frame's display matrix mirrors it, in addition to any rotation."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.float64)
    return bool(a * d < b * c)


class FrameScaler:
    """Square pictures of the decoded frames of a clip from `start` to `end`, in seconds.

    Attributes
    ----------
    times
        Times of the frames of all samplings, float64 (n,), ascending.
    pictures
        Pictures by sampling, uint8 (windows * n_frames, size, size, 3), RGB; zeros until
        frames are added.
    """

    def __init__(self, samplings: Sequence[FrameSampling], start: float, end: float) -> None:
        times = [sampling.times(start, end) for sampling in samplings]
        self.pictures: dict[FrameSampling, U8] = {
            sampling: np.zeros((len(of_one), sampling.size, sampling.size, 3), dtype=np.uint8)
            for sampling, of_one in zip(samplings, times, strict=True)
        }
        joined = np.concatenate([*times, np.zeros(0)])
        order = np.argsort(joined, kind="stable")
        self.times: F64 = joined[order]
        # For each time: the index of its sampling, and its row in that sampling's pictures.
        self._sampling = np.repeat(np.arange(len(times)), [len(t) for t in times])[order]
        self._row = np.concatenate([*(np.arange(len(t)) for t in times), np.zeros(0, int)])[order]
        self._scaler = SquareScaler()

    def add(self, frame: Any, rows: slice) -> None:
        """Put a PyAV frame into `pictures`, for the given rows of `times`."""
        asking, positions = self._sampling[rows], self._row[rows]
        wanted = [(i, s) for i, s in enumerate(self.pictures) if (asking == i).any()]
        squares = self._scaler.squares(frame, sorted({sampling.size for _, sampling in wanted}))
        for i, sampling in wanted:
            self.pictures[sampling][positions[asking == i]] = squares[sampling.size]

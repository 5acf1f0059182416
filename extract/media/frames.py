"""Decoded frames turned upright, cropped to the middle and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mvemo.extract.arrays import F64, U8
from mvemo.extract.media.request import FrameSampling


class SquareScaler:
    """Makes square pictures of frames, turned upright, cropped to the middle and scaled."""

    def __init__(self) -> None:
        # One for all frames: a new one would set up its tables, and its threads, each time.
        self._reformatter = VideoReformatter()
        self._options: dict[str, int] = {"threads": 1}

    def squares(self, frame: Any, sizes: Sequence[int]) -> dict[int, U8]:
        """Size to uint8 (size, size, 3), RGB, of a frame of PyAV."""
        picture = self._rgb(frame)
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        # The middle of the picture is the same before and after a turn.
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
        """uint8 (height, width, 3), by the colour matrix and range that the frame states."""
        try:
            converted = self._reformatter.reformat(frame, format="rgb24", **self._options)
        except TypeError:
            # An older PyAV, which never takes more than one thread.
            self._options = {}
            converted = self._reformatter.reformat(frame, format="rgb24")
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _is_mirrored(frame: Any) -> bool:
    """Return True if a frame's display matrix turns it over, beside what it rotates."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(np.float64)
    return bool(a * d < b * c)


class FrameScaler:
    """Makes square pictures of decoded frames, of a clip from `start` to `end` in seconds.

    Attributes
    ----------
    times
        float64 (n,), ascending: when the frames of all samplings are shown.
    pictures
        Sampling to uint8 (windows * n_frames, size, size, 3), RGB; zeros until frames are
        added.
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
        # Of each time: which sampling asks for it, and its row there.
        self._sampling = np.repeat(np.arange(len(times)), [len(t) for t in times])[order]
        self._row = np.concatenate([*(np.arange(len(t)) for t in times), np.zeros(0, int)])[order]
        self._scaler = SquareScaler()

    def add(self, frame: Any, rows: slice) -> None:
        """Put a frame of PyAV into `pictures`, at some rows of `times`."""
        asking, positions = self._sampling[rows], self._row[rows]
        wanted = [(i, s) for i, s in enumerate(self.pictures) if (asking == i).any()]
        squares = self._scaler.squares(frame, sorted({sampling.size for _, sampling in wanted}))
        for i, sampling in wanted:
            self.pictures[sampling][positions[asking == i]] = squares[sampling.size]

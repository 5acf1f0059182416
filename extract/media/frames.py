"""Decoded frames turned upright, cropped to the middle and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mvemo.extract.arrays import U8


class FrameScaler:
    """Makes square pictures of decoded frames.

    Parameters
    ----------
    n_frames
        Rows of the result.
    sizes
        Heights and widths in pixels.

    Attributes
    ----------
    pictures
        Size to uint8 (n_frames, size, size, 3), RGB; zeros until frames are added.
    """

    def __init__(self, n_frames: int, sizes: Sequence[int]) -> None:
        self.pictures: dict[int, U8] = {
            size: np.zeros((n_frames, size, size, 3), dtype=np.uint8) for size in sizes
        }
        # One for all frames: a new one would set up its tables, and its threads, each time.
        self._reformatter = VideoReformatter()
        self._options: dict[str, int] = {"threads": 1}

    def _rgb(self, frame: Any) -> U8:
        """uint8 (height, width, 3), by the colour matrix and range that the frame states."""
        try:
            converted = self._reformatter.reformat(frame, format="rgb24", **self._options)
        except TypeError:
            # An older PyAV, which never takes more than one thread.
            self._options = {}
            converted = self._reformatter.reformat(frame, format="rgb24")
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)

    def add(self, frame: Any, rows: slice) -> None:
        """Put a frame of PyAV into some rows of `pictures`."""
        picture = self._rgb(frame)
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        # The middle of the picture is the same before and after a turn.
        square = picture[top : top + side, left : left + side]
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        for size, pictures in self.pictures.items():
            interpolation = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
            scaled = cv2.resize(square, (size, size), interpolation=interpolation)
            pictures[rows] = np.rot90(scaled, quarter_turns)

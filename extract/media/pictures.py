"""Pictures of a video: the frames shown at given times, as upright square RGB pictures."""

from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mvemo.manifests.array_types import F64, U8

# Code points of ITU-T H.273: colour matrices, and transfer functions of high dynamic range.
_UNSTATED, _BT709, _BT2020 = (2, 3), 1, 9
_PQ, _HLG = 16, 18
# From BT.2020 to BT.709 primaries (Recommendation ITU-R BT.2087), and luminance in BT.2020.
_TO_BT709 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
_LUMINANCE = [0.2627, 0.6780, 0.0593]
# Luminance of white in high dynamic range, in cd/m² (Report ITU-R BT.2408), and the share of the
# screen's range above which brighter light is compressed.
_WHITE, _KNEE = 203.0, 0.6


class FramePicker:
    """Picker of the frames shown at the given `times`, in seconds, ascending."""

    def __init__(
        self, start: float, end: float, times: F64, on_frame: Callable[[Any, slice], None]
    ) -> None:
        self._start, self._end = start, end
        self.times = times
        self._on_frame = on_frame
        self._next_row = 0
        self.frame: Any = None  # the last frame
        self._frame_start = self._frame_end = start

    def add(self, when: float, frame: Any) -> None:
        """Add the frame that is shown from time `when` on; frames must be in presentation order."""
        if when >= self._end and self.frame is not None:
            # The previous frame lasts until the clip's end, because this frame begins after it.
            self._show_until(len(self.times))
            self._frame_end = self._end
            return
        # The previous frame is shown at all times before `when`.
        if self._next_row < len(self.times) and self.times[self._next_row] < when:
            self._show_until(int(np.searchsorted(self.times, when, side="left")))
        duration = float((frame.duration or 0) * (frame.time_base or 0))
        self._frame_end = when + (duration or max(when - self._frame_start, 0.0))
        self._frame_start = when
        self.frame = frame

    def _show_until(self, row: int) -> None:
        """Assign the last frame to all times before `row` that have no frame yet."""
        if self.frame is not None and row > self._next_row:
            self._on_frame(self.frame, slice(self._next_row, row))
            self._next_row = row

    def finish(self, reaches_end: bool = False) -> None:
        """Assign the last frame to the remaining times; it may last until the clip's end."""
        self._show_until(len(self.times))
        if reaches_end:
            self._frame_end = self._end

    @property
    def seconds(self) -> float:
        if self.frame is None:
            return 0.0
        return max(min(self._frame_end, self._end) - self._start, 0.0)


class SquareScaler:
    """Scaler of frames to square pictures: rotated upright, cropped to the middle, and resized."""

    def __init__(self, pixel_aspect: float = 1.0, transfer: int = 0) -> None:
        self._transfer = transfer  # of frames that state none (older versions of PyAV)
        # Encoders that scale pictures round their sizes, and state an aspect of about 1.
        self._aspect = pixel_aspect if abs(pixel_aspect - 1.0) > 0.01 else 1.0
        # All frames share it, because a new reformatter must set up its tables and threads.
        self._reformatter = VideoReformatter()
        self._options: dict[str, int] = {"threads": 1}

    def squares(self, frame: Any, sizes: Iterable[int]) -> dict[int, U8]:
        """Return a PyAV frame as a square RGB picture of each size, uint8 (size, size, 3)."""
        transfer = getattr(frame, "color_trc", self._transfer)
        picture = self._rgb(frame, transfer)
        side = min(picture.shape[0], picture.shape[1] * self._aspect)
        rows, columns = max(round(side), 1), max(round(side / self._aspect), 1)
        top, left = (picture.shape[0] - rows) // 2, (picture.shape[1] - columns) // 2
        # A rotation does not move the middle of the picture, so crop first.
        square = picture[top : top + rows, left : left + columns]
        quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
        # A display matrix may mirror the picture, in addition to any rotation.
        matrix = np.frombuffer(frame.side_data.get("DISPLAYMATRIX") or bytes(36), np.int32)
        a, b, _, c, d = matrix[:5].astype(np.float64)
        mirrored = a * d < b * c
        squares: dict[int, U8] = {}
        for size in sizes:
            shrinks = min(rows, columns) >= size
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            resized = cv2.resize(square, (size, size), interpolation=interpolation)
            if transfer in (_PQ, _HLG):
                resized = _map_tones(np.asarray(resized, dtype=np.uint8), transfer)
            upright = np.rot90(resized[::-1] if mirrored else resized, quarter_turns)
            squares[size] = np.asarray(upright, dtype=np.uint8)
        return squares

    def _rgb(self, frame: Any, transfer: int) -> U8:
        """Convert a frame to RGB by its colour matrix and range, uint8 (height, width, 3)."""
        options: dict[str, Any] = {**self._options, "format": "rgb24"}
        if frame.colorspace in _UNSTATED and not frame.format.is_rgb:
            # Like mpv, assume BT.2020 for high dynamic range, and BT.709 for high definition.
            if transfer in (_PQ, _HLG):
                options["src_colorspace"] = _BT2020
            elif frame.width >= 1280 or frame.height > 576:
                options["src_colorspace"] = _BT709
        try:
            converted = self._reformatter.reformat(frame, **options)
        except TypeError:
            # Older versions of PyAV lack this option and always use one thread.
            options.pop("threads")
            self._options = {}
            converted = self._reformatter.reformat(frame, **options)
        except OSError as error:
            kind = f"{frame.format.name} with colour matrix {frame.colorspace}"
            raise ValueError(f"{kind} (ITU-T H.273) is not supported") from error
        return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _map_tones(picture: U8, transfer: int) -> U8:
    """Convert PQ or HLG with BT.2020 primaries (Recommendation ITU-R BT.2100) to BT.709."""
    signal = picture / 255.0
    if transfer == _PQ:
        # Table 4, in cd/m².
        root = signal ** (32 / 2523)
        light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
        light = 10_000 * light ** (16384 / 2610)
    else:
        # Table 5, on a screen of 1,000 cd/m².
        bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(signal <= 0.5, signal**2 / 3, bright)
        light = 1000 * scene * (scene @ _LUMINANCE)[..., None] ** 0.2
    light = np.maximum(light @ np.transpose(_TO_BT709) / _WHITE, 0)
    # The brightest colour decides, which keeps the hue. Screens have a gamma of 2.4 (BT.1886).
    most = light.max(axis=-1, keepdims=True)
    room = 1 - _KNEE
    mapped = _KNEE + room * (1 - np.exp((_KNEE - most) / room))
    light *= np.where(most > _KNEE, mapped / np.maximum(most, _KNEE), 1)
    return np.asarray(np.round(255 * light ** (1 / 2.4)), dtype=np.uint8)

"""Raw streams of sound (AAC in ADTS, AC-3, E-AC-3): frames that state only their own length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

# Bytes at the end that are examined: many of the longest frames, which are 8 kB.
_TAIL = 1 << 17
# This many frames in a row are not a coincidence.
_CERTAIN = 4
_HEADER = 7
# Bit rates of AC-3, in kilobits per second (ETSI TS 102 366, table 4.13).
_AC3_RATES = (
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
)  # fmt: skip


def ends_inside_frame(file: BinaryIO, size: int, format_name: str) -> bool:
    """Return True if a raw stream of `size` bytes begins with a frame and ends inside one.

    A stream that begins inside a frame, such as a recorded broadcast, may also end inside one.
    `format_name` is FFmpeg's; False for formats other than ``aac``, ``ac3`` and ``eac3``.
    """
    length_of = _LENGTHS.get(format_name)
    file.seek(0)
    if length_of is None or not length_of(file.read(_HEADER)):
        return False
    file.seek(max(size - _TAIL, 0))
    tail = file.read()
    for start in range(len(tail) - _HEADER):
        at, n_frames = start, 0
        while length := length_of(tail[at : at + _HEADER]):
            at, n_frames = at + length, n_frames + 1
        # A tag, or a piece of a frame's header, may follow the last frame.
        if at >= len(tail) - _HEADER and (n_frames >= _CERTAIN or start == 0 == size - len(tail)):
            return at != len(tail)
        if n_frames >= _CERTAIN:
            return False
    return False


def _adts_length(header: bytes) -> int:
    """Return the size of an AAC frame in bytes, 0 if it is not one (ISO/IEC 13818-7, 6.2)."""
    if len(header) < _HEADER or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 0x03) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= _HEADER else 0


def _ac3_length(header: bytes) -> int:
    """Return the size of an AC-3 or E-AC-3 frame (ETSI TS 102 366, 4.4.1, E.1.3), or 0."""
    if len(header) < _HEADER or header[:2] != b"\x0b\x77":
        return 0
    if header[5] >> 3 > 10:
        return 2 * (((header[2] & 0x07) << 8 | header[3]) + 1)
    rate, code = header[4] >> 6, header[4] & 0x3F
    if rate == 3 or code >= 2 * len(_AC3_RATES):
        return 0
    sr = (48_000, 44_100, 32_000)[rate]
    # 1,536 samples per frame, in words of 16 bits; at 44.1 kHz some frames are a word longer.
    words = _AC3_RATES[code // 2] * 96_000 // sr
    return 2 * (words + (code & 1 if sr == 44_100 else 0))


_LENGTHS: Mapping[str, Callable[[bytes], int]] = {
    "aac": _adts_length,
    "ac3": _ac3_length,
    "eac3": _ac3_length,
}

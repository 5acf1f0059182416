"""Folder of a clip in the working cache: its arrays, its problems, and its media file's stamp.

Arrays are ``.npy`` files with a checksum, written atomically and mapped into memory.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mvemo.extract.errors import MediaUnavailable
from mvemo.extract.media.request import DecodeRequest as DecodeRequest
from mvemo.extract.media.request import FrameSampling, MediaProblem
from mvemo.manifests import array_files, text_files
from mvemo.manifests.files import Stamp, dump_json, replacing, stamp_of

# Increase this number when a file would be decoded to other values or refused for other reasons.
DECODING_VERSION = 6
# Key for the note about the audio track that was read; it is stored next to the problems.
NOTE = "note"
# File with the integrated loudness of a clip's sound in LUFS, float32 (1, 1).
LOUDNESS = "loudness.npy"
# NumPy's header of an array in C order. It is parsed here because NumPy uses Python's parser, which
# sometimes raises a SystemError in concurrent threads of Python 3.11.
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n"
)
# CRC-32 of the values, stored after the array, where NumPy ignores it.
_TRAILER = struct.Struct("<8sI")
_MARK = b"mvemoCRC"
# Number of bytes written or checked at a time.
_PART_BYTES = 1 << 24
_KEPT = "; earlier results are kept: free disk space and run the same command again"


def unstored(request: DecodeRequest, folder: Path) -> DecodeRequest:
    """Return the part of a request for which the folder has no intact array."""
    measured = map_array(folder / LOUDNESS, np.float32, (1, 1)) is not None
    rates, level = request.sample_rates, request.level
    return DecodeRequest(
        tuple(sr for sr in rates if not measured or map_decoded(folder, sr, level) is None),
        tuple(s for s in request.pictures if map_decoded(folder, s) is None),
        level,
    )


@dataclass(frozen=True)
class DecodeJob:
    clip_id: str
    path: Path
    content: str  # `Content.digest` of the file
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None for the rest of the file
    stamp: Stamp | None = None  # stamp at the time of the digest; None to skip that check


def array_path(folder: Path, wanted: int | FrameSampling, level: float = 0.0) -> Path:
    """Return the path of a waveform at a rate in Hz and a loudness in LUFS, or of frames."""
    if isinstance(wanted, FrameSampling):
        return folder / f"{wanted.name}.npy"
    return folder / (f"{wanted}{level:+g}.npy" if level else f"{wanted}.npy")


def map_decoded(
    folder: Path, wanted: int | FrameSampling, level: float = 0.0
) -> NDArray[Any] | None:
    """Return a waveform or frames, memory-mapped, or None if the file is missing or damaged."""
    path = array_path(folder, wanted, level)
    if not isinstance(wanted, FrameSampling):
        return map_array(path, np.float32, (None,))
    array = map_array(path, np.uint8, (None, wanted.size, wanted.size, 3))
    return None if array is None or len(array) % wanted.n_frames else array


@dataclass(frozen=True)
class _Checked:
    """Header of a file whose values match its checksum."""

    state: Stamp  # inode, size and time of change at the check
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int  # position of the values in the file, in bytes


# Training opens the same files in every epoch: they are checked only once.
_checked: dict[Path, _Checked] = {}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file with a checksum atomically."""
    source, array = array, np.ascontiguousarray(array)
    checksum = 0
    with replacing(path, kept=_KEPT, durable=False) as temp:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            for part in _parts(array):
                file.write(part.data)
                checksum = zlib.crc32(part.data, checksum)
                array_files.release(source)
            file.write(_TRAILER.pack(_MARK, checksum))


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array's values in parts of `_PART_BYTES`; release mapped memory after each part."""
    flat = array.reshape(-1)
    size = max(_PART_BYTES // array.itemsize, 1)
    for first in range(0, len(flat), size):
        yield flat[first : first + size]
        array_files.release(array)


def map_array(path: Path, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any] | None:
    """Map a ``.npy`` file; None if it is missing, damaged, or has another type or shape."""
    try:
        with path.open("rb") as file:
            state = stamp_of(file.fileno())
            known = _checked.get(path)
            if known is None or known.state != state:
                known = _check(file, state)
            lengths = zip(known.shape, shape, strict=True)  # ValueError for another number of axes
            if known.dtype != dtype or any(wanted not in (None, n) for n, wanted in lengths):
                return None
            _checked[path] = known
            return _map(file, known)
    except (OSError, ValueError, TypeError, OverflowError, EOFError):
        return None


def _map(file: IO[bytes], known: _Checked) -> NDArray[Any]:
    """Map an array like `numpy.load`, but in an eighth of its time, with fewer system calls."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(known.shape, known.dtype, mapped, known.offset)


def _check(file: IO[bytes], state: Stamp) -> _Checked:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the format")
    header = _HEADER.fullmatch(file.read(int.from_bytes(file.read(2), "little")))
    if header is None:
        raise ValueError("another header")
    dtype = np.dtype(header[1].decode("ascii"))
    shape = tuple(int(length) for length in header[2].split(b",") if length.strip())
    if dtype.hasobject or not math.prod(shape):
        raise ValueError("not an array of the working cache")
    checked = _Checked(state, dtype, shape, file.tell())
    found = 0
    for part in _parts(_map(file, checked)):
        found = zlib.crc32(part.data, found)
    file.seek(-_TRAILER.size, os.SEEK_END)
    if _TRAILER.unpack(file.read()) != (_MARK, found):
        raise ValueError("the values do not match their checksum")
    return checked


@cache
def decoder_versions() -> str:
    found = []
    for name in ("mvemo", "av", "soundfile", "opencv-python-headless"):
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def write_problems(folder: Path, problems: Mapping[str, MediaProblem]) -> None:
    """Write a clip's problems with the current time and the decoders' versions."""
    facts = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": decoder_versions(),
    }
    values = {k: {"reason": p.reason, "missing": p.missing, **facts} for k, p in problems.items()}
    path = folder / "problems.json"
    with replacing(path, kept=_KEPT, durable=False) as temp:
        folder.mkdir(parents=True, exist_ok=True)
        temp.write_text(dump_json(values), encoding="utf-8", errors="backslashreplace")


def read_problems(folder: Path, *, failed: bool = True) -> dict[str, MediaProblem]:
    """Return a clip's problems by modality and its `NOTE`; {} if other decoders stored them."""
    try:
        saved = text_files.read_json(folder / "problems.json")
        return {
            kind: MediaProblem(str(p["reason"]), bool(p["missing"]))
            for kind, p in saved.items()
            if p["versions"] == decoder_versions() and (failed or p["missing"])
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def check_unchanged(job: DecodeJob) -> Stamp:
    """Check that the file's content did not change, and return its current stamp."""
    now = stamp_of(job.path)
    if job.stamp in (None, now):
        return now
    # The import is here because it loads the media libraries, which only workers need.
    from mvemo.extract.media.content import file_digest

    # The stamp differs, but a copy with the same content is accepted.
    if file_digest(job.path) != job.content or stamp_of(job.path) != now:
        raise MediaUnavailable(
            f"{job.path}: changed after it was digested: run the same command again"
        )
    return now

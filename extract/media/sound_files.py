"""Audio files read and written by libsndfile: joined parts, stated lengths, compressed sound.

The samples of a file may be compressed sound behind a header that states PCM: DTS from a CD, or the
bursts of a recorded digital output (S/PDIF, IEC 61937). Read as samples, they are noise.
"""

import io
import re
from collections.abc import Generator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import av
import av.error
import numpy as np
import soundfile
from numpy.typing import NDArray

# Files that libsndfile reads. MP3 is not among them: its decoder writes warnings to the terminal.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")
# First 8 bytes of an Ogg page, with its flags (RFC 3533, 6), and of FLAC (RFC 9639, 8).
_OGG_PAGE = re.compile(rb"OggS\0([\0-\x07])..", re.DOTALL)
_FLAC_STREAM = re.compile(rb"fLaC[\0\x80]\0\0\x22")
# Bytes searched, and samples passed to an encoder, at a time.
_BLOCK, _WRITTEN = 1 << 20, 1 << 14
# First bytes of the PCM files that libsndfile reads: WAV, RF64, W64, AIFF, AU, CAF, FLAC.
_HEADS = (b"RIFF", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC")
# Two adjacent words that begin a burst (IEC 61937-1, 6.1.3), or a frame of DTS with 16 or 14 bits
# per word (ETSI TS 102 114, 5.3.1 and annex C), in either order of bytes.
_BURSTS = ((0xF872, 0x4E1F), (0x72F8, 0x1F4E))
_DTS = ((0x7FFE, 0x8001), (0xFE7F, 0x0180), (0x1FFF, 0xE800), (0xFF1F, 0x00E8))
# Number of samples that are searched at a time, and smallest mean distance of sync words. A
# constant signal may equal the sync words, but then it repeats them much faster.
_SEARCHED, _LEAST_WORDS = 1 << 15, 256


def open_parts(path: Path) -> Generator[soundfile.SoundFile, None, None]:
    """Yield the opened file, or the parts of a joined Ogg or FLAC file one after the other."""
    if find_bitstream(path):
        raise ValueError("its samples are compressed sound")
    starts = _part_starts(path)
    if len(starts) < 2:
        with soundfile.SoundFile(path) as file:
            yield file
        return
    with path.open("rb") as joined:
        for start, stop in pairwise([*starts, path.stat().st_size]):
            joined.seek(start)
            with soundfile.SoundFile(io.BytesIO(joined.read(stop - start))) as file:
                yield file


def _part_starts(path: Path) -> list[int]:
    """Return the byte offsets of the Ogg or FLAC streams that were joined into one file."""
    starts, begins = [], False
    with path.open("rb") as file:
        pattern = {b"OggS": _OGG_PAGE, b"fLaC": _FLAC_STREAM}.get(file.read(4))
        file.seek(0)
        at, tail = 0, b""
        while pattern and (block := file.read(_BLOCK)):
            data = tail + block
            for found in pattern.finditer(data):
                is_page = pattern is _OGG_PAGE
                first = not is_page or bool(found[1][0] & 0x02)
                if first and not begins:
                    starts.append(at - len(tail) + found.start())
                # Parallel Ogg streams have adjacent first pages, which count as one start.
                begins = first and is_page
            at, tail = at + len(block), data[-7:]
    return starts


def stated_length_ratio(info: str) -> float:
    """Return stated / real length of a file by libsndfile's log; 1 for a file written to a pipe."""
    match = re.search(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", info, re.MULTILINE)
    if match is None:
        return 1.0
    stated, actual = int(match[1]), int(match[2])
    return stated / actual if 0 < actual < stated < 0x7FFFF000 else 1.0


def write_sound(file: str | Path | IO[bytes], y: NDArray[Any], sr: int, **kind: str) -> None:
    """Write mono samples, (samples,), in libsndfile's `format` and `subtype`."""
    with soundfile.SoundFile(file, "w", sr, 1, **kind) as out:
        # libsndfile 1.2.2 overflows its stack if it encodes minutes of Vorbis in one call.
        for first in range(0, len(y), _WRITTEN):
            out.write(y[first : first + _WRITTEN])


class Bitstream:
    """Words of a PCM file, which libavformat reads like a file of S/PDIF bursts or of DTS."""

    def __init__(self, path: Path, sync: tuple[int, int]) -> None:
        self._file = soundfile.SoundFile(path)
        # libavformat's name; the format spdif needs its bytes in this order, DTS allows either.
        self.format = "spdif" if sync in _BURSTS else "dts"
        self._dtype = ">u2" if sync == _BURSTS[1] else "<u2"

    def read(self, size: int) -> bytes:
        """Return about `size` bytes, b"" at the end of the file."""
        n_samples = max(size // (2 * self._file.channels), 1)
        return _words(self._file, n_samples).astype(self._dtype).tobytes()


def find_bitstream(path: Path) -> Bitstream | None:
    """Return the compressed sound that a PCM file holds as samples, or None."""
    with path.open("rb") as head:
        if head.read(4) not in _HEADS:
            return None
    with suppress(soundfile.LibsndfileError, TypeError), soundfile.SoundFile(path) as file:
        words = _words(file, _SEARCHED)
        # A recording may begin with silence.
        while len(words) and not words.any():
            words = _words(file, _SEARCHED)
        words = np.concatenate([words, _words(file, _SEARCHED)])
        for sync in (*_BURSTS, *_DTS):
            found = np.count_nonzero((words[:-1] == sync[0]) & (words[1:] == sync[1]))
            if 2 <= found <= len(words) / _LEAST_WORDS and (sync in _BURSTS or _is_dts(path, sync)):
                return Bitstream(path, sync)
    return None


def _is_dts(path: Path, sync: tuple[int, int]) -> bool:
    """Return True if frames of DTS follow the sync words, which also occur in clipped sound."""
    with suppress(av.error.FFmpegError), av.open(Bitstream(path, sync), format="dts") as container:
        return container.streams.audio[0].rate > 0
    return False


def _words(file: soundfile.SoundFile, n_samples: int) -> NDArray[np.uint16]:
    """Read samples as words of 16 bits, (samples * channels,)."""
    samples = file.read(n_samples, dtype="int32", always_2d=True)
    return (samples >> 16).astype(np.uint16).ravel()

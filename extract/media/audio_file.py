"""Waveforms of audio files that libsndfile reads."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from mvemo.extract.media.checks import (
    CUT_OFF,
    NO_VIDEO,
    Problem,
    check_length,
    starts_after_end,
    stated_length_ratio,
)
from mvemo.extract.media.formats import is_cut_off
from mvemo.extract.media.request import ClipRequest, Decoded
from mvemo.extract.media.waveforms import OnBlock, Waveforms

# Files that libsndfile reads. MP3 is not among them: its decoder writes warnings to the terminal.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")
# Formats that mark their end, which libsndfile does not check.
_STATING_END = ("ogg", "au", "w64")
# Start of an Ogg page with its flags (RFC 3533, 6), and start of FLAC (RFC 9639, 8): 8 bytes each.
_OGG_PAGE = re.compile(rb"OggS\0([\0-\x07])..", re.DOTALL)
_FLAC_STREAM = re.compile(rb"fLaC[\0\x80]\0\0\x22")
# Numbers read at a time, of all channels together.
_BLOCK = 1 << 20


def open_parts(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file, or the parts of a joined Ogg or FLAC file one after the other."""
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
    """Return the offsets, in bytes, of the Ogg or FLAC streams that follow each other."""
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
                # Parallel streams of Ogg have their first pages next to each other.
                begins = first and is_page
            at, tail = at + len(block), data[-7:]
    return starts


def decode_audio_file(path: Path, request: ClipRequest, on_block: OnBlock | None = None) -> Decoded:
    """Decode the sound of an audio file; requested pictures are reported as missing.

    With `on_block`, each second of sound is passed to it instead of being kept, see
    `mvemo.extract.media.waveforms.Waveforms`. Raises `ValueError` or `LibsndfileError` if the
    container reader should try the file.
    """
    problems = {"video": NO_VIDEO} if request.pictures else {}
    if not request.sample_rates:
        with soundfile.SoundFile(path):
            return Decoded(problems=problems)
    sound: Waveforms | None = None
    problem: Problem | None = None
    n_frames, stated = 0, 0.0
    for file in open_parts(path):
        sr, kind = file.samplerate, file.format.lower()
        if file.frames == 0:
            raise ValueError("no length is stated")
        sound = sound or Waveforms(sr, request.sample_rates, on_block, request.spool)
        if sr != sound.sr:
            problem = Problem(f"the sampling rate changes from {sound.sr} to {sr} Hz")
            break
        first = max(round(request.start * sr) - n_frames, 0)
        left = file.frames - first
        if request.duration is not None:
            left = min(left, round(request.duration * sr) - sound.n_samples)
        n_frames += file.frames
        stated += file.frames / sr * stated_length_ratio(file.extra_info)
        block = _BLOCK if on_block is None else sr * file.channels
        problem = problem or _read_blocks(file, first, left, sound, block)
    assert sound is not None
    if problem is None and round(request.start * sr) >= n_frames:
        problems["audio"] = starts_after_end(request.start, "sound ends", n_frames / sr)
        return Decoded(problems=problems)
    expected = stated - request.start if request.duration is None else request.duration
    if sound.is_silent and sound.channel is not None:
        raise ValueError("its channels cancel each other")
    problem = problem or sound.problem() or check_length(sound.n_samples / sr, expected)
    states_end = kind in _STATING_END
    if problem is None and request.duration is None and states_end and is_cut_off(path, kind):
        problem = CUT_OFF
    if problem is None:
        waveforms, problem = sound.finish()
    if problem is not None:
        return Decoded(problems={**problems, "audio": problem})
    return Decoded(waveforms, {}, sound.n_samples / sr, problems)


def _read_blocks(
    file: soundfile.SoundFile, first: int, left: int, sound: Waveforms, block: int
) -> Problem | None:
    """Read `left` samples from `first` on, `block` numbers (all channels) at a time."""
    if left <= 0:
        return None
    size = max(block // file.channels, 1)
    file.seek(first)
    while left > 0:
        samples = file.read(min(size, left), dtype="float32", always_2d=True)
        if len(samples) == 0:
            break
        if not sound.has_room(len(samples)):
            return Problem(sound.too_long)
        sound.hear(samples.T)
        sound.add(samples.mean(axis=1, dtype=np.float32))
        left -= len(samples)
    return None

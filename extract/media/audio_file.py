"""Waveforms of audio files that libsndfile reads."""

from __future__ import annotations

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

# Of files of these names; not of MP3, whose decoder writes warnings to the terminal.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")
# Formats that state in some way where they end, of which the library does not tell.
_STATING_END = ("ogg", "au", "w64")
# Numbers that are read at a time, of all channels together.
_BLOCK = 1 << 20


def decode_audio_file(path: Path, request: ClipRequest, on_block: OnBlock | None = None) -> Decoded:
    """Sound of a file; pictures that are asked for are missing.

    With `on_block`, it is called with each second of the sound in place of keeping it, as of
    `mvemo.extract.media.waveforms.Waveforms`.

    Raises
    ------
    soundfile.LibsndfileError
        The library does not know the file.
    """
    problems = {"video": NO_VIDEO} if request.pictures else {}
    if not request.sample_rates:
        with soundfile.SoundFile(path):
            return Decoded(problems=problems)
    with soundfile.SoundFile(path) as file:
        sr = file.samplerate
        first = round(request.start * sr)
        if first >= file.frames:
            if file.frames == 0:
                problems["audio"] = Problem("no sound decodes")
            else:
                problems["audio"] = starts_after_end(request.start, "sound ends", file.frames / sr)
            return Decoded(problems=problems)
        stated = file.frames / sr * stated_length_ratio(file.extra_info)
        sound = Waveforms(sr, request.sample_rates, on_block, request.spool)
        block = _BLOCK if on_block is None else sr * file.channels
        expected = stated - request.start if request.duration is None else request.duration
        problem = _read_blocks(file, first, request.duration, sound, block)
        kind = file.format.lower()
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
    file: soundfile.SoundFile,
    first: int,
    duration: float | None,
    sound: Waveforms,
    block: int,
) -> Problem | None:
    """Read a stretch block by block, whatever length the header states.

    `block` is how many numbers are read at a time, of all channels together.
    """
    left = file.frames - first
    if duration is not None:
        left = min(left, round(duration * file.samplerate))
    size = max(block // file.channels, 1)
    file.seek(first)
    while left > 0:
        samples = file.read(min(size, left), dtype="float32", always_2d=True)
        if len(samples) == 0:
            break
        if not sound.has_room(len(samples)):
            return Problem(sound.too_long)
        sound.add(samples.mean(axis=1, dtype=np.float32))
        left -= len(samples)
    return None

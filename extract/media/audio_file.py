"""Waveforms of audio files that libsndfile reads, and their sampling rates changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from mvemo.extract.arrays import F32
from mvemo.extract.media.checks import (
    NO_VIDEO,
    Problem,
    check_length,
    check_sound,
    starts_after_end,
    stated_length_ratio,
)
from mvemo.extract.media.request import ClipRequest, Decoded

# Of files of these names; not of MP3, whose decoder writes warnings to the terminal.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")


def decode_audio_file(path: Path, request: ClipRequest) -> Decoded:
    """Sound of a file; pictures that are asked for are missing.

    Raises
    ------
    soundfile.LibsndfileError
        The library does not know the file.
    """
    problems = {"video": NO_VIDEO} if request.sizes else {}
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
        count = -1 if request.duration is None else round(request.duration * sr)
        file.seek(first)
        native = file.read(count, dtype="float32", always_2d=True).mean(axis=1, dtype=np.float32)
    expected = stated - request.start if request.duration is None else request.duration
    problem = check_sound(native) or check_length(len(native) / sr, expected)
    if problem is not None:
        return Decoded(problems={**problems, "audio": problem})
    return Decoded(resample(native, sr, request.sample_rates), {}, len(native) / sr, problems)


def resample(waveform: F32, sr: int, sample_rates: Sequence[int]) -> dict[int, F32]:
    """Sampling rate in Hz to the waveform at that rate, float32 (samples,)."""
    return {
        rate: waveform
        if rate == sr
        else np.ascontiguousarray(soxr.resample(waveform, sr, rate), dtype=np.float32)
        for rate in sample_rates
    }

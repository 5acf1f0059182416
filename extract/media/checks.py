"""What can be wrong with a media file, a clip of it, or what was asked for, in one line each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.errors import BadMedia, BadSetting, MissingFile

Floats = NDArray[np.float32]

# A waveform whose peak lies below is silent: -80 dB of full scale.
SILENCE = 10.0 ** (-80.0 / 20.0)
# A clip of which less than this share can be decoded is cut off.
LEAST_SHARE = 0.8


def cut_off(seconds: float, expected: float) -> str:
    """Why too little of what should be there decodes; empty where there is enough."""
    if expected <= 0 or seconds >= LEAST_SHARE * expected:
        return ""
    if seconds <= 0:
        return f"nothing decodes of the {expected:.1f} s that there should be"
    return f"cut off: {seconds:.1f} of {expected:.1f} s decode"


def beyond(start: float, what: str, seconds: float) -> str:
    """A clip that begins after the end of its file."""
    return f"the clip starts at {start:g} s, but the {what} at {seconds:.1f} s"


def missing_share(info: str) -> float:
    """How many times longer the sound should be by its header than it is, as libsndfile says.

    Programs that write to a pipe leave the greatest number there is: they state nothing.
    """
    found = re.search(r"^(?:data|SSND) *: (\d+) \(should be (\d+)\)", info, re.MULTILINE)
    if found is None:
        return 1.0
    stated, there = int(found[1]), int(found[2])
    return stated / there if there < stated < 0x7FFFF000 and there > 0 else 1.0


def sound_problem(native: Floats) -> str:
    """Why a decoded waveform is of no use; empty where it is."""
    if len(native) == 0:
        return "no sound decodes"
    peak = float(max(native.max(), -native.min()))
    if not np.isfinite(peak):
        return f"{int(np.count_nonzero(~np.isfinite(native)))} samples are not finite"
    if peak < SILENCE:
        level = f"peak {20 * np.log10(peak):.0f} dBFS" if peak > 0 else "all samples are 0"
        return f"silent: {level}"
    return ""


def reason(error: Exception) -> str:
    """What a library's error says, in one line."""
    text = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
    return " ".join(text.split()) or type(error).__name__


def check_request(
    start: float,
    duration: float | None,
    sample_rates: Sequence[int],
    n_frames: int,
    sizes: Sequence[int],
) -> None:
    """Refuse times, rates, counts and sizes that are out of range (`BadSetting`)."""
    if not (np.isfinite(start) and start >= 0):
        raise BadSetting(f"start must be 0 or more seconds, not {start}")
    if duration is not None and not (np.isfinite(duration) and duration > 0):
        raise BadSetting(f"duration must be more than 0 seconds, or None, not {duration}")
    for name, values in (("sample_rates", sample_rates), ("sizes", sizes)):
        if any(value < 1 for value in values):
            raise BadSetting(f"{name} must be 1 or more each, not {list(values)}")
    if sizes and n_frames < 1:
        raise BadSetting(f"n_frames must be 1 or more, not {n_frames}")


def check_file(path: Path) -> None:
    """Refuse what is no file with something in it (`MissingFile`, `BadMedia`)."""
    if path.is_dir():
        raise BadMedia(f"{path}: is a folder, not a media file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such media file") from None
    except OSError as error:
        raise MissingFile(f"{path}: cannot be opened: {error.strerror}") from None
    if empty:
        raise BadMedia(f"{path}: is empty (0 bytes)")

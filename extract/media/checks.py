"""Problems of a media file or a clip, each told in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mvemo.extract.errors import BadMedia, MissingFile

# A clip is cut off if less than this share of it can be decoded.
MIN_DECODED_SHARE = 0.8


@dataclass(frozen=True)
class Problem:
    """Reason why a clip has no usable sound or no usable pictures.

    Parameters
    ----------
    reason
        Reason, in one line.
    missing
        True if an intact file lacks the modality (no such stream, or silence); False if the
        modality should be there and cannot be read.
    passing
        True if the problem may not occur at another time (no memory, or no file).
    """

    reason: str
    missing: bool = False
    passing: bool = False

    def __str__(self) -> str:
        return self.reason


IN_WORDS = {"audio": "sound", "video": "pictures"}
NO_VIDEO = Problem("no video stream", missing=True)
NO_AUDIO = Problem("no audio stream", missing=True)
CUT_OFF = Problem("cut off: the file ends before its end is marked")


def reasons_text(problems: Mapping[str, object]) -> str:
    """Return the problems of a clip's sound and pictures in one line."""
    return "; ".join(f"{IN_WORDS[m]}: {problems[m]}" for m in IN_WORDS if m in problems)


def check_length(seconds: float, expected: float) -> Problem | None:
    """Return a problem if far less than `expected` seconds decode; 0 turns the check off."""
    if expected <= 0 or seconds >= MIN_DECODED_SHARE * expected:
        return None
    if seconds <= 0:
        return Problem(f"nothing decodes of the {expected:.1f} s that there should be")
    return Problem(f"cut off: {seconds:.1f} of {expected:.1f} s decode")


def starts_after_end(start: float, stream: str, seconds: float) -> Problem:
    """Return the problem of a clip that begins after the end of its sound or pictures."""
    return Problem(f"the clip starts at {start:g} s, but the {stream} at {seconds:.1f} s")


def stated_length_ratio(info: str) -> float:
    """Return stated length / real length of a file, from libsndfile's log `info`.

    Programs that write to a pipe state the largest possible length: the ratio is then 1.
    """
    match = re.search(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", info, re.MULTILINE)
    if match is None:
        return 1.0
    stated, actual = int(match[1]), int(match[2])
    return stated / actual if 0 < actual < stated < 0x7FFFF000 else 1.0


def error_line(error: Exception) -> str:
    """Return the message of a library's error in one line."""
    text = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
    return " ".join(text.split()) or type(error).__name__


def check_file(path: Path) -> None:
    """Check that the path is a file that can be opened and is not empty."""
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

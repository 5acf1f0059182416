"""Waveform of a clip for the page, read in a process of its own."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.media.isolated import read_one
from mvemo.manifests.errors import MvemoError

# Number of columns of a waveform, and its sampling rate in Hz.
PEAKS, PEAK_SR = 1000, 8000


def read_waveform(path: Path) -> dict[str, Any]:
    """Return the waveform of a file: length in seconds, and the peak of each column in 0..1."""
    try:
        found: dict[str, Any] = read_one(f"{__name__}:waveform", path)
    except MvemoError as error:
        raise MvemoError(str(error)) from None
    return found


def waveform(path: Path) -> dict[str, Any]:
    """Decode a file, and return the result of `read_waveform`."""
    # The import is here because it loads the media libraries, which only workers need.
    from mvemo.extract.media.reading import decode_clip

    with tempfile.TemporaryDirectory(prefix="mvemo-") as work:
        decoded = decode_clip(path, sample_rates=(PEAK_SR,), pictures=(), spool=Path(work))
        y = decoded.waveforms.get(PEAK_SR, np.zeros(0))
        columns = np.array_split(y, PEAKS) if len(y) >= PEAKS else []
        peaks = [min(round(float(np.abs(column).max()), 3), 1.0) for column in columns]
    return {"seconds": len(y) / PEAK_SR, "peaks": peaks}

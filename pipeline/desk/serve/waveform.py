"""Waveform of a clip for the page, read in a process of its own."""

from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.media.request import StreamRequest

# Number of columns of a waveform, and its sampling rate in Hz.
PEAKS, PEAK_SR = 1000, 8000
# Largest number of bars while it is read.
MOST_BARS = 1 << 17


def read_waveform(path: Path) -> dict[str, Any]:
    """Return the waveform of a file: length in seconds, and the peak of each column in 0..1."""
    from mvemo.extract.media.isolated import stream_isolated

    rest = bars = np.zeros(0, dtype=np.float32)
    size, length = 8, 0  # samples in a bar, and in the file
    for event, *values in stream_isolated(path, StreamRequest(sample_rates=(PEAK_SR,))):
        if event != "sound":
            continue
        y = np.concatenate([rest, np.abs(values[1])])
        length += len(values[1])
        whole = len(y) // size * size
        bars = np.concatenate([bars, y[:whole].reshape(-1, size).max(axis=1)])
        rest = y[whole:]
        while len(bars) > MOST_BARS:
            # The rest shorter than a new bar is less than a thousandth of a column.
            size, bars = 2 * size, bars[: len(bars) // 2 * 2].reshape(-1, 2).max(axis=1)
    columns = np.array_split(bars, PEAKS) if len(bars) >= PEAKS else []
    return {
        "seconds": length / PEAK_SR,
        "peaks": [min(round(float(column.max()), 3), 1.0) for column in columns],
    }

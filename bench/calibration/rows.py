"""A row of the table of calibration."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """What a figure states, and what was measured over independent runs."""

    what: str
    stated: str
    measured: float
    error: float  # standard error of `measured`
    runs: int

    def cells(self) -> list[str]:
        """Return the cells of a Markdown table."""
        return [self.what, self.stated, f"{self.measured:.3f}±{self.error:.3f}", str(self.runs)]


def mean_row(what: str, stated: str, values: object) -> Row:
    """Return the row of the mean of values, one per run; booleans are shares."""
    found = np.asarray(values, dtype=np.float64)
    error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
    return Row(what, stated, float(found.mean()), float(error), len(found))

"""Decoded clips of a study: statistics of descriptors, notes on clips left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvemo.extract.arrays import F64, Mask
from mvemo.pipeline.clips.clip_media import ClipMedia


class StudyMedia(ClipMedia):
    """Media of a study's clips for nets and classical models; see `ClipMedia`."""

    def left_out(self, usable: Mask, rows: str = "clips") -> tuple[str, ...]:
        """Return a note on the `rows` that are not `usable`, with the reason of the first."""
        unused = [self.manifest.clip_ids[row] for row in np.flatnonzero(~usable)]
        if not unused:
            return ()
        reason = self.reason(unused[0]) or "not decoded"
        return (
            f"{len(unused)} of {len(usable)} {rows} could not be used and are in no "
            f"score; the first, {unused[0]}: {reason}.",
        )

    def statistics(self, names: Sequence[str]) -> F64:
        """Return mean, then standard deviation, of descriptors over frames; NaN if missing."""
        rows: dict[int, F64] = {}
        for clip_id, row in self._rows.items():
            if self.described[row]:
                frames = self._sequences.joined(clip_id, names).astype(np.float64)
                rows[row] = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
        width = len(next(iter(rows.values()), ()))
        table = np.full((len(self.manifest), width), np.nan)
        for row, values in rows.items():
            table[row] = values
        return table

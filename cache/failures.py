"""Failures of clips, and what they sum up to by their reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# What failures of one kind differ in.
_NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, order=True)
class Failure:
    """One thing that went wrong with one clip.

    Parameters
    ----------
    clip_id
        The clip.
    stage
        What failed, ``decode:audio``.
    reason
        Why, in one line.
    time, version
        When, as ISO 8601 in UTC, and of mvemo; empty in files of mvemo 0.1.
    """

    clip_id: str
    stage: str
    reason: str
    time: str = ""
    version: str = ""


@dataclass(frozen=True)
class FailureKind:
    """Failures of one stage for one reason.

    Parameters
    ----------
    stage
        What failed, ``decode:audio``.
    reason
        That of the first clip; those of the others differ in numbers at most.
    clip_ids
        Of the clips, in the order given.
    """

    stage: str
    reason: str
    clip_ids: tuple[str, ...]

    def text(self, most: int = 3) -> str:
        """In a line, with the first clips."""
        more = ", …" if len(self.clip_ids) > most else ""
        clips = ", ".join(self.clip_ids[:most])
        return f"{len(self.clip_ids)} x {self.stage}: {self.reason} ({clips}{more})"


def failures_by_reason(failures: Iterable[tuple[str, str, str]]) -> list[FailureKind]:
    """Failures by stage and reason, the commonest first.

    Parameters
    ----------
    failures
        (clip id, stage, reason) of each.

    Examples
    --------
    >>> for kind in failures_by_reason(
    ...     [("a", "decode:audio", "ends at 3.5 s"), ("b", "decode:audio", "ends at 7 s")]
    ... ):
    ...     print(kind.text())
    2 x decode:audio: ends at 3.5 s (a, b)
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for clip, stage, reason in failures:
        kinds.setdefault((stage, _NUMBERS.sub("…", reason)), []).append((clip, reason))
    listed = [
        FailureKind(stage, alike[0][1], tuple(clip for clip, _ in alike))
        for (stage, _), alike in kinds.items()
    ]
    return sorted(listed, key=lambda kind: -len(kind.clip_ids))

"""Failures of clips, and their summary by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Numbers; failures of one kind may differ in them.
_NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, order=True)
class Failure:
    """Failure of one clip.

    Parameters
    ----------
    clip_id, stage, reason
        Id of the clip, step that failed (such as ``decode:audio``), and cause in one line.
    time, version
        Time as ISO 8601 in UTC, and version of mvemo; empty in files of mvemo 0.1.
    """

    clip_id: str
    stage: str
    reason: str
    time: str = ""
    version: str = ""


# (clip id, stage) -> failure; None if an earlier failure was cleared.
Failures = dict[tuple[str, str], Failure | None]


@dataclass(frozen=True)
class FailureKind:
    """Failures of one stage with one reason.

    Parameters
    ----------
    stage
        Step that failed, such as ``decode:audio``.
    reason
        Reason of the first clip; the others may differ in numbers.
    clip_ids
        Ids of the clips, in the given order.
    """

    stage: str
    reason: str
    clip_ids: tuple[str, ...]

    def text(self, most: int = 3) -> str:
        """Return one line with the first `most` clips."""
        more = ", …" if len(self.clip_ids) > most else ""
        clips = ", ".join(self.clip_ids[:most])
        return f"{len(self.clip_ids)} x {self.stage}: {self.reason} ({clips}{more})"


def failures_by_reason(failures: Iterable[tuple[str, str, str]]) -> list[FailureKind]:
    """Group failures (clip id, stage, reason) by stage and reason, the most frequent first.

    Examples
    --------
    >>> first, second = ("a", "decode:audio", "ends at 3.5 s"), ("b", "decode:audio", "ends at 7 s")
    >>> failures_by_reason([first, second])[0].text()
    '2 x decode:audio: ends at 3.5 s (a, b)'
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for clip, stage, reason in failures:
        kinds.setdefault((stage, _NUMBERS.sub("…", reason)), []).append((clip, reason))
    listed = [
        FailureKind(stage, alike[0][1], tuple(clip for clip, _ in alike))
        for (stage, _), alike in kinds.items()
    ]
    return sorted(listed, key=lambda kind: -len(kind.clip_ids))

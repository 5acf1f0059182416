"""Corrections of clips, and the entries of their history in ``corrections-history.jsonl``."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from mvemo.manifests.labels import Label

# Largest number of characters of a text; a CSV cell with more than 131,071 cannot be read.
MOST = {"comment": 10_000, "annotator": 200}


@dataclass(frozen=True)
class Correction:
    """Label, or only a comment, that a person gave to a predicted clip."""

    clip_id: str
    path: str  # relative to the folder of the corrections, with forward slashes
    # One class, any number of tags, a number for each target, or None if nobody judged the clip.
    label: Label | None
    group: str = ""  # artist, album folder or source, if known
    annotator: str = ""
    comment: str = ""
    unsure: bool = False
    date: str = ""  # ISO 8601, UTC
    predicted: str = ""  # predicted label in one cell
    content: str = ""  # digest of the file's content, which is the clip's key in a catalogue


# Fields of a correction, or ``clip_id``, ``date`` and ``undo``, ``gone`` or ``moved``.
Entry = dict[str, Any]
States = dict[str, list[Correction]]  # clip -> its corrections, the one in force last


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def entry_of(correction: Correction) -> Entry:
    label = None if correction.label is None else list(correction.label)
    return {**asdict(correction), "label": label}


def checked(entry: Entry) -> Entry:
    """Return an entry of the history that can be replayed."""
    replay([entry])
    return entry


def replay(entries: Iterable[Entry], states: States | None = None) -> States:
    """Apply changes in their order."""
    states = {} if states is None else states
    for entry in entries:
        of_clip = states.setdefault(entry["clip_id"], [])
        if entry.get("gone"):
            of_clip.clear()
        elif entry.get("undo"):
            del of_clip[-1:]
        elif moved := entry.get("moved"):
            of_clip[:] = [replace(c, path=moved) for c in of_clip]
        else:
            label = None if entry["label"] is None else tuple(entry["label"])
            # Earlier versions stored comments that made the manifest unreadable.
            comment = entry.get("comment", "")[: MOST["comment"]]
            of_clip.append(Correction(**{**entry, "label": label, "comment": comment}))
    return states

"""Matching of clip names in other programs' tables to clip ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from mvemo.manifests.cells import plain_text

# Differences between another program's clip names and ours.
_FORMS: Mapping[str, Callable[[str], str]] = {
    "": str,
    "without ending": lambda name: str(PurePosixPath(name).with_suffix("")) if name else "",
    "without folder": lambda name: PurePosixPath(name).name,
    "without folder and ending": lambda name: PurePosixPath(name).stem,
}


def match_ids(ids: Sequence[str], names: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """Return the clip id for each text (unmatched texts unchanged), and the kind of match.

    `names` maps the id or path of each clip to its id. Texts may lack the folder or ending.

    Examples
    --------
    >>> match_ids(["Sad/1.mp4", "Sad/2.mp4"], {"1": "1", "2": "2"})
    (('1', '2'), 'without folder and ending')
    """
    best: tuple[int, tuple[str, ...], str] = (0, tuple(ids), "")
    for how, form in _FORMS.items():
        clips: dict[str, set[str]] = {}
        for name, clip in names.items():
            clips.setdefault(form(_plain(name)), set()).add(clip)
        found = [clips.get(form(_plain(text)), set()) for text in ids]
        n = sum(len(clip) == 1 for clip in found)
        # A few may match by chance, such as 7 and Sad/7.mp4.
        if n > best[0] and (not how or 2 * n > len(ids)):
            matched = (min(c) if len(c) == 1 else t for c, t in zip(found, ids, strict=True))
            best = (n, tuple(matched), how)
    return best[1], best[2]


def _plain(name: str) -> str:
    """Return a name with forward slashes and in NFC, as on Linux."""
    return plain_text(name).replace("\\", "/")

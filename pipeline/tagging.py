"""Moods in the tags of sound and video files, written atomically and undone from a journal."""

from pathlib import Path
from typing import Any

from mvemo.pipeline.errors import BadOption


def open_tags(path: Path, easy: bool = False) -> Any:
    """Open a file with mutagen; return None if mutagen cannot read its tags.

    Raises
    ------
    BadOption
        Mutagen is not installed.
    """
    try:
        import mutagen
    except ImportError:
        raise BadOption("tags need the package mutagen: run pip install 'mvemo[serve]'") from None
    try:
        return mutagen.File(path, easy=easy)
    except (mutagen.MutagenError, ValueError, IndexError, KeyError):
        return None


def song_facts(path: Path) -> dict[str, Any]:
    """Return ``title``, ``artist`` and ``duration`` (seconds) of a file's own tags.

    The title of a file without one is its name; other facts that are not known are None.
    """
    opened = open_tags(path, easy=True)
    tags = {} if opened is None or opened.tags is None else opened.tags
    facts = {}
    for name in ("title", "artist"):
        try:
            facts[name] = ", ".join(map(str, tags.get(name) or ())) or None
        except (ValueError, KeyError):
            facts[name] = None
    return {
        "title": facts["title"] or path.stem,
        "artist": facts["artist"],
        "duration": getattr(getattr(opened, "info", None), "length", None) or None,
    }

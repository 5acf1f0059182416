"""Playlists of clips: one for each mood, or along a line through the valence-arousal plane."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.manifests.dimensions import Place
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import shown, write_text
from mvemo.pipeline.prediction.relative import ranks

Format = Literal["m3u8", "xspf"]
# Named ends of a line through the plane: valence and arousal as ranks from 0 (lowest clip) to 1.
ENDS: dict[str, Place] = {
    "calm": (0.5, 0.0),
    "lively": (0.5, 1.0),
    "sad": (0.0, 0.5),
    "happy": (1.0, 0.5),
    "tense": (0.0, 1.0),
    "relaxed": (1.0, 0.0),
}
XSPF = "http://xspf.org/ns/0/"
# A relative path that a player could take for a comment or a URL, or whose blank it could drop.
_UNCLEAR = re.compile(r"[#\s]|[^/]*:")
_SURROGATE = re.compile("[\ud800-\udfff]")  # stands for a byte that is not UTF-8
# Characters that XML cannot hold.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_playlist(
    clips: Sequence[Mapping[str, Any]], file: Path, format: Format, *, absolute: bool = False
) -> str:
    """Write a playlist atomically and return its text; no file is listed twice.

    Paths are relative to the playlist's folder, except with `absolute` or on another drive.

    Parameters
    ----------
    clips
        For each clip in order ``path``, and if known ``title``, ``artist``, ``duration`` (seconds)
        and ``content`` (digest of the bytes).
    file
        Path of the playlist.
    format
        ``m3u8`` (UTF-8) or ``xspf``.

    Raises
    ------
    BadOption
        The file cannot be written, or M3U8 cannot hold a path: it has a line break, or is not
        UTF-8.

    Examples
    --------
    >>> print(write_playlist([{"path": "a.mp3", "artist": "Nina", "title": "Blue", "duration": 9}],
    ...                      Path("blue.m3u8"), "m3u8"), end="")
    #EXTM3U
    #EXTINF:9,Nina - Blue
    a.mp3
    """
    once = list(_without_repeats(clips))
    folder = None if absolute else file.parent
    text = _xspf(once, file.stem, folder) if format == "xspf" else _m3u8(once, folder)
    write_text(file, text)
    return text


def file_stem(name: str) -> str:
    """Return a mood or a title as a file name without suffix, '' if nothing is left."""
    return re.sub(r"[^\w .,()+-]", "_", name).strip(" .")


def _without_repeats(clips: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the clips without those whose file, or whose bytes, came before."""
    seen: set[str] = set()
    for clip in clips:
        keys = {os.path.realpath(clip["path"]), clip.get("content") or ""} - {""}
        if not keys & seen:
            yield clip
        seen |= keys


def _name(clip: Mapping[str, Any]) -> str:
    """Return "Artist - Title" in one line; without a title the file's name."""
    parts = (clip.get("artist"), clip.get("title") or Path(clip["path"]).stem)
    return " - ".join(" ".join(part.split()) for part in parts if part)


def _relative(path: str | Path, folder: Path | None) -> str | None:
    """Return the path from a folder with slashes, or None if it is on another drive."""
    if folder is None:
        return None
    try:
        return Path(os.path.relpath(os.path.abspath(path), os.path.abspath(folder))).as_posix()
    except ValueError:
        return None


def _m3u8(clips: Sequence[Mapping[str, Any]], folder: Path | None) -> str:
    lines = ["#EXTM3U"]
    for clip in clips:
        relative = _relative(clip["path"], folder)
        path = relative or os.path.abspath(clip["path"])
        if len(path.splitlines()) > 1 or path != path.rstrip() or _SURROGATE.search(path):
            raise BadOption(
                f"{shown(path)}: M3U8 cannot hold a path with a line break, a blank at its end or "
                "bytes that are not UTF-8: rename the file, or give --format xspf"
            )
        seconds = -1 if clip.get("duration") is None else round(clip["duration"])
        lines.append(f"#EXTINF:{seconds},{_name(clip)}")
        lines.append(f"./{path}" if relative and _UNCLEAR.match(path) else path)
    return "\n".join([*lines, ""])


def _xspf(clips: Sequence[Mapping[str, Any]], title: str, folder: Path | None) -> str:
    ElementTree.register_namespace("", XSPF)
    root = ElementTree.Element(f"{{{XSPF}}}playlist", version="1")

    def add(parent: ElementTree.Element, name: str, text: str = "") -> ElementTree.Element:
        child = ElementTree.SubElement(parent, f"{{{XSPF}}}{name}")
        child.text = _NOT_XML.sub("\ufffd", text)
        return child

    add(root, "title", title)
    tracks = add(root, "trackList")
    for clip in clips:
        track, path = add(tracks, "track"), _relative(clip["path"], folder)
        whole = Path(os.path.abspath(clip["path"]))
        add(track, "location", whole.as_uri() if path is None else quote(os.fsencode(path)))
        add(track, "title", clip.get("title") or whole.stem)
        if clip.get("artist"):
            add(track, "creator", clip["artist"])
        if clip.get("duration") is not None:
            add(track, "duration", str(round(1000 * clip["duration"])))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


# --- choice and order


def lists_by_mood(moods: Sequence[ClipPrediction]) -> dict[str, list[ClipPrediction]]:
    """Return for each mood its clips: corrected ones first, then the likeliest."""
    names = sorted({name for mood in moods for name in mood.moods})
    return {
        name: sorted(
            (mood for mood in moods if name in mood.moods),
            key=lambda mood: (not mood.is_corrected, -mood.moods[name], mood.path),
        )
        for name in names
    }


def parse_line(text: str) -> tuple[Place, Place]:
    """Return the ends of a line such as ``calm..lively`` or ``0.2,0.1..0.8,0.9``.

    Examples
    --------
    >>> parse_line("calm..0.8,0.9")
    ((0.5, 0.0), (0.8, 0.9))
    """
    try:
        start, stop = map(_end, text.split(".."))
        if start == stop:
            raise ValueError
    except ValueError:
        raise BadOption(
            f"--path {text!r}: expected two different ends, such as calm..lively or "
            f"0.2,0.1..0.8,0.9 (valence,arousal from 0 to 1); names: {', '.join(ENDS)}"
        ) from None
    return start, stop


def _end(text: str) -> Place:
    valence, arousal = ENDS[text] if text in ENDS else map(float, text.split(","))
    if not (0 <= valence <= 1 and 0 <= arousal <= 1):
        raise ValueError
    return valence, arousal


def along_line(moods: Sequence[ClipPrediction], ends: tuple[Place, Place]) -> list[ClipPrediction]:
    """Return the clips whose place lies between the ends, in an order with small steps.

    Places are ranks among the clips, from 0 (lowest) to 1 (highest). The line is cut into bands
    with about as many clips as there are bands, and every second band is walked in the other
    direction (the strip heuristic of Daganzo 1984). Clips without a place are left out.
    """
    placed = [mood for mood in moods if mood.place is not None]
    if not placed:
        return []
    xy = ranks(np.array([mood.place for mood in placed], dtype=np.float64))
    start, stop = np.array(ends)
    line = stop - start
    along = (xy - start) @ line / (line @ line)
    across = (xy - start) @ np.array([-line[1], line[0]])
    between = np.flatnonzero((along >= 0) & (along <= 1))
    order = between[np.argsort(along[between], kind="stable")]
    walk = []
    for i, band in enumerate(np.array_split(order, max(1, round(len(order) ** 0.5)))):
        walk += band[np.argsort(across[band] * (-1) ** i, kind="stable")].tolist()
    return [placed[i] for i in walk]

"""Moods of predicted clips, with corrections by people, and playlists of clips.

A playlist has the clips of one mood, or those along a line through the valence-arousal plane.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from xml.etree import ElementTree

import click
import numpy as np

from mvemo.extract.store.contents import contents_of
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.prediction_records import read_predictions
from mvemo.manifests import read_manifest
from mvemo.manifests.dimensions import Place
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import shown, write_text
from mvemo.manifests.labels import label_kind
from mvemo.pipeline.commands.options import refuse_replacing
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk import tagging
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

    Paths are relative to the playlist's folder, except with `absolute` or on another drive. A clip
    has a ``path``, and if known ``title``, ``artist``, ``duration`` (seconds) and ``content``
    (digest of the bytes). BadOption is raised for a path that M3U8 (UTF-8) cannot hold.
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
    """Yield the clips without further ones of the same file or of the same bytes."""
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


def read_moods(
    predictions: Path, corrections: Path | None, least: float | None
) -> list[ClipPrediction]:
    """Read predictions (CSV, JSON or JSON Lines of ``mvemo predict``) and corrections.

    Files that were not predicted are left out with a note, also if they were corrected. A relative
    path may start at the file's folder. `least` is the smallest probability of a mood; None keeps
    all. BadOption is raised if no clip is predicted.
    """
    clips = list(read_predictions(predictions))
    found = [_located(clip, predictions.parent) for clip in clips if clip.is_predicted]
    if not found:
        raise BadOption(f"{predictions}: has no predicted clip, only {len(clips)} failed ones")
    if len(found) < len(clips):
        tell_note(f"{len(clips) - len(found)} of {len(clips)} clips were not predicted: left out")
    if corrections is not None:
        found = _corrected(found, corrections)
    if least is not None:
        if not any(clip.proba or clip.quadrant or clip.is_corrected for clip in found):
            raise BadOption("--min-confidence: ratings have no probabilities: leave it out")
        found = [clip.surer_than(least) for clip in found]
    return found


def _located(clip: ClipPrediction, folder: Path) -> ClipPrediction:
    path = Path(clip.path)
    is_beside = not path.exists() and (folder / path).exists()
    return replace(clip, path=str(folder / path)) if is_beside else clip


def _corrected(found: list[ClipPrediction], corrections: Path) -> list[ClipPrediction]:
    """Return the clips with the labels of a manifest in the place of predictions."""
    manifest = read_manifest(corrections, media=False)
    labels: dict[str, Any] = {}
    for clip in manifest.clips:
        rated: Mapping[str, Any] = dict(zip(manifest.classes, clip.label, strict=False))
        label = rated if label_kind(manifest.task).numeric else tuple(map(str, clip.label))
        labels[os.path.realpath(manifest.media_path(clip))] = label
    judged = []
    for prediction in found:
        label = labels.pop(os.path.realpath(prediction.path), None)
        judged.append(prediction if label is None else prediction.corrected(label))
    if labels:
        tell_note(
            f"{corrections}: {len(labels)} of {len(manifest)} corrected clips are not among the "
            f"predictions, such as {min(labels)}"
        )
    return judged


def tags_of(moods: list[ClipPrediction]) -> dict[Path, dict[str, list[str]]]:
    """Return the values of each file's tags, without files that have neither mood nor rating."""
    wanted: dict[Path, dict[str, list[str]]] = {}
    counts = Counter(os.path.abspath(mood.path) for mood in moods)
    for mood in moods:
        if counts[os.path.abspath(mood.path)] > 1:
            raise BadOption(f"{mood.path}: has two predictions: expected whole files, each once")
        for name in {"mood", "model"} & {*map(str.lower, mood.ratings)}:
            raise BadOption(f"{mood.path}: a rating named {name} would have the tag of the {name}")
        values = {"mood": [*mood.moods]} if mood.moods else {}
        values |= {name: [f"{value:.3g}"] for name, value in mood.ratings.items()}
        if values:
            model = "corrected" if mood.is_corrected else mood.model or ""
            wanted[Path(mood.path)] = {**values, "model": [model]}
    if len(wanted) < len(moods):
        tell_note(f"{len(moods) - len(wanted)} of {len(moods)} files have no mood to write")
    return wanted


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


def write_playlists(
    lists: dict[str, list[ClipPrediction]], out: Path, kind: Any, force: bool
) -> None:
    """Write the playlists and print a line for each."""
    files: dict[Path, list[ClipPrediction]] = {}
    for name, listed in lists.items():
        stem = file_stem(name) or "_"
        # Two moods may give one file name, at least on systems that ignore case.
        taken = {file.stem.lower() for file in files}
        stem += f" {len(files) + 1}" * (stem.lower() in taken)
        files[out / f"{stem}.{kind}"] = listed
    for file in files:
        refuse_replacing(file, force)
    clips: dict[str, dict[str, Any]] = {}
    every = {mood.path: mood for listed in lists.values() for mood in listed}
    found = contents_of([Path(path) for path in every])
    for (path, mood), content in zip(every.items(), found, strict=True):
        clips[path] = {**tagging.song_facts(Path(path)), "content": content.digest}
        clips[path]["duration"] = clips[path]["duration"] or mood.facts.get("duration")
    out.mkdir(parents=True, exist_ok=True)
    for file, listed in files.items():
        text = write_playlist([clips[mood.path] for mood in listed], file, kind)
        n = text.count("#EXTINF:" if kind == "m3u8" else "<track>")
        click.echo(f"{file}: {n} clips")

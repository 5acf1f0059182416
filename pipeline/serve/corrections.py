"""Corrections of predicted labels by people: a manifest of the current ones, and their history.

``corrections.csv`` is a valid manifest with the corrections in force. Every change is first
appended to ``corrections-history.jsonl`` and flushed to disk, then the manifest is replaced
atomically, so that each of the two files can be restored from the other.
"""

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from typing import Any

from mvemo.manifests import BadManifest, read_manifest
from mvemo.manifests.cells import parse_number
from mvemo.manifests.files import cause, parse_json, write_text
from mvemo.manifests.labels import PLANE, Label, label_kind, parse_scale
from mvemo.manifests.tables import MANIFEST_VERSION, CsvWriter, format_names, plain_text

# Columns of the manifest that only this program reads.
OWN = ("annotator", "comment", "unsure", "date", "predicted", "content")


@dataclass(frozen=True)
class Correction:
    """Label that a person gave to a predicted clip."""

    clip_id: str
    path: str  # relative to the folder of the corrections, with forward slashes
    label: Label  # one class, any number of tags, or a number for each target
    group: str = ""  # artist, album folder or source, if known
    annotator: str = ""
    comment: str = ""
    unsure: bool = False
    date: str = ""  # ISO 8601, UTC
    predicted: str = ""  # predicted label in one cell
    content: str = ""  # digest of the file's bytes, which is the clip's key in a catalogue


Entry = dict[str, Any]  # fields of a correction, or ``clip_id``, ``date`` and ``undo`` or ``gone``
States = dict[str, list[Correction]]  # clip -> its corrections, the one in force last


class Corrections:
    """Corrections of one work folder; every change is on disk before a call returns.

    Parameters
    ----------
    path
        File ``corrections.csv``; its history is stored next to it.
    name, task, classes, scale
        Name and task of the model, its outputs in order, and for ratings the scale, such as
        ``1..9``.

    Raises
    ------
    BadManifest
        The corrections belong to a model of another task or with other targets.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.manifests import read_manifest
    >>> folder = Path(tempfile.mkdtemp())
    >>> kept = Corrections(folder / "corrections.csv", "songs", "multiclass", ("calm", "tense"))
    >>> _ = kept.put(folder / "a.mp3", "calm", clip_id="a", annotator="Ana")
    >>> _ = kept.put(folder / "a.mp3", "tense", clip_id="a", annotator="Ana")
    >>> kept.undo("a").label, len(kept.history)
    (('calm',), 3)
    >>> read_manifest(folder / "corrections.csv", media=False).clips[0].label
    ('calm',)
    """

    def __init__(
        self, path: Path, name: str, task: str, classes: Sequence[str], scale: str = ""
    ) -> None:
        self.path, self.journal = path, path.with_name(f"{path.stem}-history.jsonl")
        self.task, self.classes = task, tuple(classes)
        self._stated = {"name": name, "task": task, "scale": scale}
        self._kind, self._lock = label_kind(task), RLock()
        self.history: list[Entry] = []  # all changes, oldest first
        self.problem = ""  # sentence on what was wrong with the files, for the page and the log
        self._states: States = {}
        self._lines: dict[str, str] = {}  # clip -> its line of the manifest
        self._root = ""  # media root: the folder that all clips have in common
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    @property
    def current(self) -> dict[str, Correction]:
        """Return the corrections in force by clip."""
        return _in_force(self._states)

    def put(self, path: Path, label: Any, *, clip_id: str, **facts: Any) -> Correction:
        """Store a correction and return it.

        `label` is a class, a list of tags, or a mapping of every target to its value; `facts` are
        other fields of `Correction`. BadManifest is raised for a label that the model lacks.
        """
        for key, value in facts.items():
            if isinstance(value, str):
                facts[key] = " ".join(plain_text(value).replace("\0", "").split())
        facts = {**facts, "group": facts.get("group") or clip_id, "date": _now()}
        parsed, place = self._parse(label), os.path.relpath(path, self.path.parent)
        correction = Correction(clip_id, Path(place).as_posix(), parsed, **facts)
        with self._lock:
            self._change([{**asdict(correction), "label": list(parsed)}])
        return correction

    def undo(self, clip_id: str) -> Correction | None:
        """Go back to the former correction of a clip and return it; None if there is none."""
        with self._lock:
            if clip_id in self.current:
                self._change([{"clip_id": clip_id, "date": _now(), "undo": True}])
            return self.current.get(clip_id)

    def record(self, correction: Correction) -> dict[str, Any]:
        """Return a correction as JSON values: ``label`` (a list for tags) or ``values``."""
        values = {"id": correction.clip_id, **asdict(correction)}
        del values["clip_id"], values["label"]
        label = list(correction.label)
        if self._kind.numeric:
            return {**values, "values": dict(zip(self.classes, label, strict=True))}
        return {**values, "label": label[0] if self._kind.exclusive else label}

    def _parse(self, label: Any) -> Label:
        """Return a label in the form of manifests."""
        numeric, problems = self._kind.numeric, list[str]()
        names = [label] if self._kind.exclusive else label
        parsed: Label = ()
        if numeric and isinstance(label, Mapping) and {*label} == {*self.classes}:
            parsed = tuple(parse_number(str(label[n]), n, problems.append) for n in self.classes)
            scale = self._stated["scale"]
            low, high = parse_scale(scale) if scale else (-math.inf, math.inf)
            for name, value in zip(self.classes, map(float, parsed), strict=True):
                if name.lower() in PLANE and not low <= value <= high:
                    problems.append(f"{name} {value:g} is outside the scale {scale}")
        elif not numeric and isinstance(names, (list, tuple)):
            problems += [f"unknown label {n!r}" for n in names if n not in self.classes]
            parsed = tuple(name for name in self.classes if name in names)
        else:
            problems.append(f"{label!r} is not a label")
        if problems:
            expected = "a number for each of" if numeric else "one of"
            known = ", ".join(self.classes)
            raise BadManifest(f"{'; '.join(problems)}; expected {expected} {known}")
        return parsed

    # --- files

    def _open(self) -> None:
        """Read both files, restore one from the other, and set a broken manifest aside."""
        entries, n_bad = _read_journal(self.journal)
        if n_bad:
            self.problem = f"{self.journal}: {n_bad} incomplete or unknown lines were skipped. "
        self.history, self._states = entries, _replay(entries)
        # The last change may have been stopped before the manifest was replaced.
        stopped = _in_force(_replay(entries[:-1]))
        found = self._read() if self.path.exists() else {}
        if not self._kind.numeric:
            names = {str(name) for entry in entries for name in entry.get("label", ())}
            self.classes += tuple(sorted(names - {*self.classes}))
        if found is not None and found not in (self.current, stopped, {}):
            former = self.current
            changes: list[Entry] = [
                {"clip_id": name, "date": _now(), "gone": True} for name in former.keys() - found
            ]
            for name, each in found.items():
                if each != former.get(name):
                    changes.append({**asdict(each), "label": list(each.label)})
            self._change(changes)
        elif self.current or found:
            self._write(self._states)

    def _read(self) -> dict[str, Correction] | None:
        """Return the corrections in the manifest; set it aside and return None if it is broken."""
        try:
            manifest = read_manifest(self.path, media=False)
        except BadManifest as error:
            n = 1
            while (aside := self.path.with_name(f"{self.path.name}.broken-{n}")).exists():
                n += 1
            os.replace(self.path, aside)
            reason = "; ".join(map(str.strip, str(error).splitlines()))
            self.problem += (
                f"{reason}. The file was renamed to {aside.name}, and {len(self.current)} "
                f"corrections were restored from {self.journal.name}."
            )
            return None
        if manifest.task != self.task or not {*self.classes} <= {*manifest.classes}:
            raise BadManifest(
                f"{self.path}: expected {self.task} labels {', '.join(self.classes)}, got "
                f"{manifest.task} labels {', '.join(manifest.classes)}: give another work folder "
                "for corrections of this model"
            )
        self.classes = manifest.classes
        found = {}
        for clip in manifest.clips:
            columns = {key: value for key, value in clip.extra if key in OWN}
            place = os.path.relpath(manifest.media_path(clip), self.path.parent)
            facts = {**columns, "unsure": columns.get("unsure") == "1"}
            found[clip.clip_id] = Correction(
                clip.clip_id,
                Path(place).as_posix(),
                clip.label,
                clip.group,
                **facts,  # type: ignore[arg-type]
            )
        return found

    def _change(self, entries: list[Entry]) -> None:
        """Append changes to the history, flush it to disk, and replace the manifest."""
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        try:
            with self.journal.open("ab+") as file:
                # An incomplete last line is ended, so that only this line is lost.
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                torn = size and file.read(1) != b"\n"
                file.write((torn * "\n" + text).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise BadManifest(f"{self.journal}: cannot be written: {cause(problem)}") from None
        self.history += entries
        _replay(entries, self._states)
        self._write({entry["clip_id"] for entry in entries})

    def _write(self, changed: Iterable[str]) -> None:
        """Replace the manifest after changes of these clips."""
        current, folder = self.current, os.path.abspath(self.path.parent)
        files = {
            name: os.path.normpath(os.path.join(folder, c.path)) for name, c in current.items()
        }
        folders = {os.path.dirname(files[name]) for name in changed if name in files}
        root = os.path.commonpath([*folders, self._root] if self._root else folders or [folder])
        if root != self._root:
            self._root, changed = root, current
        columns = self._kind.columns(self.classes)
        extra = [name for name in OWN if name not in columns]
        for name in changed:
            self._lines.pop(name, None)
            if correction := current.get(name):
                place = Path(os.path.relpath(files[name], root)).as_posix()
                facts = {**asdict(correction), "unsure": "1" * correction.unsure}
                cells = self._kind.format(correction.label, self.classes)
                row = [name, place, *cells, correction.group, *(facts[key] for key in extra)]
                self._lines[name] = _csv_line(row)
        if not self._lines:
            self.path.unlink(missing_ok=True)
            return
        stated = {
            **self._stated,
            "classes": format_names(self.classes, ","),
            "root": Path(os.path.relpath(root, folder)).as_posix(),
        }
        head = [f"# mvemo manifest {MANIFEST_VERSION}\n"]
        head += [f"# {key}: {value}\n" for key, value in stated.items() if value]
        head.append(_csv_line(["clip_id", "path", *columns, "group", *extra]))
        text = "".join([*head, *self._lines.values()])
        # The history is already on disk, so the manifest need not be flushed as well.
        write_text(self.path, text, error=BadManifest, durable=False)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    CsvWriter(text).writerow(cells)
    return text.getvalue()


def _read_journal(path: Path) -> tuple[list[Entry], int]:
    """Return the changes in a history, and the number of lines that could not be read."""
    entries, n_bad = [], 0
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            _replay([entry := parse_json(line)])
            entries.append(entry)
        except (ValueError, TypeError, KeyError):
            n_bad += 1
    return entries, n_bad


def _replay(entries: Iterable[Entry], states: States | None = None) -> States:
    """Apply changes in their order."""
    states = {} if states is None else states
    for entry in entries:
        of_clip = states.setdefault(entry["clip_id"], [])
        if entry.get("gone"):
            of_clip.clear()
        elif entry.get("undo"):
            del of_clip[-1:]
        else:
            of_clip.append(Correction(**{**entry, "label": tuple(entry["label"])}))
    return states


def _in_force(states: States) -> dict[str, Correction]:
    return {clip_id: of_clip[-1] for clip_id, of_clip in states.items() if of_clip}

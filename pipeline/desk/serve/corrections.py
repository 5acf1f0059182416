"""Corrections of predicted labels by people: a manifest of the current ones, and their history.

``corrections.csv`` is a valid manifest with the corrections in force. Every change is first
appended to ``corrections-history.jsonl`` and flushed to disk, then the manifest is replaced
atomically, so that each of the two files can be restored from the other. Comments on clips that
nobody judged have no label and are only in the history.
"""

import hashlib
import io
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import Any

from mvemo.manifests import BadManifest, read_manifest, tables
from mvemo.manifests.cells import parse_number
from mvemo.manifests.errors import BadFile, DiskFailed, MvemoError
from mvemo.manifests.files import find_stamp, write_text
from mvemo.manifests.journal import Journal
from mvemo.manifests.labels import PLANE, Label, label_kind

# Columns of the manifest that only this program reads.
OWN = ("annotator", "comment", "unsure", "date", "predicted", "content")
MOST_GROUP = 500
# Largest number of characters of a text; a CSV cell with more than 131,071 cannot be read.
MOST = {"comment": 10_000, "annotator": 200}
# Label of a change that leaves the judgement as it is.
KEPT = object()


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


class _Broken(BadManifest):
    """A manifest that cannot be read."""


class NotTaken(MvemoError):
    """A change that was not stored, with the HTTP status that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Corrections:
    """Corrections of one work folder; every change is on disk before a call returns.

    `name`, `task`, `classes` and `scale` (ends of each rating's scale) are those of the model.
    BadManifest is raised for corrections of another task or with other targets.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        task: str,
        classes: Sequence[str],
        scale: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.journal: Path = path.with_name(f"{path.stem}-history.jsonl")
        self._entries = Journal(self.journal)
        self.task = task
        self.classes: tuple[str, ...] = tuple(classes)
        self._scale = scale
        shared = next((_span(ends) for axis, ends in scale.items() if axis.lower() in PLANE), "")
        self._stated = {"name": name, "task": task, "scale": shared}
        self._kind, self._lock = label_kind(task), RLock()
        self.history: list[Entry] = []  # all changes, oldest first
        self.problem: str = ""  # sentence on faults of the files, for the page and the log
        self.unsaved: str = ""  # sentence on why the last change is not in a file
        self._states: States = {}
        self._keys: dict[str, str] = {}  # content -> clip id of its correction
        self._lines: dict[str, str] = {}  # clip -> its line of the manifest
        self._root = ""  # media root: the folder that all clips have in common
        self._stamp: object = None  # of the manifest as it was written or read last
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name of a library stays if its folder is moved.
        if not (library_id := path.with_name("library-id")).exists():
            write_text(library_id, secrets.token_hex(8))
        self.library: str = library_id.read_text(encoding="utf-8").strip()
        self._open()

    @property
    def current(self) -> dict[str, Correction]:
        """Return the corrections in force by clip, and comments without a label."""
        # A copy, because another thread may change them.
        return {name: states[-1] for name, states in self._states.copy().items() if states}

    @property
    def judged(self) -> dict[str, Correction]:
        """Return the corrections with a label, which are in the manifest, by clip."""
        return {name: c for name, c in self.current.items() if c.label is not None}

    def key_of(self, content: str, clip_id: str = "") -> str:
        """Return the clip id under which corrections of a content are stored, whatever its path.

        Without a content it is `clip_id`.
        """
        return self._keys.get(content) or content[:16] or clip_id

    def adopt(self, content: str, path: Path) -> None:
        """Correct the place of a file that was moved, or add a digest that was not known."""
        place, folder, entries = os.path.abspath(path), self.path.parent, list[Entry]()
        known = self._of(self.key_of(content))
        with suppress(OSError, MvemoError), self._lock:
            if known is not None and not os.path.lexists(folder / known.path):
                relative = Path(os.path.relpath(place, folder)).as_posix()
                entries = [{"clip_id": known.clip_id, "date": utc_now(), "moved": relative}]
            for c in () if content in self._keys else self.current.values():
                if not c.content and os.path.abspath(folder / c.path) == place:
                    entries.append(entry_of(replace(c, content=content)))
            if entries:
                self._begin("", None)
                self._change(entries)

    def etag(self, clip_id: str) -> str:
        """Return the version of a clip's correction in this library."""
        if (c := self._of(clip_id)) is None:
            return f"{self.library}-none"
        state = repr((c.label, c.comment, c.unsure, c.annotator, c.date))
        return f"{self.library}-{hashlib.sha256(state.encode()).hexdigest()[:12]}"

    def _of(self, clip_id: str) -> Correction | None:
        return next(reversed(self._states.get(clip_id, [])), None)

    def put(
        self, path: Path, label: Any, *, clip_id: str, seen: str | None = None, **facts: Any
    ) -> Correction:
        """Store a correction and return it.

        `label` is a class, a list of tags, a mapping of every target to its value, None for a
        comment without a judgement, or `KEPT`. `seen` is the version (`etag`) that the change
        replaces, None for any. `facts` are other fields of `Correction`; a comment that is not
        given stays.
        BadManifest is raised for a label that the model lacks, NotTaken for a change that another
        one has overtaken, DiskFailed for a disk that is full, read-only or gone.
        """
        for key, value in facts.items():
            if isinstance(value, str):
                facts[key] = " ".join(tables.plain_text(value).replace("\0", "").split())
                if (n := len(facts[key])) > (most := MOST.get(key, n)):
                    raise BadManifest(f"{key}: expected at most {most:,} characters, got {n:,}")
        facts["group"] = (facts.get("group") or clip_id)[:MOST_GROUP]
        parsed = None if label is None or label is KEPT else self._parse(label)
        place = Path(os.path.relpath(path, self.path.parent)).as_posix()
        with self._lock:
            self._begin(clip_id, seen)
            if (before := self._of(clip_id)) is not None:
                facts = {"comment": before.comment, **facts}
                if label is KEPT:
                    parsed, facts = before.label, {"unsure": before.unsure, **facts}
            correction = Correction(clip_id, place, parsed, **{**facts, "date": utc_now()})
            self._change([entry_of(correction)])
        return correction

    def undo(self, clip_id: str, seen: str | None = None) -> Correction | None:
        """Go back to the former correction of a clip and return it; None if there is none."""
        with self._lock:
            self._begin(clip_id, seen)
            if self._of(clip_id) is not None:
                self._change([{"clip_id": clip_id, "date": utc_now(), "undo": True}])
            return self._of(clip_id)

    def flush(self) -> None:
        """Write the manifest if this failed before; `DiskFailed` if it fails again."""
        with self._lock:
            if self.unsaved:
                self._save(self._states)
            if self.unsaved:
                raise DiskFailed(self.unsaved)

    def record(self, correction: Correction) -> dict[str, Any]:
        """Return a correction as JSON values: ``label`` (a list for tags) or ``values``."""
        values = {"id": correction.clip_id, **asdict(correction)}
        del values["clip_id"], values["label"]
        values["etag"] = self.etag(correction.clip_id)
        if correction.label is None:
            return values
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
            for name, value in zip(self.classes, map(float, parsed), strict=True):
                low, high = ends = self._scale.get(name, (-math.inf, math.inf))
                if value < low or value > high:
                    problems.append(f"{name} {value:g} is outside the scale {_span(ends)}")
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
        entries, n_bad = self._entries.read(checked)
        if n_bad:
            name = self.journal.name
            self.problem = f"{name}: {n_bad} incomplete or unknown lines were skipped. "
        self._apply(entries)
        found, self._stamp = None, find_stamp(self.path)
        if self.path.exists():
            try:
                found = self._read()
            except _Broken as error:
                n = 1
                while (aside := self.path.with_name(f"{self.path.name}.broken-{n}")).exists():
                    n += 1
                os.replace(self.path, aside)
                self.problem += (
                    f"{error}. The file was renamed to {aside.name}, and {len(self.judged)} "
                    f"corrections were restored from {self.journal.name}."
                )
        if not self._kind.numeric:
            names = {str(name) for entry in entries for name in entry.get("label") or ()}
            self.classes += tuple(sorted(names - {*self.classes}))
        if found is not None and not self._is_old(found) and (edits := self._edits(found)):
            self._change(edits)
        else:
            self._save(self._states)

    def _begin(self, clip_id: str, seen: str | None) -> None:
        """Take over a person's edits of the manifest; refuse a change if `seen` is out of date."""
        former, now = self._stamp, find_stamp(self.path)
        if now not in (None, former):
            try:
                edits = self._edits(self._read())
            except BadManifest as error:
                raise NotTaken(409, f"{error}. Mend the file, or delete it to restore it") from None
            self._stamp = now
            try:
                self._change(edits)
            except DiskFailed:
                self._stamp = former
                raise
        if seen not in (None, self.etag(clip_id)):
            raise NotTaken(412, "another correction was stored meanwhile: read it first")

    def _read(self) -> dict[str, Correction]:
        """Return the corrections in the manifest; `_Broken` if it cannot be read."""
        try:
            manifest = read_manifest(self.path, media=False)
            if unknown := {key for clip in manifest.clips for key, _ in clip.extra} - {*OWN}:
                raise BadManifest(f"{self.path}: unknown columns {', '.join(sorted(unknown))}")
        except BadFile as error:
            raise _Broken("; ".join(map(str.strip, str(error).splitlines()))) from None
        if manifest.task != self.task or not {*self.classes} <= {*manifest.classes}:
            raise BadManifest(
                f"{self.path}: expected {self.task} labels {', '.join(self.classes)}, got "
                f"{manifest.task} labels {', '.join(manifest.classes)}: give another work folder "
                "for corrections of this model"
            )
        self.classes = manifest.classes
        found = {}
        for clip in manifest.clips:
            columns: dict[str, Any] = dict(clip.extra)
            place = os.path.relpath(manifest.media_path(clip), self.path.parent)
            facts = {**columns, "unsure": columns.get("unsure") == "1"}
            found[clip.clip_id] = Correction(
                clip.clip_id, Path(place).as_posix(), clip.label, clip.group, **facts
            )
        return found

    def _is_old(self, found: Mapping[str, Correction]) -> bool:
        """Return True if a manifest has an earlier state of the history: its replacement failed.

        A manifest that a person edited is newer than the history, or has a state that never was.
        """
        times = [path.stat().st_mtime_ns for path in (self.path, self.journal) if path.exists()]
        states, differing = States(), {*found}
        for entry in self.history if times == sorted(times) else ():
            name = entry["clip_id"]
            last = replay([entry], states)[name][-1:]
            now = next((c for c in last if c.label is not None), None)
            (differing.discard if now == found.get(name) else differing.add)(name)
            if not differing:
                return True
        return False

    def _edits(self, found: Mapping[str, Correction]) -> list[Entry]:
        """Return the changes from the corrections in force to those of a manifest."""
        former = self.judged
        removed = [
            {"clip_id": n, "date": utc_now(), "gone": True} for n in former if n not in found
        ]
        return [
            *removed,
            *(entry_of(each) for name, each in found.items() if each != former.get(name)),
        ]

    def _change(self, entries: list[Entry]) -> None:
        """Append changes to the history, flush it to disk, and replace the manifest."""
        if not entries:
            return
        try:
            self._entries.append(entries)
        except DiskFailed as error:
            self.unsaved = str(error)
            raise
        self._apply(entries)
        self._save({entry["clip_id"] for entry in entries})

    def _apply(self, entries: list[Entry]) -> None:
        self.history += entries
        replay(entries, self._states)
        self._keys |= {e["content"]: e["clip_id"] for e in entries if e.get("content")}

    def _save(self, changed: Iterable[str]) -> None:
        """Replace the manifest; if the disk is full, the history has what it lacks."""
        try:
            self._write(changed)
            self.unsaved = ""
        except OSError as error:
            self.unsaved = f"{error}: the corrections are only in {self.journal.name}"

    def _write(self, changed: Iterable[str]) -> None:
        """Replace the manifest after changes of these clips."""
        current, folder = self.judged, os.path.abspath(self.path.parent)
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
                cells = self._kind.format(correction.label or (), self.classes)
                row = [name, place, *cells, correction.group, *(facts[key] for key in extra), ""]
                self._lines[name] = _csv_line(row)
        if not self._lines:
            self.path.unlink(missing_ok=True)
            self._stamp = None
            return
        stated = {key: value for key, value in self._stated.items() if value}
        stated["classes"] = tables.format_names(self.classes, ",")
        stated["root"] = Path(os.path.relpath(root, folder)).as_posix()
        names = ["clip_id", "path", *columns, "group", *extra]
        head = tables.stated_header(names, "manifest", tables.MANIFEST_VERSION, stated)
        text = "".join([_csv_line(head), *self._lines.values()])
        # The history is already on disk, so the manifest need not be flushed as well.
        write_text(self.path, text, durable=False)
        self._stamp = find_stamp(self.path)


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


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    tables.CsvWriter(text).writerow(cells)
    return text.getvalue()


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:g}..{ends[1]:g}"

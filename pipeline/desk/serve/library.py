"""Clips of a served folder: their files, predictions and corrections, and what changed since."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from mvemo.extract.store import contents
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.prediction_records import read_predictions
from mvemo.manifests.dimensions import Place, place_of
from mvemo.manifests.errors import BadOption, DiskFailed, MissingFile
from mvemo.manifests.files import find_stamp, stamp_of
from mvemo.manifests.journal import Journal
from mvemo.manifests.layouts.scan import AUDIO_SUFFIXES, BAD_NAME, VIDEO_SUFFIXES, find_media
from mvemo.manifests.text_table import escaped
from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.tagging import song_facts
from mvemo.pipeline.prediction.relative import FEWEST, compare, ranks, reason_to_compare

SUFFIXES = AUDIO_SUFFIXES | VIDEO_SUFFIXES
# Largest number of clips in one answer.
PAGE = 2000

# Error of a clip whose job was cancelled; the next server predicts it.
CANCELLED = "cancelled"
# Keys of a prediction, which are hidden while another model is in use.
PREDICTED = (
    *("model", "model_digest", "model_date", "label", "proba", "values", "plane", "quadrant"),
    *("confidence", "set", "map", "doubt", "unlikeness"),
)

Record = dict[str, Any]


class OutsideFolders(Exception):
    """A path that is not inside the opened folders."""


class Library:
    """Clips by id, with a revision for each change; safe to use from several threads.

    The predictions are appended to ``clips.jsonl`` in the work folder, so that the next server
    shows them at once.
    """

    def __init__(self, folder: Path, corrections: Corrections, model: str) -> None:
        self.folder = folder
        self.corrections = corrections
        self.work: Path = corrections.path.parent
        self.uploads: Path = self.work / "uploads"
        self.model = model  # digest of the model that predicts
        self.uploads.mkdir(parents=True, exist_ok=True)
        for part in self.uploads.glob("*.part"):
            part.unlink()
        self.roots: list[Path] = [folder.resolve(), self.uploads.resolve()]
        self._files: set[Path] = set()  # files that were opened by name
        self.lock: RLock = RLock()
        self.revision: int = 0
        self._clips: dict[str, Record] = {}
        self._revisions: dict[str, int] = {}
        self._made_by: dict[str, str | None] = {}  # clip -> digest of the model that predicted it
        self._stamps: dict[str, list[int] | None] = {}  # clip -> stamp of its file when predicted
        self._waiting: list[Record] | None = None  # records to be written together
        self._gone: list[Record] = []  # clips of an earlier server whose files are gone
        # Predictions can be made again, so not each of them waits for the disk.
        self._journal = Journal(self.work / "clips.jsonl", durable=False)
        self.problems: list[str] = []
        self.unsaved: str = ""  # sentence on why predictions are only in memory
        self._restore()

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, path: Path, **facts: Any) -> str:
        """List a file, unless it is listed, and return its id; `facts` are keys of its record."""
        clip_id = hashlib.sha256(os.fsencode(contents.place_of(path))).hexdigest()[:16]
        if clip_id not in self._clips or facts:
            stem = Path(facts.get("name") or path.name)
            kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "audio"
            names = {"path": str(path), "name": stem.name, "title": stem.stem, "artist": None}
            record = {"id": clip_id, **names, "kind": kind, "state": "waiting", "map": None}
            self.update(clip_id, record | {"doubt": None, "notes": [], "cautions": [], **facts})
        return clip_id

    def add_folder(self, folder: Path) -> None:
        """List the media files of a folder."""
        left_out: list[tuple[str, str]] = []
        found = find_media(folder, left_out, follow_links=False)
        others = [each for each in left_out if each[1] != BAD_NAME]
        if others:
            example, reason = others[0]
            self.problems.append(f"{len(others)} files were left out, such as {example}: {reason}")
        for name, reason in left_out:
            if reason == BAD_NAME:
                facts = {"name": escaped(Path(name).name), "state": "failed", "error": reason}
                self.add(folder / name, **facts)
        ids = [self.add(folder / name) for name in found]
        with closing(contents.KnownContents()) as known:
            for clip_id in (i for i in ids if not self._clips[i].get("content")):
                path = Path(self._clips[clip_id]["path"])
                with suppress(OSError):
                    if content := known.find(path, stamp_of(path)):
                        self.update(clip_id, {"content": content})

    def add_predictions(self, file: Path, model: FinalModel) -> None:
        """List the clips of a file of predictions with what it says about them.

        BadOption is raised if another model made them.
        """
        clips = list(read_predictions(file))
        for clip in clips:
            outputs = clip.proba or clip.values or model.classes
            if {*outputs} != {*model.classes}:
                raise BadOption(
                    f"{file}: predicts {', '.join(outputs)}, but the model {model.name} predicts "
                    f"{', '.join(model.classes)}: give --model the model that made the file"
                )
        with self.lock:
            self._waiting = []
            for clip in clips:
                path = Path(clip.path)
                path = path if path.exists() else file.parent / path
                if path.suffix.lower() in SUFFIXES:
                    self._files.add(path.resolve())
                self.add_prediction(path, clip, place_on_map(model, clip))
            waiting, self._waiting = self._waiting, None
            self._save(waiting)

    def add_prediction(self, path: Path, clip: ClipPrediction, place: Place | None) -> str:
        """List a file with its prediction and its place on the map; return its id."""
        facts = {**dict.fromkeys(PREDICTED), **clip.record(), **clip.facts, "map": place}
        facts["error"] = clip.error or None
        facts["state"] = "failed" if clip.error else "done"
        del facts["path"]
        return self.add(path, **facts)

    def update(self, clip_id: str, facts: Mapping[str, Any]) -> None:
        """Change keys of a record; a change of the prediction is written to the work folder."""
        with self.lock:
            self.revision += 1
            record = {**self._clips.get(clip_id, {}), **facts}
            self._clips[clip_id], self._revisions[clip_id] = record, self.revision
            if "model" in facts:
                self._made_by[clip_id] = self.model
                self._stamps[clip_id] = _size_and_time(record["path"])
            if self._is_kept(record):
                self._save([record]) if self._waiting is None else self._waiting.append(record)
            if facts.get("content"):
                self.corrections.adopt(facts["content"], Path(record["path"]))

    def key_of(self, clip_id: str, *, read: bool = False) -> str:
        """Return the id under which a clip's correction is stored, one for all copies of a file.

        With `read`, the file is read if its content is not known.
        """
        record = self._clips[clip_id]
        if read and not record.get("content"):
            record = {**record, "content": contents.content_of(self.file_of(clip_id)).digest}
            self.update(clip_id, {"content": record["content"]})
        return self.corrections.key_of(record.get("content") or "", clip_id)

    def alike(self, clip_id: str) -> list[str]:
        """Return the ids of a clip and of its copies."""
        content = self._clips[clip_id].get("content")
        clips = self._clips.copy().items() if content else ()
        return [clip_id, *(i for i, r in clips if i != clip_id and r.get("content") == content)]

    def _save(self, records: Sequence[Record]) -> None:
        """Write records; on a full disk they stay in memory, and all are written later."""
        try:
            self._journal.append(map(self._kept, records))
            if self.unsaved:
                self.compact()
            self.unsaved = ""
        except DiskFailed as error:
            self.unsaved = f"{error}: predictions are kept in memory"

    def touch(self, ids: Iterable[str]) -> None:
        """Report clips as changed."""
        with self.lock:
            for clip_id in ids:
                self.revision += 1
                self._revisions[clip_id] = self.revision

    def get(self, clip_id: str) -> Record:
        """Return the record of a clip with its correction; KeyError for an unknown id."""
        return self.records([clip_id])[0]

    def since(self, revision: int) -> tuple[int, list[Record]]:
        """Return the clips that changed after a revision, oldest first, and the last revision."""
        with self.lock:
            changed = sorted((n, i) for i, n in self._revisions.items() if n > revision)[:PAGE]
            records = self.records([clip_id for _, clip_id in changed])
            return (changed[-1][0] if changed else max(revision, self.revision)), records

    def records(self, ids: Sequence[str]) -> list[Record]:
        """Return the records of clips with their corrections."""
        known, to_json = self.corrections.current, self.corrections.record
        keys = {i: self.key_of(i) for i in ids}
        shown = {i: {**to_json(known[k]), "id": i} for i, k in keys.items() if k in known}
        records = [{**self._clips[i], "correction": shown.get(i)} for i in ids]
        for record in records:
            if record.get("model") and not self.is_predicted(record["id"]):
                record |= {**dict.fromkeys(PREDICTED), "notes": [], "cautions": []}
        return records

    def relative(self, model: FinalModel) -> Record:
        """Return the predicted clips compared with each other, as the API states it."""
        with self.lock:
            done = self.records(self.ids("done"))
        found = [record for record in done if record.get("proba") or record.get("values")]
        clips = [ClipPrediction.of_record(record) for record in found]
        ids = [record["id"] for record in found if record["map"]]
        places = np.array([record["map"] for record in found if record["map"]]).reshape(-1, 2)
        return {
            "clips": len(found),
            "fewest": FEWEST,
            "reason": reason_to_compare(model, clips),
            "map": dict(zip(ids, ranks(places).tolist(), strict=True)),
            "relative": {r["id"]: of for r, of in zip(found, compare(clips), strict=True) if of},
        }

    def ids(self, *states: str) -> list[str]:
        """Return the ids of the clips in one of these states, without states of all."""
        with self.lock:
            return [i for i, r in self._clips.items() if not states or r["state"] in states]

    def is_predicted(self, clip_id: str) -> bool:
        """Return True if the present model predicted a clip."""
        is_known = bool(self._clips[clip_id].get("model"))
        return is_known and self._made_by.get(clip_id) == self.model

    def file_of(self, clip_id: str) -> Path:
        """Return a clip's file, if it is inside the opened folders.

        KeyError is raised for an unknown id, `MissingFile` for a deleted file.
        """
        record = self._clips[clip_id]
        path = self.confined(record["path"])
        if not path.is_file():
            if record["state"] != "missing":
                self.update(clip_id, {"state": "missing"})
            raise MissingFile(f"{record['path']}: the file is gone")
        return path

    def look_again(self) -> None:
        """Find out which files are gone, which are back, and which were replaced."""
        for clip_id in list(self._clips):
            with suppress(OSError, OutsideFolders):
                self.file_of(clip_id)
                record, known = self._clips[clip_id], self._stamps.get(clip_id)
                is_replaced = known not in (None, _size_and_time(record["path"]))
                if record["state"] == "missing" or (record["state"] == "done" and is_replaced):
                    self.update(clip_id, {"state": "waiting", "error": None})

    def confined(self, path: str | Path) -> Path:
        """Return the resolved path, or raise `OutsideFolders` or `MissingFile`."""
        try:
            resolved = Path(path).resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL, a lone surrogate
            raise MissingFile(f"{path}: no such file") from None
        is_inside = any(resolved.is_relative_to(root) for root in self.roots)
        if not (is_inside or resolved in self._files):
            raise OutsideFolders(f"{path}: is outside the opened folders")
        return resolved

    def _restore(self) -> None:
        """Read the clips that an earlier server knew, if their files are unchanged."""
        named, n_bad = self._journal.read(_named)
        if n_bad:
            self.problems.append(f"{self._journal.path}: {n_bad} unreadable lines were skipped")
        for clip_id, record in dict(named).items():
            now = _size_and_time(record["path"])
            if now is None:
                # The file may be on a disk that is unplugged.
                self._gone.append(record)
                continue
            stamp, made_by = record.pop("stamp", None), record.pop("made_by", None)
            if stamp != now:
                continue
            is_failed = record["state"] == "failed"
            if made_by != self.model or (is_failed and record["error"] == CANCELLED):
                record["state"] = "waiting"
            self.revision += 1
            self._clips[clip_id], self._revisions[clip_id] = record, self.revision
            self._made_by[clip_id], self._stamps[clip_id] = made_by, stamp
        self.compact()

    def compact(self) -> None:
        """Write one line for each clip, in the form of ``mvemo predict --jsonl``."""
        with self.lock:
            kept = [self._kept(r) for r in self._clips.values() if self._is_kept(r)]
            # A clip whose file is gone may have been moved, and is then among the others.
            here = {record.get("content") for record in kept} - {None}
            self._gone = [r for r in self._gone if r.get("content") not in here]
            self._journal.replace([*self._gone, *kept])

    def _is_kept(self, record: Record) -> bool:
        """Return True if the next server must know the clip."""
        is_upload = Path(record["path"]).parent == self.uploads
        return is_upload or record["state"] in ("done", "failed")

    def _kept(self, record: Record) -> Record:
        """Return the entry of a clip in the work folder."""
        made_by = self._made_by.get(record["id"])
        return {**record, "stamp": _size_and_time(record["path"]), "made_by": made_by}


def prediction_facts(model: FinalModel, clip: ClipPrediction, name: str, path: Path) -> Record:
    """Return the keys that the page adds to the prediction of a file of this name."""
    tags = song_facts(path)
    # Without a title, `tags` have the file's name, which is random for an upload.
    title = tags["title"] if tags["title"] != path.stem else Path(name).stem
    state, place = "failed" if clip.error else "done", place_on_map(model, clip)
    facts = {"name": name, "title": title, "artist": tags["artist"], "state": state, "map": place}
    return {**facts, "doubt": clip.doubt, "error": clip.error or None}


def place_on_map(model: FinalModel, clip: ClipPrediction) -> Place | None:
    """Return a clip's place on the map in 0..1: valence and arousal, if they are known.

    Otherwise each output pulls the clip towards its point on a circle.
    """
    if clip.plane:
        return (clip.plane["valence"] + 1) / 2, (clip.plane["arousal"] + 1) / 2
    ratings = {}
    for name, value in clip.ratings.items():
        low, high = model.ends(name)
        ratings[name] = (value - low) / (high - low or 1.0)
    weights = clip.proba or ratings
    place = place_of(ratings, weights)
    if place is None and (total := sum(weights.values())):
        angles = {name: 2 * math.pi * i / len(weights) for i, name in enumerate(weights)}
        place = (
            0.5 + 0.5 * sum(w * math.cos(angles[name]) for name, w in weights.items()) / total,
            0.5 + 0.5 * sum(w * math.sin(angles[name]) for name, w in weights.items()) / total,
        )
    return None if place is None else (min(max(place[0], 0), 1), min(max(place[1], 0), 1))


def map_axes(model: FinalModel) -> list[str]:
    """Return the names of the map's axes."""
    each = dict.fromkeys(model.classes, 1.0)
    place = place_of(each, {}) if model.task == "regression" else place_of({}, each)
    return ["valence", "arousal"] if place else ["component 1", "component 2"]


def _size_and_time(path: str) -> list[int] | None:
    """Return size and time of a file, which it keeps when moved; None if there is no file."""
    return (find_stamp(path) or [])[:2] or None


def _named(record: Record) -> tuple[str, Record]:
    """Return (id, record); raise KeyError or TypeError for a record of another program."""
    os.fsencode(record["path"])
    return str(record["id"]), {**record, "state": record["state"], "name": record["name"]}

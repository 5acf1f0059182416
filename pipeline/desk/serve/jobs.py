"""Jobs of the server: a bounded queue, and one thread that keeps the nets in memory."""

import secrets
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import cycle
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from mvemo.fuse.conformal import Asked
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.model_files import MODEL, load_model, record_digest
from mvemo.manifests import dimensions, files
from mvemo.manifests.errors import MissingFile, MvemoError
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.desk.serve import library as libraries
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings

# Coverage of the prediction sets.
COVERAGE = 0.9
# Largest number of waiting jobs.
MOST_WAITING = 200
# Finished jobs that are still listed.
MOST_FINISHED = 100
# Similar clips that are listed.
MOST_SIMILAR = 50
# Number of clips of a step; the jobs take turns, so that no job waits for a whole folder.
STEP = 8


@dataclass
class Job:
    """One job and its progress."""

    kind: str  # ``scan``, ``predict``, ``timeline``, ``explain``, ``similar`` or ``learn``
    ids: list[str] = field(default_factory=list)  # clips
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: str = "waiting"  # ``running``, ``done``, ``failed`` or ``cancelled``
    done: int = 0
    total: int = 0
    failed: int = 0
    message: str = ""
    seconds_left: float | None = None
    result: Any = None
    name: str = ""  # of a learned model or a clip, or the folder of a scan
    seconds: float = 0.0  # time that it took so far

    @property
    def is_alive(self) -> bool:
        """Return True for a job that waits or runs."""
        return self.state in ("waiting", "running")

    def record(self) -> dict[str, Any]:
        """Return the job as JSON values, without the ids of its clips."""
        hidden = ("ids", "seconds")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}


class QueueFull(Exception):
    """The queue has no room for another job."""


class JobWorker:
    """Thread that runs jobs one after the other with warm nets."""

    def __init__(
        self, library: libraries.Library, folder: Path, settings: PredictSettings, model: FinalModel
    ) -> None:
        self.library, self.base, self.settings = library, folder, settings
        self._catalogue = library.work / "features.h5"
        self.folder: Path = folder
        self.model = model
        self.jobs: dict[str, Job] = {}
        self.counts: dict[str, int] = dict.fromkeys(("predicted", "failed"), 0)
        self.seconds: float = 0.0
        self.problem: str = ""  # sentence on why no clip can be predicted now
        self._waiting: deque[Job] = deque()
        # Guards the queue, and the model together with what it predicted.
        self._changed, self._stopping = Condition(), False
        self._maker: Any = None  # of the model with this digest
        self._maker_of = library.model
        self._details: dict[tuple[str, str, str], Any] = {}
        self._thread = Thread(target=self._run, name="mvemo-jobs", daemon=True)

    @property
    def models(self) -> dict[str, Path]:
        """Folders of the models by name: the given one, then the learned ones."""
        learned = sorted((self.library.work / "models").glob(f"*/{MODEL}"))
        return {self.base.name: self.base, **{file.parent.name: file.parent for file in learned}}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step; the next server predicts clips of waiting jobs."""
        with self._changed:
            self._stopping = True
            for job in self.jobs.values():
                if job.state == "running":
                    job.state = "cancelled"
            self._changed.notify()
        self._thread.join(10)

    def check_room(self) -> None:
        """Raise `QueueFull` if too many jobs wait."""
        if len(self._waiting) >= MOST_WAITING:
            raise QueueFull(f"{len(self._waiting)} jobs are waiting: try again later")

    def submit(self, job: Job, *, is_checked: bool = False) -> Job:
        """Queue a job; `QueueFull` if too many wait, unless `check_room` was called before."""
        with self._changed:
            if not is_checked:
                self.check_room()
            job.total = len(job.ids) or 1
            ended = [name for name, old in self.jobs.items() if not old.is_alive]
            for name in ended[:-MOST_FINISHED]:
                del self.jobs[name]
            self.jobs[job.id] = job
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """End a job; clips that the model predicted before keep their predictions."""
        with self._changed:
            if job.is_alive:
                job.state = "cancelled"
            if job in self._waiting:
                self._waiting.remove(job)
        self._end_clips(job.ids[job.done :] if job.kind == "predict" else [], libraries.CANCELLED)

    def detail(self, kind: str, clip_id: str) -> tuple[Any, Job | None]:
        """Return the timeline or explanation of a clip if it is known, else its job."""
        if (found := self._details.get(self._key(kind, clip_id, self.library.model))) is not None:
            return found, None
        return None, self.only(Job(kind, [clip_id], name=self.library.get(clip_id)["title"]))

    def _key(self, kind: str, clip_id: str, model: str) -> tuple[str, str, str]:
        path = self.library.get(clip_id)["path"]
        return kind, f"{path} {files.find_stamp(path)}", model

    def only(self, job: Job) -> Job:
        """Queue a job and return it, or return an equal job that already waits or runs."""
        alive = [each for each in [*self.jobs.values()] if each.is_alive]
        same = (each for each in alive if (each.kind, each.ids) == (job.kind, job.ids))
        return next(same, None) or self.submit(job)

    def use(self, folder: Path) -> Job:
        """Switch to another model and predict all clips again, from their stored features."""
        model, digest = load_model(folder), record_digest(folder)
        if (model.task, {*model.classes}) != (self.model.task, {*self.model.classes}):
            raise MvemoError(
                f"{folder}: predicts {', '.join(model.classes)}, but the corrections are of "
                f"{', '.join(self.model.classes)}: serve it with another --work folder"
            )
        with self._changed:
            ids = self.library.ids("done", "failed", "waiting", "running")
            job = self.submit(Job("predict", ids))
            self.model, self.folder, self.library.model = model, folder, digest
            self._details.clear()
            self._set_state(ids, ("done", "failed", "running"), "waiting")
            self.library.touch(ids)
        return job

    # --- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                job = self._waiting.popleft()
                job.state = "running"
            try:
                job.result = getattr(self, f"_{job.kind}")(job)
                if job.kind == "predict":
                    self.problem = ""
            except CancelledError:
                pass
            except Exception as error:
                if not is_told(error):
                    _say(sys.stderr.write, traceback.format_exc())
                job.message = str(error) or type(error).__name__
                job.state = "failed"
                _say(tell_note, f"{job.kind}: {job.message}")
                if job.kind in ("predict", "scan"):
                    self.problem = f"{job.kind}: {job.message}"
                    self._end_clips(job.ids, job.message)
            with self._changed:
                if job.state == "running" and job.kind == "predict" and job.done < job.total:
                    self._waiting.append(job)
                elif job.state == "running":
                    job.state = "done"

    def _warm(self) -> Any:
        """Return the feature maker of the current model, whose nets stay in memory."""
        with self._changed:
            folder, model, digest = self.folder, self.model, self.library.model
        if self._maker is None or self._maker_of != digest:
            from mvemo.pipeline import model_nets
            from mvemo.pipeline.prediction import feature_maker

            # Models that were adapted to corrections may lack thresholds.
            has_sets = bool(model.predictors[0].nonconformity)
            settings = replace(self.settings, coverage=Asked(COVERAGE) if has_sets else None)
            model_nets.fetch_model_weights(folder, settings.modalities, but=settings.weights)
            self._maker, self._maker_of = feature_maker.FeatureMaker(folder, settings), digest
        return self._maker

    def _scan(self, job: Job) -> int:
        """List the clips of a folder; queue clips without a prediction, and return their number."""
        self.library.add_folder(Path(job.name))
        self.library.look_again()
        predicting = [j for j in [*self.jobs.values()] if j.is_alive and j.kind == "predict"]
        queued = {i for j in predicting for i in j.ids[j.done :]}
        waiting = [i for i in self.library.ids("waiting", "running") if i not in queued]
        job.done = 1
        _say(tell, f"{job.name}: {len(self.library)} clips, {len(waiting)} to predict")
        if waiting:
            self.submit(Job("predict", waiting), is_checked=True)
        return len(waiting)

    def _predict(self, job: Job) -> None:
        """Predict the next `STEP` clips of a job."""
        if not job.done:
            self._set_state(job.ids, ("done", "failed"), "waiting")
        start = time.monotonic()
        self._warm()
        ids = job.ids[job.done : job.done + STEP]
        try:
            self._read(job, ids)
        except Exception as error:
            if is_told(error):
                raise
            # One of the files has a problem that nobody foresaw: the others are predicted.
            for clip_id in ids:
                try:
                    self._read(job, [clip_id])
                except Exception as problem:
                    _say(sys.stderr.write, traceback.format_exc())
                    self._fail(job, clip_id, f"{type(problem).__name__}: {problem}")
        job.done += len(ids) or job.total  # a model may be switched in an empty folder
        seconds = time.monotonic() - start
        job.seconds, self.seconds = job.seconds + seconds, self.seconds + seconds
        job.seconds_left = job.seconds / job.done * (job.total - job.done)
        if ids and job.done == job.total:
            _say(tell, f"predicted {job.done} clips in {duration_text(job.seconds)}")

    def _read(self, job: Job, ids: Sequence[str]) -> None:
        """Compute the features of clips, or read them from the work folder, and predict."""
        from mvemo.pipeline.prediction import catalogue

        clips = {}
        for row, clip_id in enumerate(ids):
            try:
                path = self.library.file_of(clip_id)
                clips[row] = NewClip(self.library.get(clip_id)["path"], path)
                self.library.update(clip_id, {"state": "running"})
            except MissingFile as error:
                job.failed, job.message = job.failed + 1, str(error)
            except libraries.OutsideFolders as error:
                self._fail(job, clip_id, str(error))
        if not clips:
            return
        maker = self._warm()
        source = catalogue.Catalogue(self._catalogue, maker, keep_absent=True)
        with closing(source.read(clips)) as found:
            for batch in found:
                self._store(job, maker, [(ids[row], clip) for row, clip in batch])

    def _fail(self, job: Job, clip_id: str, reason: str) -> None:
        job.failed, job.message = job.failed + 1, f"{self.library.get(clip_id)['name']}: {reason}"
        self.library.update(clip_id, {"state": "failed", "error": reason})

    def _store(self, job: Job, maker: Any, batch: Sequence[tuple[str, Any]]) -> None:
        from mvemo.fuse.final import prediction_records
        from mvemo.pipeline.prediction import run

        for clip_id, embedded in batch:
            clip = run.predict_clip(maker, embedded)
            name = self.library.get(clip_id)["name"]
            shown = libraries.prediction_facts(maker.model, clip, name, embedded.clip.path)
            record = {**prediction_records.records(maker.model, [clip], facts=True)[0], **shown}
            with self._changed:
                if self._maker_of != self.library.model:
                    return  # the job of another model predicts these clips
                self.library.update(clip_id, record)
            self.counts["failed" if record["error"] else "predicted"] += 1
            job.failed += bool(record["error"])
            # Known lists of similar clips may lack this clip.
            self._details = {key: x for key, x in self._details.items() if key[0] != "similar"}
            if record["error"]:
                job.message = f"{record['name']}: {record['error']}"

    def _timeline(self, job: Job) -> None:
        from mvemo.pipeline.prediction import timeline

        maker, clip, progress = self._warm(), self._clip(job.ids[0]), self._progress_of(job)
        followed = timeline.follow_clip(maker, clip, timeline.TimelineSettings(), progress)
        windows = timeline.window_records(maker.model, followed)
        self._keep(job, {"windows": windows, "changes": timeline.changes_of(maker.model, followed)})

    def _explain(self, job: Job) -> None:
        from mvemo.pipeline.prediction import explain

        maker, clip, progress = self._warm(), self._clip(job.ids[0]), self._progress_of(job)
        found = explain.explain_clip(maker, clip, explain.ExplainSettings(), progress)
        keys = ("second", "modality", "loss")
        stretches = [dict(zip(keys, each, strict=True)) for each in found.stretches()]
        self._keep(job, {"stretches": stretches, "text": explain.explanation_text(found)})

    def _similar(self, job: Job) -> None:
        from mvemo.pipeline.desk import similar

        clips = {}
        for clip_id in dict.fromkeys([*job.ids, *self.library.ids("done")]):
            with suppress(MissingFile, libraries.OutsideFolders):
                clips[clip_id] = self._clip(clip_id)
        found, rows = similar.embed_library(self._warm(), [*clips.values()], self._catalogue)
        if 0 not in rows:
            raise MvemoError(f"{job.name}: has no features to compare")
        ids, matches = [*clips], similar.similar_songs(found, [rows.index(0)], MOST_SIMILAR)
        self._keep(job, {"ids": [ids[rows[match.row]] for match in matches]})

    def _clip(self, clip_id: str) -> NewClip:
        return NewClip(self.library.get(clip_id)["name"], self.library.file_of(clip_id))

    def _learn(self, job: Job) -> dict[str, Any]:
        from mvemo.fuse.final import learning

        corrections, out = self.library.corrections, self.library.work / "models" / job.name
        corrections.flush()
        out.parent.mkdir(exist_ok=True)
        found = learning.learn(corrections.path, self._catalogue, model=self.base, out=out)
        job.done = 1
        return asdict(found)

    def _keep(self, job: Job, detail: Any) -> None:
        # Silence has a loudness of minus infinity, which JSON lacks.
        key = self._key(job.kind, job.ids[0], self._maker_of)
        self._details[key] = files.to_json_values(detail)
        job.done, job.seconds_left = job.total, None

    def _progress_of(self, job: Job) -> Callable[[float], None]:
        """Return a function that takes a job's share of work done, and ends it if cancelled."""
        start, job.total = time.monotonic(), 100

        def progress(share: float) -> None:
            if job.state == "cancelled":
                raise CancelledError
            job.done = int(100 * share)
            if share > 0:
                job.seconds_left = (time.monotonic() - start) * (1 / share - 1)

        return progress

    def _end_clips(self, ids: Sequence[str], reason: str) -> None:
        """Give the clips of an ended job their former prediction, or the reason of a failure."""
        known = [clip_id for clip_id in ids if self.library.is_predicted(clip_id)]
        self._set_state(known, ("waiting", "running"), "done")
        self._set_state(ids, ("waiting", "running"), "failed", reason)

    def _set_state(
        self, ids: Sequence[str], states: Sequence[str], state: str, error: str | None = None
    ) -> None:
        """Change the state of clips that are in one of `states`."""
        for clip_id in set(ids) & set(self.library.ids(*states)):
            self.library.update(clip_id, {"state": state, "error": error})

    def model_record(self, name: str, folder: Path) -> dict[str, Any]:
        """Return what the page must know about a model."""
        from mvemo.fuse.final import clip_prediction, formats
        from mvemo.pipeline.models import boxed
        from mvemo.pipeline.prediction import page, wording

        is_current, library = folder == self.folder, self.library
        model: FinalModel = self.model if is_current else load_model(folder)
        moods = [*(dimensions.QUADRANTS if formats.has_quadrants(model) else model.classes)]
        found = library.records(library.ids("done") if is_current else ())
        of_record = clip_prediction.ClipPrediction.of_record
        clips = [of_record(record) for record in found if record.get("model")]
        measured = wording.judged_words(wording.judged_in([library.work], clips, model.task))
        words = f"On new clips, expect: {boxed.expected_words(model, model.predictors[0])}."
        expected = [words, *boxed.elsewhere_words(model)]
        if measured:
            expected = [f"On your clips: {measured}."]
        return {
            "name": name,
            "task": model.task,
            "outputs": list(model.classes),
            "moods": moods,
            "colors": dict(zip(dict.fromkeys([*moods, *model.classes]), cycle(page.COLOURS))),
            "scale": {name: list(model.ends(name)) for name in model.scale},
            "axes": libraries.map_axes(model),
            "expected": " ".join(expected),
            "current": is_current,
        }


def _say(say: Callable[[str], object], text: str) -> None:
    """Print a text; stderr may be a file on a full disk, which must not end the thread."""
    with suppress(OSError):
        say(text)


def is_told(error: Exception) -> bool:
    """Return True for an error of this package, which is a sentence for users; others are bugs."""
    return type(error).__module__.partition(".")[0] == "mvemo"

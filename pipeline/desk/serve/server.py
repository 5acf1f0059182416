"""The process of ``mvemo serve``: what it opens, its lock, socket, start and end."""

import re
import secrets
import socket
import webbrowser
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from filelock import FileLock, Timeout

from mvemo.extract.media import isolated
from mvemo.fuse import prediction_files
from mvemo.fuse.final import clip_prediction, prediction_records
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.model_files import load_model, record_digest
from mvemo.manifests import Manifest, read_manifest, text_files
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.layouts.scan import find_media
from mvemo.pipeline.clips.clip_tables import manifest_of
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk.serve import access, app, corrections, jobs
from mvemo.pipeline.desk.serve.library import Library
from mvemo.pipeline.models import boxed
from mvemo.pipeline.prediction import new_clips

# Port that is tried first if none is given, so that an open page finds the next server.
PORT = 8400
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Files of a folder that ``mvemo fuse`` wrote.
RUN_FILES = ("metrics.json", "predictions.csv")
# Number of clips with the least probable true class.
MOST_HARD = 50


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the server."""

    model: Path  # folder
    predict: new_clips.PredictSettings
    work: Path | None  # None for ``.mvemo`` in the opened folder
    port: int | None  # None for `PORT` or, if it is in use, any free one
    host: str
    token: str | None  # None for a random one
    no_open: bool  # do not open the browser
    max_upload: int  # MB


def serve(source: Path, settings: ServeSettings) -> None:
    """Serve a folder of media, a file of predictions, or a run, until a signal ends it."""
    if settings.host not in LOOPBACK and not settings.token:
        raise BadOption(f"--host {settings.host}: others can reach it: give --token, too")
    if settings.token and not re.fullmatch(r"[\w-]{8,}", settings.token):
        raise BadOption("--token: expected at least 8 letters, digits, '-' and '_'")
    folder = source if source.is_dir() else source.parent
    work = settings.work or folder / ".mvemo"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "server.lock")
        lock.acquire(timeout=0)
    except (Timeout, OSError) as error:
        text = f"{error.strerror}: give --work a folder that can be written"
        if isinstance(error, Timeout):
            text = "another mvemo serve uses it: give --work another folder"
        raise BadOption(f"{work}: {text}") from None
    with lock, _listen(settings) as listening:
        model, run, report = load_model(settings.model), None, None
        if all((source / name).is_file() for name in RUN_FILES):
            run = _read_run(source, model)
        scale = {name: model.ends(name) for name in model.scale} if model.facts.get("scale") else {}
        kept = corrections.Corrections(
            work / "corrections.csv", model.name, model.task, model.classes, scale
        )
        if kept.problem:
            tell_note(kept.problem)
        root = folder if run is None else run[2].root
        library = Library(root, kept, record_digest(settings.model))
        worker = jobs.JobWorker(library, settings.model, settings.predict, model)
        if run is not None:
            report = _list_run(*run, source.name, library)
        elif source.is_dir():
            worker.submit(jobs.Job("scan", name=str(folder)))
        else:
            library.add_predictions(source, model)
            if waiting := library.ids("waiting", "running"):
                worker.submit(jobs.Job("predict", waiting))
        api = app.Api(library, worker, str(source), settings.max_upload * 1_000_000, report)
        _run(api, listening, settings)


def default_model(source: Path, work: Path | None) -> Path:
    """Return the model that made PREDICTIONS, or the default for the files and the corrections."""
    clips, task, folder = list[new_clips.NewClip](), "", source
    if source.is_dir():
        found = find_media(source, [], follow_links=False)
        clips = [new_clips.NewClip(name, source / name) for name in found]
    else:
        folder, first = source.parent, next(prediction_records.read_predictions(source), None)
        made_by = (first.model if first else None) or ""
        if (name := made_by.partition("/")[0]) in boxed.boxed_names():
            return boxed.model_folder(name)
    # Corrections of a former call stay valid if the folder now has other kinds of files.
    with suppress(MvemoError):
        task = read_manifest((work or folder / ".mvemo") / "corrections.csv", media=False).task
    return boxed.pick_model(None, new_clips.have_pictures(clips), task)


def _read_run(folder: Path, model: FinalModel) -> tuple[prediction_files.Run, Any, Manifest]:
    """Return a run of the model, its metrics, and the manifest of its clips."""
    metrics = text_files.read_json(folder / RUN_FILES[0])
    facts = metrics["provenance"].get("stage_one", {}).get("manifest", {})
    if (manifest := manifest_of(facts)) is None:
        raise BadOption(f"{folder}: the manifest of its clips is gone: {facts.get('file', '')}")
    run = prediction_files.read_run(folder)
    first = run.repeats[0]
    if run.task.name != "multiclass":
        raise BadOption(f"{folder}: expected a run with classes, got {run.task.name} labels")
    if {*first.classes} != {*model.classes}:
        raise BadOption(
            f"{folder}: predicts {', '.join(first.classes)}, but the model {model.name} predicts "
            f"{', '.join(model.classes)}: give --model the model that the run made"
        )
    return run, metrics, manifest


def _list_run(
    run: prediction_files.Run, metrics: Any, manifest: Manifest, folder: str, library: Library
) -> dict[str, Any]:
    """List the clips of a run with their out-of-fold predictions, and return its report.

    The report has the ``confusion`` matrix (``classes``, ``counts``, ``ids`` of each cell), the
    ids of the ``hard`` clips, hardest first, and the score to ``expect`` as a sentence.
    """
    first = run.repeats[0]
    models, primary, classes = metrics["models"], metrics["primary_metric"], first.classes
    best = (metrics["choice"] or {}).get("model")
    if best is None:
        best = max(models, key=lambda name: models[name][primary]["mean"] or 0)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    ids: list[list[list[str]]] = [[[] for _ in classes] for _ in classes]
    hard: list[tuple[float, str]] = []
    for name, true, outputs in zip(first.clip_ids, first.y_true, first.outputs[best], strict=True):
        if name not in clips:
            continue
        path, is_predicted = manifest.media_path(clips[name]), bool(np.isfinite(outputs).all())
        proba = dict(zip(classes, outputs.tolist(), strict=True)) if is_predicted else {}
        label, notes = int(outputs.argmax()), (f"true label: {classes[true]}",)
        clip = clip_prediction.ClipPrediction(str(path), f"{folder}/{best}", proba, notes=notes)
        if is_predicted:
            sure = max(proba.values())
            clip = replace(clip, label=classes[label], confidence=sure, doubt=1 - sure)
        clip_id = library.add_prediction(path, clip, clip.place)
        if is_predicted:
            ids[true][label].append(clip_id)
        if not is_predicted or label != true:
            hard.append((proba.get(classes[true], 0.0), clip_id))
    return {
        "confusion": {
            "classes": list(classes),
            "counts": [[len(cell) for cell in cells] for cells in ids],
            "ids": ids,
        },
        "hard": [clip_id for _, clip_id in sorted(hard)[:MOST_HARD]],
        "expected": f"{best}: {run.task.primary_title} {models[best][primary]['mean']:.3f} on "
        "clips that it was not trained on.",
    }


def _listen(settings: ServeSettings) -> socket.socket:
    """Return the socket that the server listens on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    ports = [PORT, 0] if settings.port is None else [settings.port]
    for port in ports:
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, port))
            return listening
        except OSError as error:
            listening.close()
            reason = error.strerror
    raise BadOption(f"--host {settings.host} --port {settings.port}: {reason}")


def _run(api: app.Api, listening: socket.socket, settings: ServeSettings) -> None:
    port, token = listening.getsockname()[1], settings.token or secrets.token_urlsafe(24)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}/?token={token}"
    served = app.make_app(api, partial(access.Access, token=token, port=port, host=settings.host))
    how: dict[str, Any] = {"access_log": False, "timeout_graceful_shutdown": 2}
    server = _Server(uvicorn.Config(served, log_level="warning", **how))
    server.api, server.url, server.opens = api, url, not settings.no_open
    isolated.start_readers()
    api.worker.start()
    try:
        server.run(sockets=[listening])
    finally:
        api.worker.stop()
        api.library.compact()


class _Server(uvicorn.Server):
    """Server that prints its address once it serves, and wakes waiting requests at its end."""

    api: app.Api
    url: str
    opens: bool  # open the browser

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.url, flush=True)
        if self.opens:
            webbrowser.open(self.url)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.api.is_stopping = True
        super().handle_exit(sig, frame)

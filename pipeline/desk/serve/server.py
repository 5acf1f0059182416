"""The process of ``mvemo serve``: what it opens, its lock, socket, start and end."""

import re
import secrets
import socket
import webbrowser
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from filelock import FileLock, Timeout

from mvemo.cache.spec import content_digest
from mvemo.extract.media import isolated
from mvemo.fuse import compare_runs
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model import MODEL, FinalModel, load_model
from mvemo.manifests import Manifest
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_files import read_json
from mvemo.pipeline.clips.clip_tables import manifest_of
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk.serve import access, app, corrections
from mvemo.pipeline.desk.serve.jobs import Job, JobWorker
from mvemo.pipeline.desk.serve.library import Library
from mvemo.pipeline.prediction.new_clips import PredictSettings

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
    work: Path | None = None  # None for ``.mvemo`` in the opened folder
    port: int | None = None  # None for `PORT` or, if it is in use, any free one
    host: str = "127.0.0.1"
    token: str = ""  # empty for a random one
    open: bool = True  # open the browser
    most_upload: int = 2_000_000_000  # bytes
    predict: PredictSettings = field(default_factory=PredictSettings)


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
    except Timeout:
        text = "another mvemo serve uses it: give --work another folder"
        raise BadOption(f"{work}: {text}") from None
    except OSError as error:
        text = f"{error.strerror}: give --work a folder that can be written"
        raise BadOption(f"{work}: {text}") from None
    with lock, _listen(settings) as listening:
        is_run = all((source / name).is_file() for name in RUN_FILES)
        manifest = _run_manifest(source) if is_run else None
        root = folder if manifest is None else manifest.root
        model, report = load_model(settings.model), None
        scale = {name: model.ends(name) for name in model.scale} if model.facts.get("scale") else {}
        kept = corrections.Corrections(
            work / "corrections.csv", model.name, model.task, model.classes, scale
        )
        if kept.problem:
            tell_note(kept.problem)
        library = Library([root], kept, content_digest(settings.model / MODEL))
        worker = JobWorker(library, settings.model, settings.predict, model)
        if manifest is not None:
            report = _open_run(source, manifest, library, model)
        elif source.is_dir():
            worker.submit(Job("scan", name=str(folder)))
        else:
            library.add_predictions(source, model)
            if waiting := library.ids("waiting", "running"):
                worker.submit(Job("predict", waiting))
        api = app.Api(library, worker, str(source), settings.most_upload, report)
        _run(api, listening, settings)


def _open_run(
    folder: Path, manifest: Manifest, library: Library, model: FinalModel
) -> dict[str, Any]:
    """List the clips of a run with their out-of-fold predictions, and return its report.

    The report has the ``confusion`` matrix (``classes``, ``counts``, ``ids`` of each cell), the
    ids of the ``hard`` clips, hardest first, and the score to ``expect`` as a sentence.
    """
    run, metrics = compare_runs.read_run(folder), read_json(folder / RUN_FILES[0])
    first = run.repeats[0]
    if run.task.name != "multiclass":
        raise BadOption(f"{folder}: expected a run with classes, got {run.task.name} labels")
    if {*first.classes} != {*model.classes}:
        raise BadOption(
            f"{folder}: predicts {', '.join(first.classes)}, but the model {model.name} predicts "
            f"{', '.join(model.classes)}: give --model the model that the run made"
        )
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
        clip = ClipPrediction(str(path), f"{folder.name}/{best}", proba, notes=notes)
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


def _run_manifest(folder: Path) -> Manifest:
    """Return the manifest that a run's features were made with, which must still be there."""
    facts = read_json(folder / RUN_FILES[0])["provenance"].get("stage_one", {}).get("manifest", {})
    if (manifest := manifest_of(facts)) is None:
        raise BadOption(f"{folder}: the manifest of its clips is gone: {facts.get('file', '')}")
    return manifest


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
    server = _Server(
        uvicorn.Config(served, log_level="warning", access_log=False, timeout_graceful_shutdown=2),
        api,
        url,
        settings.open,
    )
    isolated.start_readers()
    api.worker.start()
    try:
        server.run(sockets=[listening])
    finally:
        api.worker.stop()
        api.library.compact()


class _Server(uvicorn.Server):
    """Server that prints its address once it serves, and wakes waiting requests at its end."""

    def __init__(self, config: uvicorn.Config, api: app.Api, url: str, opens: bool) -> None:
        super().__init__(config)
        self._api, self._url, self._opens = api, url, opens

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self._url, flush=True)
        if self._opens:
            webbrowser.open(self._url)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._api.is_stopping = True
        super().handle_exit(sig, frame)

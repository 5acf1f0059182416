"""The process of ``mvemo serve``: its folders, lock, socket, start and end."""

import re
import socket
import webbrowser
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout

from mvemo.cache.spec import content_digest
from mvemo.extract.media.isolated import start_readers
from mvemo.fuse.final.model import MODEL
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.desk.serve import run_folder
from mvemo.pipeline.desk.serve.access import Access, new_token
from mvemo.pipeline.desk.serve.app import Api, make_app
from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.serve.jobs import Job, JobWorker
from mvemo.pipeline.desk.serve.library import Library
from mvemo.pipeline.prediction.new_clips import PredictSettings

# Port that is tried first if none is given, so that an open page finds the next server.
PORT = 8400
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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
    """Serve a folder of media, a file of predictions, or a run, until a signal ends it.

    Raises
    ------
    BadOption
        The source cannot be opened, another server uses its work folder, or the port is taken.
    """
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
        raise BadOption(
            f"{work}: another mvemo serve uses it: give --work another folder"
        ) from None
    except OSError as error:
        raise BadOption(
            f"{work}: {error.strerror}: give --work a folder that can be written"
        ) from None
    with lock, _listen(settings) as listening:
        manifest = run_folder.run_manifest(source) if run_folder.is_run(source) else None
        root = folder if manifest is None else manifest.root
        library = Library([root], work, content_digest(settings.model / MODEL))
        worker = JobWorker(library, settings.model, settings.predict)
        model = worker.model
        report = None
        if manifest is not None:
            report = run_folder.open_run(source, manifest, library, model)
        scale = {name: model.ends(name) for name in model.scale} if model.facts.get("scale") else {}
        library.corrections = Corrections(
            work / "corrections.csv", model.name, model.task, model.classes, scale
        )
        if library.corrections.problem:
            tell_note(library.corrections.problem)
        if manifest is None and source.is_dir():
            worker.submit(Job("scan", name=str(folder)))
        elif manifest is None:
            library.add_predictions(source, model)
            if waiting := library.ids("waiting", "running"):
                worker.submit(Job("predict", waiting))
        api = Api(library, worker, str(source), settings.most_upload, report)
        _run(api, listening, settings)


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


def _run(api: Api, listening: socket.socket, settings: ServeSettings) -> None:
    port, token = listening.getsockname()[1], settings.token or new_token()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}/?token={token}"
    app = make_app(api, partial(Access, token=token, port=port, host=settings.host))
    server = _Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2),
        api,
        url,
        settings.open,
    )
    start_readers()
    api.worker.start()
    try:
        server.run(sockets=[listening])
    finally:
        api.worker.stop()
        api.library.compact()


class _Server(uvicorn.Server):
    """Server that prints its address once it serves, and wakes waiting requests at its end."""

    def __init__(self, config: uvicorn.Config, api: Api, url: str, opens: bool) -> None:
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

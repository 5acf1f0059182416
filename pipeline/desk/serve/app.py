"""The server's answers: the page, the API under ``/api/v1``, and media (``openapi.json``)."""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from mvemo.manifests.errors import MissingFile, MvemoError
from mvemo.manifests.files import find_stamp
from mvemo.manifests.layouts.scan import find_media
from mvemo.manifests.text_files import parse_json
from mvemo.pipeline.desk.playlists import file_stem, write_playlist
from mvemo.pipeline.desk.serve.access import Access
from mvemo.pipeline.desk.serve.corrections import KEPT
from mvemo.pipeline.desk.serve.jobs import Job, JobWorker, QueueFull
from mvemo.pipeline.desk.serve.library import SUFFIXES, Library, OutsideFolders
from mvemo.pipeline.desk.serve.waveform import read_waveform

PAGE = Path(__file__).with_name("page")
SCHEMA = Path(__file__).with_name("openapi.json")
# Longest wait for a change, and the time between two checks, in seconds.
MOST_WAIT, LOOK = 25.0, 0.1
# Largest JSON body in bytes.
MOST_JSON = 1 << 20
# Longest pause in seconds of a client that still sends what is refused.
MOST_PAUSE = 2.0
# Names of media types that differ from the suffix; the system's list may lack them.
TYPES = {
    **{".avi": "x-msvideo", ".mkv": "x-matroska", ".mov": "quicktime", ".mp3": "mpeg"},
    **dict.fromkeys((".m2ts", ".mts", ".ts"), "mp2t"),
    **dict.fromkeys((".m4a", ".m4v"), "mp4"),
    **dict.fromkeys((".mpg", ".vob"), "mpeg"),
    **dict.fromkeys((".oga", ".ogv", ".opus"), "ogg"),
}
# Error of a call to the status of its answer.
STATUS: dict[type[Exception], int] = {
    KeyError: 404,
    MissingFile: 404,
    OutsideFolders: 403,
    QueueFull: 429,
    ClientDisconnect: 400,
    OSError: 503,
    MvemoError: 422,
}

Handler = Callable[[Request], Any]
# Text format of Prometheus.
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Json(JSONResponse):
    """JSON in ASCII: a text may have characters that UTF-8 cannot hold, such as lone surrogates."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


@dataclass
class Api:
    """Handlers of the API, one per route."""

    library: Library
    worker: JobWorker
    shown: str  # the opened folder or file
    most_upload: int  # bytes
    report: dict[str, Any] | None = None
    requests: int = 0
    is_stopping: bool = False
    _peaks: dict[str, Any] = field(default_factory=dict)
    # Waveforms are read by few threads, so that a person who hurries through the list does not
    # start a worker process for every clip.
    _readers: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 2))

    def routes(self) -> list[Route]:
        """Return the documented routes; a handler's name has the method and the path."""
        routes = []
        for path, methods in parse_json(SCHEMA.read_bytes())["paths"].items():
            name = re.sub(r"\W+", "_", path.removeprefix("/api/v1")).strip("_")
            handlers = {method.upper(): getattr(self, f"{method}_{name}") for method in methods}
            routes.append(Route(path, self._answering(handlers), methods=[*handlers]))
        return routes

    def _answering(self, handlers: dict[str, Handler]) -> Handler:
        """Return the endpoint of a path: errors are answered with one line and their status."""

        async def answer(request: Request) -> Response:
            self.requests += 1
            handler = handlers["GET" if request.method == "HEAD" else request.method]
            try:
                found = await handler(request)
            except HTTPException as error:
                found = await _http_error(request, error)
            except tuple(STATUS) as error:
                of_kind = next(n for kind, n in STATUS.items() if isinstance(error, kind))
                status = getattr(error, "status", of_kind)  # `NotTaken` states its own
                text = f"unknown id {error}" if isinstance(error, KeyError) else str(error)
                found = _error(status, text, {"Retry-After": "2"} if status == 429 else None)
            found = found if isinstance(found, Response) else Json(found)
            if found.status_code >= 400:
                await _read_rest(request)
            return found

        return answer

    # --- state of the server

    async def get_health(self, request: Request) -> Any:
        kept, library = self.library.corrections, self.library
        failing = list(filter(None, (kept.unsaved, library.unsaved, self.worker.problem)))
        problems = [*library.problems, *filter(None, [kept.problem]), *failing]
        return {
            "status": "failing" if failing else "ok",
            "library": kept.library,
            "version": version("mvemo"),
            "schema": 1,
            "model": self.worker.folder.name,
            "folder": self.shown,
            "clips": len(library),
            "waiting": len(library.ids("waiting", "running")),
            "problems": problems,
        }

    async def get_metrics(self, request: Request) -> Response:
        counts = self.worker.counts
        waiting = [job for job in self.worker.jobs.values() if job.state == "waiting"]
        values = {
            "mvemo_requests_total": (self.requests, "Requests that were answered."),
            "mvemo_clips": (len(self.library), "Clips of the folder."),
            "mvemo_clips_predicted_total": (counts["predicted"], "Clips that were predicted."),
            "mvemo_clips_failed_total": (counts["failed"], "Clips that could not be predicted."),
            "mvemo_predict_seconds_total": (self.worker.seconds, "Seconds of predictions."),
            "mvemo_jobs_waiting": (len(waiting), "Jobs that wait."),
        }
        lines = []
        for name, (value, meaning) in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f"{name} {value:g}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type=PROMETHEUS)

    async def get_openapi_json(self, request: Request) -> Response:
        return FileResponse(SCHEMA, media_type="application/json")

    async def get_models(self, request: Request) -> Any:
        found = []
        for name, folder in self.worker.models.items():
            with suppress(MvemoError):  # learning was killed while it replaced this model
                found.append(self.worker.model_record(name, folder))
        return {"models": found}

    async def post_models_current(self, request: Request) -> Any:
        name = (await _body(request, name=str))["name"]
        job = await anyio.to_thread.run_sync(self.worker.use, self.worker.models[name])
        return Json({"job": job.record()}, 202)

    # --- clips

    async def get_clips(self, request: Request) -> Any:
        since, wait = _number(request, "since"), min(_number(request, "wait"), MOST_WAIT)
        while wait > 0 and self.library.revision <= since and not self.is_stopping:
            await asyncio.sleep(LOOK)
            wait -= LOOK
            if await request.is_disconnected():
                break
        revision, found = await anyio.to_thread.run_sync(self.library.since, int(since))
        facts = {"total": len(self.library), "model": self.worker.folder.name}
        return {"revision": revision, **facts, "clips": found}

    async def get_relative(self, request: Request) -> Any:
        return await anyio.to_thread.run_sync(self.library.relative, self.worker.model)

    async def get_clips_id(self, request: Request) -> Any:
        with suppress(OSError):
            self.library.file_of(request.path_params["id"])
        return self._clip(request)

    def _clip(self, request: Request) -> Response:
        """Return the clip of a request, and the version of its correction as ``ETag``."""
        clip_id = request.path_params["id"]
        version = self.library.corrections.etag(self.library.key_of(clip_id))
        return Json(self.library.get(clip_id), headers={"ETag": f'"{version}"'})

    async def post_clips(self, request: Request) -> Any:
        name = Path(request.query_params.get("name", "").replace("\\", "/")).name
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            return _error(415, f"{name or 'no name'}: expected the name of a sound or video file")
        stated = request.headers.get("content-length", "0")
        if stated.isdigit() and int(stated) > self.most_upload:
            return self._too_large(name)
        self.worker.check_room()  # before anything is stored: a refused file is sent again
        target = self.library.uploads / f"{secrets.token_hex(8)}{suffix}"
        part, size = target.with_suffix(".part"), 0
        try:
            async with await anyio.open_file(part, "xb") as file:
                async for block in request.stream():
                    size += len(block)
                    if size > self.most_upload:
                        return self._too_large(name)
                    await file.write(block)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        clip_id = self.library.add(target, name=name)
        job = self.worker.submit(Job("predict", [clip_id]), is_checked=True)
        return Json({"job": job.record(), "clip": self.library.get(clip_id)}, 202)

    def _too_large(self, name: str) -> Response:
        text = f"{name}: is larger than {self.most_upload / 1e6:.0f} MB (--max-upload)"
        return _error(413, text, {"Connection": "close"})

    async def get_clips_id_timeline(self, request: Request) -> Any:
        clip_id, kind = request.path_params["id"], request.url.path.rpartition("/")[2]
        self.library.file_of(clip_id)
        found, job = self.worker.detail(kind, clip_id)
        return found if job is None else Json({"job": job.record()}, 202)

    get_clips_id_explain = get_clips_id_similar = get_clips_id_timeline

    async def get_clips_id_waveform(self, request: Request) -> Any:
        path = self.library.file_of(request.path_params["id"])
        key = f"{path} {find_stamp(path)}"
        if key not in self._peaks:
            loop = asyncio.get_running_loop()
            self._peaks[key] = await loop.run_in_executor(self._readers, read_waveform, path)
        return self._peaks[key]

    async def get_media_id(self, request: Request) -> Response:
        clip_id = request.path_params["id"]
        path, kind = self.library.file_of(clip_id), self.library.get(clip_id)["kind"]
        suffix = path.suffix.lower()
        return FileResponse(path, media_type=f"{kind}/{TYPES.get(suffix, suffix[1:])}")

    # --- jobs

    async def get_jobs(self, request: Request) -> Any:
        return {"jobs": [job.record() for job in self.worker.jobs.values()]}

    async def post_scan(self, request: Request) -> Any:
        if self.report is not None or not Path(self.shown).is_dir():
            return _error(422, f"{self.shown}: expected a folder of media to look into")
        return Json(self.worker.only(Job("scan", name=self.shown)).record(), 202)

    async def get_jobs_id(self, request: Request) -> Any:
        return self.worker.jobs[request.path_params["id"]].record()

    async def delete_jobs_id(self, request: Request) -> Any:
        job = self.worker.jobs[request.path_params["id"]]
        self.worker.cancel(job)
        return job.record()

    async def post_jobs(self, request: Request) -> Any:
        paths = (await _body(request, paths=list))["paths"]
        self.worker.check_room()
        ids = await anyio.to_thread.run_sync(self._listed, [Path(str(path)) for path in paths])
        job = self.worker.submit(Job("predict", ids), is_checked=True)
        return Json(job.record(), 202)

    def _listed(self, paths: Sequence[Path]) -> list[str]:
        """List the media files at these paths, and return their ids."""
        ids = []
        folder = self.library.folder
        for path in (folder / path for path in paths):
            self.library.confined(path)
            if os.path.isdir(path):
                found = find_media(path, [], follow_links=False)
                ids += [self.library.add(path / name) for name in found]
            elif not os.path.isfile(path):
                inside = f"a path inside {os.path.abspath(folder)}, relative to it or absolute"
                raise HTTPException(404, f"{path}: no such file: expected {inside}")
            elif path.suffix.lower() not in SUFFIXES:
                raise HTTPException(415, f"{path}: expected a sound or video file")
            else:
                ids.append(self.library.add(path))
        if not ids:
            raise HTTPException(422, "expected paths of media files or folders with media files")
        return ids

    # --- corrections, models, playlists

    async def get_corrections(self, request: Request) -> Any:
        kept = self.library.corrections
        # A clip and its copies share a correction, which is listed for the first of them.
        ids = {self.library.key_of(clip_id): clip_id for clip_id in reversed(self.library.ids())}
        found = [{**kept.record(c), "id": ids.get(key, key)} for key, c in kept.current.items()]
        return {"classes": list(kept.classes), "corrections": found}

    async def put_corrections_id(self, request: Request) -> Any:
        clip_id, body = request.path_params["id"], await _body(request)
        record = self.library.get(clip_id)
        label = next((body[k] for k in ("label", "labels", "values") if k in body), KEPT)
        if label is KEPT and not {"comment", "unsure"} & {*body}:
            return _error(422, "expected label, labels, values, comment or unsure")
        for key, kind in (("comment", str), ("annotator", str), ("unsure", bool)):
            if not isinstance(body.get(key), kind | None):
                return _error(422, f"{key}: expected a {kind.__name__}, got {body[key]!r}")
        predicted = record.get("label") or record.get("values") or ""
        key = await anyio.to_thread.run_sync(partial(self.library.key_of, clip_id, read=True))
        facts = {
            **{key: body[key] for key in ("comment", "unsure") if body.get(key) is not None},
            "annotator": body.get("annotator") or "",
            "predicted": predicted if isinstance(predicted, str) else json.dumps(predicted),
            "content": self.library.get(clip_id).get("content") or "",
            "group": record.get("artist") or "",
        }
        seen: dict[str, Any] = {"clip_id": key, "seen": _seen(request)}
        put = partial(self.library.corrections.put, Path(record["path"]), label, **seen, **facts)
        await anyio.to_thread.run_sync(put)
        self.library.touch(self.library.alike(clip_id))
        return self._clip(request)

    async def delete_corrections_id(self, request: Request) -> Any:
        clip_id = request.path_params["id"]
        self.library.get(clip_id)
        key = self.library.key_of(clip_id)
        await anyio.to_thread.run_sync(self.library.corrections.undo, key, _seen(request))
        self.library.touch(self.library.alike(clip_id))
        return self._clip(request)

    async def post_learn(self, request: Request) -> Any:
        name = (await _body(request, name=str))["name"]
        if not re.fullmatch(r"[\w][\w .-]{0,60}", name) or name == self.worker.base.name:
            expected = "letters, digits, '-' and '_', and not the name of the first model"
            return _error(422, f"name {name!r}: expected {expected}")
        if not self.library.corrections.judged:
            return _error(422, "there are no corrections to learn from")
        return Json(self.worker.submit(Job("learn", name=name)).record(), 202)

    async def post_playlists(self, request: Request) -> Any:
        body = await _body(request, ids=list, name=str)
        kind, name = body.get("format", "m3u8"), body["name"]
        if kind not in ("m3u8", "xspf"):
            return _error(422, f"format {kind!r}: expected m3u8 or xspf")
        stem = file_stem(name)[:100] or "playlist"
        clips = [self.library.get(str(clip_id)) for clip_id in body["ids"]]
        file = self.library.work / "playlists" / f"{stem}.{kind}"
        file.parent.mkdir(exist_ok=True)
        # The browser saves the text in another folder.
        write = partial(write_playlist, clips, file, kind, absolute=True)
        text = await anyio.to_thread.run_sync(write)
        return {"file": str(file), "text": text}

    async def get_report(self, request: Request) -> Any:
        return self.report or _error(404, "no run was opened")


def make_app(api: Api, access: Callable[[Any], Access]) -> Any:
    """Return the ASGI application."""
    routes: Sequence[Any] = [
        Route("/", lambda request: FileResponse(PAGE / "index.html")),
        *api.routes(),
        Mount("/", StaticFiles(directory=PAGE)),
    ]
    handlers = {HTTPException: _http_error, Exception: _bug}
    return access(Starlette(routes=routes, exception_handlers=handlers))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    return _error(500, f"the server has a fault, see its log: {type(error).__name__}")


async def _read_rest(request: Request) -> None:
    """Read what a client still sends: a browser sees an answer only after it has sent all."""
    if "expect" in request.headers:
        return  # the client waits for the answer before it sends
    rest = request.stream()
    # Starlette raises RuntimeError if the handler has read everything.
    with suppress(StopAsyncIteration, TimeoutError, ClientDisconnect, RuntimeError):
        while True:
            with anyio.fail_after(MOST_PAUSE):
                await anext(rest)


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Json({"error": text}, status, headers)


async def _body(request: Request, **kinds: type) -> dict[str, Any]:
    """Return the JSON object of a request with keys of these types."""
    data = b""
    async for block in request.stream():
        data += block
        if len(data) > MOST_JSON:
            raise HTTPException(413, f"the JSON is larger than {MOST_JSON} bytes")
    try:
        body = parse_json(data)
    except ValueError:
        raise HTTPException(400, "expected a JSON object") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "expected a JSON object")
    for key, kind in kinds.items():
        if not isinstance(body.get(key), kind):
            raise HTTPException(422, f"{key}: expected a {kind.__name__}, got {body.get(key)!r}")
    return body


def _seen(request: Request) -> str | None:
    """Return the version of a correction that a request has seen (``If-Match``), or None."""
    stated = request.headers.get("if-match", "*").removeprefix("W/").strip('"')
    return None if stated == "*" else stated


def _number(request: Request, key: str) -> float:
    text = request.query_params.get(key, "0")
    if not re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        raise HTTPException(422, f"{key}: expected a number, got {text!r}")
    return float(text)

"""Steps on a small model of sounds: catalogue, learning, playlists, tags and the server."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from golden_steps import CLASSES, TINY_OPTIONS, Recorder, write_csv, write_tone
from golden_texts import VOLATILE, json_text
from server_samples import Server

# A net that keeps its first weights, so that its numbers hardly depend on the machine.
STILL = ("nets.cnn.lr=1e-9", "nets.cnn.epochs=1", 'extract.descriptors=["mel"]')
STILL_OPTIONS = tuple(word for setting in STILL for word in ("--set", setting))
# Counters that depend on how often the server was asked, and on its speed.
COUNTERS = re.compile(r"(?m)^(mvemo_requests_total|mvemo_predict_seconds_total) .*$")


def record_songs(recorder: Recorder) -> None:
    """Keep what models answer for songs, and what is made of their answers."""
    weights = _make_models(recorder)
    _write_songs(recorder.work / "songs", n=32, seed=1, detune=250)
    model = ("--model", "frozen/model", "--weights", f"cnn={weights}")
    files = ("--cache", "songs.h5", "--csv", "songs.csv")
    recorder.run_json("songs/predict", "predict", "songs", *model, *files, "--json", "--relative")
    recorder.keep("songs/songs.csv", lasting_columns(recorder.work / "songs.csv"))
    _learn(recorder)
    _make_playlists(recorder)
    _tag(recorder)
    _serve(recorder)


def _make_models(recorder: Recorder) -> Path:
    """Make a model with its own net, and one with this net frozen; return the net's weights."""
    options = (*TINY_OPTIONS, *STILL_OPTIONS, "--nets", "cnn")
    _write_songs(recorder.work / "few", n=12, seed=2)
    _write_songs(recorder.work / "own", n=24, seed=0)
    few = ("few/clips.csv", "--work", "few-work", "--protocol", "shared")
    recorder.run("", "extract", *few, *options)
    recorder.run(
        "", "fuse", "few-work/features.h5", "--final", "--folds", "3", "--protocol", "shared"
    )
    (weights,) = (recorder.work / "few-work" / "nets").glob("*/weights.pt")
    frozen = ("own/clips.csv", "--protocol", "frozen", "--weights", f"cnn={weights}")
    recorder.run("", "extract", *frozen, *options)
    folders = ("--final", "--folds", "3", "--out", "frozen")
    recorder.run("songs/fuse", "fuse", "work/features.h5", *folders)
    return weights


def _write_songs(folder: Path, n: int, seed: int, detune: float = 0.0) -> None:
    """Write tones whose pitch hints at their class, and a manifest of them in pairs."""
    rng, sr = np.random.default_rng(seed), 8000
    t = np.arange(sr) / sr
    folder.mkdir()
    rows = []
    for i in range(n):
        hertz = 400 + detune + 700 * (i % 4) + rng.normal(scale=250)
        tone = np.sin(2 * np.pi * hertz * t) + 0.3 * rng.normal(size=sr)
        name = f"{folder.name} {i:02}"
        write_tone(folder / f"{name}.wav", tone)
        rows.append((name, f"{name}.wav", CLASSES[i % 4], f"{folder.name} group {i // 2}"))
    write_csv(folder / "clips.csv", ("clip_id", "path", "label", "group"), rows)


def lasting_columns(path: Path) -> str:
    """Return a table without the columns that differ from run to run."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in VOLATILE]
    lines = ([row[name] for name in names] for row in rows)
    return "\n".join(map(",".join, (names, *lines)))


def _learn(recorder: Recorder) -> None:
    """Correct three quarters of the songs, and learn from them in both ways."""
    with (recorder.work / "songs/clips.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)][:24]
    header = ("clip_id", "path", "label", "group")
    rows = [(name, f"songs/{path}", *others) for name, path, *others in rows]
    write_csv(recorder.work / "corrections.csv", header, rows)
    words = ("learn", "corrections.csv", "--features", "songs.h5", "--model", "frozen/model")
    recorder.run_json("songs/learn", *words, "--out", "adapted", "--json")
    again = ("--training", "work/features.h5", "--out", "trained")
    recorder.run("songs/learn-training", *words, *again)


def _make_playlists(recorder: Recorder) -> None:
    corrected = ("--corrections", "corrections.csv", "--min-confidence", "0.5")
    for name, *options in (("moods", *corrected), ("all", "--format", "xspf", "--by-mood")):
        out = recorder.work / f"lists-{name}"
        recorder.run(f"songs/playlist-{name}", "playlist", "songs.csv", "--out", out, *options)
        for path in sorted(out.iterdir()):
            recorder.keep_file(f"songs/playlist-{name}/{path.name}", path)


def _tag(recorder: Recorder) -> None:
    files = sorted((recorder.work / "songs").glob("*.wav"))
    before = [path.read_bytes() for path in files]
    tagging = ("tag", "songs.csv", "--corrections", "corrections.csv", "--min-confidence", "0.4")
    recorder.run("songs/tag-list", *tagging)
    recorder.run("songs/tag-write", *tagging, "--write")
    changed = sum(path.read_bytes() != old for path, old in zip(files, before, strict=True))
    recorder.run("songs/tag-undo", "tag", "--undo", "songs.csv.tags.jsonl", "--write")
    same = sum(path.read_bytes() == old for path, old in zip(files, before, strict=True))
    recorder.keep("songs/tag-bytes.txt", f"{changed} files changed, then {same} as before")


def _serve(recorder: Recorder) -> None:
    """Keep an answer of each route of the server, for a folder and for a run."""
    folder = recorder.work / "served"
    folder.mkdir()
    for i in range(12):
        shutil.copy(recorder.work / f"songs/songs {i:02}.wav", folder / f"{i:02}.wav")
    (folder / "broken.mp3").write_text("no sound")
    server = ServerRecorder(recorder, "served")
    _record_folder(recorder, server)
    server.end()
    server = ServerRecorder(recorder, "out")
    for path in ("report", "clips?since=0"):
        server.keep(f"run/{path.partition('?')[0]}", "GET", path)
    server.end()


def _record_folder(recorder: Recorder, server: ServerRecorder) -> None:
    clips = server.clips()
    song, other = (f"clips/{server.ids[f'{i:02}.wav']}" for i in (1, 2))
    for path in ("health", "models", "clips?since=0", "relative", "jobs", "corrections", song):
        server.keep(_file_name(path, song), "GET", path)
    recorder.keep("songs/api/metrics.txt", COUNTERS.sub(r"\1", server.get("metrics").text))
    routes = server.get("openapi.json").json()["paths"]
    methods = json.dumps({path: [*of] for path, of in routes.items()})
    recorder.keep("songs/api/routes.json", json_text(methods))
    for kind in ("timeline", "explain", "waveform"):
        server.answer("GET", f"{song}/{kind}")
        server.keep(kind, "GET", f"{song}/{kind}")
    correction = song.replace("clips", "corrections")
    label = {"label": "sad", "annotator": "Ana", "comment": "a comment"}
    server.keep("correct", "PUT", correction, label)
    server.keep("correct-unknown", "PUT", correction, {"label": "nonsense"})
    server.keep("correct-twice", "PUT", correction, {"label": "calm"})
    server.keep("undo", "DELETE", correction)
    for i, name in enumerate(sorted(clips)[:8]):
        if clips[name]["state"] == "done":
            server.answer("PUT", f"corrections/{server.ids[name]}", {"label": CLASSES[i % 4]})
    server.keep("corrections-more", "GET", "corrections")
    path = recorder.work / "served/.mvemo/corrections.csv"
    recorder.keep("songs/api/corrections.csv", server.masked(path.read_text()))
    server.keep("learn", "POST", "learn", {"name": "mine"})
    server.keep("use", "POST", "models/current", {"name": "mine"})
    server.keep("models-learned", "GET", "models")
    server.keep("clip-learned", "GET", other)
    ids = [song.partition("/")[2], other.partition("/")[2]]
    for kind in ("m3u8", "xspf"):
        body = {"ids": ids, "name": "two", "format": kind}
        server.keep(f"playlist-{kind}", "POST", "playlists", body)
    sent = (recorder.work / "songs/songs 20.wav").read_bytes()
    server.keep("upload", "POST", "clips?name=sent.wav", sent)
    server.keep("predict-again", "POST", "jobs", {"paths": ["03.wav"]})
    server.keep("scan", "POST", "scan")
    for name, method, path in (
        ("no-clip", "GET", "clips/0000000000000000"),
        ("no-job", "DELETE", "jobs/000000000000"),
        ("no-report", "GET", "report"),
    ):
        server.keep(name, method, path)
    server.keep("no-file", "POST", "jobs", {"paths": ["gone.wav"]})


def _file_name(path: str, song: str) -> str:
    return "clip" if path == song else path.partition("?")[0]


class ServerRecorder(Server):
    """Keeps the answers of a server, with names in place of the ids that it draws."""

    def __init__(self, recorder: Recorder, folder: str) -> None:
        self.recorder, self.program = recorder, (recorder.program,)
        super().__init__("out/model", folder, cwd=recorder.work)
        self.ids = {name: clip["id"] for name, clip in self.clips().items()}

    def answer(self, method: str, path: str, body: Any = None) -> tuple[Any, Any]:
        """Return an answer, and the job that it started once this has ended."""
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = self.client.request(method, f"/api/v1/{path}", **(sent if body else {}))
        job = answer.json() if answer.status_code == 202 else None
        return answer, job and self.finished(job.get("job", job))

    def keep(self, name: str, method: str, path: str, body: Any = None) -> None:
        """Keep the status and JSON of an answer; a job that it starts is awaited."""
        answer, job = self.answer(method, path, body)
        found = {"status": answer.status_code, "answer": answer.json()}
        if job:
            # The state of a job that was just queued depends on the worker's speed.
            found |= {"answer": sorted(found["answer"]), "job": job}
        self.recorder.keep(f"songs/api/{name}.json", json_text(self.masked(json.dumps(found))))

    def masked(self, text: str) -> str:
        """Replace ids by names."""
        for name, clip_id in self.ids.items():
            text = text.replace(clip_id, f"ID of {name}")
        return re.sub(r'"(id|library)": "[0-9a-f-]{12,36}"', r'"\1": "ID"', text)

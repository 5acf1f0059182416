"""A small server with made clips and answers of the API, for tests of the page.

It is started as a process of its own, so that a test can kill it. Corrections are in a file
in its folder, uploads are kept in memory.
"""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.pipeline.desk.serve.access import HEADERS
from mvemo.pipeline.prediction.relative import FEWEST, compare, ranks

CLASSES = ("Calm", "Lively", "Sad")
COLORS = dict(zip(CLASSES, ("#2f9e58", "#d06d1c", "#3b82c4"), strict=True))
PAGE = Path(__file__).parents[4] / "pipeline" / "desk" / "serve" / "page"
N_CLIPS = 12
# Titles of more clips; the songs of Björk are copies of one another.
TITLES = ("Øresund", "Jóga", "Jóga", "Łąka", "Straße", "Cæsar’s")
ODD = {f"c{N_CLIPS + i}": title for i, title in enumerate(TITLES)}
SOUND_ONLY = "predicted only from sound (pictures: no video stream)"
SECONDS = 4


def write_song(path):
    """Write a tone of `SECONDS` seconds as a WAV file."""
    rate = 8000
    soundfile.write(path, 0.3 * np.sin(np.arange(rate * SECONDS) / 4), rate)


def clip(i, state="done", name=None):
    """Return the record of clip number `i`; its doubt falls with `i`."""
    shares = [0.4 + 0.04 * i % 0.5, 0.1, 0.1]
    order = CLASSES[i % 3 :] + CLASSES[: i % 3]
    proba = {c: share / sum(shares) for c, share in zip(order, shares, strict=True)}
    confidence = max(proba.values())
    done = state == "done"
    return {
        "id": f"c{i}", "path": f"{i}.wav", "name": name or f"{i}.wav", "model": "made/model",
        "title": Path(name).stem if name else f"Song {i}", "artist": "Nobody", "kind": "audio",
        "state": state, "proba": proba if done else None, "label": order[0] if done else None,
        "confidence": confidence, "set": list(order[:2]) if done else None, "error": None,
        "map": [0.1 + 0.07 * i, 0.5] if done else None, "doubt": 0.9 - i / 99,
        "notes": [SOUND_ONLY, *["ask a person: 3 of 3 classes"] * (i == 2)], "duration": SECONDS,
        "cautions": ["ask"] * (i == 2),
        "correction": None,
    }  # fmt: skip


class MadeServer:
    """Clips, corrections and jobs of the made server."""

    def __init__(self, folder):
        self.folder, self.revision = folder, 1
        (folder / "library").touch()
        self.library = (folder / "library").read_text(encoding="utf-8") or "made"
        self.file = folder / "corrections.json"
        self.history = {}
        if self.file.exists():
            self.history = json.loads(self.file.read_text(encoding="utf-8"))
        self.clips = {f"c{i}": clip(i) for i in range(N_CLIPS)}
        for i, title in ODD.items():
            facts = {"title": title, "content": title, "map": None}
            facts["artist"] = "Björk" if title == "Jóga" else None
            self.clips[i] = clip(int(i[1:])) | facts
        self.clips["c11"] |= {"state": "failed", "error": "11.wav: truncated", "proba": None}
        self.changed = dict.fromkeys(self.clips, 1)
        self.jobs = {}
        self.model = "made"
        self.names = ["made"]

    def compared(self):
        """Compare the clips as the real server does; the file ``alike`` states a reason."""
        done = [one for one in self.clips.values() if one["proba"]]
        ids = [one["id"] for one in done if one["map"]]
        places = ranks(np.array([self.clips[i]["map"] for i in ids])).tolist()
        clips = [ClipPrediction.of_record(one) for one in done]
        is_offered = (self.folder / "alike").exists()
        return {
            "clips": len(done), "fewest": FEWEST, "map": dict(zip(ids, places, strict=True)),
            "reason": "14 of 17 clips came out as Calm" * is_offered,
            "relative": {o["id"]: of for o, of in zip(done, compare(clips), strict=True)},
        }  # fmt: skip

    def touch(self, clip_id):
        self.revision += 1
        self.changed[clip_id] = self.revision
        return self.read(clip_id)

    def read(self, clip_id):
        said = self.history.get(clip_id)
        correction = said[-1] | {"etag": self.etag(clip_id)} if said else None
        return self.clips[clip_id] | {"correction": correction}

    def etag(self, clip_id):
        return f"{self.library}-{len(self.history.get(clip_id) or ()) or 'none'}"

    def refusal(self, clip_id, change, seen):
        """Return why a change is not stored, as the real server does."""
        if clip_id not in self.clips:
            return "unknown id", 404
        if seen not in ("", self.etag(clip_id)):
            return "another correction was stored meanwhile", 412
        if (change or {}).get("label") == "Sad" and (self.folder / "strict").exists():
            return "unknown label 'Sad'", 422
        return ("the disk is full", 503) if (self.folder / "full").exists() else None

    def correct(self, clip_id, change):
        said = self.history.setdefault(clip_id, [])
        if change is None:
            said.pop()
        else:
            said.append(change)
        written = self.file.with_suffix(".part")
        written.write_text(json.dumps(self.history), encoding="utf-8")
        written.replace(self.file)
        return self.touch(clip_id)

    def job(self, kind, result=None):
        job = {
            "id": f"j{len(self.jobs)}", "kind": kind, "state": "done", "done": 1, "total": 1,
            "failed": 0, "message": "", "seconds_left": None, "result": result, "name": "",
        }  # fmt: skip
        self.jobs[job["id"]] = job
        return job

    def slow_timeline(self, clip_id):
        """Return a job that is never done."""
        progress = {"state": "running", "done": 42, "total": 100, "seconds_left": 83}
        name = self.clips[clip_id]["title"]
        alive = [job for job in self.jobs.values() if job["state"] == "running"]
        return alive[0] if alive else self.job("timeline") | progress | {"name": name}

    def learn(self, name):
        self.names.append(name)
        n = sum(bool(said) for said in self.history.values())
        text = f"{n} corrections: not enough to say."
        scores = ({"metric": "accuracy", "score": score, "clips": n} for score in (0.5, 0.75))
        result = dict(zip(("before", "after"), scores, strict=True)) | {"model": f"models/{name}"}
        facts = {"interval": [-0.1, 0.3], "n_corrections": n, "enough": False, "text": text}
        return self.job("learn", result | facts)


def timeline():
    """Return three windows and a turn after 2 seconds."""
    labels = ("Calm", "Calm", "Sad")
    windows = [
        {"start": i, "stop": i + 2, "loudness": -20, "label": label,
         "proba": {c: 0.8 if c == label else 0.1 for c in CLASSES}}
        for i, label in enumerate(labels)
    ]  # fmt: skip
    turn = {"time": 2, "distance": 0.7, "before": "Calm 80 %", "after": "Sad 80 %"}
    return {"windows": windows, "changes": [turn]}


def make_app(made):
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def api(request):
        import asyncio

        method, name, *rest = request.method, *request.path_params["path"].split("/")
        query = request.query_params
        if (name, method) == ("clips", "POST"):
            if not (await request.body()).startswith(b"RIFF"):
                return JSONResponse({"error": f"{query['name']}: not a sound file"}, 415)
            new = clip(len(made.clips), name=query["name"])
            made.clips[new["id"]] = new
            return JSONResponse({"job": made.job("predict"), "clip": made.touch(new["id"])}, 202)
        if name == "clips" and not rest:
            since = int(query["since"])
            for _ in range(10 * int(query.get("wait", 0))):
                if made.revision > since:
                    break
                await asyncio.sleep(0.1)
            found = [made.read(i) for i, n in made.changed.items() if n > since]
            facts = {"revision": made.revision, "total": 12, "model": made.model}
            return JSONResponse({**facts, "clips": found})
        body = await request.json() if method in {"POST", "PUT"} else None
        if name == "clips" and rest[1:] == []:
            return JSONResponse(made.read(rest[0]))
        seen = request.headers.get("if-match", "").strip('"')
        if name == "corrections" and (refused := made.refusal(rest[0], body, seen)):
            return JSONResponse({"error": refused[0]}, refused[1])
        answers = {
            "health": lambda: health,
            "models": lambda: {"models": [model(n) for n in made.names]},
            "jobs": lambda: made.jobs[rest[0]] if rest else {"jobs": list(made.jobs.values())},
            "relative": made.compared,
            "corrections": lambda: made.correct(rest[0], body),
            "learn": lambda: made.learn(body["name"]),
            "playlists": lambda: {"file": f"{body['name']}.m3u8", "text": "\n".join(body["ids"])},
            "report": lambda: report(made),
            "clips": lambda: detail(rest[-1]),
        }
        health = {"version": "1", "folder": "/songs", "library": made.library}
        if rest[-1:] == ["timeline"] and (made.folder / "slow").exists():
            job = made.slow_timeline(rest[0])
            made.jobs[job["id"]] = job
            return JSONResponse({"job": job}, 202)
        if (name, method) == ("jobs", "DELETE"):
            made.jobs[rest[0]]["state"] = "cancelled"
        if name == "models" and method == "POST":
            made.model = body["name"]
        return JSONResponse(answers[name](), 202 if name == "learn" else 200)

    def model(name):
        facts = {"task": "multiclass", "outputs": CLASSES, "colors": COLORS, "scale": {}}
        shown = {"axes": ["valence", "arousal"], "expected": "Expect about 75 %."}
        return {"name": name, "current": name == made.model, **facts, **shown}

    def detail(kind):
        stretch = {"second": 1, "modality": "sound", "loss": 0.271}
        return {
            "timeline": timeline(),
            "explain": {"stretches": [stretch], "text": "The sound at 0:01 decided."},
            "similar": {"ids": ["c7", "c3", "c5"]},
            "waveform": {"seconds": SECONDS, "peaks": [0.2, 0.9, 0.4]},
        }[kind]

    async def media(request):
        return FileResponse(made.folder / "song.wav", headers=HEADERS)

    async def page(request):
        return FileResponse(PAGE / "index.html", headers=HEADERS)

    methods = ["GET", "POST", "PUT", "DELETE"]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/v1/{path:path}", api, methods=methods),
            Route("/media/{id}", media),
            Mount("/", StaticFiles(directory=PAGE)),
        ]
    )


def report(made):
    """Return a report in which clip 4 is a confusion and clip 5 is hard."""
    ids = [[["c0"], ["c4"], []], [[], ["c1"], []], [[], [], ["c2"]]]
    counts = [[len(cell) for cell in row] for row in ids]
    confusion = {"classes": CLASSES, "counts": counts, "ids": ids}
    return {"confusion": confusion, "hard": ["c5"], "expected": "Expect about 75 %."}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(make_app(MadeServer(Path(sys.argv[2]))), port=int(sys.argv[1]), log_level="error")

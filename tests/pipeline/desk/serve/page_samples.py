"""The server of the page with made clips and predictions, in this process, for tests of the page.

Tests can stop it, start it again, and change what its parts do meanwhile.
"""

import socket
import time
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import soundfile
import uvicorn
from server_samples import TOKEN

from mvemo.pipeline.desk.serve import app as apps
from mvemo.pipeline.desk.serve import library as libraries
from mvemo.pipeline.desk.serve.access import Access
from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.serve.jobs import JobWorker
from mvemo.pipeline.desk.serve.library import Library

CLASSES = ("Calm", "Lively", "Sad")
COLORS = dict(zip(CLASSES, ("#2f9e58", "#d06d1c", "#3b82c4"), strict=True))
N_CLIPS = 12
# Titles of more clips; the songs of Björk are copies of one another.
TITLES = ("Øresund", "Jóga", "Jóga", "Łąka", "Straße", "Cæsar’s")
SOUND_ONLY = "predicted only from sound (pictures: no video stream)"
SECONDS = 4
TIMELINE = {
    "windows": [
        {"start": i, "stop": i + 2, "loudness": -20, "label": label,
         "proba": {c: 0.8 if c == label else 0.1 for c in CLASSES}}
        for i, label in enumerate(("Calm", "Calm", "Sad"))
    ],
    "changes": [{"time": 2, "distance": 0.7, "before": "Calm 80 %", "after": "Sad 80 %"}],
}  # fmt: skip
STRETCH = {"second": 1, "modality": "sound", "loss": 0.271}
REASONS = {"stretches": [STRETCH], "text": "The sound at 0:01 decided."}


def facts_of(i):
    """Return the prediction of clip number `i`; its doubt falls with `i`."""
    shares = [0.4 + 0.04 * i % 0.5, 0.1, 0.1]
    order = CLASSES[i % 3 :] + CLASSES[: i % 3]
    proba = {c: share / sum(shares) for c, share in zip(order, shares, strict=True)}
    return {
        "model": "made/model", "state": "done", "error": None, "duration": SECONDS,
        "artist": "Nobody", "proba": proba, "label": order[0], "set": list(order[:2]),
        "confidence": max(proba.values()), "map": [0.1 + 0.07 * i, 0.5], "doubt": 0.9 - i / 99,
        "notes": [SOUND_ONLY, *["ask a person: 3 of 3 classes"] * (i == 2)],
        "cautions": ["ask"] * (i == 2),
    }  # fmt: skip


class MadeWorker(JobWorker):
    """Worker that knows all answers; timelines never end if it `is_slow`."""

    def __init__(self, library):
        super().__init__(library, Path("made"), None, SimpleNamespace())
        self.names, self.is_slow = ["made"], False

    @property
    def models(self):
        return {name: Path(name) for name in self.names}

    def use(self, folder):
        self.folder = folder
        return SimpleNamespace(record=lambda: {"id": "", "state": "done"})

    def model_record(self, name, folder):
        facts = {"task": "multiclass", "outputs": CLASSES, "colors": COLORS, "scale": {}}
        shown = {"axes": ["valence", "arousal"], "expected": "Expect about 75 %."}
        return {"name": name, "current": folder == self.folder, **facts, **shown}

    def _predict(self, job):
        for clip_id in job.ids:
            self.library.update(clip_id, facts_of(len(self.library)))
        job.done = job.total

    def _timeline(self, job):
        if self.is_slow:
            job.total, job.done, job.seconds_left = 100, 42, 83
            while job.state == "running":
                time.sleep(0.05)
            raise CancelledError
        self._keep(job, TIMELINE)

    def _explain(self, job):
        self._keep(job, REASONS)

    def _similar(self, job):
        self._keep(job, {"ids": [self.library.ids()[i] for i in (7, 3, 5)]})

    def _learn(self, job):
        self.names.append(job.name)
        n = len(self.library.corrections.judged)
        scores = ({"metric": "accuracy", "score": score, "clips": n} for score in (0.5, 0.75))
        result = dict(zip(("before", "after"), scores, strict=True))
        facts = {"model": f"models/{job.name}", "n_corrections": n, "enough": False}
        return result | facts | {"interval": [-0.1, 0.3], "text": "not enough to say."}


class PageServer:
    """Server of the page, always on the same port."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.reason = folder, ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/?token={TOKEN}"
        sound = 0.3 * np.sin(np.arange(8000 * SECONDS) / 4)
        for name in ("song", *range(N_CLIPS + len(TITLES))):
            soundfile.write(folder / f"{name}.wav", sound, 8000)
            sound *= 0.99  # each has a content of its own
        monkeypatch.setattr(libraries, "reason_to_compare", lambda model, clips: self.reason)
        wave = {"seconds": SECONDS, "peaks": [0.2, 0.9, 0.4]}
        monkeypatch.setattr(apps, "read_waveform", lambda path: wave)
        self.start()

    def start(self):
        self.kept = Corrections(self.folder / "work/corrections.csv", "x", "multiclass", CLASSES)
        self.library = Library(self.folder, self.kept, "made")
        titles = [*(f"Song {i}" for i in range(N_CLIPS)), *TITLES]
        for i, title in enumerate(titles):
            facts = facts_of(i) | {"title": title}
            if i >= N_CLIPS:
                artist = "Björk" if title == "Jóga" else None
                facts |= {"content": title, "artist": artist, "map": None}
            if i == N_CLIPS - 1:
                facts |= {"state": "failed", "error": "11.wav: truncated", "proba": None}
            self.library.add(self.folder / f"{i}.wav", **facts)
        self.worker = MadeWorker(self.library)
        ids = self.library.ids()
        cells = [[[ids[0]], [ids[4]], []], [[], [ids[1]], []], [[], [], [ids[2]]]]
        counts = [[len(cell) for cell in row] for row in cells]
        confusion = {"classes": CLASSES, "counts": counts, "ids": cells}
        report = {"confusion": confusion, "hard": [ids[5]], "expected": "Expect about 75 %."}
        self.api = apps.Api(self.library, self.worker, str(self.folder), 10**9, report)
        app = apps.make_app(self.api, partial(Access, token=TOKEN, port=self.port))
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="error", lifespan="off")
        )
        self.thread = Thread(target=self.server.run)
        self.worker.start()
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive(), "the server ended"
            time.sleep(0.02)

    def kill(self):
        self.server.should_exit = self.server.force_exit = self.api.is_stopping = True
        self.thread.join()
        self.worker.stop()

    def corrections(self):
        """Return the corrections in force by title."""
        records = self.library.records(self.library.ids())
        return {r["title"]: r["correction"] for r in records if r["correction"]}

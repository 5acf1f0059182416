"""`mvemo serve` killed while it corrects, learns and takes files: what it confirmed is there."""

import random
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
from server_samples import Server, write_songs
from stage_samples import tiny_model

from mvemo.manifests import check_manifest, read_manifest

N_SONGS = 12


class Person:
    """A person who corrects, undoes, uploads and learns, and remembers what was confirmed."""

    def __init__(self, server, ids, draw):
        self.server, self.ids, self.draw = server, ids, draw
        self.classes = server.get("models").json()["models"][0]["outputs"]
        self.known = {}  # clip -> what may be in force
        self.uploads = []
        for one in server.get("corrections").json()["corrections"]:
            self.known[one["id"]] = [self.said(one)]

    @staticmethod
    def said(correction):
        return correction and (correction.get("label"), correction["comment"])

    def act(self):
        """Change something until the server is gone."""
        with suppress(httpx.HTTPError):
            while True:
                acts = (self.correct, self.undo, self.upload, self.learn)
                self.draw.choices(acts, (8, 3, 2, 1))[0]()

    def correct(self):
        clip_id, comment = self.draw.choice(self.ids), str(self.draw.random())
        body = {"comment": comment}
        if self.draw.random() < 0.8:
            body["label"] = self.draw.choice(self.classes)
        self._send("PUT", clip_id, body)

    def undo(self):
        self._send("DELETE", self.draw.choice(self.ids), None)

    def _send(self, method, clip_id, body):
        # Without an answer either the former or the new one may be in force.
        former = self.known.pop(clip_id, [None])
        answer = self.server.client.request(method, f"/api/v1/corrections/{clip_id}", json=body)
        is_stored = answer.is_success
        self.known[clip_id] = [self.said(answer.json()["correction"])] if is_stored else former

    def upload(self):
        song = (self.server.folder / "song0.wav").read_bytes()[:-4] + self.draw.randbytes(4)
        answer = self.server.client.post("/api/v1/clips?name=sent.wav", content=song)
        if answer.is_success:
            self.uploads.append(answer.json()["clip"]["id"])

    def learn(self):
        name = f"mine{self.draw.randrange(3)}"
        self.server.client.post("/api/v1/learn", json={"name": name})
        job = self.server.client.post("/api/v1/models/current", json={"name": name})
        assert job.status_code in (202, 404, 422), job.text


def soak(tally, seed, kills):
    """Kill a server so often, each time at another moment, and check the next one."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_model(folder)
        model = folder / "out" / "model"
        songs = write_songs(folder / "songs", N_SONGS)
        server = Server(model, songs)
        ids = [clip["id"] for clip in server.clips().values()]
        for _ in range(kills):
            person = Person(server, ids, draw)
            thread = threading.Thread(target=person.act)
            thread.start()
            time.sleep(draw.uniform(0.02, 3.0))
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            thread.join()
            server.client.close()
            server = Server(model, songs)
            tally.add("killed serve")
            _check(tally, server, person)
        if (code := server.end()) != 143:
            tally.fault("killed serve", f"the last server ended with {code}")


def _check(tally, server, person):
    found = {c["id"]: person.said(c) for c in server.get("corrections").json()["corrections"]}
    for clip_id, allowed in person.known.items():
        tally.add("served: confirmed corrections")
        if found.get(clip_id) not in allowed:
            tally.fault("killed serve", f"{clip_id}: {found.get(clip_id)} instead of {allowed}")
    file = server.folder / ".mvemo" / "corrections.csv"
    labels = sorted(c.label[0] for c in read_manifest(file).clips) if file.exists() else []
    if labels != sorted(label for label, _ in found.values() if label):
        tally.fault("killed serve", "corrections.csv differs from the corrections in force")
    if file.exists() and (problems := check_manifest(file)):
        tally.fault("killed serve", f"corrections.csv: {problems[0]}")
    for clip_id in person.uploads:
        tally.add("served: confirmed uploads")
        if server.get(f"clips/{clip_id}").status_code != 200:
            tally.fault("killed serve", f"the upload {clip_id} is gone")
    for path in ("models", "clips?since=0", "health"):
        if (answer := server.get(path)).status_code != 200:
            tally.fault("killed serve", f"{path}: {answer.text}")
    if parts := list((server.folder / ".mvemo" / "uploads").glob("*.part")):
        tally.fault("killed serve", f"it left {parts[0].name}")

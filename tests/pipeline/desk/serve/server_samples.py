"""A real `mvemo serve` process with a folder of songs, for tests."""

import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import httpx
import numpy as np
import soundfile

from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.serve.library import Library

TOKEN = "a-token-for-tests"
# A background job of a shell ignores SIGINT, and hands that on.
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from mvemo.pipeline.start import main; sys.exit(main())"
)


class Server:
    """A server process with a folder of songs."""

    program = (sys.executable, "-c", START)

    def __init__(self, model, folder, *options, port=0, **process):
        self.folder = folder
        words = ["serve", str(folder), "--model", str(model), "--no-open", "--token", TOKEN]
        command = [*self.program, *words, "--port", str(port), *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **process}
        self.process, self.errors = subprocess.Popen(command, **pipes), []
        # A full pipe would stop the server.
        read = partial(self.errors.extend, self.process.stderr)
        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        address = self.process.stdout.readline().strip()
        assert address, (self.process.wait(), self.errors)
        self.url = address.partition("?")[0]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=600)

    def get(self, path, **options):
        return self.client.get(f"/api/v1/{path}", **options)

    def announce_upload(self, size, path="clips?name=a.wav"):
        """Return a connection on which an upload of so many bytes was announced, and none sent."""
        port = int(self.url.rstrip("/").rpartition(":")[2])
        head = (
            f"POST /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {size}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(head.encode())
        return connection

    def clips(self):
        """Return the clips by name once all are predicted."""
        revision, clips = 0, {}
        while True:
            # A job may end after its last clip, which nothing announces here.
            found = self.get(f"clips?since={revision}&wait=0.2").json()
            revision = found["revision"]
            clips |= {clip["name"]: clip for clip in found["clips"]}
            states = {clip["state"] for clip in clips.values()}
            if clips and not states & {"waiting", "running"} and not self._works():
                return clips

    def finished(self, job):
        while job["state"] in ("waiting", "running"):
            time.sleep(0.05)
            job = self.get(f"jobs/{job['id']}").json()
        return job

    def end(self, number=signal.SIGTERM):
        """End the process, which must not have failed anywhere, and return its exit code."""
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(600)
        self.reader.join()
        assert not any("Traceback" in line for line in self.errors)
        return code

    def _works(self):
        return any(j["state"] in ("waiting", "running") for j in self.get("jobs").json()["jobs"])


def run_all(worker):
    """Run a worker in this process until no job is waiting."""
    worker.start()
    while any(job.is_alive for job in worker.jobs.values()):
        worker._thread.join(0.01)
    worker.stop()


def library_of(folder, model="first"):
    """A library of a folder with corrections to two classes, as each server opens it."""
    kept = Corrections(folder / ".mvemo" / "corrections.csv", "x", "multiclass", ("a", "b"))
    return Library(folder, kept, model)


def write_songs(folder, n=3, seconds=1):
    folder.mkdir(parents=True)
    for i in range(n):
        song = np.random.default_rng(i).uniform(-0.5, 0.5, seconds * 22050)
        soundfile.write(folder / f"song{i}.wav", song, 22050)
    (folder / "broken.mp3").write_text("no sound at all")
    return folder

"""`mvemo serve` with full and vanished disks, edits by hand, two people, and two models."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from server_samples import TOKEN, Server, write_songs
from starlette.testclient import TestClient

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model import load_model
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import DiskFailed, MvemoError
from mvemo.pipeline.desk.serve import jobs
from mvemo.pipeline.desk.serve.access import Access
from mvemo.pipeline.desk.serve.app import Api, make_app
from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.desk.serve.jobs import MOST_WAITING, Job, JobWorker
from mvemo.pipeline.desk.serve.library import Library
from mvemo.pipeline.models.boxed import model_folder
from mvemo.pipeline.prediction import feature_maker, run
from mvemo.pipeline.prediction.new_clips import PredictSettings


@pytest.fixture
def song(server):
    """The record of a song without corrections."""
    clip = server.clips()["song0.wav"]
    while clip["correction"]:
        clip = server.client.delete(f"/api/v1/corrections/{clip['id']}").json()
    return clip


def put(server, song, body, seen=None):
    headers = {} if seen is None else {"If-Match": f'"{seen}"'}
    return server.client.put(f"/api/v1/corrections/{song['id']}", json=body, headers=headers)


def stored(server):
    """Return the labels in the manifest."""
    file = server.folder / ".mvemo" / "corrections.csv"
    return [clip.label[0] for clip in read_manifest(file).clips] if file.exists() else []


def classes_of(server):
    return server.get("models").json()["models"][0]["outputs"]


@pytest.mark.parametrize("body", [{"comment": "hm"}, {"unsure": True}])
def test_a_comment_on_an_unjudged_clip_is_no_label(server, song, body):
    clip = put(server, song, body).json()
    assert "label" not in clip["correction"]
    assert clip["correction"]["comment"] == body.get("comment", "")
    assert stored(server) == []
    assert server.client.post("/api/v1/learn", json={"name": "mine"}).status_code == 422
    first, other = classes_of(server)[:2]
    judged = put(server, song, {"label": first}).json()["correction"]
    assert (judged["label"], judged["comment"]) == (first, body.get("comment", ""))
    again = put(server, song, {"comment": "still"}).json()["correction"]
    assert (again["label"], again["comment"]) == (first, "still")
    assert stored(server) == [first]
    assert put(server, song, {"label": other, "unsure": True}).json()["correction"]["unsure"]
    assert put(server, song, {"label": None, "comment": "who knows"}).is_success
    assert stored(server) == []


@pytest.mark.parametrize(
    ("key", "most"), [("comment", 10_000), ("comment", 131_072), ("annotator", 200)]
)
def test_a_text_that_is_too_long_is_refused(server, song, key, most):
    body = {"label": classes_of(server)[0], key: "x" * (most + 1)}
    refused = put(server, song, body)
    assert refused.status_code == 422
    assert "expected at most " in refused.json()["error"]
    longest = put(server, song, {**body, key: "x" * min(most, 10_000)})
    assert longest.is_success
    assert stored(server) == [body["label"]]


def test_a_newer_correction_is_not_replaced(server, song):
    first, second = classes_of(server)[:2]
    none = server.get(f"clips/{song['id']}").headers["etag"].strip('"')
    mine = put(server, song, {"label": first}, none)
    etag = mine.json()["correction"]["etag"]
    assert mine.headers["etag"] == f'"{etag}"' != f'"{none}"'
    theirs = put(server, song, {"label": second, "annotator": "Ben"}, etag)
    assert theirs.is_success
    url, stale = f"/api/v1/corrections/{song['id']}", {"If-Match": f'"{etag}"'}
    for answer in (server.client.delete(url, headers=stale), put(server, song, {}, etag)):
        assert answer.status_code in (412, 422)
    assert server.client.delete(url, headers=stale).status_code == 412
    assert put(server, song, {"label": first}, etag).status_code == 412
    assert server.get(f"clips/{song['id']}").json()["correction"]["label"] == second
    fresh = {"If-Match": theirs.headers["etag"]}
    assert server.client.delete(url, headers=fresh).json()["correction"]["label"] == first
    assert server.client.delete(url, headers={"If-Match": "*"}).json()["correction"] is None


def test_a_file_that_cannot_be_read_takes_comments(server):
    broken = server.clips()["broken.mp3"]
    assert put(server, broken, {"comment": "empty"}).json()["correction"]["id"] == broken["id"]
    listed = server.get("corrections").json()["corrections"]
    assert broken["id"] in [one["id"] for one in listed]
    url = f"/api/v1/corrections/{broken['id']}"
    assert server.client.delete(url).json()["correction"] is None


def test_edits_by_hand_while_it_runs_are_kept(server, song):
    first, second = classes_of(server)[:2]
    file = server.folder / ".mvemo" / "corrections.csv"
    etag = put(server, song, {"label": first}).json()["correction"]["etag"]
    other = server.clips()["song1.wav"]
    file.write_text(file.read_text().replace(f".wav,{first}", f".wav,{second}"))
    assert put(server, other, {"label": first}).is_success
    assert sorted(stored(server)) == sorted([second, first])
    assert server.get(f"clips/{song['id']}").json()["correction"]["label"] == second
    assert put(server, song, {"label": first}, etag).status_code == 412
    text = file.read_text()
    file.write_text(text.replace(f".wav,{second}", ".wav,nonsense"))
    refused = put(server, other, {"label": second})
    assert (refused.status_code, "nonsense" in refused.json()["error"]) == (409, True)
    assert "nonsense" in file.read_text()
    file.write_text(text)
    assert put(server, other, {"label": second}).is_success
    assert stored(server) == [second, second]
    lines = [line for line in file.read_text().splitlines(True) if "song1.wav" not in line]
    file.write_text("".join(lines))
    assert put(server, song, {"label": second, "comment": "hm"}).is_success
    assert server.get(f"clips/{other['id']}").json()["correction"] is None


def test_a_vanished_disk_is_told_and_nothing_is_lost(server, song):
    first, second = classes_of(server)[:2]
    put(server, song, {"label": first})
    work, away = server.folder / ".mvemo", server.folder / "unplugged"
    work.rename(away)
    url = f"/api/v1/corrections/{song['id']}"
    for answer in (put(server, song, {"label": second}), server.client.delete(url)):
        assert answer.status_code == 503
        assert "corrections-history.jsonl: cannot be written" in answer.json()["error"]
    assert server.client.post("/api/v1/clips?name=a.wav", content=b"x").status_code == 503
    assert server.get(f"clips/{song['id']}").json()["correction"]["label"] == first
    health = server.get("health").json()
    assert health["status"] == "failing"
    assert "cannot be written" in health["problems"][-1]
    assert not work.exists()
    away.rename(work)
    assert put(server, song, {"label": second}).is_success
    assert stored(server) == [second]
    assert server.get("health").json()["status"] == "ok"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB; only root can mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_ends_no_thread(model, tmp_path, small_disk):
    server = Server(model, write_songs(tmp_path / "songs"), "--work", str(small_disk / "work"))
    song, first = server.clips()["song0.wav"], classes_of(server)[0]
    content = (server.folder / "song1.wav").read_bytes()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert put(server, song, {"label": first}).status_code == 503
    sent = server.client.post("/api/v1/clips?name=a.wav", content=content)
    assert sent.status_code == 503
    assert os.listdir(small_disk / "work" / "uploads") == []
    copy = server.folder / "new.wav"
    copy.write_bytes((server.folder / "song2.wav").read_bytes()[:-2000])
    listed = {"paths": [str(copy)]}
    for _ in range(2):
        job = server.finished(server.client.post("/api/v1/jobs", json=listed).json())
        assert job["state"] in ("failed", "done")
    assert server.get("health").json()["status"] == "failing"
    filler.unlink()
    assert put(server, song, {"label": first}).is_success
    job = server.finished(server.client.post("/api/v1/jobs", json=listed).json())
    assert (job["state"], job["failed"]) == ("done", 0)
    health = server.get("health").json()
    assert (health["status"], health["problems"]) == ("ok", [])
    server.end()
    again = Server(model, server.folder, "--work", str(small_disk / "work"))
    assert again.clips()["song0.wav"]["correction"]["label"] == first
    assert again.clips()["new.wav"]["state"] == "done"
    again.end()


@pytest.mark.parametrize("path", ["\0", "a\0b.wav", "\ud800", "x" * 5000, "loop", "loop/a.wav"])
def test_paths_that_no_file_can_have_are_refused(server, path):
    loop = server.folder / "loop"
    if not loop.is_symlink():
        loop.symlink_to(loop)
    for text in (path, f"{server.folder}/{path}"):
        body = json.dumps({"paths": [text]})
        answer = server.client.post("/api/v1/jobs", content=body)
        assert answer.status_code in (403, 404), answer.text


@pytest.mark.parametrize(
    ("port", "host", "origin", "status"),
    [
        (80, "127.0.0.1", "http://127.0.0.1", None),
        (80, "localhost:80", "http://localhost", None),
        (80, "[::1]", "http://[::1]:80", None),
        (80, "192.0.2.7", None, None),
        (80, "evil.example", None, 403),
        (80, "127.0.0.1", "http://evil.example", 403),
        (80, "127.0.0.1", "https://127.0.0.1", 403),
        (8400, "127.0.0.1", None, 403),
        (8400, "127.0.0.1:8400", "http://127.0.0.1", 403),
    ],
)
def test_browsers_leave_out_the_default_port(port, host, origin, status):
    access = Access(None, TOKEN, port, "0.0.0.0")
    headers = [(b"host", host.encode()), (b"authorization", f"Bearer {TOKEN}".encode())]
    headers += [] if origin is None else [(b"origin", origin.encode())]
    scope = {"type": "http", "path": "/", "query_string": b"", "headers": headers}
    answer = access._answer({**scope, "server": ("192.0.2.7", port)})
    assert getattr(answer, "status_code", None) == status


# --- in this process


@pytest.fixture
def library(tmp_path):
    songs = write_songs(tmp_path / "songs", 2)
    made = Library([songs], songs / ".mvemo", "first")
    made.add_folder(songs)
    made.corrections = Corrections(made.work / "corrections.csv", "x", "multiclass", ("a", "b"))
    return made


@pytest.fixture
def worker(library, model):
    return JobWorker(library, model, PredictSettings())


def run_all(worker):
    worker.start()
    while any(job.state in ("waiting", "running") for job in worker.jobs.values()):
        worker._thread.join(0.01)
    worker.stop()


def test_what_a_full_queue_refuses_is_not_stored(library, worker):
    for _ in range(MOST_WAITING):
        worker.submit(Job("timeline", ["x"]))
    n_clips = len(library)
    extra = library.roots[0] / "extra.wav"
    shutil.copy(library.roots[0] / "song0.wav", extra)
    with TestClient(make_app(Api(library, worker, "", 10**9), lambda app: app)) as client:
        for _ in range(3):
            sent = client.post("/api/v1/clips?name=a.wav", content=extra.read_bytes())
            assert (sent.status_code, sent.headers["retry-after"]) == (429, "2")
        assert client.post("/api/v1/jobs", json={"paths": [str(extra)]}).status_code == 429
    assert os.listdir(library.uploads) == []
    assert len(library) == n_clips


def test_a_job_that_fails_on_a_full_disk_does_not_end_the_thread(library, worker, monkeypatch):
    ids = library.ids("waiting")
    library.update(ids[0], {"state": "done", "error": None, "model": "made/x"})

    def no_space(*args):
        raise DiskFailed("clips.jsonl: cannot be written: No space left on device")

    def stderr_is_full(text):
        raise OSError("No space left on device")

    monkeypatch.setattr(library._journal, "append", no_space)
    monkeypatch.setattr(worker, "_warm", no_space)
    monkeypatch.setattr(jobs, "tell_note", stderr_is_full)
    first = worker.submit(Job("predict", ids))
    second = worker.submit(Job("predict", ids[:1]))
    run_all(worker)
    assert (first.state, second.state) == ("failed", "failed")
    assert (library.get(ids[0])["state"], library.get(ids[1])["state"]) == ("done", "failed")
    with TestClient(make_app(Api(library, worker, "", 0), lambda app: app)) as client:
        health = client.get("/api/v1/health").json()
    assert health["status"] == "failing"
    assert "No space left" in " ".join(health["problems"])


@pytest.fixture
def other_model(model, tmp_path):
    """The folder of a model with the same outputs and another name."""
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, "name": "other"}))
    return folder


def test_a_model_that_is_switched_while_nets_load_answers(
    library, worker, other_model, monkeypatch
):
    made = []

    def slow(folder, settings):
        made.append(folder)
        if len(made) == 1:
            worker.use(other_model)
        return SimpleNamespace(folder=folder, model=load_model(folder))

    def predict(maker, embedded):
        return ClipPrediction("a", maker.model.name, {}, label="x", notes=("y",))

    monkeypatch.setattr(feature_maker, "FeatureMaker", slow)
    monkeypatch.setattr(run, "predict_clip", predict)
    monkeypatch.setattr(jobs, "prediction_facts", lambda *args: {"state": "done", "error": None})
    clip_id, embedded = (
        library.ids("waiting")[0],
        SimpleNamespace(clip=SimpleNamespace(path=Path("a"))),
    )
    job = Job("predict", [clip_id])
    worker._store(job, worker._warm(), [(clip_id, embedded)])
    assert library.get(clip_id)["state"] == "waiting"
    worker._store(job, worker._warm(), [(clip_id, embedded)])
    assert (library.get(clip_id)["model"], library.get(clip_id)["label"]) == ("other", "x")
    worker.use(made[0])
    shown = library.get(clip_id)
    assert (shown["state"], shown["model"], shown["label"]) == ("waiting", None, None)
    assert (shown["proba"], shown["notes"]) == (None, [])
    assert len(made) == 2


def test_a_half_written_model_does_not_hide_the_others(library, worker, other_model):
    half = shutil.copytree(other_model, library.work / "models" / "half")
    shutil.copytree(other_model, library.work / "models" / "whole")
    (half / "heads.npz").write_bytes(b"half")
    with TestClient(make_app(Api(library, worker, "", 0), lambda app: app)) as client:
        listed = client.get("/api/v1/models").json()["models"]
        used = client.post("/api/v1/models/current", json={"name": "half"})
    assert [model["name"] for model in listed] == ["model", "whole"]
    assert used.status_code == 422


def test_a_model_with_other_classes_is_not_switched_to(worker):
    before = worker.folder
    with pytest.raises(MvemoError, match="--work"):
        worker.use(model_folder("film-music"))
    assert worker.folder == before


def test_a_run_without_its_model_is_refused(model, tmp_path, program):
    run_of = shutil.copytree(model.parent, tmp_path / "run")
    (run_of / "model").rename(tmp_path / "elsewhere")
    server = Server(tmp_path / "elsewhere", run_of)
    assert server.get("models").json()["models"][0]["current"]
    assert server.end() == 143
    lines = program("mvemo", "serve", run_of, "--no-open", ends=2).err.splitlines()
    assert "give --model the model that the run made" in lines[-1]


def test_ratings_lie_on_the_stated_scale(tmp_path):
    made = load_model(model_folder("film-music"))
    scale = {name: made.ends(name) for name in made.scale}
    assert set(scale.values()) == {(1.0, 9.0)}
    kept = Corrections(tmp_path / "corrections.csv", made.name, made.task, made.classes, scale)
    values = dict.fromkeys(made.classes, 9)
    kept.put(tmp_path / "a.wav", values, clip_id="a")
    assert read_manifest(kept.path, media=False).scale == "1..9"
    with pytest.raises(ValueError, match=r"energy 9.5 is outside the scale 1\.\.9"):
        kept.put(tmp_path / "a.wav", {**values, "energy": 9.5}, clip_id="a")

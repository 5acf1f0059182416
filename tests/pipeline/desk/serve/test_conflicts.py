"""`mvemo serve` with full and vanished disks, two people, and two models."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from server_samples import TOKEN, library_of, run_all

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model_files import load_model
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import DiskFailed, MvemoError
from mvemo.pipeline.desk.serve import jobs
from mvemo.pipeline.desk.serve.access import Access
from mvemo.pipeline.desk.serve.jobs import MOST_WAITING, Job, JobWorker
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
    assert "label" not in put(server, song, body).json()["correction"]
    assert stored(server) == []
    assert server.client.post("/api/v1/learn", json={"name": "mine"}).status_code == 422
    first, other = classes_of(server)[:2]
    put(server, song, {"label": first})
    again = put(server, song, {"comment": "still"}).json()["correction"]
    assert (again["label"], again["comment"], stored(server)) == (first, "still", [first])
    assert put(server, song, {"label": other, "unsure": True}).json()["correction"]["unsure"]
    assert put(server, song, {"label": None, "comment": "who knows"}).is_success
    assert stored(server) == []


def test_a_newer_correction_is_not_replaced(server, song):
    first, second = classes_of(server)[:2]
    none = server.get(f"clips/{song['id']}").headers["etag"].strip('"')
    mine = put(server, song, {"label": first}, none)
    etag = mine.json()["correction"]["etag"]
    assert mine.headers["etag"] == f'"{etag}"' != f'"{none}"'
    theirs = put(server, song, {"label": second, "annotator": "Ben"}, etag)
    assert theirs.is_success
    url, stale = f"/api/v1/corrections/{song['id']}", {"If-Match": f'"{etag}"'}
    assert put(server, song, {}, etag).status_code in (412, 422)
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
        (8400, "127.0.0.1:8400", "null", 403),
        # Others name the address that they reached.
        (8400, "192.0.2.7:8400", None, None),
        (8400, "evil.example:8400", None, 403),
    ],
)
def test_host_and_origin_with_and_without_the_default_port(port, host, origin, status):
    access = Access(None, TOKEN, port, "0.0.0.0")
    headers = [(b"host", host.encode()), (b"authorization", f"Bearer {TOKEN}".encode())]
    headers += [] if origin is None else [(b"origin", origin.encode())]
    scope = {"type": "http", "path": "/", "query_string": b"", "headers": headers}
    answer = access._answer({**scope, "server": ("192.0.2.7", port)})
    assert getattr(answer, "status_code", None) == status


# --- in this process


def test_what_a_full_queue_refuses_is_not_stored(library, worker, client):
    for _ in range(MOST_WAITING):
        worker.submit(Job("timeline", ["x"]))
    n_clips, extra = len(library), library.roots[0] / "extra.wav"
    shutil.copy(library.roots[0] / "song0.wav", extra)
    for _ in range(3):
        sent = client.post("/api/v1/clips?name=a.wav", content=extra.read_bytes())
        assert (sent.status_code, sent.headers["retry-after"]) == (429, "2")
    assert client.post("/api/v1/jobs", json={"paths": [str(extra)]}).status_code == 429
    assert os.listdir(library.uploads) == []
    assert len(library) == n_clips


def test_a_full_disk_ends_no_thread_and_predictions_are_stored_later(
    library, worker, client, monkeypatch
):
    ids = library.ids("waiting")
    library.update(ids[0], {"state": "done", "error": None, "model": "made/x"})

    def no_space(*args):
        raise DiskFailed("clips.jsonl: cannot be written: No space left on device")

    def stderr_is_full(text):
        raise OSError("No space left on device")

    monkeypatch.setattr(jobs, "tell_note", stderr_is_full)
    with monkeypatch.context() as full:
        full.setattr(library._journal, "append", no_space)
        full.setattr(worker, "_warm", no_space)
        first = worker.submit(Job("predict", ids))
        second = worker.submit(Job("predict", ids[:1]))
        run_all(worker)
    assert (first.state, second.state) == ("failed", "failed")
    assert (library.get(ids[0])["state"], library.get(ids[1])["state"]) == ("done", "failed")
    health = client.get("/api/v1/health").json()
    assert health["status"] == "failing"
    assert "No space left" in " ".join(health["problems"])
    library.update(ids[2], {"state": "failed", "error": "?"})
    assert library.unsaved == ""
    assert {*library_of(library.folder).ids()} == {*ids}


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
    monkeypatch.setattr(
        jobs.libraries, "prediction_facts", lambda *args: {"state": "done", "error": None}
    )
    clip_id = library.ids("waiting")[0]
    embedded = SimpleNamespace(clip=SimpleNamespace(path=Path("a")))
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


def test_a_half_written_model_does_not_hide_the_others(library, client, other_model):
    half = shutil.copytree(other_model, library.work / "models" / "half")
    shutil.copytree(other_model, library.work / "models" / "whole")
    (half / "heads.npz").write_bytes(b"half")
    listed = client.get("/api/v1/models").json()["models"]
    used = client.post("/api/v1/models/current", json={"name": "half"})
    assert [model["name"] for model in listed] == ["model", "whole"]
    assert used.status_code == 422


def test_a_model_is_switched_in_an_empty_folder(tmp_path, model, other_model):
    worker = JobWorker(library_of(tmp_path), model, PredictSettings(), load_model(model))
    job = worker.use(other_model)
    run_all(worker)
    assert (job.state, job.message, worker.problem) == ("done", "", "")


def test_a_model_with_other_classes_is_not_switched_to(worker):
    before = worker.folder
    with pytest.raises(MvemoError, match="--work"):
        worker.use(model_folder("film-music"))
    assert worker.folder == before

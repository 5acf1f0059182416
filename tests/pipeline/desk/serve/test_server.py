"""`mvemo serve` as a process: its answers, its refusals, and what a killed one leaves."""

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from server_samples import TOKEN, Server, write_songs

from mvemo.manifests import read_manifest
from mvemo.pipeline.desk.serve.app import SCHEMA

DOCUMENT = json.loads(SCHEMA.read_text(encoding="utf-8"))


def valid(path, method, response):
    """Check an answer against the API's document."""
    described = DOCUMENT["paths"][path][method]["responses"]
    answer = described.get(str(response.status_code), described["default"])
    schema = answer["content"]["application/json"]["schema"]
    jsonschema.validate(response.json(), {**schema, "components": DOCUMENT["components"]})
    return response.json()


def test_clips_are_predicted_and_a_broken_one_is_told(server, model, program):
    clips = server.clips()
    assert {*clips} - {"sent.wav"} == {"broken.mp3", "song0.wav", "song1.wav", "song2.wav"}
    assert clips["broken.mp3"]["state"] == "failed"
    assert "cannot be read" in clips["broken.mp3"]["error"]
    song = clips["song0.wav"]
    assert song["title"] == "song0"
    assert sum(song["proba"].values()) == pytest.approx(1)
    assert 0 <= song["doubt"] <= 1
    assert len(song["map"]) == 2
    words = ["predict", server.folder / "song0.wav", "--json", "--model", model]
    (record,) = json.loads(program("mvemo", *words).out)
    assert record["proba"] == pytest.approx(song["proba"], abs=1e-5)


def test_answers_are_as_documented(server):
    song = server.clips()["song1.wav"]["id"]
    for path in ("health", "models", "clips", "relative", "jobs", "corrections"):
        valid(f"/api/v1/{path}", "get", server.get(path))
    valid("/api/v1/clips/{id}", "get", server.get(f"clips/{song}"))
    metrics = {m.name: m for m in text_string_to_metric_families(server.get("metrics").text)}
    assert metrics["mvemo_clips"].samples[0].value in (4, 5)
    assert (metrics["mvemo_requests"].type, metrics["mvemo_jobs_waiting"].type) == (
        "counter",
        "gauge",
    )
    assert all(metric.documentation for metric in metrics.values())
    assert server.get("openapi.json").json() == DOCUMENT
    waveform = valid("/api/v1/clips/{id}/waveform", "get", server.get(f"clips/{song}/waveform"))
    assert len(waveform["peaks"]) == 1000
    assert waveform["seconds"] == pytest.approx(1, abs=0.01)
    for kind in ("timeline", "explain", "similar"):
        first = server.get(f"clips/{song}/{kind}")
        if first.status_code == 202:
            assert server.finished(first.json()["job"])["state"] == "done"
        again = server.get(f"clips/{song}/{kind}")
        assert again.status_code == 200
        found = valid(f"/api/v1/clips/{{id}}/{kind}", "get", again)
    others = {clip["id"]: clip["state"] for clip in server.clips().values() if clip["id"] != song}
    assert found["ids"]
    assert {others[clip_id] for clip_id in found["ids"]} == {"done"}
    answer = server.client.post("/api/v1/playlists", json={"ids": [song], "name": "a/../b"})
    playlist = valid("/api/v1/playlists", "post", answer)
    assert Path(playlist["file"]).parent == server.folder / ".mvemo" / "playlists"
    assert playlist["text"].splitlines()[-1] == str(server.folder / "song1.wav")
    nothing = server.client.post("/api/v1/scan")
    assert server.finished(valid("/api/v1/scan", "post", nothing))["state"] == "done"
    assert valid("/api/v1/report", "get", server.get("report")) == {"error": "no run was opened"}


def test_uploads(server):
    song = (server.folder / "song0.wav").read_bytes()
    sent = server.client.post("/api/v1/clips?name=../../sent.wav", content=song)
    valid("/api/v1/clips", "post", sent)
    assert server.finished(sent.json()["job"])["failed"] == 0
    clip = server.get(f"clips/{sent.json()['clip']['id']}").json()
    assert (clip["name"], clip["title"], clip["state"]) == ("sent.wav", "sent", "done")
    assert Path(clip["path"]).parent == server.folder / ".mvemo" / "uploads"
    for name in ("program.exe", "", "wav", "a.wav\0.sh"):
        refused = server.client.post("/api/v1/clips", params={"name": name}, content=song)
        assert refused.status_code == 415


def test_media_in_parts(server):
    song = (server.folder / "song1.wav").read_bytes()
    path = f"/media/{server.clips()['song1.wav']['id']}"
    part = server.client.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, song[100:200])
    beyond = server.client.get(path, headers={"Range": f"bytes={len(song)}-"})
    assert beyond.status_code == 416
    assert server.client.head(path).headers["content-length"] == str(len(song))


PATHS = ["/", "/app.js", *(p.replace("{id}", "x") for p in DOCUMENT["paths"])]


@pytest.mark.parametrize("path", PATHS)
def test_strangers_are_refused(server, path):
    port = server.url.rstrip("/").rpartition(":")[2]
    with httpx.Client(base_url=server.url) as stranger:
        assert stranger.get(path).status_code == 401
        for wrong in ("", "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x"):
            assert stranger.get(path, headers={"Authorization": wrong}).status_code == 401
        assert stranger.get(path, params={"token": "wrong"}).status_code == 401
    hosts = ({"Host": host} for host in ("evil.example", f"evil.example:{port}"))
    origins = ({"Origin": o} for o in ("http://evil.example", "null", "http://127.0.0.1"))
    for headers in (*hosts, *origins):
        assert server.client.get(path, headers=headers).status_code == 403


def test_the_address_gives_a_cookie_once(server):
    with httpx.Client(base_url=server.url) as browser:
        answer = browser.get("/", params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        page = browser.get("/")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert browser.get("/app.js").status_code == 200


ODD_PATHS = ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/page/../../app.py", "//etc/passwd"]
ODD_PATHS += ["/media/../../../etc/passwd", "/media/%2fetc%2fpasswd", "/media/..%5c..%5cetc"]
ODD_PATHS += [f"/api/v1/clips/{name}" for name in ("..%2f..%2fx", "x" * 10_000, "%00")]
ODD_PATHS += [f"/api/v1/clips?since={number}" for number in ("-1", "nan", "1e99")]


@pytest.mark.parametrize("path", [*ODD_PATHS, "/api/v1/nosuch"], ids=lambda path: path[:40])
def test_odd_paths_are_refused(server, path):
    raw = httpx.URL(server.url).copy_with(raw_path=path.encode())
    answer = server.client.get(raw)
    assert answer.status_code in (400, 404, 422), answer.text
    assert "root:" not in answer.text


BODIES = [b"", b"{", b"[]", b"null", b"1", b'{"name": 1}', b'{"ids": "x", "paths": {}}']
BODIES += [b"[" * 100_000, b'{"paths": ["/etc/passwd"]}', b'{"ids": ["nosuch"], "name": ""}']
BODIES += [b'{"name": "../../x"}', b'{"name": "\\u0000"}', b'{"label": {"a": []}}', b"\xff\xfe"]
BODIES += [b'{"label": ["a"], "unsure": "x", "annotator": [1]}', b" " * (2 << 20)]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_odd_bodies_are_refused(server, body):
    song = server.clips()["song0.wav"]["id"]
    for method, path in (
        ("POST", "jobs"),
        ("POST", "learn"),
        ("POST", "playlists"),
        ("POST", "models/current"),
        ("PUT", f"corrections/{song}"),
        ("PUT", "corrections/nosuch"),
        ("DELETE", "jobs/nosuch"),
    ):
        answer = server.client.request(method, f"/api/v1/{path}", content=body)
        assert 400 <= answer.status_code < 500, (method, path, answer.text)
        assert answer.json()["error"]
    for method, path in (("PUT", "clips"), ("DELETE", "health"), ("POST", "clips/x")):
        assert server.client.request(method, f"/api/v1/{path}").status_code == 405


def test_paths_outside_the_folder(server, tmp_path):
    shutil.copy(server.folder / "song0.wav", tmp_path / "outside.wav")
    link = server.folder / "link.wav"
    link.symlink_to(tmp_path / "outside.wav")
    for path in (tmp_path / "outside.wav", link, server.folder / ".." / ".."):
        answer = server.client.post("/api/v1/jobs", json={"paths": [str(path)]})
        assert answer.status_code == 403
    link.unlink()


def test_paths_are_relative_to_the_opened_folder(server):
    (server.folder / "more").mkdir()
    shutil.copy(server.folder / "song0.wav", server.folder / "more" / "sent-in.wav")
    for path in ("more/sent-in.wav", "more", "./more/../more", str(server.folder / "more")):
        answer = server.client.post("/api/v1/jobs", json={"paths": [path]})
        assert (answer.status_code, answer.json().get("total")) == (202, 1), answer.text
    clips = server.clips()
    assert [name for name in clips if name.startswith("sent-in")] == ["sent-in.wav"]
    lost = server.client.post("/api/v1/jobs", json={"paths": ["nosuch.wav"]})
    assert lost.status_code == 404
    assert f"expected a path inside {server.folder}, relative to it" in lost.json()["error"]


def test_a_rescan_finds_new_replaced_and_deleted_files(model, tmp_path):
    server = Server(model, write_songs(tmp_path / "songs", 3))
    before, folder = server.clips(), tmp_path / "songs"
    for name in ("new.wav", "sub.wav"):
        shutil.copy(folder / "song0.wav", folder / name)
    wave = server.get(f"clips/{before['song2.wav']['id']}/waveform").json()
    (folder / "broken.mp3").unlink()
    shutil.copy(folder / "song1.wav", folder / "song2.wav")
    job = valid("/api/v1/scan", "post", server.client.post("/api/v1/scan"))
    assert server.finished(job)["state"] == "done"
    after = server.clips()
    assert {"new.wav", "sub.wav"} <= {*after}
    assert {after[name]["state"] for name in ("new.wav", "sub.wav", "song2.wav")} == {"done"}
    assert after["broken.mp3"]["state"] == "missing"
    assert after["song2.wav"]["content"] == before["song1.wav"]["content"]
    assert server.get(f"clips/{after['song2.wav']['id']}/waveform").json() != wave
    shutil.copy(folder / "song0.wav", folder / "broken.mp3")
    server.finished(server.client.post("/api/v1/scan").json())
    assert server.clips()["broken.mp3"]["state"] == "done"
    predicted = [j["total"] for j in server.get("jobs").json()["jobs"] if j["kind"] == "predict"]
    assert predicted == [4, 3, 1]
    assert server.end() == 143


@pytest.mark.parametrize("kind", ["timeline", "explain"])
def test_a_cancelled_job_of_a_long_clip_ends_at_once(server, kind):
    song = np.random.default_rng(5).uniform(-0.5, 0.5, 300 * 22050)
    soundfile.write(server.folder / "long.flac", song, 22050)
    server.client.post("/api/v1/jobs", json={"paths": ["long.flac"]})
    clip = server.clips()["long.flac"]
    job = server.get(f"clips/{clip['id']}/{kind}").json()["job"]
    assert server.get(f"clips/{clip['id']}/{kind}").json()["job"]["id"] == job["id"]
    while not 0 < job["done"] < 100:
        job = server.get(f"jobs/{job['id']}").json()
        assert job["state"] in ("waiting", "running")
    assert (job["total"], job["name"]) == (100, "long")
    assert server.client.delete(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    short = server.get(f"clips/{server.clips()['song0.wav']['id']}/timeline")
    if short.status_code == 202:
        assert server.finished(short.json()["job"])["state"] == "done"
    ended = server.get(f"jobs/{job['id']}").json()
    assert (ended["state"], ended["done"] < 100, ended["result"]) == ("cancelled", True, None)
    assert server.get(f"clips/{clip['id']}").json()["state"] == "done"


def test_many_requests_at_once_are_all_answered(server):
    song = server.clips()["song0.wav"]["id"]
    paths = ["health", "clips?since=0", f"clips/{song}", "models"] * 50
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(server.get, paths))
    assert {answer.status_code for answer in answers} == {200}


def test_a_deleted_file_is_missing(server):
    extra = server.folder / "song1.wav"
    song, content = server.clips()["song1.wav"]["id"], extra.read_bytes()
    extra.unlink()
    assert server.client.get(f"/media/{song}").status_code == 404
    assert server.get(f"clips/{song}").json()["state"] == "missing"
    extra.write_bytes(content)


def test_a_killed_server_leaves_everything(model, tmp_path, program):
    first = Server(model, write_songs(tmp_path / "songs", 2), "--max-upload", "1")
    clips = first.clips()
    label = first.get("models").json()["models"][0]["outputs"][0]
    ids = [clip["id"] for clip in clips.values() if clip["state"] == "done"]
    for clip_id in ids:
        assert first.client.put(f"/api/v1/corrections/{clip_id}", json={"label": label}).is_success
    second = program("mvemo", *first.process.args[3:-4], "--port", "0", ends=2)
    assert "another mvemo serve uses it" in second.err.splitlines()[-1]
    with first.announce_upload(1_000_001) as large:
        assert large.recv(100).startswith(b"HTTP/1.1 413 ")
    # A client that sends everything before it reads still sees the answer.
    for path, status in (("clips?name=a.wav", 413), ("clips?name=a.txt", 415), ("playlists", 413)):
        with first.announce_upload(30_000_000, path) as large:
            large.sendall(bytes(30_000_000))
            assert large.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    pieces = (bytes(100_000) for _ in range(11))
    streamed = first.client.post("/api/v1/clips?name=a.wav", content=pieces)
    assert streamed.status_code == 413
    assert os.listdir(tmp_path / "songs" / ".mvemo" / "uploads") == []
    first.end(signal.SIGKILL)
    # A person damages the file of corrections.
    file = tmp_path / "songs" / ".mvemo" / "corrections.csv"
    file.write_text("non,sense\n1,2\n")
    again = Server(model, tmp_path / "songs")
    kept = {name: clip | {"correction": None} for name, clip in again.clips().items()}
    assert kept == {name: clip | {"correction": None} for name, clip in clips.items()}
    found = again.get("corrections").json()["corrections"]
    assert sorted(c["id"] for c in found) == sorted(ids)
    (problem,) = again.get("health").json()["problems"]
    assert "corrections.csv.broken-1" in problem
    assert again.end(signal.SIGINT) == 130
    assert not any("predicted 2 clips" in line for line in again.errors)


def test_a_run_shows_its_confusions_with_the_model_that_it_made(model, tmp_path, program):
    run = shutil.copytree(model.parent, tmp_path / "run")
    (run / "model").rename(tmp_path / "elsewhere")
    refused = program("mvemo", "serve", run, "--no-open", ends=2).err.splitlines()
    assert "give --model the model that the run made" in refused[-1]
    server = Server(tmp_path / "elsewhere", run)
    assert server.get("models").json()["models"][0]["current"]
    clips = {clip["id"]: clip for clip in server.clips().values()}
    report = valid("/api/v1/report", "get", server.get("report"))
    classes, ids = report["confusion"]["classes"], report["confusion"]["ids"]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    best = metrics["models"][metrics["choice"]["model"]]
    assert report["confusion"]["counts"] == best["confusion"]
    for i, j in ((i, j) for i in range(6) for j in range(6)):
        for clip in map(clips.get, ids[i][j]):
            assert clip["label"] == classes[j]
            assert clip["notes"] == [f"true label: {classes[i]}"]
    assert len(report["hard"]) == sum(len(ids[i][j]) for i in range(6) for j in range(6) if i != j)
    assert server.client.get(f"/media/{report['hard'][0]}").status_code == 200
    assert server.client.post("/api/v1/scan").status_code == 422
    assert server.end() == 143


def test_corrections_undo_and_learning(server):
    song = server.clips()["song2.wav"]["id"]
    classes = server.get("models").json()["models"][0]["outputs"]
    url = f"/api/v1/corrections/{song}"
    empty = server.client.post("/api/v1/learn", json={"name": "mine"})
    assert empty.status_code == 422
    for label in classes[:2]:
        body = {"label": label, "annotator": "Ana", "comment": "two\nlines"}
        clip = valid("/api/v1/corrections/{id}", "put", server.client.put(url, json=body))
        assert clip["correction"]["label"] == label
        stored = read_manifest(server.folder / ".mvemo" / "corrections.csv").clips
        assert [stored_clip.label for stored_clip in stored] == [(label,)]
    clip = valid("/api/v1/corrections/{id}", "delete", server.client.delete(url))
    assert clip["correction"]["label"] == classes[0]
    refused = server.client.put(url, json={"label": "nonsense"})
    assert refused.status_code == 422
    assert "unknown label 'nonsense'" in refused.json()["error"]
    job = server.finished(server.client.post("/api/v1/learn", json={"name": "mine"}).json())
    assert job["state"] == "done", job
    assert job["result"]["n_corrections"] == 1
    assert not job["result"]["enough"]
    used = server.client.post("/api/v1/models/current", json={"name": "mine"})
    assert server.finished(used.json()["job"])["state"] == "done"
    current = [m["name"] for m in server.get("models").json()["models"] if m["current"]]
    assert current == ["mine"]
    again = server.get(f"clips/{song}").json()
    assert (again["state"], again["model"].partition("/")[0]) == ("done", "demo (synthetic)")


def test_texts_that_are_not_unicode_and_an_upload_that_breaks_off(server):
    song = server.clips()["song0.wav"]
    body = json.dumps({"label": song["label"], "comment": "\ud800", "annotator": "\udcff"})
    corrected = server.client.put(f"/api/v1/corrections/{song['id']}", content=body)
    assert corrected.status_code == 200
    assert server.get("clips?since=0").status_code == 200
    assert server.get("corrections").status_code == 200
    uploads = server.folder / ".mvemo" / "uploads"
    before = {*uploads.iterdir()}
    with server.announce_upload(1_000_000) as client:
        client.sendall(bytes(100_000))
        while not {*uploads.iterdir()} - before:
            assert server.get("health").status_code == 200
    while {*uploads.iterdir()} - before:
        assert server.get("health").status_code == 200

"""`mvemo serve` with odd texts and files, other models, and many jobs."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import soundfile
from server_samples import Server, library_of, run_all, write_songs
from stage_samples import run

from mvemo.fuse.final.model_files import load_model
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.desk.serve.app import SCHEMA
from mvemo.pipeline.desk.serve.jobs import Job
from mvemo.pipeline.desk.serve.library import SUFFIXES


@pytest.fixture
def steps(library, worker, monkeypatch):
    """The clips of each step of a worker that reads nothing, and fails with a clip named bad."""
    steps = []

    def read(job, ids):
        steps.append(list(ids))
        if any("bad" in library.get(clip_id)["name"] for clip_id in ids):
            raise RuntimeError("nobody foresaw this")
        for clip_id in ids:
            library.update(clip_id, {"state": "done", "error": None, "model": "made"})

    monkeypatch.setattr(worker, "_read", read)
    monkeypatch.setattr(worker, "_warm", lambda: None)
    return steps


def test_jobs_take_turns(library, worker, steps):
    folder = library.roots[0]
    many = [library.add(folder / f"{i}.wav") for i in range(50)]
    one = [library.add(folder / "dropped.wav")]
    first, second = worker.submit(Job("predict", many)), worker.submit(Job("predict", one))
    run_all(worker)
    assert steps.index(one) == 1
    assert [clip_id for step in steps if step != one for clip_id in step] == many
    assert (first.state, first.done, second.state) == ("done", 50, "done")


def test_one_bad_file_does_not_stop_the_others(library, worker, steps, capsys):
    folder = library.roots[0]
    ids = [library.add(folder / name) for name in ("a.wav", "bad.wav", "c.wav")]
    job = worker.submit(Job("predict", ids))
    run_all(worker)
    assert (job.state, job.done, job.failed) == ("done", 3, 1)
    assert (library.ids("failed"), library.ids("done")) == ([ids[1]], [ids[0], ids[2]])
    assert library.get(ids[1])["error"] == "RuntimeError: nobody foresaw this"
    assert "nobody foresaw this" in capsys.readouterr().err


def test_the_next_server_knows_what_the_same_model_predicted(library):
    songs = library.roots[0]
    for i, clip_id in enumerate(sorted(library.ids("waiting"))):
        facts = {"state": "done", "error": None, "model": "made/x", "label": str(i)}
        library.update(clip_id, facts)
    before = {clip_id: library.get(clip_id) for clip_id in library.ids("done")}
    (library.uploads / "half.part").write_bytes(b"half an upload")
    again = library_of(songs)
    assert {clip_id: again.get(clip_id) for clip_id in again.ids("done")} == before
    assert list(again.uploads.iterdir()) == []
    other = library_of(songs, "second")
    assert set(other.ids("waiting")) == set(before)


def test_a_cancelled_clip_keeps_its_prediction_or_waits_at_the_next_start(library, worker):
    known, *others = ids = library.ids("waiting")
    library.update(known, {"state": "done", "error": None, "model": "made/x"})
    job = worker.submit(Job("predict", ids))
    worker._set_state(ids, ("done",), "waiting")
    worker.cancel(job)
    assert (library.ids("done"), library.ids("failed")) == ([known], others)
    again = library_of(library.folder)
    assert (again.ids("done"), {*again.ids("waiting")}) == ([known], {*others})


def test_a_folder_is_compared_as_far_as_the_present_model_predicted_it(library, model):
    loaded = load_model(model)
    calm, wild = (
        {n: float(n == name) for n in loaded.classes} for name in ("Relaxation", "Tension")
    )
    for i in range(12):
        facts = {"model": "m/x", "proba": wild if i < 3 else calm, "map": [i / 12, 0.5]}
        facts["label"] = "Tension" if i < 3 else "Relaxation"
        library.add(library.folder / f"made{i}.wav", state="done", error=None, **facts)
    (one, *_) = library.ids("done")
    found = library.relative(loaded)
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    answer = document["paths"]["/api/v1/relative"]["get"]["responses"]["200"]
    schema = answer["content"]["application/json"]["schema"]
    jsonschema.validate(found, {**schema, "components": document["components"]})
    assert (found["clips"], len(found["relative"]), found["reason"]) == (12, 12, "")
    assert found["relative"][one]["quadrant"] == "tense"
    assert found["relative"][one]["valence"]["rank"] == pytest.approx(1 / 8)
    assert found["map"][one] == pytest.approx([1 / 24, 0.5])
    library.model = "another"
    nothing = {"clips": 0, "fewest": 10, "reason": "", "map": {}, "relative": {}}
    assert library.relative(loaded) == nothing


def test_predictions_of_an_unplugged_disk_come_back(library):
    songs = library.roots[0]
    (clip_id, *_) = library.ids("waiting")
    library.update(clip_id, {"state": "done", "error": None, "model": "made/x"})
    file = Path(library.get(clip_id)["path"])
    file.rename(songs / "elsewhere")
    assert library_of(songs).ids("done") == []
    (songs / "elsewhere").rename(file)
    assert library_of(songs).ids("done") == [clip_id]


def test_a_silent_second_has_no_loudness(library, worker, client):
    (clip_id, *_) = library.ids("waiting")
    worker._keep(Job("timeline", [clip_id]), {"changes": [{"loudness": -math.inf}]})
    answer = client.get(f"/api/v1/clips/{clip_id}/timeline")
    assert answer.json() == {"changes": [{"loudness": None}]}


def test_media_types_do_not_depend_on_the_system(library, client):
    folder = library.roots[0]
    for suffix in SUFFIXES:
        clip_id = library.add(Path(shutil.copy(folder / "song0.wav", folder / f"copy{suffix}")))
        kind = client.head(f"/media/{clip_id}").headers["content-type"]
        assert kind.startswith(f"{library.get(clip_id)['kind']}/")
        assert kind != "video/ts"


def test_a_waveform_keeps_its_peaks(library, client):
    folder, y = library.roots[0], np.zeros(200 * 8000)
    y[100 * 8000 : 101 * 8000] = 0.5
    soundfile.write(folder / "long.wav", y, 8000)
    clip_id = library.add(folder / "long.wav")
    found = client.get(f"/api/v1/clips/{clip_id}/waveform").json()
    assert (found["seconds"], len(found["peaks"])) == (200, 1000)
    loud = np.flatnonzero(np.array(found["peaks"]) > 0.4)
    assert [loud.min(), loud.max()] == pytest.approx([500, 504], abs=1)


@pytest.fixture(scope="module")
def predicted(model, tmp_path_factory):
    """A CSV file of predictions in another folder than the songs."""
    folder = tmp_path_factory.mktemp("predicted")
    songs = write_songs(folder / "songs", 2)
    (folder / "out").mkdir()
    file = folder / "out" / "emotions.csv"
    words = ["predict", songs, "--csv", file, "--model", model, "--cache", folder / "cache.h5"]
    assert run("mvemo", *words) == 0
    return SimpleNamespace(songs=songs, file=file)


def test_a_csv_file_of_predictions_is_shown_and_played(model, predicted):
    server = Server(model, predicted.file)
    clips = server.clips()
    song, broken = clips["song0.wav"], clips["broken.mp3"]
    assert (song["state"], broken["state"]) == ("done", "failed")
    assert song["confidence"] == max(song["proba"].values())
    assert isinstance(song["notes"], list)
    assert len(song["map"]) == 2
    assert (broken["label"], broken["confidence"]) == (None, None)
    assert server.client.get(f"/media/{song['id']}").status_code == 200
    other = shutil.copy(predicted.songs / "song0.wav", predicted.songs / "other.wav")
    answer = server.client.post("/api/v1/jobs", json={"paths": [str(other)]})
    assert answer.status_code == 403
    assert server.end() == 143


def test_predictions_of_another_model_are_refused(model, predicted, tmp_path):
    record = {"path": "a.wav", "model": "x/y", "proba": {"calm": 1.0}, "label": "calm"}
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps(record))
    library = library_of(tmp_path)
    with pytest.raises(BadOption, match=r"predicts calm, but the model .* give --model"):
        library.add_predictions(file, load_model(model))


def test_a_missing_folder_is_told_and_nothing_is_made(tmp_path, program):
    text = program("mvemo", "serve", tmp_path / "nosuch", "--no-open", ends=2).err
    assert text.splitlines()[-1].endswith("nosuch: no such file or folder")
    assert list(tmp_path.iterdir()) == []

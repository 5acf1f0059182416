"""From clips to a model folder to predictions of other clips, by small nets."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from stage_samples import run, tiny_demo, tiny_settings

from mvemo.cache import CacheWriter
from mvemo.cache.parts import locked_cache
from mvemo.extract.media.content import file_digest
from mvemo.extract.nets import build_net
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.prediction import catalogue, embedding
from mvemo.pipeline.prediction.embedding import BatchReader
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings, find_clips, modalities_of
from mvemo.pipeline.prediction.run import predict_files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with clips, a run of crossfitted nets, and a model of it."""
    folder = tmp_path_factory.mktemp("predict")
    tiny_demo(folder / "demo", clips_per_class=2)
    extract = [folder / "demo" / "manifest.csv", "--work", folder / "work"]
    # Two windows of half a second, which prediction has to read as well.
    views = ("nets.c3d.views=2", "nets.c3d.rate=8.0", "nets.c3d.pooling=mean+std")
    more = tiny_settings('extract.descriptors=["mfcc"]', *views)
    assert run("mvemo", "extract", *extract, *more) == 0
    features = folder / "work" / "features.h5"
    assert run("mvemo", "fuse", features, "--final", "--out", folder / "out") == 0
    rng = np.random.default_rng(0)
    soundfile.write(folder / "song.wav", rng.uniform(-0.5, 0.5, 22050), 22050)
    soundfile.write(folder / "long.wav", rng.uniform(-0.5, 0.5, 22050 * 12), 22050)
    (folder / "text.mp3").write_text("no sound at all")
    return folder


def clip_of(folder):
    manifest = read_manifest(folder / "demo" / "manifest.csv")
    return manifest.media_path(manifest.clips[0])


def write_noise(path, seed):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 22050), 22050)


@pytest.fixture
def predict(program):
    """Predict by the model of a folder, and return what is printed."""

    def call(folder, *inputs, ends=0):
        model = folder / "out" / "model"
        return program("mvemo", "predict", *inputs, "--model", model, ends=ends)

    return call


@pytest.fixture
def predicted(predict):
    """Predict something by the model of a folder, and return the records."""
    return lambda folder, *inputs: json.loads(predict(folder, *inputs, "--json").out)


def test_the_model_has_the_nets_of_all_folds_and_no_pickle(made):
    folder = made / "out" / "model"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    nets = {f"nets/{net}-fold{fold}.npz" for net in ("music1d", "c3d") for fold in (0, 1)}
    assert files == {"README.md", "model.json", "heads.npz", "reference.npz", *nets}
    record = json.loads((made / "out" / "model" / "model.json").read_text())
    assert set(record["files"]) == files - {"model.json", "README.md"}
    for name in nets:
        with np.load(made / "out" / "model" / name, allow_pickle=False) as arrays:
            assert all(arrays[key].dtype.kind in "fi" for key in arrays.files)


def test_sound_alone_is_predicted_by_a_model_of_sound(made, predicted):
    video, song, text = predicted(made, clip_of(made), made / "song.wav", made / "text.mp3")
    assert video["path"] == str(clip_of(made))
    for record in (video, song):
        assert sum(record["proba"].values()) == pytest.approx(1.0)
        assert record["proba"][record["label"]] == max(record["proba"].values())
    assert song["confidence"] == max(song["proba"].values())
    # The model knows the video's label.
    assert video["confidence"] is None
    assert "part of the model's training data" in video["notes"][0]
    assert song["model"].endswith("/music1d")
    assert (text["proba"], text["label"], text["model"]) == (None, None, None)
    assert "cannot be read as media" in text["error"]


def test_a_feature_file_is_predicted_as_its_media_are(made, tmp_path, capsys, predict, predicted):
    manifest = read_manifest(made / "demo" / "manifest.csv")
    from_media = predicted(made, *map(manifest.media_path, manifest.clips))
    carried = shutil.copy(made / "work" / "features.h5", tmp_path / "carried.h5")
    from_features = predicted(made, carried)
    assert [r["path"] for r in from_features] == [r["path"] for r in from_media]
    for features, media in zip(from_features, from_media, strict=True):
        assert features["proba"] == pytest.approx(media["proba"], abs=1e-5)
        assert features["model"] == media["model"]
        assert features["confidence"] is None
    lines = predict(made, carried, "--jsonl").out.splitlines()
    assert [json.loads(line)["path"] for line in lines] == [r["path"] for r in from_features]
    sound = predicted(made, carried, "--modality", "audio")
    assert {record["model"].rpartition("/")[2] for record in sound} == {"music1d"}
    assert "without c3d" in sound[0]["notes"][1]
    assert run("mvemo", "predict", carried, "--timeline") == 2
    # The model in the box reads other features.
    assert run("mvemo", "predict", carried) == 2
    assert "expected the features lld, musicnn, effnet" in capsys.readouterr().err


def test_training_clips_are_never_called_unlike(made, tmp_path, predicted):
    folder = tmp_path / "out" / "model"
    shutil.copytree(made / "out" / "model", folder)
    record = json.loads((folder / "model.json").read_text())
    # All clips lie farther; a clip that the model was fitted on is never called unlike.
    for alarm in record["facts"]["alarm"].values():
        alarm["limit"] = 1e-9
    (folder / "model.json").write_text(json.dumps(record))
    carried = shutil.copy(made / "work" / "features.h5", tmp_path / "carried.h5")
    for known in predicted(tmp_path, clip_of(made)) + predicted(tmp_path, carried):
        assert "unlike" not in " ".join(known["notes"])


def test_noise_is_said_to_be_unlike_the_training_clips(made, predicted):
    (song,) = predicted(made, made / "song.wav")
    clips = predicted(made, made / "demo")
    assert any(note.startswith("unlike the clips") for note in song["notes"])
    # The farthest of each feature and net are the thresholds themselves.
    unlike = [any(note.startswith("unlike") for note in clip["notes"]) for clip in clips]
    assert (len(clips), sum(unlike) <= 4) == (12, True)


def test_what_a_folder_has_beside_media_is_named(tmp_path, capsys):
    for name in ("without-ending", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("text")
    (clip,) = find_clips([str(tmp_path)])
    assert clip.problem == "the folder has no media files"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {tmp_path}: 2 left out (unknown type of media file): ")
    assert "'without-ending'" in line


def test_names_tell_the_modalities():
    song, video, lost = (NewClip(name, Path(name)) for name in ("a.mp3", "b.mp4", "c.mp4"))
    assert modalities_of([song, replace(lost, problem="no such file")]) == ("audio",)
    assert modalities_of([song, video]) == ("audio", "video")


def test_a_long_file_is_the_mean_of_windows(made, predicted):
    (song,) = predicted(made, made / "long.wav")
    assert "12 s long: predicted as the mean of 8 windows of 1 s" in song["notes"]


def test_lists_without_labels_folders_and_patterns(made, tmp_path, predicted):
    folder = tmp_path / "songs"
    folder.mkdir()
    shutil.copy(made / "song.wav", folder / "a.wav")
    (folder / "readme.txt").write_text("not media")
    listing = tmp_path / "clips.csv"
    listing.write_text("path,start\nsongs/a.wav,\nsongs/a.wav,0.25\nsongs/none.wav,\n")
    records = predicted(made, listing)
    names = ["songs/a.wav", "songs/a.wav@0.25", "songs/none.wav"]
    assert [record["path"] for record in records] == names
    assert "no such file" in records[2]["error"]
    shutil.copy(made / "song.wav", folder / "without-ending")
    assert [r["path"] for r in predicted(made, folder)] == [str(folder / "a.wav")]
    listing.write_text("file,label\nsongs/a.wav,Sad\n")
    assert [r["path"] for r in predicted(made, listing)] == ["songs/a.wav"]
    listing.write_text("one,two\nsongs/a.wav,songs/none.wav\n")
    with pytest.raises(MvemoError, match="'one' or 'two': give --column path=NAME"):
        find_clips([str(listing)])
    assert [c.file for c in find_clips([str(listing)], {"path": "one"})] == ["songs/a.wav"]
    with pytest.raises(
        BadOption, match="--column path=NAME names a column, but no input is a table"
    ):
        find_clips([str(folder)], {"path": "one"})
    listing.write_text("file,file\nsongs/a.wav,songs/a.wav\n")
    with pytest.raises(MvemoError, match="2 column 'file' for path"):
        find_clips([str(listing)])
    # A pattern that the shell did not expand; the same file again is one clip.
    (again,) = predicted(made, folder / "*.wav", folder / "a.wav")
    # Nets round otherwise in a batch of another size.
    assert again["proba"] == pytest.approx(records[0]["proba"], abs=1e-6)


@pytest.fixture
def read_clips(monkeypatch):
    """Names of the files that are decoded and embedded from here on, two at a time.

    Stored clips are read two at a time, too.
    """
    names: list[str] = []
    embed = BatchReader._embed

    def noted(self, clips, work):
        names.extend(clip.clip.path.name for clip in clips)
        return embed(self, clips, work)

    monkeypatch.setattr(BatchReader, "_embed", noted)
    monkeypatch.setattr(embedding, "BATCH", 2)
    monkeypatch.setattr(catalogue, "BATCH", 2)
    return names


def test_a_catalogue_reads_only_what_is_new(made, tmp_path, read_clips, predict):
    songs, cache = tmp_path / "songs", tmp_path / "songs.h5"
    songs.mkdir()
    for i, name in enumerate(("a", "b", "c", "d")):
        write_noise(songs / f"{name}.wav", seed=i)
    shutil.copy(songs / "a.wav", songs / "same.wav")
    (songs / "text.mp3").write_text("no sound at all")
    nightly = [made, songs, "--cache", cache]
    first = predict(*nightly, "--json")
    assert "6 new, 0 kept, 0 removed" in first.err
    # Equal files are read once, and what is no media at all is not decoded.
    assert sorted(read_clips) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    read_clips.clear()
    second = predict(*nightly, "--json", "--strict", ends=1)
    assert "0 new, 6 kept, 0 removed" in second.err
    assert (second.out, read_clips) == (first.out, [])
    record, *_, broken = json.loads(second.out)
    assert record["content"] == file_digest(songs / "a.wav")
    assert record["duration"] == 1.0
    assert "cannot be read as media" in broken["error"]
    # Renamed, changed, removed and new.
    (songs / "a.wav").rename(songs / "z.wav")
    write_noise(songs / "b.wav", seed=10)
    (songs / "c.wav").unlink()
    write_noise(songs / "e.wav", seed=11)
    third = predict(*nightly, "--jsonl")
    assert "2 new, 4 kept, 2 removed" in third.err
    assert read_clips == ["b.wav", "e.wav"]
    assert {Path(json.loads(line)["path"]).name for line in third.out.splitlines()} == {
        *("b.wav", "d.wav", "e.wav", "same.wav", "text.mp3", "z.wav")
    }
    assert "another model" not in third.err
    other = predict(*nightly, "--modality", "video", ends=2).err
    assert "its features are from another model or --modality" in other


def killed_after_two(commit):
    calls = iter(range(10))

    def killed(writer):
        commit(writer)
        if next(calls) == 1:
            raise KeyboardInterrupt

    return killed


def test_a_catalogue_whose_run_was_killed_goes_on(made, tmp_path, monkeypatch, read_clips, predict):
    for i in range(5):
        write_noise(tmp_path / "songs" / f"{i}.wav", seed=i)
    cache = tmp_path / "songs.h5"
    nightly = [made, tmp_path / "songs", "--cache", cache]
    with monkeypatch.context() as patched:
        # As kill -9 leaves it: shards, and no cache.
        patched.setattr(CacheWriter, "__exit__", lambda writer, *error: writer._lock.close())
        patched.setattr(CacheWriter, "commit", killed_after_two(CacheWriter.commit))
        folder, clips = made / "out" / "model", find_clips([str(tmp_path / "songs")])
        with pytest.raises(KeyboardInterrupt):
            predict_files(folder, clips, PredictSettings(("audio",)), cache)
    assert (len(read_clips), cache.exists()) == (4, False)
    read_clips.clear()
    assert "1 new, 4 kept, 0 removed" in predict(*nightly).err
    assert read_clips == ["4.wav"]
    with locked_cache(cache):
        assert (
            f"is locked by another writer: process {os.getpid()} on"
            in predict(*nightly, ends=2).err
        )
    long = [made, made / "long.wav", "--cache"]
    assert "none of its 5 clips is among the 1 given" in predict(*long, cache, ends=2).err
    assert "expected a catalogue" in predict(*long, made / "work" / "features.h5", ends=2).err
    cache.write_bytes(cache.read_bytes()[:2000])
    assert "songs.h5: is truncated or overwritten: delete it" in predict(*nightly, ends=2).err


def test_the_table_is_printed_if_the_file_cannot_be_written(made, tmp_path, monkeypatch, predict):
    def fail(path, *_, **__):
        raise MvemoError(f"{path}: cannot be written: no space left")

    monkeypatch.setattr("mvemo.pipeline.table_files.write_text", fail)
    shown = predict(made, made / "song.wav", "--csv", tmp_path / "x.csv", ends=2)
    assert "song.wav" in shown.out
    assert "cannot be written: no space left" in shown.err


def test_one_bar_counts_clips_that_failed(made, predict):
    inputs = [clip_of(made), made / "song.wav", made / "text.mp3"]
    # A song is no failure: it has no pictures.
    assert predict(made, *inputs).err == "clips: 3 done, 1 failed\n"


def test_a_plan_states_time_and_memory(made, predict):
    inputs = [made / "song.wav", made / "long.wav", made / "text.mp3"]
    lines = predict(made, *inputs, "--plan").out.splitlines()
    assert lines[0] == "clips: 3, 1 of them cannot be read"
    # Of the long one eight windows of a second are read.
    assert lines[1] == "media to read: 9.0 s"
    assert [line.partition(":")[0] for line in lines[2:]] == ["time", "memory"]


def test_where_nothing_can_be_predicted_the_exit_code_is_2(made, tmp_path, capsys, predict):
    (tmp_path / "empty").mkdir()
    inputs = [made / "text.mp3", tmp_path / "empty", tmp_path / "none.mp3"]
    shown = predict(made, *inputs, ends=2).out
    assert "empty: the folder has no media files" in shown
    assert "none.mp3: no such file" in shown
    line = predict(made, tmp_path / "none.mp3", "--jsonl", ends=2).out
    assert json.loads(line)["error"] == "no such file"
    shown = predict(made, made / "song.wav", "--modality", "video", ends=2).out
    assert "pictures: no video stream" in shown
    assert run("mvemo", "predict", made / "song.wav", "--model", tmp_path) == 2
    assert "is not a model (it has no model.json)" in capsys.readouterr().err


def test_without_the_nets_one_line_says_how_to_get_them(made, tmp_path, capsys, program):
    carried = tmp_path / "carried.h5"
    shutil.copy(made / "work" / "features.h5", carried)
    fuse = ["fuse", carried, "--out", tmp_path / "out", "--models", "music1d"]
    assert "run the same command again with --work WORK" in program("mvemo", *fuse, "--final").out
    predict = ["predict", made / "song.wav", "--model", tmp_path / "out" / "model"]
    assert run("mvemo", *predict) == 2
    assert "the trained net nets/music1d-fold0.npz is missing: create" in capsys.readouterr().err
    assert "out/model is from an earlier run, not from this" in program("mvemo", *fuse).err
    captured = program("mvemo", *fuse, "--final-to", tmp_path / "m", "--work", made / "work")
    assert "it predicts with music1d" in captured.out
    assert "out/model is from an earlier run" in captured.err
    assert run("mvemo", *predict[:2], "--model", tmp_path / "m") == 0
    assert "earlier run" not in program("mvemo", *fuse, "--final", "--work", made / "work").err
    predictions = tmp_path / "theirs.csv"
    predictions.write_text("clip_id,label,x,y\na,x,0.9,0.1\nb,y,0.2,0.8\n")
    assert run("mvemo", "report", "--predictions", predictions, "--out", tmp_path / "out") == 0
    assert "out/model is from an earlier run" in capsys.readouterr().err


def test_frozen_nets_are_found_by_their_weights(made, tmp_path, capsys, program):
    for name in ("mine", "other"):
        net = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit")
        torch.save(net.state_dict(), tmp_path / f"{name}.pt")
    weights = ["--weights", f"c3d={tmp_path / 'mine.pt'}"]
    extract = [made / "demo" / "manifest.csv", "--work", tmp_path / "work", "--nets", "c3d"]
    frozen = ["--protocol", "frozen", "--set", 'extract.descriptors=["mfcc"]', *weights]
    assert run("mvemo", "extract", *extract, *tiny_settings(), *frozen) == 0
    features = tmp_path / "work" / "features.h5"
    lld = ["--set", 'fuse.lld=["mfcc"]']
    assert run("mvemo", "cv", features, "--final", "--out", tmp_path / "out", *lld) == 0
    assert not (tmp_path / "out" / "heads.npz").exists()
    predict = ["predict", clip_of(made), made / "song.wav", "--model", tmp_path / "out" / "model"]
    video, song = json.loads(program("mvemo", *predict, *weights, "--json").out)
    assert song["model"].endswith("/lld")
    assert video["label"]
    # A model whose nets cannot be had says which and how; the wrong file is told.
    pictures = ["--modality", "video"]
    assert run("mvemo", *predict, *pictures) == 2
    assert "give the file with --weights c3d=FILE" in capsys.readouterr().err
    other = ["--weights", f"c3d={tmp_path / 'other.pt'}"]
    assert run("mvemo", *predict, *pictures, *other) == 2
    assert "differ from those that the model was trained with" in capsys.readouterr().err

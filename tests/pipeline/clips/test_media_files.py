"""Lengths of clips against the windows of nets, equal files, and clips without labels."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from media_samples import film, sine
from stage_samples import rewrite, run, tiny_demo, tiny_settings

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import SharedSettings, build_net
from mvemo.extract.settings import NetSettings, ViewSettings
from mvemo.extract.workers.process import CallResult, resolve
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.media_files import longer_clips_note, same_file_notes, window_seconds
from mvemo.pipeline.stage_one import backends

SHARED = SharedSettings(n_frames=32, descriptors=DescriptorSettings(sr=8000, hop_length=800))
TEN = NetSettings("music1d", options={"seconds": 10.0})


def frozen(folder, n_classes):
    """Options of a run with a frozen net of pictures."""
    net = build_net("c3d", n_classes, width=0.05, size=32, n_frames=4, scale="unit")
    torch.save(net.state_dict(), folder / "c3d.pt")
    return ["--protocol", "frozen", "--weights", f"c3d={folder}/c3d.pt"]


def test_seconds_of_a_window():
    frames = NetSettings("i3d", view=ViewSettings(rate=16.0))
    plans = TEN, NetSettings("rnn", options={"n_frames": 200}), frames, NetSettings("i3d")
    # The frames of the last are spread over the whole clip.
    assert [window_seconds(plan, SHARED) for plan in plans] == [10.0, 20.0, 2.0, None]


def test_the_note_counts_the_clips_and_says_what_to_do():
    seconds = {"a": 9.0, "b": 10.1, "c": 11.0, "d": 61.3}
    note = longer_clips_note(TEN, seconds, SHARED)
    assert note.startswith("2 of 4 clips are longer than the 10 s that music1d reads (up to 61.3 s")
    assert "mvemo manifest segment" in note
    assert "--set nets.music1d.views=7," in note
    plan = NetSettings("rnn", options={"n_frames": 200})
    assert "--set nets.rnn.views=4," in longer_clips_note(plan, seconds, SHARED)


@pytest.mark.parametrize("layout", ["start", "spread", "dense"])
def test_the_cure_of_the_note_silences_it(layout):
    plans = [replace(TEN, view=ViewSettings(views=views, layout=layout)) for views in (6, 7)]
    notes = [longer_clips_note(plan, {"a": 9.0, "b": 61.3}, SHARED) for plan in plans]
    assert ("6 windows of 10 s" in notes[0], notes[1]) == (True, "")


def test_windows_of_pictures_up_to_the_end_are_a_sample():
    def note(**view):
        view = ViewSettings(rate=16.0, **view)
        return longer_clips_note(NetSettings("i3d", view=view), {"a": 30.0}, SHARED)

    assert note(views=4) == note(views=15, layout="start") == ""
    assert "--set nets.i3d.views=2," in note()
    assert "--set nets.i3d.views=15," in note(views=14, layout="start")


def test_no_note_where_every_clip_is_read_whole():
    # A codec's last frame is filled up.
    for plan, lengths in ((TEN, (10.05, 3.0)), (TEN, ()), (NetSettings("i3d"), (500.0,))):
        assert longer_clips_note(plan, dict(enumerate(lengths)), SHARED) == ""


def test_stage_one_tells_it_once_and_keeps_it_in_the_summary(tmp_path, program):
    rows = ["path,label,group"]
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", sine(2.0 if i < 4 else 1.0, 16000)[0], 16000)
        rows.append(f"{i}.wav,{'xy'[i % 2]},{i}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    arguments = ["extract", tmp_path / "clips.csv", "--work", tmp_path / "work"]
    shown = program("mvemo", *arguments, *tiny_settings("extract.nets=music1d"))
    note = "note: 4 of 6 clips are longer than the 1 s that music1d reads (up to 2 s)"
    assert shown.err.count(note) == shown.out.count(note) == 1


def test_features_need_no_labels_and_keep_when_they_come(tmp_path, capsys, program):
    demo = tiny_demo(tmp_path / "demo")
    first = demo.media_path(demo.clips[0])
    shutil.copy(first, first.with_name(f"copy{first.suffix}"))
    twin = replace(demo.clips[0], clip_id="twin", group="twin", label=demo.clips[-1].label,
                   path=f"{Path(demo.clips[0].path).parent}/copy{first.suffix}")  # fmt: skip
    demo = replace(demo, clips=(*demo.clips, twin))
    split = [replace(c, split="test" if i % 2 else "train") for i, c in enumerate(demo.clips)]
    labelled = rewrite(replace(demo, clips=tuple(split)), tmp_path / "demo" / "labelled.csv")
    bare = tuple(replace(clip, label=()) for clip in demo.clips)
    unlabelled = replace(demo, task="unlabelled", classes=(), clips=bare)
    path = rewrite(unlabelled, tmp_path / "demo" / "bare.csv")
    end = ["--work", tmp_path / "work", "--nets", "c3d", *tiny_settings()]
    assert run("mvemo", "extract", path, *end) == 2
    assert "no labels, but the protocol crossfit trains on labels" in capsys.readouterr().err
    end += frozen(tmp_path, 6)
    assert run("mvemo", "extract", path, *end) == 0
    features = tmp_path / "work" / "features.h5"
    assert verify_cache(features) == []
    assert run("mvemo", "fuse", features, "--out", tmp_path / "out") == 2
    assert "these clips have no labels" in capsys.readouterr().err
    err = program("mvemo", "extract", labelled, *end).err
    assert "c3d: 0 new, 13 kept" in err
    assert "identical files have different labels: " in err
    with open_cache(features) as cache:
        assert cache.table.classes == demo.classes
        assert cache.table.splits.tolist() == [2 * (i % 2) for i in range(13)]


def test_the_same_bytes_in_two_labels_or_groups_are_named():
    def clip(name, label, group, start=0.0):
        return Clip(f"{name}@{start}", f"{name}.mp3", (label,), group, start)

    clips = (clip("a", "sad", "a"), clip("a", "calm", "a", 5.0), clip("b", "calm", "a"))
    manifest = Manifest("m", "multiclass", ("calm", "sad"), clips, Path())
    assert same_file_notes(manifest, {c.clip_id: c.path for c in clips}) == []
    (note,) = same_file_notes(manifest, dict.fromkeys(manifest.clip_ids, "same"))
    assert "different labels: a.mp3 (sad) and b.mp3 (calm): one of the labels is wrong" in note
    other = replace(manifest, clips=(clips[0], clip("b", "sad", "b")))
    (note,) = same_file_notes(other, dict.fromkeys(other.clip_ids, "same"))
    assert "different groups: a.mp3 (a) and b.mp3 (b): across training and test" in note


def test_equal_files_without_sound_are_named_by_workers(tmp_path, capsys, monkeypatch):
    def in_this_process(calls, *, environments):
        for index, call in enumerate(calls):
            yield CallResult(index, resolve(call.function)(*call.arguments, emit=lambda part: None))

    monkeypatch.setattr(backends, "start_workers", lambda *_: None)
    monkeypatch.setattr(backends, "run_calls", in_this_process)
    first = film(tmp_path / "a.mp4", 8, 100)
    shutil.copy(first, tmp_path / "b.mp4")
    clips = tuple(Clip(name, f"{name}.mp4", (name,), name) for name in "ab")
    path = rewrite(Manifest("m", "multiclass", ("a", "b"), clips, tmp_path), tmp_path / "m.csv")
    code = run("mvemo", "extract", path, "--work", tmp_path / "work", *tiny_settings(),
               *frozen(tmp_path, 2), "--nets", "c3d", "--set", 'extract.descriptors="mel"',
               "--jobs", "2")  # fmt: skip
    err = capsys.readouterr().err
    assert code == 0, err
    assert "identical files have different labels: a.mp4 (a) and b.mp4 (b)" in err

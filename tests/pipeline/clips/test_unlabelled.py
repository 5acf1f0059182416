"""Clips without labels through stage one, and files of the same bytes that it finds."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from media_samples import grey, write_media
from stage_samples import rewrite, run, tiny_demo, tiny_settings

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.nets import build_net
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.media_files import same_file_notes


def test_features_need_no_labels_and_keep_when_they_come(tmp_path, capsys):
    demo = tiny_demo(tmp_path / "demo")
    first = demo.media_path(demo.clips[0])
    shutil.copy(first, first.with_name(f"copy{first.suffix}"))
    twin = replace(demo.clips[0], clip_id="twin", group="twin", label=demo.clips[-1].label,
                   path=f"{Path(demo.clips[0].path).parent}/copy{first.suffix}")  # fmt: skip
    demo = replace(demo, clips=(*demo.clips, twin))
    labelled = rewrite(demo, tmp_path / "demo" / "labelled.csv")
    bare = tuple(replace(clip, label=()) for clip in demo.clips)
    unlabelled = replace(demo, task="unlabelled", classes=(), clips=bare)
    path = rewrite(unlabelled, tmp_path / "demo" / "bare.csv")
    net = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit")
    np.savez(tmp_path / "c3d.npz", **{n: v.numpy() for n, v in net.state_dict().items()})
    end = ["--work", tmp_path / "work", "--nets", "c3d", *tiny_settings()]
    assert run("mvemo", "extract", path, *end) == 2
    assert "no labels, on which crossfit trains nets: --profile pretr" in capsys.readouterr().err
    frozen = [*end, "--protocol", "frozen", "--weights", f"c3d={tmp_path}/c3d.npz"]
    assert run("mvemo", "extract", path, *frozen) == 0
    features = tmp_path / "work" / "features.h5"
    assert verify_cache(features) == []
    assert run("mvemo", "fuse", features, "--out", tmp_path / "out") == 2
    assert "these clips have no labels" in capsys.readouterr().err
    assert run("mvemo", "extract", labelled, *frozen) == 0
    err = capsys.readouterr().err
    assert "c3d: 0 new, 13 kept" in err
    assert "the same bytes under two names with two labels: " in err
    jobs = ["--jobs", "2", "--out", tmp_path / "jobs.h5"]
    assert run("mvemo", "extract", labelled, *frozen, *jobs) == 0
    assert "the same bytes under two names with two labels: " in capsys.readouterr().err
    with open_cache(features) as cache:
        assert cache.table.classes == demo.classes


def test_the_same_bytes_in_two_labels_or_groups_are_named():
    def clip(name, label, group, start=0.0):
        return Clip(f"{name}@{start}", f"{name}.mp3", (label,), group, start)

    clips = (clip("a", "sad", "a"), clip("a", "calm", "a", 5.0), clip("b", "calm", "a"))
    manifest = Manifest("m", "multiclass", ("calm", "sad"), clips, Path())
    assert same_file_notes(manifest, {c.clip_id: c.path for c in clips}) == []
    (note,) = same_file_notes(manifest, dict.fromkeys(manifest.clip_ids, "same"))
    assert "with two labels: a.mp3 (sad) and b.mp3 (calm): one of the labels is wrong" in note
    other = replace(manifest, clips=(clips[0], clip("b", "sad", "b")))
    (note,) = same_file_notes(other, dict.fromkeys(other.clip_ids, "same"))
    assert "with two groups: a.mp3 (a) and b.mp3 (b): on both sides of a fold" in note


def test_equal_files_without_sound_are_named_by_workers(tmp_path, capsys):
    first = write_media(
        tmp_path / "a.mp4", frames=[grey(i) for i in range(8)], times_ms=range(0, 800, 100)
    )
    shutil.copy(first, tmp_path / "b.mp4")
    clips = tuple(Clip(name, f"{name}.mp4", (name,), name) for name in "ab")
    path = rewrite(Manifest("m", "multiclass", ("a", "b"), clips, tmp_path), tmp_path / "m.csv")
    net = build_net("c3d", 2, width=0.05, size=32, n_frames=4, scale="unit")
    np.savez(tmp_path / "c3d.npz", **{n: v.numpy() for n, v in net.state_dict().items()})
    options = ["--protocol", "frozen", "--weights", f"c3d={tmp_path}/c3d.npz", "--nets", "c3d"]
    code = run("mvemo", "extract", path, "--work", tmp_path / "work", *tiny_settings(), *options,
               "--set", 'extract.descriptors="mel"', "--jobs", "2")  # fmt: skip
    err = capsys.readouterr().err
    assert code == 0, err
    assert "the same bytes under two names with two labels: a.mp4 (a) and b.mp4 (b)" in err

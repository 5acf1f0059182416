"""Folders of clips turned into manifests, and files that folders and manifests name."""

import os
import socket
import sys

import pytest

from mvemo.manifests import BadManifest, Selection, read_manifest, scan_clips, write_manifest
from mvemo.manifests.errors import MissingFile
from mvemo.manifests.reader import check_manifest


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_for_each_class(tmp_path):
    paths = ["Exciting/Happy_001.mp4", "Exciting/deeper/c.wav", "Sad/a.ogg", "Sad/b [x] (1).v2.MP4"]
    fill(tmp_path, *paths[::-1], "Sad/.hidden.mp4", ".git/x.mp4")
    manifest = scan_clips(tmp_path, name="mine").manifest
    assert (manifest.name, manifest.classes) == ("mine", ("Exciting", "Sad"))
    assert [c.path for c in manifest.clips] == paths
    assert manifest.labels.tolist() == [0, 0, 1, 1]
    assert manifest.groups[3] == manifest.clip_ids[3] == "Sad/b [x] (1).v2"
    write_manifest(manifest, tmp_path / "manifest.csv")
    # Its own manifest is nothing to warn of.
    assert scan_clips(tmp_path).left_out == ()


def test_folders_of_splits(tmp_path):
    fill(tmp_path, "Train/Sad/1.mp4", "Validation/Sad/1.mp4", "TEST/Fear/v-1-of-2.mp4")
    fill(tmp_path, "Train/Fear/v-2-of-2.mp4")
    manifest = scan_clips(tmp_path, infer_groups=True).manifest
    assert manifest.classes == ("Fear", "Sad")
    assert [c.split for c in manifest.clips] == ["test", "train", "train", "val"]
    assert manifest.groups == ("v", "v", "Sad/1", "Sad/1")
    assert len(set(manifest.clip_ids)) == 4


def test_files_left_out_are_reported(tmp_path):
    fill(tmp_path, "A/a.mp4", "B/b.mp4", "B/notes.txt", "top.mp4", "C/noext")
    scan = scan_clips(tmp_path)
    assert scan.notes(most=1) == (
        "2 left out (unknown type of media file): 'B/notes.txt' and 1 more",
        "1 left out (not in a class folder): 'top.mp4'",
    )
    assert len(scan.manifest) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets such names be")
def test_a_name_that_is_not_utf8_is_reported(tmp_path):
    fill(tmp_path, "A/a.mp4", "B/b.mp4")
    try:
        (tmp_path / "A" / "\udcfc.mp4").write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    scan = scan_clips(tmp_path)
    assert len(scan.manifest) == 2
    assert "rename it): 'A/\\udcfc.mp4'" in scan.notes()[0]


def test_ravdess_is_recognised_by_its_names(tmp_path):
    fill(tmp_path, "Actor_01/03-02-05-01-01-01-01.wav", "Actor_02/03-02-03-01-01-01-02.wav")
    fill(tmp_path, "Actor_02/03-01-01-01-01-01-02.wav")
    manifest = scan_clips(tmp_path).manifest
    assert manifest.classes == ("neutral", "happy", "angry")
    assert manifest.groups == ("actor-01", "actor-02", "actor-02")
    scan = scan_clips(tmp_path, select=Selection(channel="song"))
    assert scan.manifest.classes == ("happy", "angry")
    assert scan.left_out[0][1] == "vocal channel is not song"
    by_folder = scan_clips(tmp_path, layout="class-folders").manifest
    assert by_folder.classes == ("Actor_01", "Actor_02")
    fill(tmp_path, "Actor_02/other.wav")
    assert scan_clips(tmp_path, layout="ravdess").left_out[0][0] == "Actor_02/other.wav"


def test_one_copy_of_a_take_of_ravdess(tmp_path):
    takes = ("01-01-02-01-01-05", "01-03-02-01-01-05", "01-04-01-01-01-06")
    fill(tmp_path, *(f"{modality}-{take}.mp4" for modality in ("01", "02") for take in takes))
    fill(tmp_path, f"03-{takes[0]}.wav", "03-01-05-01-01-01-07.wav")
    scan = scan_clips(tmp_path)
    # With pictures where there is such a copy; one take has sound alone.
    assert [clip.clip_id[:2] for clip in scan.manifest.clips] == ["01", "01", "01", "03"]
    assert [reason for _, reason in scan.left_out] == ["another copy of the same take is used"] * 4
    sound = scan_clips(tmp_path, select=Selection(modality="audio")).manifest
    assert sound.clip_ids == (f"03-{takes[0]}", "03-01-05-01-01-01-07")
    strong = scan_clips(tmp_path, select=Selection(intensity="strong", modality="video"))
    assert strong.manifest.clip_ids == tuple(f"02-{take}" for take in takes[:2])
    # What names say is kept in the manifest's file.
    write_manifest(strong.manifest, tmp_path / "strong.csv")
    extra = read_manifest(tmp_path / "strong.csv").clips[0].extra
    assert dict(extra) == {"modality": "video", "channel": "speech", "intensity": "strong"}


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("empty", {}, "no media files"),
        ("A/a.mp4", {}, "got a file"),
        ("one", {}, "only one class, 'A'"),
        (".", {"layout": "flat"}, "unknown layout 'flat'"),
        (".", {"select": Selection(channel="hum")}, "unknown vocal channel"),
        (".", {"select": Selection(channel="song")}, "needs the ravdess layout"),
        (".", {"layout": "ravdess"}, r"layout ravdess; left out: 'A/a.mp4' \(its name"),
    ],
)
def test_bad_folders(tmp_path, folder, options, message):
    fill(tmp_path, "A/a.mp4", "B/b.mp4", "one/A/a.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadManifest, match=message):
        scan_clips(tmp_path / folder, **options)


def test_folders_without_classes(tmp_path):
    with pytest.raises(MissingFile, match="no such folder"):
        scan_clips(tmp_path / "none")
    flat = fill(tmp_path / "flat", "README.txt", "a.mp4", "b.mp4")
    unlabelled = scan_clips(flat)
    assert unlabelled.manifest.task == "unlabelled"
    assert "no clip is in a class folder" in unlabelled.notes()[0]
    assert scan_clips(fill(tmp_path / "A", "a.mp4"), labels=False).manifest.clip_ids == ("a",)


def manifest(folder, *paths, head=""):
    rows = "".join(f"{path},{'calm' if i % 2 else 'tense'}\n" for i, path in enumerate(paths))
    path = folder / "m.csv"
    path.write_text(f"{head}path,label\n{rows}", encoding="utf-8")
    return path


def test_pipes_and_sockets_are_left_out_and_do_not_block(tmp_path, monkeypatch):
    fill(tmp_path, "calm/a.mp3", "tense/b.mp3")
    os.mkfifo(tmp_path / "calm/pipe.mp3")
    os.mkfifo(tmp_path / "calm/notes")
    monkeypatch.chdir(tmp_path / "tense")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.mp3")
        scan = scan_clips(tmp_path)
    assert scan.manifest.clip_ids == ("calm/a", "tense/b")
    left_out = [path for path, reason in scan.left_out if "pipe, socket" in reason]
    assert left_out == ["calm/notes", "calm/pipe.mp3", "tense/s.mp3"]
    (problem,) = check_manifest(manifest(tmp_path, "calm/a.mp3", "calm/pipe.mp3"))
    assert (problem.line, problem.message[:24]) == (3, "a pipe, socket or device")


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch):
    fill(tmp_path, "calm/a.mp3", "tense/b.mp3", "sad/c.mp3")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("sad"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    scan = scan_clips(tmp_path)
    assert scan.notes() == ("1 left out (the folder cannot be read: Permission denied): 'sad'",)


def test_links_out_of_the_folder_are_taken_when_asked(tmp_path):
    outside = fill(tmp_path / "outside", "x.mp3", "more/y.mp3")
    folder = fill(tmp_path / "clips", "calm/a.mp3", "tense/b.mp3")
    (folder / "calm/x.mp3").symlink_to(outside / "x.mp3")
    (folder / "calm/same.mp3").symlink_to(folder / "tense/b.mp3")
    (folder / "tense/more").symlink_to(outside / "more")
    scan = scan_clips(folder)
    assert scan.manifest.clip_ids == ("calm/a", "calm/same", "tense/b")
    assert [path for path, _ in scan.left_out] == ["calm/x.mp3", "tense/more"]
    # A link to a parent is followed once.
    (outside / "more/loop").symlink_to(folder, target_is_directory=True)
    followed = scan_clips(folder, follow_links=True).manifest.clip_ids
    assert followed == ("calm/a", "calm/same", "calm/x", "tense/b", "tense/more/y")

    path = manifest(folder, "calm/a.mp3", "calm/same.mp3", "calm/x.mp3", "tense/more/y.mp3")
    assert [(p.line, "--root" in p.message) for p in check_manifest(path)] == [(4, True), (5, True)]
    assert check_manifest(path, root=folder) == []


def test_the_whole_file_system_is_no_root_unless_asked(tmp_path):
    path = manifest(tmp_path, "etc/a.mp3", "etc/b.mp3", head="# mvemo manifest 1\n# root: /\n")
    with pytest.raises(BadManifest, match=r"m.csv:2: the media root '/' is the whole file system"):
        read_manifest(path, media=False)
    assert len(read_manifest(path, root="/", media=False)) == 2


@pytest.mark.parametrize(
    ("head", "path", "line", "message"),
    [
        ("", "b" * 300 + ".mp3", 3, "File name too long"),
        ("# classes: " + "[" * 100_000 + "\n", "b.mp3", 1, "nested too deep"),
    ],
)
def test_long_values(tmp_path, head, path, line, message):
    fill(tmp_path, "a.mp3", "b.mp3")
    (problem,) = check_manifest(manifest(tmp_path, "a.mp3", path, head=head))
    assert (problem.line, message in problem.message) == (line, True)

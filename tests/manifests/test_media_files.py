"""Files that a manifest or a folder names: pipes, links, long names, forbidden folders."""

from __future__ import annotations

import os
import socket

import pytest

from mvemo.manifests import BadManifest, check_manifest, read_manifest, scan_clips


def clips(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def manifest(folder, *paths, head=""):
    rows = "".join(f"{path},{'calm' if i % 2 else 'tense'}\n" for i, path in enumerate(paths))
    path = folder / "m.csv"
    path.write_text(f"{head}path,label\n{rows}", encoding="utf-8")
    return path


def test_pipes_and_sockets_are_left_out_and_do_not_block(tmp_path, monkeypatch):
    clips(tmp_path, "calm/a.mp3", "tense/b.mp3")
    os.mkfifo(tmp_path / "calm/pipe.mp3")
    os.mkfifo(tmp_path / "calm/notes")
    monkeypatch.chdir(tmp_path / "tense")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.mp3")
        scan = scan_clips(tmp_path)
    assert scan.manifest.clip_ids == ("calm/a", "tense/b")
    assert [path for path, reason in scan.left_out if "pipe, socket" in reason] == [
        "calm/notes",
        "calm/pipe.mp3",
        "tense/s.mp3",
    ]
    (problem,) = check_manifest(manifest(tmp_path, "calm/a.mp3", "calm/pipe.mp3"))
    assert (problem.line, problem.message.split(":")[0]) == (3, "a pipe, socket or device, no file")


def test_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch):
    clips(tmp_path, "calm/a.mp3", "tense/b.mp3", "sad/c.mp3")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("sad"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    scan = scan_clips(tmp_path)
    assert scan.notes() == ("1 left out, a folder that cannot be read (Permission denied): 'sad'",)


def test_links_out_of_the_folder_are_taken_when_asked(tmp_path):
    outside = clips(tmp_path / "outside", "x.mp3", "more/y.mp3")
    folder = clips(tmp_path / "clips", "calm/a.mp3", "tense/b.mp3")
    (folder / "calm/x.mp3").symlink_to(outside / "x.mp3")
    (folder / "calm/same.mp3").symlink_to(folder / "tense/b.mp3")
    (folder / "tense/more").symlink_to(outside / "more")
    scan = scan_clips(folder)
    assert scan.manifest.clip_ids == ("calm/a", "calm/same", "tense/b")
    assert [path for path, _ in scan.left_out] == ["calm/x.mp3", "tense/more"]
    assert "tense/more/y" in scan_clips(folder, follow_links=True).manifest.clip_ids

    path = manifest(folder, "calm/a.mp3", "calm/same.mp3", "calm/x.mp3", "tense/more/y.mp3")
    assert [(p.line, "--root" in p.message) for p in check_manifest(path)] == [(4, True), (5, True)]
    assert check_manifest(path, root=folder) == []


def test_the_whole_file_system_is_no_root_unless_asked(tmp_path):
    path = manifest(tmp_path, "etc/a.mp3", "etc/b.mp3", head="# mvemo manifest 1\n# root: /\n")
    with pytest.raises(BadManifest, match=r"m.csv:2: the media root '/' is the whole file system"):
        read_manifest(path, media=False)
    assert len(read_manifest(path, root="/", media=False)) == 2


def test_a_name_that_is_too_long_has_its_line(tmp_path):
    clips(tmp_path, "a.mp3")
    (problem,) = check_manifest(manifest(tmp_path, "a.mp3", "b" * 300 + ".mp3"))
    assert problem.line == 3
    assert "File name too long" in problem.message


def test_classes_nested_too_deep_are_one_line(tmp_path):
    head = "# mvemo manifest 1\n# classes: " + "[" * 100_000 + "\n"
    clips(tmp_path, "a.mp3", "b.mp3")
    (problem,) = check_manifest(manifest(tmp_path, "a.mp3", "b.mp3", head=head))
    assert problem.line == 2
    assert "nested too deep" in problem.message
    assert len(problem.message) < 300


@pytest.mark.parametrize("cell", ["9" * 5000, "1e" + "9" * 5000])
def test_numbers_of_thousands_of_digits_are_quoted_shortly(tmp_path, cell):
    path = tmp_path / "m.csv"
    path.write_text(f"path,label,fold,start\na,x,{cell},{cell}\nb,y,1,0\n")
    problems = check_manifest(path, media=False)
    assert problems
    assert all(len(problem.message) < 300 for problem in problems)

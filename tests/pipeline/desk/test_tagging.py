"""Tags hold the moods, everything else in a file stays, and --undo restores it."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mutagen
import pytest
import soundfile
from media_samples import film, sine
from mutagen.id3 import APIC, ID3, TIT2, TYER
from mutagen.mp4 import MP4Cover

from mvemo.manifests.errors import DiskFailed
from mvemo.pipeline.desk import tagging
from mvemo.pipeline.desk.tagging import plan_tags, plan_undo, song_facts, stream_digest, write_tags

KINDS = ("mp3", "ogg", "opus", "flac", "wav", "aiff")
VALUES = {"mood": ["Calm", "Sad é"], "valence": ["5.2"], "model": ["m/audio"]}
PICTURE = bytes(range(256)) * 8


def sound(path):
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, sine(1, 48000)[0], 48000, **options)
    return path


@pytest.fixture(params=[*KINDS, "m4a", "mp4"])
def media(request, tmp_path):
    """A file with a title, and where the test can write one a cover picture."""
    path = tmp_path / f"song.{request.param}"
    if request.param in KINDS:
        sound(path)
    else:
        film(path, 30 * (request.param == "mp4"), sound=sine(1, 16000))
    opened = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    if isinstance(opened.tags, ID3):
        opened.tags.add(TIT2(3, ["Blue"]))
        opened.tags.add(APIC(3, "image/png", 3, "", PICTURE))
    elif path.suffix in (".m4a", ".mp4"):
        opened.tags["\xa9nam"] = ["Blue"]
        opened.tags["covr"] = [MP4Cover(PICTURE, MP4Cover.FORMAT_PNG)]
    else:
        opened.tags["title"] = ["Blue"]
    opened.save()
    return path


def contents(path):
    opened = mutagen.File(path)
    return {key: str(value) for key, value in dict(opened.tags or {}).items()}


def tag(path, values=VALUES):
    journal = path.parent / "journal.jsonl"
    changes, skipped = plan_tags({path: values})
    assert not skipped
    assert write_tags(changes, journal) == []
    return journal


def undo(journal):
    changes, skipped = plan_undo(journal)
    assert write_tags(changes, journal) == []
    return len(changes), skipped


def test_moods_are_written_and_undone(media):
    before, digest, size = contents(media), stream_digest(media), media.stat().st_size
    os.chmod(media, 0o640)
    journal = tag(media)
    assert "Sad é".encode() in media.read_bytes()
    assert before.items() <= contents(media).items()
    assert len(contents(media)) == len(before) + 3
    assert stream_digest(media) == digest
    assert media.stat().st_mode & 0o777 == 0o640
    assert plan_tags({media: VALUES}) == ([], [])
    once = contents(media)
    tag(media, {**VALUES, "mood": ["Tense"]})
    assert undo(journal) == (1, [])
    assert contents(media) == once
    assert undo(journal) == (1, [])
    assert contents(media) == before
    assert stream_digest(media) == digest
    assert abs(media.stat().st_size - size) <= 16
    assert undo(journal) == (0, [])
    assert sorted(p.name for p in media.parent.iterdir()) == ["journal.jsonl", media.name]


def test_a_file_without_tags_has_none_after_undo(tmp_path):
    path = sound(tmp_path / "a.mp3")
    content = path.read_bytes()
    journal = tag(path)
    assert path.read_bytes() != content
    undo(journal)
    assert path.read_bytes() == content


def test_old_versions_of_id3_stay(tmp_path):
    path = sound(tmp_path / "a.mp3")
    tags = ID3()
    tags.add(TYER(0, ["1967"]))
    tags.save(path, v2_version=3)
    first = b"TAG" + b"old".ljust(125, b"\0")
    with path.open("ab") as file:
        file.write(first)
    journal = tag(path)
    for _ in range(2):
        read = ID3(path, translate=False, load_v1=False)
        assert read.version[:2] == (2, 3)
        assert str(read["TYER"]) == "1967"
        assert path.read_bytes().endswith(first)
        undo(journal)
    assert [*ID3(path, translate=False, load_v1=False)] == ["TYER"]


def test_former_moods_come_back_and_newer_ones_stay(tmp_path):
    path = sound(tmp_path / "a.flac")
    opened = mutagen.File(path)
    opened["mood"] = ["mine"]
    opened.save()
    journal = tag(path)
    undo(journal)
    assert mutagen.File(path)["mood"] == ["mine"]
    tag(path)
    opened = mutagen.File(path)
    opened["mood"] = ["newer"]
    opened.save()
    done, skipped = undo(journal)
    assert done == 0
    assert "changed after mvemo wrote them" in skipped[0]
    assert mutagen.File(path)["mood"] == ["newer"]


def test_files_that_are_not_tagged(tmp_path):
    path = sound(tmp_path / "a.wav")
    (tmp_path / "link.wav").symlink_to(path)
    for name in ("read-only.wav", "two.wav"):
        shutil.copy(path, tmp_path / name)
    (tmp_path / "read-only.wav").chmod(0o444)
    os.link(tmp_path / "two.wav", tmp_path / "names.wav")
    film(tmp_path / "b.avi", codec="mpeg4")
    film(tmp_path / "b.mkv")
    (tmp_path / "noise.mp3").write_bytes(b"noise")
    names = ["link.wav", "read-only.wav", "two.wav", "b.avi", "b.mkv", "noise.mp3", "gone.wav"]
    changes, skipped = plan_tags({tmp_path / name: VALUES for name in names})
    assert changes == []
    reasons = "symbolic link, read-only, hard links, no tags, no tags, no tags, no such file"
    for line, name, reason in zip(skipped, names, reasons.split(", "), strict=True):
        assert line.startswith(f"{tmp_path / name}: ")
        assert reason in line


def test_a_full_disk_leaves_the_file(tmp_path, monkeypatch):
    paths = [sound(tmp_path / name) for name in ("a.ogg", "b.ogg")]
    content = paths[1].read_bytes()
    copy = shutil.copyfile

    def full(source, target):
        if source == paths[1]:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return copy(source, target)

    monkeypatch.setattr(tagging.shutil, "copyfile", full)
    changes, _ = plan_tags(dict.fromkeys(paths, VALUES))
    with pytest.raises(DiskFailed, match=r"b.ogg: cannot be written: No space .* 1 files before"):
        write_tags(changes, tmp_path / "journal.jsonl")
    assert paths[1].read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 3
    assert undo(tmp_path / "journal.jsonl") == (1, [])


def test_streams_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.mp3"
    ID3().save(path)
    with path.open("ab") as file:
        file.write(b"\xff\xfb\x90\x00" + bytes(413))
    content = path.read_bytes()
    changes, skipped = plan_tags({path: VALUES})
    failed = write_tags(changes, tmp_path / "journal.jsonl")
    assert len(skipped + failed) == 1
    assert path.read_bytes() == content


def test_changed_sound_is_refused(tmp_path, monkeypatch):
    path = sound(tmp_path / "a.mp3")
    content = path.read_bytes()
    read = iter([("one", {}), ("two", {})])
    monkeypatch.setattr(tagging, "_read_streams", lambda path: next(read))
    changes, _ = plan_tags({path: VALUES})
    assert "would change its sound" in write_tags(changes, tmp_path / "journal.jsonl")[0]
    assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_file_is_replaced(tmp_path, when):
    paths = [sound(tmp_path / name) for name in ("a.mp3", "b.mp3")]
    contents = [path.read_bytes() for path in paths]
    code = f"""
import os, sys
from pathlib import Path
from mvemo.pipeline.desk.tagging import plan_tags, write_tags
replace = os.replace
def dies(source, target):
    if target.name == "b.mp3":
        {"replace(source, target)" if when == "after" else "pass"}
        os._exit(9)
    replace(source, target)
os.replace = dies
folder = Path(sys.argv[1])
changes, _ = plan_tags({{folder / n: {VALUES!r} for n in ("a.mp3", "b.mp3")}})
write_tags(changes, folder / "journal.jsonl")
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 9
    assert (paths[1].read_bytes() == contents[1]) == (when == "before")
    # The journal of a killed run may end within a line.
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"path": "')
    changes, skipped = plan_undo(tmp_path / "journal.jsonl")
    assert [c.path.name for c in changes] == ["a.mp3", "b.mp3"][: 1 + (when == "after")]
    assert skipped == []
    assert write_tags(changes, tmp_path / "journal.jsonl") == []
    assert [path.read_bytes() for path in paths] == contents


def test_facts_of_a_song(media, tmp_path):
    facts = song_facts(media)
    if media.suffix not in (".wav", ".aiff"):
        assert facts["title"] == "Blue"
    assert facts["duration"] == pytest.approx(1.0, abs=0.3)
    (tmp_path / "x.mkv").write_bytes(b"")
    assert song_facts(tmp_path / "x.mkv") == {"title": "x", "artist": None, "duration": None}


def test_command(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    paths = [sound(Path(name)) for name in ("a.mp3", "b.flac")]
    contents = [path.read_bytes() for path in paths]
    rows = [
        {"path": "a.mp3", "model": "m/x", "label": "calm", "proba": {"calm": 0.9}, "notes": []},
        {"path": "b.flac", "model": "m/x", "label": "calm", "proba": {"calm": 0.4}, "notes": []},
    ]
    Path("p.json").write_text(json.dumps(rows))
    listed = program("mvemo", "tag", "p.json", "--min-confidence", "0.5")
    assert "a.mp3  TMOO" in listed.out
    assert "1 files to tag" in listed.out
    assert "1 of 2 files have no mood" in listed.err
    assert [path.read_bytes() for path in paths] == contents
    Path("corrections.csv").write_text("path,label\nb.flac,tense\na.mp3,calm\n")
    written = program("mvemo", "tag", "p.json", "--corrections", "corrections.csv", "--write")
    assert "2 files tagged" in written.out
    assert mutagen.File("b.flac")["mood"] == ["tense"]
    assert mutagen.File("b.flac")["mvemo_model"] == ["corrected"]
    program("mvemo", "tag", "--undo", "p.json.tags.jsonl")
    assert mutagen.File("b.flac")["mood"] == ["tense"]
    program("mvemo", "tag", "--undo", "p.json.tags.jsonl", "--write")
    assert "mood" not in mutagen.File("b.flac")
    error = program("mvemo", "tag", "p.json", "--undo", "p.json.tags.jsonl", ends=2).err
    assert "expected either PREDICTIONS or --undo" in error
    assert "journal of mvemo tag" in program("mvemo", "tag", "--undo", "p.json", ends=2).err
    with open("p.json.tags.jsonl", "a") as file:
        file.write('{"run": "')
    undone = program("mvemo", "tag", "--undo", "p.json.tags.jsonl", "--write")
    assert "1 incomplete or unknown lines were left out" in undone.err
    assert undone.out == "0 files tagged, 0 skipped\n"
    monkeypatch.setitem(sys.modules, "mutagen", None)
    assert "pip install 'mvemo[serve]'" in program("mvemo", "tag", "p.json", ends=2).err


RECORDS = [
    ({"values": {"Überraschung": {"value": 3.2}, "energy=1": {"value": 2}}}, "4 files to tag"),
    ({"label": "calm\ud800"}, "0 files to tag, 4 skipped"),
    ({"label": "calm", "model": "\udc00"}, "0 files to tag, 4 skipped"),
    ({"values": {"model": {"value": 1}}}, "a rating named model"),
    ({"label": 5}, "expected a record of mvemo predict"),
    ({"label": "calm", "proba": [1]}, "expected a record of mvemo predict"),
    ({"values": {"v": {}}}, "'value' is missing"),
    ({"values": {"v": {"value": float("nan")}}}, "expected a finite number"),
]


@pytest.mark.parametrize(("record", "said"), RECORDS, ids=lambda x: str(x)[:30])
def test_odd_predictions_are_one_line(tmp_path, monkeypatch, program, record, said):
    monkeypatch.chdir(tmp_path)
    paths = [sound(Path(f"a.{kind}")) for kind in ("mp3", "flac", "ogg", "wav")]
    rows = [{"path": str(path), "model": "m", "notes": [], **record} for path in paths]
    Path("p.json").write_text(json.dumps(rows))
    is_listed = "to tag" in said
    shown = program("mvemo", "tag", "p.json", ends=0 if is_listed else 2)
    assert said in (shown.out if is_listed else shown.err)
    if not is_listed:
        assert len(shown.err.splitlines()) == 1


def test_one_file_by_two_names_is_refused(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    sound(Path("a.mp3"))
    rows = [{"path": path, "model": "m", "label": "calm"} for path in ("a.mp3", "x/../a.mp3")]
    Path("p.json").write_text(json.dumps(rows))
    assert "has two predictions" in program("mvemo", "tag", "p.json", ends=2).err

"""Tags hold the moods, all else in a file stays, and undoing gives back the former values."""

import copy
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_samples import film, sine
from mutagen.id3 import APIC, ID3, TIT2
from mutagen.mp4 import MP4, AtomDataType, MP4Cover, MP4FreeForm

from mvemo.manifests.errors import DiskFailed
from mvemo.pipeline.desk import tagging
from mvemo.pipeline.desk.tagging import plan_tags, plan_undo, song_facts, write_tags

KINDS = ("mp3", "flac", "ogg", "opus", "wav", "aiff", "m4a")
VALUES = {"mood": ["Calm", "Sad é"], "valence": ["5.2"], "model": ["m/audio"]}
PICTURE = bytes(range(256)) * 8
MP4_MOOD = "----:com.apple.iTunes:MOOD"


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two songs of every kind."""
    folder = tmp_path_factory.mktemp("songs")
    for name, pitch in (("a", 220), ("b", 330)):
        for kind in (*KINDS, "mp4"):
            path = folder / f"{name}.{kind}"
            if kind in ("m4a", "mp4"):
                film(path, 30 * (kind == "mp4"), sound=sine(1, 16000, pitch))
            else:
                options = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
                soundfile.write(path, sine(1, 48000, pitch)[0], 48000, **options)
    return folder


@pytest.fixture
def song(songs, tmp_path):
    """Return a function that copies a song into the test's folder."""
    return lambda name: Path(shutil.copy(songs / f"a{Path(name).suffix}", tmp_path / name))


@pytest.fixture(params=[*KINDS, "mp4"])
def media(request, song):
    """A file with a title, and if a test can write one, a cover picture."""
    path = song(f"song.{request.param}")
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
    return {key: str(value) for key, value in dict(mutagen.File(path).tags or {}).items()}


def sound_of(path):
    return tagging._read_streams(path)[0]


def values_of(path):
    """The values of mvemo's tags in a file, and the digest of its sound."""
    opened = tagging._open(path)
    names = tagging._named(tagging._kind(opened), {n: [""] for n in ("mood", "valence", "model")})
    return tagging._values(opened, names), sound_of(path)


def tag(path, values=VALUES):
    journal = path.parent / "journal.jsonl"
    changes, skipped = plan_tags({path: values})
    assert (skipped, write_tags(changes, journal)) == ([], [])
    return journal


def undo(journal):
    changes, skipped = plan_undo(journal)
    assert write_tags(changes, journal) == []
    return len(changes), skipped


def skips(path, values):
    """The line on a file that cannot be tagged."""
    changes, (line,) = plan_tags({path: values})
    assert changes == []
    return line


def test_moods_are_written_and_undone(media):
    before, digest, size = contents(media), sound_of(media), media.stat().st_size
    os.chmod(media, 0o640)
    journal = tag(media)
    assert "Sad é".encode() in media.read_bytes()
    assert before.items() <= contents(media).items()
    assert len(contents(media)) == len(before) + 3
    assert sound_of(media) == digest
    assert media.stat().st_mode & 0o777 == 0o640
    assert plan_tags({media: VALUES}) == ([], [])
    once = contents(media)
    tag(media, {**VALUES, "mood": ["Tense"]})
    assert undo(journal) == (1, [])
    assert contents(media) == once
    assert undo(journal) == (1, [])
    assert contents(media) == before
    assert sound_of(media) == digest
    assert abs(media.stat().st_size - size) <= 16
    assert undo(journal) == (0, [])
    assert sorted(p.name for p in media.parent.iterdir()) == ["journal.jsonl", media.name]


def test_a_file_without_tags_has_none_after_undo(song):
    path = song("a.mp3")
    content = path.read_bytes()
    journal = tag(path)
    assert path.read_bytes() != content
    undo(journal)
    assert path.read_bytes() == content


def test_tags_that_a_person_changed_stay(song):
    path = song("a.flac")
    journal, opened = tag(path), mutagen.File(path)
    opened["mood"] = ["newer"]
    opened.save()
    done, (line,) = undo(journal)
    assert (done, mutagen.File(path)["mood"]) == (0, ["newer"])
    assert "changed after mvemo wrote them" in line


def test_files_that_are_not_tagged(song, tmp_path):
    (tmp_path / "link.wav").symlink_to(song("a.wav"))
    song("read-only.wav").chmod(0o444)
    os.link(song("two.wav"), tmp_path / "names.wav")
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


def test_a_full_disk_leaves_the_file(song, tmp_path, monkeypatch):
    paths = [song(name) for name in ("a.ogg", "b.ogg")]
    content, copyfile = paths[1].read_bytes(), shutil.copyfile

    def full(source, target):
        if source == paths[1]:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return copyfile(source, target)

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
    assert len(skipped + write_tags(changes, tmp_path / "journal.jsonl")) == 1
    assert path.read_bytes() == content


def test_changed_sound_is_refused(song, tmp_path, monkeypatch):
    path = song("a.mp3")
    content, read = path.read_bytes(), iter([("one", {}), ("two", {})])
    monkeypatch.setattr(tagging, "_read_streams", lambda path: next(read))
    changes, _ = plan_tags({path: VALUES})
    assert "would change its sound" in write_tags(changes, tmp_path / "journal.jsonl")[0]
    assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_file_is_replaced(song, tmp_path, when):
    paths = [song(name) for name in ("a.mp3", "b.mp3")]
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
    assert undo(tmp_path / "journal.jsonl") == (1 + (when == "after"), [])
    assert [path.read_bytes() for path in paths] == contents


def test_facts_of_a_song(media, tmp_path):
    facts = song_facts(media)
    if media.suffix not in (".wav", ".aiff"):
        assert facts["title"] == "Blue"
    assert facts["duration"] == pytest.approx(1.0, abs=0.3)
    path = tmp_path / "x.mkv"
    path.write_bytes(b"")
    nothing = {"title": "x", "artist": None, "duration": None}
    assert song_facts(path) == {"path": path, **nothing}


def test_command(song, tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    row = {"model": "m/x", "label": "tense", "notes": []}
    shares = {"a.mp3": 0.4, "b.flac": 0.9}
    for name in shares:
        song(name)
    rows = [{**row, "path": name, "proba": {"tense": share}} for name, share in shares.items()]
    Path("p.json").write_text(json.dumps(rows))
    written = program("mvemo", "tag", "p.json", "--min-confidence", "0.5", "--write")
    assert "1 files tagged" in written.out
    assert "1 of 2 files have no mood" in written.err
    back = ("--undo", "p.json.tags.jsonl")
    program("mvemo", "tag", *back)
    assert mutagen.File("b.flac")["mood"] == ["tense"]
    program("mvemo", "tag", *back, "--write")
    assert "mood" not in mutagen.File("b.flac")
    with open("p.json.tags.jsonl", "a") as file:
        file.write('{"run": "')
    undone = program("mvemo", "tag", *back, "--write")
    assert "1 incomplete or unknown lines were left out" in undone.err
    assert undone.out == "0 files tagged, 0 skipped\n"
    for words, message in (
        (("p.json", *back), "expected either PREDICTIONS or --undo"),
        (("--undo", "p.json"), "journal of mvemo tag"),
    ):
        assert message in program("mvemo", "tag", *words, ends=2).err
    monkeypatch.setitem(sys.modules, "mutagen", None)
    assert "pip install 'mvemo[serve]'" in program("mvemo", "tag", "p.json", ends=2).err


@pytest.mark.parametrize(
    ("paths", "record", "message"),
    [
        (["a.mp3"], {"values": {"model": {"value": 1}}}, "a rating named model"),
        (["a.mp3", "x/../a.mp3"], {"label": "calm"}, "has two predictions"),
    ],
)
def test_predictions_that_are_no_tags(song, tmp_path, monkeypatch, program, paths, record, message):
    monkeypatch.chdir(tmp_path)
    song("a.mp3")
    Path("p.json").write_text(json.dumps([{"path": p, "model": "m", **record} for p in paths]))
    error = program("mvemo", "tag", "p.json", ends=2).err
    assert message in error
    assert error.count("\n") == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["tag", "tag", "undo", "undo", "edit", "replace", "title"]),
        st.sampled_from("ab"),
        st.integers(1, 4),
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_sequences(songs, tmp_path_factory, kind, steps):
    """A model of the journal is a stack of taggings, each with what it found and wrote."""
    folder = tmp_path_factory.mktemp("sequence")
    for name in "ab":
        shutil.copy(songs / f"{name}.{kind}", folder)
    journal, stack = folder / "j.jsonl", []
    for what, name, number in steps:
        path = folder / f"{name}.{kind}"
        state = {p.name: values_of(p) for p in sorted(folder.glob(f"*.{kind}"))}
        expected = copy.deepcopy(state)
        mood = [f"mood {number} é"]
        if what == "tag":
            new = {"mood": mood, "valence": [str(number)], "model": ["m"]}
            changes, skipped = plan_tags({path: new})
            assert (write_tags(changes, journal), skipped) == ([], [])
            former, sound = state[path.name]
            written = dict(zip(former, [mood, [str(number)], ["m"]], strict=True))
            expected[path.name] = written, sound
            if changes:
                stack.append((path.name, state[path.name], expected[path.name]))
        elif what == "undo" and journal.exists():
            n_undone, _ = undo(journal)
            fit = [i for i, (n, _, new) in enumerate(stack) if state[n] == new]
            if fit:
                changed, old, _ = stack.pop(fit[-1])
                expected[changed] = old
            assert n_undone == bool(fit)
        elif what == "edit":
            opened = tagging._open(path)
            key = next(iter(state[path.name][0]))
            tagging._set(opened, {key: mood})
            opened.save(path)
            expected[path.name][0][key] = mood
        elif what == "title" and kind not in ("wav", "aiff"):
            opened = mutagen.File(path, easy=True)
            if opened.tags is None:
                opened.add_tags()
            opened["title"] = [f"Title {number}"]
            opened.save()
        elif what == "replace":
            shutil.copy(songs / f"{'ba'[name == 'b']}.{kind}", path)
            expected[path.name] = values_of(path)
        assert {p.name: values_of(p) for p in sorted(folder.glob(f"*.{kind}"))} == expected
    assert not list(folder.glob(".*"))


# --- versions of ID3 tags


def syncsafe(number):
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def id3(version, frames, unsynchronised=False, footer=False, sizes=syncsafe):
    """An ID3v2 tag of frames (name, content), written without mutagen."""
    body = b""
    for name, content in frames:
        plain = len(content)
        if unsynchronised:
            content = content.replace(b"\xff", b"\xff\0")
        size = plain if version == 3 else len(content)
        if version == 2:
            body += name.encode() + size.to_bytes(3, "big") + content
        else:
            body += name.encode() + (sizes(size) if version == 4 else size.to_bytes(4, "big"))
            body += b"\0\0" + content
    flags = 0x80 * unsynchronised | 0x10 * footer
    head = bytes([version, 0, flags]) + syncsafe(len(body))
    return b"ID3" + head + body + (b"3DI" + head) * footer


COVER = b"\0image/png\0\3\0" + bytes(range(256))
OTHERS = [("TIT2", b"\1\xff\xfeB\0l\0"), ("ZZZZ", b"\0new"), ("TYER", b"\x001967")]
FEW = [*OTHERS, ("APIC", COVER)]
WHOLE = [*FEW, ("PRIV", b"x\0\xff\xe0\xff\0")]


def frame_contents(path):
    """The frames of a tag as bytes, with neither versions' sizes nor mvemo's own."""
    tags = ID3(path, translate=False, load_v1=False, known_frames={})
    assert not tags.f_unsynch
    frames = {}
    for frame in tags.unknown_frames:
        content = frame[10:]
        if tags.version[1] == 4 and frame[9] & 2:
            content = content.replace(b"\xff\0", b"\xff")
        frames[frame[:4].decode()] = bytes(content)
    return frames


@pytest.mark.parametrize(
    ("version", "frames", "options"),
    [
        (3, WHOLE, {}),
        (4, WHOLE, {}),
        (4, WHOLE, {"footer": True}),
        (3, FEW, {"unsynchronised": True}),
        (4, FEW, {"unsynchronised": True}),
        # iTunes writes plain sizes.
        (4, [("APIC", COVER * 3), *OTHERS], {"sizes": lambda size: size.to_bytes(4, "big")}),
    ],
)
@pytest.mark.parametrize("end", [b"", b"TAG" + b"old".ljust(125, b"\0")])
def test_versions_of_id3(songs, tmp_path, version, frames, options, end):
    path, music = tmp_path / "a.mp3", (songs / "a.mp3").read_bytes()
    music = music[music.index(b"\xff\xfb") :]
    path.write_bytes(id3(version, frames, **options) + music + end)
    for values in ({"mood": ["Calm é"]}, {"mood": ["Tense"], "model": ["m"]}):
        journal = tag(path, values)
        assert frame_contents(path).items() >= dict(frames).items()
        assert mutagen.File(path).tags["TMOO"].text == values["mood"]
    assert undo(journal) == undo(journal) == (1, [])
    assert frame_contents(path) == dict(frames)
    content = path.read_bytes()
    size = 10 + sum(b << 7 * (3 - i) for i, b in enumerate(content[6:10]))
    assert content[3] == version
    assert content[size:] == music + end


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (id3(2, [("TT2", b"\0Blue"), ("ZZZ", b"\0new")]), "1 of 2 frames of its ID3v2.2 tag"),
        (id3(2, [("TT2", b"\0Blue"), ("CRM", b"a\0b\0c")]), "1 of 2 frames of its ID3v2.2 tag"),
        (id3(3, [("TXXX", b"\0a\0one"), ("TXXX", b"\0a\0two")]), "1 of 2 frames"),
        (id3(3, [("TMOO", b"\x09a")]), "1 of 1 frames"),
    ],
    ids=["unknown", "encrypted", "repeated", "damaged"],
)
def test_id3_frames_that_would_be_lost(song, frames, reason):
    path = song("a.mp3")
    path.write_bytes(frames + path.read_bytes())
    assert reason in skips(path, VALUES)


def test_old_id3_with_known_frames(song):
    path = song("a.mp3")
    frames = [("TT2", b"\0Blue"), ("COM", b"\0engx\0note"), ("PIC", b"\0PNG\3\0" + bytes(99))]
    path.write_bytes(id3(2, frames) + path.read_bytes())
    before = contents(path)
    journal = tag(path)
    assert contents(path).items() >= before.items()
    undo(journal)
    assert contents(path) == before


# --- other values


def test_mp4_bytes_come_back(song):
    path = song("a.m4a")
    opened = MP4(path)
    opened[MP4_MOOD] = [MP4FreeForm(b"Gl\xfcck"), MP4FreeForm("é".encode())]
    opened.save()
    before = MP4(path)[MP4_MOOD]
    journal = tag(path, {"mood": ["Calm"]})
    assert MP4(path)[MP4_MOOD] == [MP4FreeForm(b"Calm")]
    undo(journal)
    assert MP4(path)[MP4_MOOD] == before
    opened[MP4_MOOD] = [MP4FreeForm(b"\0\1", AtomDataType.INTEGER)]
    opened.save()
    assert "MOOD is no text" in skips(path, VALUES)


@pytest.mark.parametrize("comment", [b"title=Gl\xfcck", b"T\xc3\x9cR=x", b"no sign", b"a~b=x"])
@pytest.mark.parametrize("kind", ["flac", "ogg", "opus"])
def test_comments_that_would_be_lost(song, tmp_path, kind, comment):
    path = song(f"a.{kind}")
    opened = mutagen.File(path)
    opened["x"] = ["1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutagen._vorbis.VComment, "write", with_comment(comment))
        opened.save()
    content = path.read_bytes()
    assert comment in content
    changes, skipped = plan_tags({path: VALUES})
    assert len(skipped + write_tags(changes, tmp_path / "j.jsonl")) == 1
    assert path.read_bytes() == content


def with_comment(comment):
    """A method that writes comments with one more, as bytes."""
    write = mutagen._vorbis.VComment.write

    def more(self, framing=True):
        plain = write(self, framing=False)
        at = 4 + int.from_bytes(plain[:4], "little")
        count = int.from_bytes(plain[at : at + 4], "little") + 1
        added = len(comment).to_bytes(4, "little") + comment
        return plain[:at] + count.to_bytes(4, "little") + plain[at + 4 :] + added + b"\1" * framing

    return more


NAMES = ["Überraschung", "energy=1", "a:b", "기쁨", "with space", "a~b%", "\x01", "{}", "mvemo"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_any_characters(song, kind):
    path = song(f"a.{kind}")
    before = values_of(path)
    wanted = {name: [f"{i}.5"] for i, name in enumerate(NAMES)}
    assert len(plan_tags({path: wanted})[0][0].new) == len(NAMES)
    journal = tag(path, wanted)
    assert plan_tags({path: wanted}) == ([], [])
    if kind == "m4a":
        assert "mvemo Überraschung".encode() in path.read_bytes()
    assert undo(journal) == (1, [])
    assert values_of(path) == before


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"mood": ["calm\ud800"]}, "half a character"),
        ({"\udc00": ["1"]}, "half a character"),
        ({"mood": ["calm"], "Mood": ["1"]}, "the same tag"),
    ],
)
def test_values_that_no_tag_holds(songs, wanted, reason):
    for kind in KINDS:
        assert reason in skips(songs / f"a.{kind}", wanted)

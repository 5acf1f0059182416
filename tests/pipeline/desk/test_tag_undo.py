"""Sequences of tagging, undoing, editing and replacing give back exactly the former values."""

import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import mutagen
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_samples import film, sine
from mutagen.id3 import ID3
from mutagen.mp4 import MP4, AtomDataType, MP4FreeForm

from mvemo.pipeline.desk import tagging
from mvemo.pipeline.desk.tagging import plan_tags, plan_undo, stream_digest, write_tags

KINDS = ("mp3", "flac", "ogg", "opus", "wav", "aiff", "m4a")
MP4_MOOD = "----:com.apple.iTunes:MOOD"


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Two songs of every kind, with a title."""
    folder = tmp_path_factory.mktemp("songs")
    for name, pitch in (("a", 220), ("b", 330)):
        for kind in KINDS:
            path = folder / f"{name}.{kind}"
            wave = sine(0.3, 48000, pitch)[0]
            if kind == "m4a":
                film(path, 0, sound=sine(0.3, 16000, pitch))
            elif kind == "opus":
                soundfile.write(path, wave, 48000, format="OGG", subtype="OPUS")
            else:
                soundfile.write(path, wave, 48000)
    return folder


def values_of(path):
    """The values of mvemo's tags in a file, and the digest of its sound."""
    opened = tagging._open(path)
    names = tagging._named(tagging._kind(opened), {n: [""] for n in ("mood", "valence", "model")})
    return tagging._values(opened, names), stream_digest(path)


STEPS = st.lists(
    st.tuples(st.sampled_from(["tag", "tag", "undo", "undo", "edit", "replace", "title"])).flatmap(
        lambda step: st.tuples(st.just(step[0]), st.sampled_from("ab"), st.integers(1, 4))
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
            expected[path.name] = (
                dict(zip(former, [mood, [str(number)], ["m"]], strict=True)),
                sound,
            )
            if changes:
                stack.append((path.name, state[path.name], expected[path.name]))
        elif what == "undo" and journal.exists():
            changes, skipped = plan_undo(journal)
            assert write_tags(changes, journal) == []
            fit = [i for i, (n, _, new) in enumerate(stack) if state[n] == new]
            if fit:
                changed, old, _ = stack.pop(fit[-1])
                expected[changed] = old
            assert len(changes) == bool(fit)
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
OTHERS = [("TIT2", b"\1\xff\xfeB\0l\0"), ("PRIV", b"x\0\xff\xe0\xff\0"), ("ZZZZ", b"\0new")]
V1 = b"TAG" + b"old".ljust(125, b"\0")


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


def plain_size(size):
    return size.to_bytes(4, "big")


@pytest.mark.parametrize(
    "tag",
    [
        id3(3, [*OTHERS, ("APIC", COVER)]),
        id3(4, [*OTHERS, ("APIC", COVER)]),
        id3(4, [*OTHERS, ("APIC", COVER)], footer=True),
        id3(3, [("TIT2", OTHERS[0][1]), OTHERS[2], ("APIC", COVER)], unsynchronised=True),
        id3(4, [("TIT2", OTHERS[0][1]), OTHERS[2], ("APIC", COVER)], unsynchronised=True),
        id3(4, [("APIC", COVER * 3), *OTHERS], sizes=plain_size),
    ],
    ids=["v2.3", "v2.4", "footer", "v2.3 unsynchronised", "unsynchronised", "sizes of iTunes"],
)
@pytest.mark.parametrize("end", [b"", V1])
def test_versions_of_id3(songs, tmp_path, tag, end):
    path, journal = tmp_path / "a.mp3", tmp_path / "j.jsonl"
    music = (songs / "a.mp3").read_bytes()
    music = music[music.index(b"\xff\xfb") :]
    path.write_bytes(tag + music + end)
    before = frame_contents_of(tag, tmp_path)
    for values in ({"mood": ["Calm é"]}, {"mood": ["Tense"], "model": ["m"]}):
        changes, skipped = plan_tags({path: values})
        assert (skipped, write_tags(changes, journal)) == ([], [])
        kept = frame_contents(path)
        assert {n: kept[n] for n in before} == before
        assert mutagen.File(path).tags["TMOO"].text == values["mood"]
    for _ in range(2):
        changes, skipped = plan_undo(journal)
        assert (len(changes), skipped, write_tags(changes, journal)) == (1, [], [])
    assert frame_contents(path) == before
    content = path.read_bytes()
    size = 10 + sum(b << 7 * (3 - i) for i, b in enumerate(content[6:10]))
    assert content[3] == tag[3]
    assert content[size:] == music + end


def frame_contents_of(tag, folder):
    """The contents of the frames as they were put into `id3`."""
    unsynchronised = tag[5] & 0x80
    named = dict([*OTHERS, ("APIC", COVER * 3 if COVER * 3 in tag else COVER)])
    return {n: c for n, c in named.items() if n != "PRIV" or not unsynchronised}


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        (id3(2, [("TT2", b"\0Blue"), ("ZZZ", b"\0new")]), "1 of 2 frames of its ID3v2.2 tag"),
        (id3(2, [("TT2", b"\0Blue"), ("CRM", b"a\0b\0c")]), "1 of 2 frames of its ID3v2.2 tag"),
        (id3(3, [("TXXX", b"\0a\0one"), ("TXXX", b"\0a\0two")]), "1 of 2 frames"),
        (id3(3, [("TMOO", b"\x09a")]), "1 of 1 frames"),
    ],
    ids=["unknown", "encrypted", "repeated", "damaged"],
)
def test_id3_frames_that_would_be_lost(songs, tmp_path, tag, reason):
    path = tmp_path / "a.mp3"
    path.write_bytes(tag + (songs / "a.mp3").read_bytes())
    changes, skipped = plan_tags({path: {"mood": ["Calm"]}})
    assert changes == []
    assert reason in skipped[0]


def test_old_id3_with_known_frames(songs, tmp_path):
    path, journal = tmp_path / "a.mp3", tmp_path / "j.jsonl"
    frames = [("TT2", b"\0Blue"), ("COM", b"\0engx\0note"), ("PIC", b"\0PNG\3\0" + bytes(99))]
    path.write_bytes(id3(2, frames) + (songs / "a.mp3").read_bytes())
    before = {str(k): str(v) for k, v in ID3(path).items()}
    changes, _ = plan_tags({path: {"mood": ["Calm"]}})
    assert write_tags(changes, journal) == []
    assert {key: str(ID3(path)[key]) for key in before} == before
    assert write_tags(plan_undo(journal)[0], journal) == []
    assert {str(k): str(v) for k, v in ID3(path).items()} == before


# --- other values


def test_mp4_bytes_come_back(songs, tmp_path):
    path, journal = tmp_path / "a.m4a", tmp_path / "j.jsonl"
    shutil.copy(songs / "a.m4a", path)
    opened = MP4(path)
    opened[MP4_MOOD] = [MP4FreeForm(b"Gl\xfcck"), MP4FreeForm("é".encode())]
    opened.save()
    before = MP4(path)[MP4_MOOD]
    changes, _ = plan_tags({path: {"mood": ["Calm"]}})
    assert write_tags(changes, journal) == []
    assert MP4(path)[MP4_MOOD] == [MP4FreeForm(b"Calm")]
    assert write_tags(plan_undo(journal)[0], journal) == []
    assert MP4(path)[MP4_MOOD] == before
    opened[MP4_MOOD] = [MP4FreeForm(b"\0\1", AtomDataType.INTEGER)]
    opened.save()
    changes, skipped = plan_tags({path: {"mood": ["Calm"]}})
    assert (changes, "MOOD is no text" in skipped[0]) == ([], True)


@pytest.mark.parametrize("comment", [b"title=Gl\xfcck", b"T\xc3\x9cR=x", b"no sign", b"a~b=x"])
@pytest.mark.parametrize("kind", ["flac", "ogg", "opus"])
def test_comments_that_would_be_lost(songs, tmp_path, kind, comment):
    path = tmp_path / f"a.{kind}"
    shutil.copy(songs / path.name, path)
    opened = mutagen.File(path)
    opened["x"] = ["1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutagen._vorbis.VComment, "write", with_comment(comment))
        opened.save()
    content = path.read_bytes()
    assert comment in content
    changes, skipped = plan_tags({path: {"mood": ["Calm"]}})
    lines = skipped + write_tags(changes, tmp_path / "j.jsonl")
    assert len(lines) == 1
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
def test_names_of_any_characters(songs, tmp_path, kind):
    path, journal = tmp_path / f"a.{kind}", tmp_path / "j.jsonl"
    shutil.copy(songs / path.name, path)
    before, digest = values_of(path)
    wanted = {name: [f"{i}.5"] for i, name in enumerate(NAMES)}
    changes, skipped = plan_tags({path: wanted})
    assert skipped == []
    assert write_tags(changes, journal) == []
    assert len(changes[0].new) == len(NAMES)
    assert plan_tags({path: wanted}) == ([], [])
    if kind == "m4a":
        assert "mvemo Überraschung".encode() in path.read_bytes()
    assert write_tags(plan_undo(journal)[0], journal) == []
    assert values_of(path) == (before, digest)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"mood": ["calm\ud800"]}, "half a character"),
        ({"\udc00": ["1"]}, "half a character"),
        ({"mood": ["calm"], "Mood": ["1"]}, "the same tag"),
    ],
)
def test_values_that_no_tag_holds(songs, tmp_path, wanted, reason):
    for kind in KINDS:
        changes, skipped = plan_tags({songs / f"a.{kind}": wanted})
        assert changes == []
        assert reason in skipped[0]


# --- kills


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_points(songs, tmp_path, seed):
    """After kills of tagging and of undoing, undoing gives back the former files."""
    paths = []
    for kind in KINDS:
        paths.append(tmp_path / f"a.{kind}")
        shutil.copy(songs / f"a.{kind}", paths[-1])
    before = {path: values_of(path) for path in paths}
    code = """
import sys
from pathlib import Path
from mvemo.pipeline.desk.tagging import plan_tags, plan_undo, write_tags
folder, what = Path(sys.argv[1]), sys.argv[2]
journal = folder / "j.jsonl"
files = sorted(folder.glob("a.*"))
if what == "tag":
    changes, _ = plan_tags({f: {"mood": ["Calm"], "valence": ["5"], "model": ["m"]} for f in files})
else:
    changes, _ = plan_undo(journal)
print("go", flush=True)
write_tags(changes, journal)
"""
    spread = random.Random(seed)
    for what in ("tag", "undo") * 2:
        if what == "undo" and not (tmp_path / "j.jsonl").exists():
            continue
        command = [sys.executable, "-c", code, str(tmp_path), what]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(spread.random() * 0.3)
            os.kill(child.pid, signal.SIGKILL)
        for path in paths:
            assert values_of(path)[1] == before[path][1]
    for _ in range(5):
        if (tmp_path / "j.jsonl").exists():
            changes, skipped = plan_undo(tmp_path / "j.jsonl")
            assert skipped == []
            assert write_tags(changes, tmp_path / "j.jsonl") == []
    assert {path: values_of(path) for path in paths} == before

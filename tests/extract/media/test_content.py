"""A file's digest is that of its sound and pictures: tags do not change it, other sound does."""

import shutil

import av
import mutagen
import numpy as np
import pytest
import soundfile
from media_samples import film, grey, sine, write_media
from mutagen.apev2 import APEv2, APEValue
from mutagen.flac import Picture
from mutagen.id3 import APIC, ID3, TIT2
from mutagen.mp4 import MP4Cover

from mvemo.cache.spec import content_digest
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.content import file_digest, packets_digest

COVER = b"\xff\xd8\xff" + np.random.default_rng(0).integers(0, 256, 40_000, np.uint8).tobytes()
SOUNDS = ("mp3", "ogg", "opus", "flac", "wav", "aiff")


def write(path, hertz=440.0):
    if path.suffix in (".m4a", ".mp4"):
        return film(path, 10 * (path.suffix == ".mp4"), sound=sine(1, 16000, hertz))
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, sine(1, 48000, hertz)[0], 48000, **options)
    return path


def tag(path):
    opened = mutagen.File(path)
    if opened.tags is None:
        opened.add_tags()
    if isinstance(opened.tags, ID3):
        opened.tags.add(TIT2(3, ["Blue"]))
        opened.tags.add(APIC(3, "image/jpeg", 3, "", COVER))
    elif path.suffix in (".m4a", ".mp4"):
        opened.tags["\xa9nam"], opened.tags["covr"] = ["Blue"], [MP4Cover(COVER)]
    else:
        opened.tags["title"] = ["Blue" * 9999]
        if path.suffix == ".flac":
            picture = Picture()
            picture.type, picture.mime, picture.data = 3, "image/jpeg", COVER
            opened.add_picture(picture)
    opened.save()


@pytest.mark.parametrize("kind", [*SOUNDS, "m4a", "mp4"])
def test_tags_do_not_change_it_and_other_sound_does(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}")
    digest, before = packets_digest(path), path.read_bytes()
    tag(path)
    assert path.read_bytes() != before
    assert packets_digest(path) == digest
    assert packets_digest(write(tmp_path / f"b.{kind}", 441.0)) != digest
    path.write_bytes(before[: len(before) * 2 // 3])
    assert file_digest(path) != digest


def test_old_and_later_tags_of_mp3_do_not_change_it(tmp_path):
    plain = write(tmp_path / "a.mp3")
    sound, digest = plain.read_bytes(), packets_digest(plain)
    old = b"ID3\x02\0\0\0\0\0\x0cTT2\0\0\x06\0Hello"
    lyrics = b"LYRICSBEGININD0000200LYR00050" + b"x" * 50 + b"000083LYRICS200"
    first = b"TAG" + b"old".ljust(125, b"\0")
    for data in (old + sound, sound + first, sound + lyrics + first, sound + bytes(5000)):
        plain.write_bytes(data)
        assert packets_digest(plain) == digest
    for version in (3, 4):
        tags = ID3()
        tags.add(TIT2(3, ["Blue"]))
        plain.write_bytes(sound)
        tags.save(plain, v2_version=version, v1=2)
        ape = APEv2()
        ape["Mood"], ape["Cover Art (front)"] = "happy", APEValue(b"c.jpg\0" + COVER, 1)
        ape.save(plain)
        assert packets_digest(plain) == digest
    joined = tmp_path / "joined.mp3"
    joined.write_bytes(sound + write(tmp_path / "b.mp3", 441.0).read_bytes())
    assert packets_digest(joined) != digest


def test_the_order_of_the_parts_of_an_mp4_does_not_change_it(tmp_path):
    path, moved = write(tmp_path / "a.mp4"), tmp_path / "moved.mp4"
    options = {"movflags": "faststart"}
    with av.open(str(path)) as source, av.open(str(moved), "w", container_options=options) as copy:
        streams = {s.index: copy.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                copy.mux(packet)
    data = moved.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert packets_digest(moved) == packets_digest(path)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_sound_that_starts_later_is_other_content(tmp_path, kind):
    digests = {
        packets_digest(film(tmp_path / f"{at}.{kind}", 30, sound=sine(1, 16000), sound_at=at))
        for at in (0.0, 0.5)
    }
    assert len(digests) == 2


def test_pictures_at_other_times_are_other_content(tmp_path):
    shown = {"frames": [grey(i) for i in range(3)], "codec": "ffv1", "pix_fmt": "bgr0"}
    digests = {
        packets_digest(write_media(tmp_path / f"{ms}.mkv", times_ms=[0, ms, 400], **shown))
        for ms in (100, 200)
    }
    assert len(digests) == 2


def test_what_is_no_media_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.mp3").write_text("no sound at all")
    with pytest.raises(BadMedia):
        packets_digest(tmp_path / "a.mp3")
    assert file_digest(tmp_path / "a.mp3") == content_digest(tmp_path / "a.mp3")
    copy = shutil.copy(write(tmp_path / "b.wav"), tmp_path / "c.wav")
    assert file_digest(copy) == file_digest(tmp_path / "b.wav")

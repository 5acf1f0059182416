"""The demo set on disk: whole, the same every time, and finished after a kill."""

import ast
import hashlib
import json
from collections import Counter
from math import nan

import numpy as np
import pytest

from mvemo.manifests import BadManifest, check_manifest, read_manifest
from mvemo.manifests.demo import make, make_demo
from mvemo.manifests.demo.media import FPS, HEIGHT, SR, WIDTH
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import write_text

av = pytest.importorskip("av")

SECONDS = 1.0


def small(folder, **changes):
    settings = {"clips_per_class": 2, "seconds": SECONDS} | changes
    return make_demo(folder, **settings)  # type: ignore[arg-type]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def texts(monkeypatch):
    """Clips are texts of their arguments: for tests of the files of a set."""
    monkeypatch.setattr(make, "_make_clip", lambda path, *facts: write_text(path, str(facts)))


def test_manifest_is_good_and_says_that_it_is_synthetic(made):
    table = made.root / "manifest.csv"
    assert check_manifest(table, infer_groups=True) == []
    found = read_manifest(table)
    assert found.synthetic
    assert found.digest == made.digest


@pytest.mark.usefixtures("texts")
def test_labels_are_folders_and_groups_lie_in_one_class(tmp_path):
    manifest = small(tmp_path, clips_per_class=3, clips_per_group=2)
    assert Counter(Counter(manifest.groups).values()) == {2: 6, 1: 6}
    for clip in manifest.clips:
        assert clip.path.startswith(f"media/{clip.label[0]}/{clip.label[0].lower()}_")
    # Pieces of a song have its number, and each its own.
    facts = [ast.literal_eval(manifest.media_path(clip).read_text()) for clip in manifest.clips[:4]]
    assert [fact[:3] for fact in facts] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_files_have_both_streams_at_their_length(made):
    steady = set()
    for clip in made.clips:
        with av.open(str(made.media_path(clip))) as media:
            (video,), (audio,) = media.streams.video, media.streams.audio
            assert video.codec_context.name in ("h264", "mpeg4")
            assert audio.codec_context.name == "aac"
            assert (video.width, video.height) == (WIDTH, HEIGHT)
            assert (audio.rate, audio.channels) == (SR, 2)
            pictures = [float(f.pts * f.time_base) for f in media.decode(video=0)]
        with av.open(str(made.media_path(clip))) as media:
            samples = sum(frame.samples for frame in media.decode(audio=0))
        assert pictures == sorted(set(pictures))
        assert pictures[0] == 0
        assert pictures[-1] == pytest.approx(SECONDS - 1 / FPS, abs=1e-3)
        # AAC has frames of 1,024 samples, and one before the start.
        assert SECONDS * SR <= samples <= SECONDS * SR + 3 * 1024
        steady.add(bool(np.ptp(np.diff(pictures)) < 1e-6))
    # Some have a variable frame rate.
    assert steady == {True, False}


def test_the_seed_decides_every_byte(tmp_path):
    sets = [small(tmp_path / str(i), clips_per_class=1, seconds=0.5, seed=i // 2) for i in range(3)]
    ours, again, theirs = (contents(each.root) for each in sets)
    assert ours == again
    assert sets[0].digest == sets[2].digest  # same names and labels
    assert all(ours[clip.path] != theirs[clip.path] for clip in sets[0].clips)


@pytest.mark.usefixtures("texts")
def test_a_finished_set_is_reused(tmp_path):
    reports = []
    first = small(tmp_path, progress=lambda *step: reports.append(step))
    before = times(tmp_path)
    assert small(tmp_path, progress=lambda *step: reports.append(step)) == first
    assert times(tmp_path) == before
    assert reports == [(i, 12) for i in range(1, 13)]


@pytest.mark.usefixtures("texts")
def test_damage_is_repaired_and_other_settings_replace_the_set(tmp_path):
    manifest = small(tmp_path)
    whole = contents(tmp_path)
    first, second = (manifest.media_path(clip) for clip in manifest.clips[:2])
    first.write_bytes(first.read_bytes()[:-10])
    second.unlink()
    small(tmp_path)
    assert contents(tmp_path) == whole
    table = tmp_path / "manifest.csv"
    table.write_text(table.read_text().replace("Sad,sad_01", "Fear,sad_01"))
    small(tmp_path)
    assert contents(tmp_path) == whole
    (tmp_path / "media" / "Sad" / "holiday.mp4").write_bytes(b"not of the demo")
    whole = contents(tmp_path)
    small(tmp_path, clips_per_class=3, seconds=0.5, seed=5)
    assert len(times(tmp_path)) == 19
    small(tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.usefixtures("texts")
def test_an_interrupted_run_looks_unfinished_and_is_completed(tmp_path):
    def stop(done, of):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, progress=stop)
    assert not (tmp_path / "manifest.csv").exists()
    left = times(tmp_path)
    assert len(left) == 5
    # What a kill in the middle of a file leaves.
    orphan = tmp_path / "media" / "Sad" / ".sad_01-1-of-2.mp4.host-1.tmp"
    orphan.write_bytes(b"half")
    reports = []
    small(tmp_path, progress=lambda done, of: reports.append(done))
    assert reports == list(range(6, 13))
    assert left.items() <= times(tmp_path).items()
    assert not orphan.exists()


@pytest.mark.usefixtures("texts")
def test_a_foreign_settings_file_does_not_stop_it(tmp_path):
    for text in ("[]", "{", json.dumps({"settings": 3, "bytes": 4})):
        (tmp_path / "demo.json").write_text(text)
        assert len(small(tmp_path, clips_per_class=1)) == 6
        (tmp_path / "manifest.csv").unlink()


def test_bad_numbers_are_named(tmp_path):
    bad = {"clips_per_class": [0], "clips_per_group": [-1], "seconds": [0.1, nan], "seed": [-1]}
    for name, value in ((name, value) for name, values in bad.items() for value in values):
        with pytest.raises(BadOption, match=f"{name} is {value}"):
            small(tmp_path / "new", **{name: value})
    assert not (tmp_path / "new").exists()


def test_folders_that_cannot_be_used(tmp_path):
    table = tmp_path / "manifest.csv"
    table.write_text("path,label\n")
    with pytest.raises(BadManifest, match=r"manifest\.csv.*another"):
        small(tmp_path)
    assert table.read_text() == "path,label\n"
    with pytest.raises(MvemoError, match=r"^[^\n]*cannot be written[^\n]*$"):
        small(table / "demo")

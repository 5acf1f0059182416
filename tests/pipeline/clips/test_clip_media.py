"""What clips have: missing modalities told from failures, and rows of every reader."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from media_samples import film, grey, sine, write_media
from stage_samples import TINY

from mvemo.extract.errors import ClipFailed
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import Verbosity, running
from mvemo.pipeline.settings_files import load_settings

FILES = ("both.mp4", "sound.m4a", "picture.mp4", "quiet.mkv", "broken.mp4", "gone.mp4", "half.mp4")
FRAMES = [grey(i % 30) for i in range(25)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    sound = sine(1.0, 16000)
    film(folder / "both.mp4", FRAMES, sound=sound)
    write_media(folder / "sound.m4a", sound=sound)
    film(folder / "picture.mp4", FRAMES)
    film(folder / "quiet.mkv", FRAMES, sound=0 * sound, audio_codec="pcm_s16le")
    (folder / "broken.mp4").write_bytes(b"no film" * 99)
    noise = list(np.random.default_rng(0).integers(0, 255, (25, 64, 80, 3), dtype=np.uint8))
    options = {"movflags": "faststart"}
    whole = film(folder / "half.mp4", noise, sound=sound, container_options=options).read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    clips = tuple(Clip(name.split(".")[0], name, ("x",), name) for name in FILES)
    return Manifest("m", "multiclass", ("x", "y"), clips, folder)


def written(folder, **sounds):
    """Write sounds at 8 kHz, and return their manifest."""
    for name, sound in sounds.items():
        soundfile.write(folder / f"{name}.wav", sound, 8000, subtype="FLOAT")
    clips = tuple(Clip(name, f"{name}.wav", ("x",), name) for name in sounds)
    return Manifest("m", "multiclass", ("x", "y"), clips, folder)


SETTINGS = load_settings("paper", [*TINY, "extract.descriptors=[]"])
MUSIC, VIDEO = SETTINGS.nets["music1d"], SETTINGS.nets["c3d"]


def test_a_missing_modality_is_no_failure_and_a_broken_file_is(manifest, tmp_path):
    # The second time from the working cache.
    for _ in range(2):
        media = ClipMedia(manifest, SETTINGS, tmp_path, plans=[MUSIC, VIDEO])
        assert media.missing == (
            ("sound", "video", "no video stream"),
            ("picture", "audio", "no audio stream"),
            ("quiet", "audio", "silent: all samples are 0"),
        )
        reasons = {(clip, stage): why for clip, stage, why in media.failures}
        stages = ("decode:audio", "decode:video")
        assert set(reasons) == set(itertools.product(("broken", "gone", "half"), stages))
        assert "cannot be read as media" in reasons["broken", "decode:video"]
        assert "file not found" in reasons["gone", "decode:audio"]
        assert reasons["half", "decode:video"].startswith("cut off: ")
        assert media.usable(MUSIC).tolist() == [True, True] + [False] * 5
        assert media.usable(VIDEO).tolist() == [True, False, True, True] + [False] * 3
        assert media.reason("both") == ""
        assert media.reason("sound") == "video: no video stream"


def test_a_clip_that_is_left_with_nothing_is_a_failure(manifest, tmp_path):
    media = ClipMedia(manifest, SETTINGS, tmp_path, plans=[VIDEO])
    assert media.missing == ()
    assert ("sound", "decode:video", "no video stream") in media.failures
    assert "quiet" not in {clip for clip, _, _ in media.failures}


def test_a_modality_that_no_clip_has_is_absent(tmp_path):
    sounds = written(tmp_path, a=sine(1.0, 8000)[0], quiet=np.zeros(8000))
    media = ClipMedia(sounds, SETTINGS, tmp_path, plans=[MUSIC, VIDEO])
    assert media.absent("video")
    assert media.missing == ()
    # Nothing is left of the silent one.
    assert media.failures == (("quiet", "decode:audio", "silent: all samples are 0"),)


def test_clips_without_descriptors(tmp_path):
    # So soft that every frame is silent.
    sounds = written(tmp_path, a=sine(1.0, 8000)[0], soft=3e-4 * sine(1.0, 8000)[0])
    # Levelled, the soft sound is described, too.
    settings = replace(SETTINGS, descriptors=replace(SETTINGS.descriptors, level=0.0))
    media = ClipMedia(sounds, SETTINGS, tmp_path, descriptors=["f0", "times"])
    assert media.described.tolist() == [True, True]
    media = ClipMedia(sounds, settings, tmp_path, descriptors=["f0", "times"])
    assert media.described.tolist() == [True, False]
    ((clip, stage, reason),) = media.failures
    assert (clip, stage) == ("soft", "describe")
    assert "frames are silent" in reason
    assert media.sequence("a", "f0").shape[1] == 2


def test_the_first_failure_ends_the_run_when_asked(manifest, tmp_path):
    settings = replace(SETTINGS, extract=replace(SETTINGS.extract, fail_fast=True))
    kept = replace(manifest, clips=tuple(c for c in manifest.clips if c.clip_id != "gone"))
    with pytest.raises(ClipFailed, match=r"^(broken|half): .*\(--fail-fast\)") as error:
        ClipMedia(kept, settings, tmp_path, plans=[MUSIC])
    assert len(str(error.value).splitlines()) == 1
    broken = replace(manifest, clips=(kept.clips[4],))
    with pytest.raises(BadOption, match="no clip could be decoded; the first, broken: audio"):
        ClipMedia(broken, SETTINGS, tmp_path, plans=[MUSIC])


def test_a_note_says_which_sound_is_read(tmp_path, capsys):
    both = np.stack([sine(1.0, 8000)[0], -sine(1.0, 8000)[0]], axis=1)
    stereo = written(tmp_path, a=both / 2, b=both / 4)
    for _ in range(2):
        with running(Verbosity()):
            assert ClipMedia(stereo, SETTINGS, tmp_path / "w", plans=[MUSIC]).failures == ()
        told = capsys.readouterr().err
        note = "note: a.wav and 1 more: the channels cancel out: only channel 1 is read"
        assert told.count(note) == 1

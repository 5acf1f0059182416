"""Near-duplicates: found when re-encoded, shortened or louder; other clips are not."""

from dataclasses import replace
from itertools import combinations, pairwise

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from media_samples import film

from mvemo.extract.duplicates import (
    HOP,
    SR,
    Fingerprint,
    compare_fingerprints,
    find_duplicates,
    picture_hashes,
    sound_words,
)
from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.pipeline.commands.manifest import manifest as command

SECONDS = 8.0


def music(seed, seconds=SECONDS, sr=16000):
    """float32 (1, samples): notes of random pitch with overtones, four a second, and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sr)) / sr
    wave = 0.01 * rng.normal(size=len(t))
    for start in np.arange(0, seconds, 0.25):
        first = round(start * sr)
        elapsed = t[first:] - start
        shape = np.exp(-4 * elapsed)
        angle = 2 * np.pi * 220 * 2 ** (rng.integers(0, 25) / 12) * elapsed
        for k in range(1, 6):
            wave[first:] += 0.1 / k * shape * np.sin(k * angle + rng.uniform(0, 6))
    return wave[None].astype(np.float32)


def scenes(seed, seconds=SECONDS, fps=8, size=64):
    """A new random picture every second, slowly growing brighter within."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(round(seconds)):
        # As in photographs, nothing is quite flat: flat areas have no sign that lasts.
        coarse = rng.uniform(30, 200, (9, 9, 3))
        picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        frames += [(picture + 3 * i).clip(0, 255).astype(np.uint8) for i in range(fps)]
    return frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    film(folder / "one.mp4", scenes(1), 125, sound=music(1))
    # Re-encoded: another codec, fewer and coarser pictures, a third as loud.
    small = [f[::2, ::2] for f in scenes(1)]
    coarse = {"codec": "mpeg4", "options": {"qscale": "12"}, "audio_codec": "mp2"}
    film(folder / "again.mkv", small, 125, sound=music(1) / 3, **coarse)
    # Shortened: 1.6 s are missing at the beginning.
    cut = round(1.625 * 16000)
    film(folder / "cut.mp4", scenes(1)[13:], 125, sound=music(1)[:, cut:])
    film(folder / "other.mp4", scenes(2), 125, sound=music(2))
    # The same sound under other pictures.
    film(folder / "cover.mp4", scenes(3), 125, sound=music(1))
    film(folder / "mute.mp4", scenes(4), 125, sound=music(4) * 0)
    names = sorted(f.name for f in folder.iterdir())
    listed = [Clip(n.split(".")[0], n, ("x" if i % 2 else "y",), n) for i, n in enumerate(names)]
    return Manifest("m", "multiclass", ("x", "y"), tuple(listed), folder)


def test_copies_are_found_and_others_are_not(clips):
    search = find_duplicates(clips, workers=2)
    found = {(d.first, d.second, d.modality): d for d in search.duplicates}
    same_sound = set(combinations(("again", "cover", "cut", "one"), 2))
    assert {pair[:2] for pair in found if pair[2] == "audio"} == same_sound
    same_pictures = set(combinations(("again", "cut", "one"), 2))
    assert {pair[:2] for pair in found if pair[2] == "video"} == same_pictures
    assert found["again", "cut", "audio"].offset == pytest.approx(1.625, abs=HOP)
    assert found["cut", "one", "audio"].offset == pytest.approx(-1.625, abs=HOP)
    assert found["again", "one", "audio"].offset == pytest.approx(0.0, abs=HOP)
    assert all(0.7 <= d.similarity <= 1.0 for d in found.values() if d.modality == "audio")
    assert [d.first for d in search.duplicates] == sorted(d.first for d in search.duplicates)


def test_pairs_within_a_group_are_not_reported(clips):
    same = ("one", "again", "cut")
    joined = (replace(c, group="g" if c.clip_id in same else c.group) for c in clips.clips)
    grouped = replace(clips, clips=tuple(joined))
    found = {(d.first, d.second) for d in find_duplicates(grouped).duplicates}
    assert found == {("again", "cover"), ("cover", "cut"), ("cover", "one")}
    assert len(find_duplicates(grouped, across_groups=False).duplicates) == 9


def test_stretches_of_one_file(clips):
    def of(*stretches):
        listed = [Clip(str(s), "one.mp4", ("x",), str(s), s, d) for s, d in stretches]
        return replace(clips, clips=tuple(listed))

    # Half of what both have in common is enough; what only follows has nothing in common.
    assert len(find_duplicates(of((0.0, 6.0), (2.0, 6.0))).duplicates) >= 1
    assert find_duplicates(of((0.0, 4.0), (4.0, 4.0))).duplicates == ()


def test_clips_that_cannot_be_decoded_are_reported(clips, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    film(tmp_path / "quiet.mp4", scenes(5, 2), 125)
    names = ("bad.mp4", "none.mp4", "quiet.mp4")
    listed = tuple(Clip(n, n, ("x",), n) for n in names)
    seen = []
    search = find_duplicates(replace(clips, clips=listed, root=tmp_path), progress=seen.append)
    found = {clip: modality for clip, modality, _ in search.problems}
    assert found == {"bad.mp4": "clip", "none.mp4": "clip", "quiet.mp4": "audio"}
    assert sorted(seen) == [False, True, True]


def test_words_are_the_signs_of_band_differences():
    sound = music(7, 1.0, SR)[0]
    size, hop = 3072, 384
    frames = (sound[at : at + size] for at in range(0, len(sound) - size + 1, hop))
    power = [np.abs(np.fft.rfft(frame.astype(float) * np.hanning(size))) ** 2 for frame in frames]
    edges = [round(300 * 10 ** (m / 33) * size / SR) for m in range(34)]
    e = np.array([[p[a:b].sum() for a, b in pairwise(edges)] for p in power])
    rise = e[1:, :-1] - e[1:, 1:] - (e[:-1, :-1] - e[:-1, 1:])
    words, weakest_bits, _ = sound_words(sound)
    weakest = 1 << np.abs(rise).argmin(axis=1)
    assert weakest_bits.tolist() == weakest.tolist()
    # In single precision the weakest may come out either way.
    expected = ((rise > 0) << np.arange(32)).sum(axis=1)
    assert not ((words ^ expected) & ~weakest).any()


def test_silence_and_empty_pictures_match_nothing():
    assert len(sound_words(np.zeros(100, np.float32))[0]) == 0
    black_hashes, _ = picture_hashes(np.zeros((5, 64, 64, 3), np.uint8))
    assert len(black_hashes) == 0
    black = Fingerprint(*sound_words(np.zeros(4 * SR, np.float32)), black_hashes, {})
    assert compare_fingerprints([black, black]) == []
    assert compare_fingerprints([]) == []


def test_still_pictures_are_one():
    _, rows = picture_hashes(np.array(scenes(8, 4)))
    assert rows.tolist() == [0, 8, 16, 24]


def test_pictures_that_are_cut_to_two_fifths(tmp_path):
    rng = np.random.default_rng(5)
    wide = {
        n: cv2.resize(rng.uniform(30, 200, (9, 150, 3)), (1500, 64), None, 0, 0, 2) for n in "ab"
    }

    def moving(name, start, seconds):
        whole = wide[name].clip(0, 255).astype(np.uint8)
        lefts = 6 * np.arange(round(8 * start), round(8 * (start + seconds)))
        return [whole[:, left : left + 64] for left in lefts]

    stretches = {"whole": ("a", 0.0, 29.0), "cut": ("a", 11.3, 12.0), "other": ("b", 0.0, 29.0)}
    for name, stretch in stretches.items():
        film(tmp_path / f"{name}.mp4", moving(*stretch), 125)
    listed = [Clip(n, f"{n}.mp4", ("x",), n) for n in stretches]
    found = find_duplicates(Manifest("m", "multiclass", ("x",), tuple(listed), tmp_path))
    assert [(d.first, d.second) for d in found.duplicates] == [("whole", "cut")]


def test_the_command_reports_them_and_exits_1(clips, tmp_path):
    few = tuple(c for c in clips.clips if c.clip_id in ("one", "cut"))
    path = tmp_path / "few.csv"
    labelled = replace(clips, clips=(few[0], replace(few[1], label=("x",))))
    write_manifest(labelled, path)
    done = CliRunner().invoke(command, ["check", str(path), "--duplicates"])
    assert done.exit_code == 1, done.output
    assert "cut (group cut.mp4) and one (group one.mp4): the same sound (" in done.stderr
    assert "1.6 s earlier)" in done.stderr
    assert "the same pictures" in done.stderr
    assert done.stdout.splitlines()[-1] == "1 pair of near-duplicates in different groups"
    joined = replace(labelled, clips=tuple(replace(c, group="g") for c in labelled.clips))
    write_manifest(joined, path)
    assert CliRunner().invoke(command, ["check", str(path), "--duplicates"]).exit_code == 0
    refused = CliRunner().invoke(command, ["check", str(path), "--duplicates", "--no-media"])
    assert "needs the media" in str(refused.exception)

"""Synthetic media: recipes follow the paper, and their properties can be measured."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from mvemo.manifests.demo.media import (
    CLASSES,
    FPS,
    HEIGHT,
    PICTURES,
    SOUNDS,
    SR,
    WIDTH,
    picture_of,
    render,
    sound_of,
    synthesise,
)


@pytest.mark.parametrize("label", CLASSES)
def test_clips_of_a_group_share_what_a_song_shares(label):
    def drawn(group, clip):
        rng = np.random.default_rng([9, clip])
        sound = sound_of(label, np.random.default_rng([group, 1]), rng)
        picture = picture_of(label, np.random.default_rng([group, 2]), rng)
        return asdict(sound), asdict(picture)

    first, same, other = drawn(0, 0), drawn(0, 1), drawn(1, 0)
    for i, shared in enumerate(("even", "slope")):
        assert first[i][shared] == same[i][shared] != other[i][shared]
        assert first[i] != same[i]


@pytest.mark.parametrize("label", CLASSES)
def test_parameters_stay_in_their_ranges(label):
    ranges = {"tempo": (30, 300), "level": (-40, 0), "root": (24, 84)}
    ranges |= dict.fromkeys(("motion", "cuts"), (0, 9))
    for seed in range(200):
        group, clip = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        for recipe in (sound_of(label, group, clip), picture_of(label, group, clip)):
            for name, value in asdict(recipe).items():
                low, high = ranges.get(name, (0, 1))
                assert low <= value <= high, name


def played(**changes):
    recipe = replace(SOUNDS["Neutral"], **changes)
    return synthesise(recipe, 3.0, np.random.default_rng(4))


def test_shape_range_and_level():
    sound = played(level=-21.0)
    assert (sound.shape, sound.dtype) == ((2, 3 * SR), np.float32)
    assert np.abs(sound).max() <= 1
    level = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2))
    # Soft clipping takes a little off the peaks.
    assert level == pytest.approx(-21.0, abs=0.5)


def test_a_regular_rhythm_repeats_at_the_tempo():
    def periodicity(regularity):
        sound = played(tempo=120, regularity=regularity, drums=1.0, brightness=0.0)[0]
        energy = (sound[: 290 * 220].reshape(-1, 220) ** 2).sum(1)  # at 100.2 Hz
        energy = energy - energy.mean()
        lag = round(0.5 * SR / 220)
        return float(energy[lag:] @ energy[:-lag] / (energy @ energy))

    assert periodicity(1.0) > 0.7 > periodicity(0.0) + 0.5


def test_mode_decides_the_third():
    def strength(minor, semitones):
        sound = played(minor=minor, drums=0.0, brightness=0.0, tempo=60)[0][: 4 * SR // 5]
        f = 440 * 2 ** ((57 + semitones - 69) / 12)
        wave = np.exp(-2j * np.pi * f * np.arange(len(sound)) / SR) * np.hanning(len(sound))
        return float(abs(wave @ sound))

    assert strength(0.0, 4) > 3 * strength(0.0, 3)
    assert strength(1.0, 3) > 3 * strength(1.0, 4)


def changes(**recipe):
    frames = render(replace(PICTURES["Neutral"], **recipe), 2.0, np.random.default_rng(3))
    assert (frames.shape, frames.dtype) == ((2 * FPS, HEIGHT, WIDTH, 3), np.uint8)
    return np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))


def test_motion_changes_pixels_and_cuts_are_jumps():
    still, slow, fast = (np.median(changes(cuts=0.0, motion=speed)) for speed in (0.0, 0.3, 1.2))
    assert still < slow < fast
    steady, cut = (changes(motion=0.0, cuts=cuts) for cuts in (0.0, 3.0))
    assert (steady < 2 * np.median(steady)).all()
    assert (cut > 2 * np.median(cut)).sum() >= 2

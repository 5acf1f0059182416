"""The six classes' parameters."""

import dataclasses

import numpy as np
import pytest

from mvemo.manifests import SCHEMES
from mvemo.manifests.demo.media import CLASSES, PICTURES, SOUNDS, picture_of, sound_of


def test_classes_are_the_papers_in_its_order() -> None:
    assert CLASSES == ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
    assert CLASSES == SCHEMES["pl20"].classes == tuple(SOUNDS) == tuple(PICTURES)


def test_recipes_follow_the_papers_section_2() -> None:
    fast = {label for label, sound in SOUNDS.items() if sound.tempo > 110}
    slow = {label for label, sound in SOUNDS.items() if sound.tempo < 80}
    loud = {label for label, sound in SOUNDS.items() if sound.level > -18}
    assert fast == loud == {"Exciting", "Fear", "Tension"}
    assert slow == {"Relaxation", "Sad"}
    assert SOUNDS["Sad"].minor > 0.5 > SOUNDS["Exciting"].minor
    assert SOUNDS["Fear"].regularity < 0.2
    assert SOUNDS["Tension"].dissonance > 0.8
    assert max(SOUNDS[c].dissonance for c in ("Exciting", "Relaxation", "Sad")) == 0
    assert PICTURES["Exciting"].motion > 5 * PICTURES["Relaxation"].motion


@pytest.mark.parametrize("label", CLASSES)
def test_clips_of_a_group_share_what_a_song_shares(label: str) -> None:
    def drawn(group: int, clip: int) -> tuple[dict[str, float], dict[str, float]]:
        rng = np.random.default_rng([9, clip])
        sound = sound_of(label, np.random.default_rng([group, 1]), rng)
        picture = picture_of(label, np.random.default_rng([group, 2]), rng)
        return dataclasses.asdict(sound), dataclasses.asdict(picture)

    shared_sound, shared_picture = ("even",), ("slope",)
    (sound_a, picture_a), (sound_b, picture_b) = drawn(0, 0), drawn(0, 1)
    sound_c, picture_c = drawn(1, 0)
    assert [sound_a[k] for k in shared_sound] == [sound_b[k] for k in shared_sound]
    assert [picture_a[k] for k in shared_picture] == [picture_b[k] for k in shared_picture]
    assert sound_a != sound_b
    assert picture_a != picture_b
    assert sound_a["even"] != sound_c["even"]
    assert picture_a["slope"] != picture_c["slope"]


@pytest.mark.parametrize("label", CLASSES)
def test_parameters_stay_in_their_ranges(label: str) -> None:
    for seed in range(200):
        group, clip = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
        sound, picture = sound_of(label, group, clip), picture_of(label, group, clip)
        for name in ("minor", "regularity", "dissonance", "brightness", "drums", "even"):
            assert 0 <= getattr(sound, name) <= 1
        assert sound.tempo > 30
        assert sound.level < 0
        assert 24 < sound.root < 84
        for name in ("light", "hue", "colour", "slope"):
            assert 0 <= getattr(picture, name) <= 1
        assert picture.motion > 0
        assert picture.cuts >= 0

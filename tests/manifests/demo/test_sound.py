"""Synthesis: what a recipe says can be measured in the samples."""

from dataclasses import replace

import numpy as np
import pytest

from mvemo.manifests.demo.recipes import SOUNDS
from mvemo.manifests.demo.sound import SR, synthesise


def made(**changes: float) -> np.ndarray:
    recipe = replace(SOUNDS["Neutral"], **changes)
    return synthesise(recipe, 3.0, np.random.default_rng(4))


def test_shape_range_and_level() -> None:
    sound = made(level=-21.0)
    assert sound.shape == (2, 3 * SR)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() <= 1
    level = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2))
    # Soft clipping takes a little off the peaks.
    assert level == pytest.approx(-21.0, abs=0.5)


def test_brightness_raises_the_spectral_centroid() -> None:
    def centroid(brightness: float) -> float:
        power = np.abs(np.fft.rfft(made(brightness=brightness, drums=0.0)[0])) ** 2
        return float(np.fft.rfftfreq(3 * SR, 1 / SR) @ power / power.sum())

    assert centroid(0.0) < centroid(0.5) < centroid(1.0)


def test_a_regular_rhythm_repeats_at_the_tempo() -> None:
    def periodicity(regularity: float) -> float:
        sound = made(tempo=120, regularity=regularity, drums=1.0, brightness=0.0)[0]
        energy = (sound[: 290 * 220].reshape(-1, 220) ** 2).sum(1)  # at 100.2 Hz
        energy = energy - energy.mean()
        lag = round(0.5 * SR / 220)
        return float(energy[lag:] @ energy[:-lag] / (energy @ energy))

    assert periodicity(1.0) > 0.5 > periodicity(0.0) + 0.2


def test_mode_decides_the_third() -> None:
    def strength(minor: float, semitones: int) -> float:
        sound = made(minor=minor, drums=0.0, brightness=0.0, tempo=60)[0][: 4 * SR // 5]
        f = 440 * 2 ** ((57 + semitones - 69) / 12)
        wave = np.exp(-2j * np.pi * f * np.arange(len(sound)) / SR) * np.hanning(len(sound))
        return float(abs(wave @ sound))

    assert strength(0.0, 4) > 3 * strength(0.0, 3)
    assert strength(1.0, 3) > 3 * strength(1.0, 4)

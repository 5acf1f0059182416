"""Frames: what a recipe says can be measured in the pixels."""

from dataclasses import replace

import numpy as np
import pytest

from mvemo.manifests.demo.pictures import FPS, HEIGHT, WIDTH, render
from mvemo.manifests.demo.recipes import PICTURES


def made(seed: int = 3, **changes: float) -> np.ndarray:
    return render(replace(PICTURES["Neutral"], **changes), 2.0, np.random.default_rng(seed))


def changes_between(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))


def test_shape() -> None:
    frames = made()
    assert frames.shape == (2 * FPS, HEIGHT, WIDTH, 3)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize("light", [0.2, 0.5, 0.7])
def test_mean_lightness_is_the_recipes(light: float) -> None:
    values = [made(seed, light=light).max(-1).mean() / 255 for seed in range(4)]
    assert np.mean(values) == pytest.approx(light, abs=0.08)


def test_colour_and_hue() -> None:
    def means(**changes: float) -> np.ndarray:
        return made(**changes).mean((0, 1, 2))

    grey, red, green = means(colour=0.0), means(colour=0.9, hue=0.0), means(colour=0.9, hue=1 / 3)
    assert np.ptp(grey) < 3
    assert red.argmax() == 0
    assert np.ptp(red) > 30
    assert green.argmax() == 1
    assert np.ptp(green) > 30


def test_motion_changes_pixels() -> None:
    still, slow, fast = (
        np.median(changes_between(made(cuts=0.0, motion=speed))) for speed in (0.0, 0.3, 1.2)
    )
    assert still < slow < fast


def test_cuts_are_jumps() -> None:
    def jumps(cuts: float) -> int:
        change = changes_between(made(motion=0.0, cuts=cuts))
        return int((change > 2 * np.median(change)).sum())

    assert jumps(0.0) == 0
    assert jumps(3.0) >= 2

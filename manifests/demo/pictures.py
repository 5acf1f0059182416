"""Synthetic moving pictures: discs over a gradient, with cuts, changes of light and grain."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from mvemo.manifests.demo.recipes import Picture
from mvemo.manifests.types import F32, Bytes

WIDTH, HEIGHT, FPS = 160, 120, 15

# Coordinates in picture widths, from the upper left corner.
_Y, _X = (np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH).astype(np.float32)
_GRAIN = 3.0  # standard deviation, on the scale 0 to 255


@dataclass(frozen=True)
class _Scene:
    """Background and moving discs between two cuts."""

    ground: F32  # (height, width, 3), 0 to 255
    discs: F32  # (discs, 4): x, y, radius, direction in radians
    colours: F32  # (discs, 3), 0 to 255


def render(recipe: Picture, seconds: float, rng: np.random.Generator) -> Bytes:
    """Return uint8 (frames, HEIGHT, WIDTH, 3), RGB frames at `FPS`."""
    n = max(round(seconds * FPS), 2)
    frames = np.empty((n, HEIGHT, WIDTH, 3), dtype=np.uint8)
    # Drawn once and shifted at random: it looks like new grain at a tenth of the cost.
    grain = _GRAIN * rng.standard_normal((2 * HEIGHT, 2 * WIDTH, 1), dtype=np.float32)
    scene = _scene(recipe, rng)
    for i in range(n):
        if i and rng.random() < recipe.cuts / FPS:
            scene = _scene(recipe, rng)
        picture = _draw(scene, recipe.motion * i / FPS)
        top, left = rng.integers(HEIGHT), rng.integers(WIDTH)
        picture += grain[top : top + HEIGHT, left : left + WIDTH]
        frames[i] = np.clip(picture, 0, 255, out=picture)
    return frames


def _scene(recipe: Picture, rng: np.random.Generator) -> _Scene:
    """Draw a scene: the background has the recipe's mean lightness, the discs are brighter."""
    hues = recipe.hue + np.array([0.0, 0.08, -0.08]) + 0.03 * rng.normal(size=3)
    light = recipe.light * np.array([0.75, 1.15, 1.4]) + 0.04 * rng.normal(size=3)
    dark, bright, disc = (
        255 * np.array(colorsys.hsv_to_rgb(h % 1.0, recipe.colour, v), dtype=np.float32)
        for h, v in zip(hues, np.clip(light, 0.02, 1.0), strict=True)
    )
    angle = 2 * np.pi * (recipe.slope + 0.03 * rng.normal())
    slope = np.float32(np.cos(angle)) * _X + np.float32(np.sin(angle)) * _Y
    slope = ((slope - slope.min()) / (slope.max() - slope.min()))[..., None]
    count = int(rng.integers(3, 6))
    discs = np.stack(
        [
            rng.uniform(0, 1, count),
            rng.uniform(0, HEIGHT / WIDTH, count),
            rng.uniform(0.06, 0.16, count),
            rng.uniform(0, 2 * np.pi, count),
        ],
        axis=1,
    )
    shades = np.clip(disc * rng.uniform(0.75, 1.1, (count, 1)), 0, 255)
    ground = dark + slope * (bright - dark)
    return _Scene(ground, discs.astype(np.float32), shades.astype(np.float32))


def _draw(scene: _Scene, way: float) -> F32:
    """Draw the scene after its discs have moved by `way` picture widths.

    Discs that leave the picture come back on the other side.
    """
    picture = scene.ground.copy()
    for (x, y, radius, angle), colour in zip(scene.discs, scene.colours, strict=True):
        x = (x + way * np.cos(angle)) % 1.0
        y = (y + way * np.sin(angle)) % (HEIGHT / WIDTH)
        rows, columns = _span(y, radius, HEIGHT), _span(x, radius, WIDTH)
        inside = (_X[rows, columns] - x) ** 2 + (_Y[rows, columns] - y) ** 2 < radius**2
        picture[rows, columns][inside] = colour
    return picture


def _span(centre: float, radius: float, size: int) -> slice:
    first = int((centre - radius) * WIDTH)
    return slice(max(first, 0), min(first + int(2 * radius * WIDTH) + 3, size))

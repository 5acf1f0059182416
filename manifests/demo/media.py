"""Media of the demo data set: recipes of the emotion classes, synthetic music, moving pictures.

The recipes follow PL20 section 2: Exciting is fast, in major and colourful; Fear fast, loud,
irregular and abrupt; Relaxation slow and green; Sad slow, in minor and dark; Tension loud, fast
and clashing; Neutral mixes influences of the others.

One modality is not enough for classification. Sound hardly separates Fear from Tension, or Sad
from Relaxation; pictures hardly separate Exciting from Tension, or Fear from Sad. Any two classes
differ in sound or in pictures.
"""

import colorsys
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests import files, schemes, text_files
from mvemo.manifests.array_types import F32, F64
from mvemo.manifests.errors import MvemoError

Rng = np.random.Generator

CLASSES = schemes.SCHEMES["pl20"].classes
_MIXED = "Neutral"

SR = 22_050  # Hz
WIDTH, HEIGHT, FPS = 160, 120, 15
CODECS = ("libx264", "mpeg4")
_BLOCK = 1024  # samples of an AAC frame
# Four-chord progressions, in semitones above the root.
_MAJOR = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
_MINOR = ((0, 3, 7), (8, 12, 15), (5, 8, 12), (7, 10, 14))
# Tempo in beats per minute below which chords have a slow attack.
_SLOW = 85
# Coordinates in picture widths, from the upper left corner.
_Y, _X = (np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH).astype(np.float32)
_GRAIN = 3.0  # standard deviation, on the scale 0 to 255


@dataclass(frozen=True)
class DemoSound:
    """Recipe of a clip's music."""

    tempo: float  # beats per minute
    minor: float  # probability of a minor mode, 0 to 1
    level: float  # RMS level in dBFS
    regularity: float  # 1 for beats on time, 0 for onsets anywhere
    dissonance: float  # share of chords with minor seconds, 0 to 1
    brightness: float  # share of high harmonics, 0 to 1
    drums: float  # level of the beats relative to the chords, 0 to 1
    root: float  # MIDI number of the key note
    even: float = 0.6  # level of even harmonics relative to odd ones, 0 to 1 (the instrument)


@dataclass(frozen=True)
class DemoPicture:
    """Recipe of a clip's pictures."""

    motion: float  # speed of the discs, in picture widths per second
    light: float  # mean brightness, 0 to 1
    hue: float  # hue in turns, 0 to 1
    colour: float  # saturation, 0 to 1
    cuts: float  # cuts per second
    slope: float = 0.25  # direction in which the background grows lighter, in turns


_RECIPES = text_files.read_toml(Path(__file__).with_name("recipes.toml"))
SOUNDS = {name: DemoSound(**facts) for name, facts in _RECIPES["sounds"].items()}
PICTURES = {name: DemoPicture(**facts) for name, facts in _RECIPES["pictures"].items()}
# Share of clips whose sound or pictures have the recipe of a random class.
STRAYS = 0.05

_Recipe = TypeVar("_Recipe", DemoSound, DemoPicture)


def sound_of(label: str, group: Rng, clip: Rng) -> DemoSound:
    """Draw a clip's music: `group` determines key and instrument, `clip` varies the rest."""
    recipe = _drawn(SOUNDS, label, clip)
    return replace(
        recipe,
        root=recipe.root + int(group.integers(-4, 5)),
        tempo=recipe.tempo * float(np.exp(0.08 * group.normal() + 0.03 * clip.normal())),
        level=recipe.level + 1.5 * float(group.normal()) + 1.0 * float(clip.normal()),
        brightness=_share(recipe.brightness + 0.12 * group.normal()),
        even=_share(group.uniform(0.2, 1.0)),
        minor=float(group.random() < recipe.minor),
        dissonance=_share(recipe.dissonance + 0.06 * clip.normal()),
        regularity=_share(recipe.regularity + 0.05 * clip.normal()),
        drums=_share(recipe.drums + 0.08 * clip.normal()),
    )


def picture_of(label: str, group: Rng, clip: Rng) -> DemoPicture:
    """Draw a clip's pictures: `group` determines the palette, `clip` varies the rest."""
    recipe = _drawn(PICTURES, label, clip)
    light = recipe.light * float(np.exp(0.1 * group.normal() + 0.08 * clip.normal()))
    return replace(
        recipe,
        light=float(np.clip(light, 0.06, 0.8)),
        hue=float((recipe.hue + 0.05 * group.normal()) % 1.0),
        colour=_share(recipe.colour + 0.07 * group.normal()),
        slope=float(group.random()),
        motion=recipe.motion * float(np.exp(0.25 * clip.normal())),
        cuts=recipe.cuts * float(np.exp(0.2 * clip.normal())),
    )


def _drawn(recipes: dict[str, _Recipe], label: str, clip: Rng) -> _Recipe:
    """Return the class's recipe (rarely another one); Neutral is mixed with another class."""
    other = recipes[CLASSES[int(clip.integers(len(CLASSES)))]]
    share = clip.uniform(0.0, 0.25)
    if clip.random() < STRAYS:
        return other
    recipe = recipes[label]
    if label != _MIXED:
        return recipe
    # Hue and key are not mixed: a value between two others is not similar to both.
    names = [each.name for each in fields(recipe) if each.name not in ("hue", "root")]
    mixed = {n: (1 - share) * getattr(recipe, n) + share * getattr(other, n) for n in names}
    return replace(recipe, **mixed)


def _share(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)


def synthesise(recipe: DemoSound, seconds: float, rng: Rng) -> F32:
    """Return stereo music, float32 (2, samples) at `SR`, within [-1, 1]."""
    n = round(seconds * SR)
    on_time = np.arange(0.0, seconds - 0.1, 60.0 / recipe.tempo)
    loose = np.sort(rng.uniform(0.0, seconds - 0.1, len(on_time)))
    onsets = recipe.regularity * on_time + (1 - recipe.regularity) * loose
    onsets[0] = 0.0
    both = np.zeros((2, n))
    progression = _MINOR if recipe.minor >= 0.5 else _MAJOR
    for i, (onset, end) in enumerate(pairwise([*onsets.tolist(), seconds])):
        notes = [recipe.root + step for step in progression[(i // 4) % 4]]
        if rng.random() < recipe.dissonance:
            # A cluster: two notes, each with its minor second.
            notes = [note + shift for note in notes[:2] for shift in (0, 1)]
        after = both[:, round(onset * SR) :]
        chord = _chord(notes, end - onset + 0.05, recipe, rng)[: after.shape[1]]
        pan = 0.5 + 0.2 * rng.uniform(-1, 1)
        after[:, : len(chord)] += np.outer([1 - pan, pan], chord)
        if recipe.drums > 0.02:
            hit = 1.5 * recipe.drums * _drum(rng)[: after.shape[1]]
            after[:, : len(hit)] += hit
    both += 0.01 * _rms(both) * rng.normal(size=both.shape)
    both *= 10 ** (recipe.level / 20) / _rms(both)
    # Soft clipping keeps peaks within full scale.
    return np.tanh(both).astype(np.float32)


def _rms(sound: F64) -> float:
    return float(np.sqrt(np.mean(sound**2) + 1e-12))


def _chord(notes: list[float], seconds: float, recipe: DemoSound, rng: Rng) -> F64:
    t = np.arange(max(round(seconds * SR), 2)) / SR
    attack, decay = (0.25, 1.6) if recipe.tempo < _SLOW else (0.01, 0.5)
    envelope = np.minimum(t / attack, 1.0) * np.exp(-t / decay)
    total = np.zeros_like(t)
    for note in notes:
        f = 440.0 * 2 ** ((note - 69) / 12) * (1 + 0.001 * rng.normal())
        for h in range(1, 2 + round(9 * recipe.brightness)):
            weight = (recipe.even if h % 2 == 0 else 1.0) / h
            if f * h < 0.45 * SR:
                total += weight * np.sin(2 * np.pi * (f * h * t + rng.random()))
    return np.asarray(total * envelope / len(notes))


def _drum(rng: Rng) -> F64:
    t = np.arange(round(0.12 * SR)) / SR
    body = np.sin(2 * np.pi * (60 * t + 1.2 * (1 - np.exp(-t / 0.03))))
    noise = 0.6 * rng.normal(size=len(t)) * np.exp(-t / 0.025)
    return np.asarray(body * np.exp(-t / 0.06) + noise)


# Background (height, width, 3); discs (discs, 4): x, y, radius, direction in radians; and their
# colours (discs, 3). Colours are 0 to 255.
_Scene = tuple[F32, F32, F32]


def render(recipe: DemoPicture, seconds: float, rng: Rng) -> NDArray[np.uint8]:
    """Return uint8 (frames, HEIGHT, WIDTH, 3), RGB frames at `FPS`."""
    n = max(round(seconds * FPS), 2)
    frames = np.empty((n, HEIGHT, WIDTH, 3), dtype=np.uint8)
    # Grain that is drawn once and shifted at random looks new, at a tenth of the cost.
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


def _scene(recipe: DemoPicture, rng: Rng) -> _Scene:
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
    ranges = ((0, 1), (0, HEIGHT / WIDTH), (0.06, 0.16), (0, 2 * np.pi))
    discs = np.stack([rng.uniform(low, high, count) for low, high in ranges], axis=1)
    shades = np.clip(disc * rng.uniform(0.75, 1.1, (count, 1)), 0, 255)
    ground = dark + slope * (bright - dark)
    return ground, discs.astype(np.float32), shades.astype(np.float32)


def _draw(scene: _Scene, way: float) -> F32:
    """Draw the scene after its discs moved by `way` picture widths; they wrap around the edges."""
    ground, discs, colours = scene
    picture = ground.copy()
    for (x, y, radius, angle), colour in zip(discs, colours, strict=True):
        x = (x + way * np.cos(angle)) % 1.0
        y = (y + way * np.sin(angle)) % (HEIGHT / WIDTH)
        rows, columns = _span(y, radius, HEIGHT), _span(x, radius, WIDTH)
        inside = (_X[rows, columns] - x) ** 2 + (_Y[rows, columns] - y) ** 2 < radius**2
        picture[rows, columns][inside] = colour
    return picture


def _span(centre: float, radius: float, size: int) -> slice:
    first = int((centre - radius) * WIDTH)
    return slice(max(first, 0), min(first + int(2 * radius * WIDTH) + 3, size))


def video_codec() -> str:
    """Return the first of `CODECS` that this build of PyAV can encode with."""
    try:
        import av
    except ImportError:
        raise MvemoError(
            "writing the demo set needs PyAV: run pip install '.[extract]' in mvemo's folder"
        ) from None
    for name in CODECS:
        with suppress(ValueError):
            av.codec.Codec(name, "w")
            return name
    raise MvemoError(
        f"PyAV {av.__version__} lacks a video encoder: expected one of {', '.join(CODECS)}"
    )


def write_clip(
    path: Path, frames: NDArray[np.uint8], kept: NDArray[np.bool_], sound: F32, codec: str
) -> None:
    """Write the RGB `frames` that are True in `kept`, and stereo `sound` (2, samples) at `SR`."""
    import av

    with files.replacing(path) as temp, av.open(str(temp), "w", format="mp4") as container:
        video: Any = container.add_stream(codec, rate=FPS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        # With one thread, the same settings give the same bytes.
        video.codec_context.thread_count = 1
        if codec == "libx264":
            # With the macroblock tree, x264 of PyAV 18 gives different bytes in each run.
            video.options = {"preset": "veryfast", "crf": "24", "x264-params": "mbtree=0"}
        audio: Any = container.add_stream("aac", rate=SR, layout="stereo")
        audio.bit_rate = 96_000
        audio.options = {"aac_coder": "fast"}
        for i in np.flatnonzero(kept):
            picture = av.VideoFrame.from_ndarray(frames[i], format="rgb24")
            picture.pts, picture.time_base = int(i), Fraction(1, FPS)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        for first in range(0, sound.shape[1], _BLOCK):
            piece = np.ascontiguousarray(sound[:, first : first + _BLOCK])
            samples = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            samples.sample_rate, samples.pts, samples.time_base = SR, first, Fraction(1, SR)
            container.mux(audio.encode(samples))
        container.mux(audio.encode())

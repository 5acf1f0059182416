"""Neither sense suffices, both together do: a linear probe on simple measurements."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.manifests.demo.media import CLASSES, SR, picture_of, render, sound_of, synthesise

GROUPS, PIECES = 6, 2
Floats = NDArray[np.float64]


def measured_sound(sound):
    """Mean, spread and rise of the log energies of 12 bands."""
    frames = np.lib.stride_tricks.sliding_window_view(sound.mean(0), 512)[::256]
    power = np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2
    hertz = np.fft.rfftfreq(512, 1 / SR)
    edges = np.geomspace(80, 8000, 13)
    bands = np.stack(
        [power[:, np.abs(hertz - (a + b) / 2) <= (b - a) / 2 + 22].sum(1)
         for a, b in itertools.pairwise(edges)],
        axis=1,
    )  # fmt: skip
    bands = np.log(bands + 1e-6)
    rise = np.maximum(np.diff(bands, axis=0), 0).mean(0)
    return np.concatenate([bands.mean(0), bands.std(0), rise])


def measured_pictures(frames):
    """Mean colour, lightness, saturation, and how much changes from frame to frame."""
    small = frames[:, ::6, ::6] / 255.0
    top, low = small.max(-1), small.min(-1)
    change = np.abs(np.diff(small, axis=0)).mean((1, 2, 3))
    steps = np.log(np.quantile(change, [0.2, 0.5, 0.8, 0.95]) + 1e-3)
    return np.array([*small.mean((0, 1, 2)), top.mean(), (top - low).mean(), small.std(), *steps])


@pytest.fixture(scope="module")
def measured():
    sounds, pictures, labels, groups = [], [], [], []
    for label, name in enumerate(CLASSES):
        for song in range(GROUPS):
            for piece in range(PIECES):
                rng = np.random.default_rng([label, song, piece])
                music, palette = (np.random.default_rng([label, song, 9, i]) for i in (0, 1))
                sounds.append(measured_sound(synthesise(sound_of(name, music, rng), 1.5, rng)))
                pictures.append(measured_pictures(render(picture_of(name, palette, rng), 0.7, rng)))
                labels.append(label)
                groups.append(label * GROUPS + song)
    return np.array(sounds), np.array(pictures), np.array(labels), np.array(groups)


def predicted(x, y, groups):
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    folds = StratifiedGroupKFold(6, shuffle=True, random_state=0)
    result: NDArray[np.int64] = cross_val_predict(probe, x, y, groups=groups, cv=folds)
    return result


PAIRS = {"sound": (("Fear", "Tension"), ("Relaxation", "Sad")),
         "pictures": (("Exciting", "Tension"), ("Fear", "Sad"))}  # fmt: skip


def test_neither_sense_suffices_but_both_do(measured):
    sounds, pictures, y, groups = measured
    both = predicted(np.hstack([sounds, pictures]), y, groups)
    accuracy = {"both": np.mean(both == y)}
    for sense, x in (("sound", sounds), ("pictures", pictures)):
        found = predicted(x, y, groups)
        accuracy[sense] = np.mean(found == y)
        # With each pair taken as one class, the sense tells them all.
        merged = np.arange(6)
        for a, b in PAIRS[sense]:
            merged[CLASSES.index(b)] = merged[CLASSES.index(a)]
        assert np.mean(merged[found] == merged[y]) > 0.8
    assert 0.45 < accuracy["sound"] < 0.8
    assert 0.45 < accuracy["pictures"] < 0.8
    assert accuracy["both"] > 0.82
    assert accuracy["both"] > max(accuracy["sound"], accuracy["pictures"]) + 0.1

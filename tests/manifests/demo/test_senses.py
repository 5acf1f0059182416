"""Neither sense suffices, both together do: a linear probe on simple measurements."""

from itertools import pairwise

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.manifests.demo.media import CLASSES, SR, picture_of, render, sound_of, synthesise

SONGS, PIECES = 6, 2
# Pairs of classes that one sense cannot tell apart.
SIMILAR = {"sound": {"Tension": "Fear", "Sad": "Relaxation"},
           "pictures": {"Tension": "Exciting", "Sad": "Fear"}}  # fmt: skip


def measured_sound(sound):
    frames = np.lib.stride_tricks.sliding_window_view(sound.mean(0), 512)[::256]
    power = np.abs(np.fft.rfft(frames * np.hanning(512))) ** 2
    edges = np.round(np.geomspace(80, 8000, 13) * 512 / SR).astype(int)
    bands = [power[:, a : max(a + 1, b)].sum(1) for a, b in pairwise(edges)]
    level = np.log(np.array(bands) + 1e-6)
    rise = np.maximum(np.diff(level), 0)
    return np.concatenate([level.mean(1), level.std(1), rise.mean(1)])


def measured_pictures(frames):
    small = frames[:, ::6, ::6] / 255.0
    change = np.abs(np.diff(small, axis=0)).mean((1, 2, 3))
    steps = np.log(np.quantile(change, [0.2, 0.5, 0.8, 0.95]) + 1e-3)
    light, colour = small.max(-1).mean(), np.ptp(small, -1).mean()
    return np.array([*small.mean((0, 1, 2)), light, colour, *steps])


def test_neither_sense_suffices_but_both_do():
    sounds, pictures = [], []
    labels = np.repeat(np.arange(6), SONGS * PIECES)
    songs = np.arange(len(labels)) // PIECES
    for i, (label, song) in enumerate(zip(labels.tolist(), songs.tolist(), strict=True)):
        rng = np.random.default_rng(i)
        music, palette = (np.random.default_rng([song, sense]) for sense in (0, 1))
        sound = sound_of(CLASSES[label], music, rng)
        picture = picture_of(CLASSES[label], palette, rng)
        sounds.append(measured_sound(synthesise(sound, 1.5, rng)))
        pictures.append(measured_pictures(render(picture, 0.7, rng)))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=2000))
    folds = StratifiedGroupKFold(6, shuffle=True, random_state=0)
    inputs = {"sound": sounds, "pictures": pictures, "both": np.hstack([sounds, pictures])}
    accuracy = {}
    for name, x in inputs.items():
        found = cross_val_predict(probe, np.array(x), labels, groups=songs, cv=folds)
        accuracy[name] = np.mean(found == labels)
        merged = np.array([CLASSES.index(SIMILAR.get(name, {}).get(c, c)) for c in CLASSES])
        assert np.mean(merged[found] == merged[labels]) > 0.8
    assert 0.45 < accuracy["sound"] < 0.8
    assert 0.45 < accuracy["pictures"] < 0.8
    assert accuracy["both"] > max(accuracy["sound"], accuracy["pictures"], 0.72) + 0.1

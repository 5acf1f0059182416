"""Additive synthesis of music: chords, drums and a little noise."""

from __future__ import annotations

import numpy as np

from mvemo.manifests.demo.recipes import Sound
from mvemo.manifests.types import F32, F64

SR = 22_050

# Four-chord progressions, in semitones above the root.
_MAJOR = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
_MINOR = ((0, 3, 7), (8, 12, 15), (5, 8, 12), (7, 10, 14))
# Tempo in beats per minute below which chords have a slow attack.
_SLOW = 85


def synthesise(recipe: Sound, seconds: float, rng: np.random.Generator) -> F32:
    """Return stereo music, float32 (2, samples) at `SR`, within [-1, 1]."""
    n = round(seconds * SR)
    onsets = _onsets(recipe, seconds, rng)
    both = np.zeros((2, n))
    progression = _MINOR if recipe.minor >= 0.5 else _MAJOR
    for i, onset in enumerate(onsets):
        end = onsets[i + 1] if i + 1 < len(onsets) else seconds
        notes = [recipe.root + step for step in progression[(i // 4) % 4]]
        if rng.random() < recipe.dissonance:
            # A cluster: two notes, each with its minor second.
            notes = [note + shift for note in notes[:2] for shift in (0, 1)]
        first = round(onset * SR)
        chord = _chord(notes, end - onset + 0.05, recipe, rng)[: n - first]
        pan = 0.5 + 0.2 * rng.uniform(-1, 1)
        both[:, first : first + len(chord)] += np.outer([1 - pan, pan], chord)
        if recipe.drums > 0.02:
            hit = 1.5 * recipe.drums * _drum(rng)[: n - first]
            both[:, first : first + len(hit)] += hit
    both += 0.01 * _rms(both) * rng.normal(size=both.shape)
    both *= 10 ** (recipe.level / 20) / _rms(both)
    # Soft clipping keeps peaks within full scale.
    return np.tanh(both).astype(np.float32)


def _rms(sound: F64) -> float:
    return float(np.sqrt(np.mean(sound**2) + 1e-12))


def _onsets(recipe: Sound, seconds: float, rng: np.random.Generator) -> list[float]:
    """Return the times of the beats in seconds, shifted if the rhythm is irregular."""
    on_time = np.arange(0.0, seconds - 0.1, 60.0 / recipe.tempo)
    loose = np.sort(rng.uniform(0.0, seconds - 0.1, len(on_time)))
    times = recipe.regularity * on_time + (1 - recipe.regularity) * loose
    times[0] = 0.0
    return [float(t) for t in times]


def _chord(notes: list[float], seconds: float, recipe: Sound, rng: np.random.Generator) -> F64:
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
    result: F64 = total * envelope / len(notes)
    return result


def _drum(rng: np.random.Generator) -> F64:
    """Return a falling tone with a burst of noise."""
    t = np.arange(round(0.12 * SR)) / SR
    body = np.sin(2 * np.pi * (60 * t + 1.2 * (1 - np.exp(-t / 0.03))))
    result: F64 = body * np.exp(-t / 0.06) + 0.6 * rng.normal(size=len(t)) * np.exp(-t / 0.025)
    return result

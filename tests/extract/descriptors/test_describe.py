"""All descriptors together: shapes, records, silent frames, and sound that is hardly any."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mvemo.extract.descriptors import (
    DESCRIPTORS,
    LOUDNESS,
    DescriptorSettings,
    describe,
    descriptor_spec,
    dim_of,
)
from mvemo.extract.descriptors.framing import SPECTROGRAM
from mvemo.extract.errors import BadMedia
from mvemo.manifests.errors import BadOption

SETTINGS = DescriptorSettings()
SMALL = DescriptorSettings(
    sr=8_000, n_fft=256, hop_length=100, n_mels=12, n_mfcc=8, formant_order=8, f0_min=100
)


def noise(samples, level=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(samples)).astype(np.float32)


def check(found, settings, frames=None):
    """Every descriptor is float32, finite, of its width, and of as many frames as the others."""
    assert set(found) == set(DESCRIPTORS)
    own = {len(found[name]) for name in SPECTROGRAM}
    others = found.keys() - {*SPECTROGRAM, LOUDNESS}
    lengths = {len(found[name]) for name in others}
    assert len(lengths) == len(own) == len(found[LOUDNESS]) == 1
    if frames is not None:
        assert lengths == {frames}
    for name, values in found.items():
        assert values.dtype == np.float32, name
        assert values.shape[1] == dim_of(name, settings), name
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize(
    ("sr", "n_fft", "samples"),
    [
        *((44_100, 2048, samples) for samples in (1, 15, 2047, 2048, 2049, 3072, 3073)),
        *((8_000, n_fft, 5 * n_fft) for n_fft in (256, 2048)),
        *((192_000, n_fft, 5 * n_fft) for n_fft in (2048, 8192)),
    ],
)
def test_rates_and_frames(sr, n_fft, samples):
    settings = DescriptorSettings(sr=sr, n_fft=n_fft, hop_length=n_fft // 2)
    frames = 1 + max(0, -(-(samples - n_fft) // (n_fft // 2)))
    check(describe(noise(samples, 1.0), settings, DESCRIPTORS), settings, frames=frames)


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (np.zeros(0), r"got shape \(0,\)"),
        (np.zeros((4096, 2)), r"got shape \(4096, 2\)"),
        (np.zeros(441), "all 1 frames are silent"),
        (noise(44_100, 1e-4), "-80 dB of full scale, expected at least -60 dB"),
        *((np.where(np.arange(4096) == 9, x, 0.1), "1 of 4096") for x in (np.nan, -np.inf)),
        (np.where(np.arange(4096) == 9, 1e9, 0.1), "peak is 1e"),
    ],
    ids=["empty", "stereo", "short", "silent", "nan", "infinite", "peak"],
)
def test_samples_that_are_no_sound_are_reported(y, reason):
    with pytest.raises(BadMedia, match=reason) as error:
        describe(y.astype(np.float32), SETTINGS, DESCRIPTORS)
    assert "\n" not in str(error.value)


SOUNDS = hnp.arrays(np.float32, st.integers(1, 1500), elements=st.floats(-1, 1, width=32))


@given(SOUNDS)
@example(np.array([0.03125], np.float32))
@example(np.full(1500, -0.5, np.float32))
@example(np.sign(np.sin(np.arange(1500, dtype=np.float32) / 20)))
@example(np.eye(1, 1500, 700, dtype=np.float32)[0] * 10)
@example(np.where(np.arange(1500) % 2, np.float32(1), np.float32(-1)))
@example(np.sin(np.arange(1500, dtype=np.float32) / 30) * 32_000)
@budget(max_examples=40, deadline=None)
def test_any_sound_is_described_or_reported(y):
    # The spectrogram has longer frames of its own, in which a click is quieter.
    starts = range(0, max(len(y) - 1024, 0) + 512, 512)
    audible = any(np.square(y[i : i + 1024]).sum() > 1024 * 2e-6 for i in starts)
    try:
        found = describe(y, SMALL, DESCRIPTORS)
    except BadMedia:
        assert not audible
    else:
        check(found, SMALL)


def test_silent_frames_are_dropped_as_times_show():
    y = noise(20 * 1024)
    y[6 * 1024 : 12 * 1024] = 0
    whole = describe(y, dataclasses.replace(SETTINGS, silence_db=-200.0), DESCRIPTORS)
    found = describe(y, SETTINGS, DESCRIPTORS)
    # Frame i holds samples 1024 i to 1024 (i + 2): 6 to 10 are silent throughout, even at
    # the lowest threshold.
    expected = [i for i in range(19) if not 6 <= i <= 10]
    assert found["times"][:, 0] == pytest.approx((np.array(expected) + 1) * 1024 / 44_100)
    check(found, SETTINGS, frames=len(expected))
    assert np.array_equal(whole["mfcc"], found["mfcc"])


def test_neither_blocks_nor_other_descriptors_change_a_value(monkeypatch):
    y = noise(60 * 100)
    y[2000:3000] = 0
    together = describe(y, SMALL, DESCRIPTORS)
    for name in DESCRIPTORS:
        alone = describe(y, SMALL, [name, name])
        assert list(alone) == [name]
        assert np.array_equal(alone[name], together[name]), name
    monkeypatch.setattr("mvemo.extract.descriptors.framing.BLOCK_SAMPLES", 7 * 256)
    apart = describe(y, SMALL, DESCRIPTORS)
    for name in DESCRIPTORS:
        assert apart[name] == pytest.approx(together[name], rel=1e-4, abs=1e-3), name


def test_combination_weighs_mfcc_and_rp():
    y = noise(8192)
    settings = dataclasses.replace(SETTINGS, alpha=0.25)
    found = describe(y, settings, ["mfcc", "rp", "mfcc_rp"])
    assert found["mfcc_rp"] == pytest.approx(0.75 * found["mfcc"] + 0.25 * found["rp"], rel=1e-5)
    for alpha, name in ((0.0, "mfcc"), (1.0, "rp")):
        settings = dataclasses.replace(SETTINGS, alpha=alpha)
        assert np.array_equal(describe(y, settings, ["mfcc_rp"])["mfcc_rp"], found[name])


def test_specs_hold_what_decides_the_values():
    for name in DESCRIPTORS:
        spec = descriptor_spec(name, SETTINGS)
        assert (spec.kind, spec.modality, spec.protocol) == ("sequence", "audio", "none")
        assert spec.extractor == f"descriptor:{name}"
        assert spec.dim == dim_of(name, SETTINGS)
        json.dumps(dict(spec.params), allow_nan=False)
    y = noise(8192) * np.linspace(0.5, 1.0, 8192, dtype=np.float32)
    changes = {
        "level": -20.0, "n_fft": 1024, "hop_length": 512, "sr": 48_000, "window": "hann",
        "silence_db": -23.0,
        "spectrogram_n_fft": 512, "spectrogram_hop_length": 300, "n_mels": 40, "n_mfcc": 13,
        "lpc_order": 12, "alpha": 0.3, "f0_min": 500.0, "f0_max": 900.0, "f0_threshold": 0.9,
        "n_formants": 3, "formant_order": 10, "n_bands": 5, "contrast_min": 100.0,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(DescriptorSettings)}
    before = describe(y, SETTINGS, DESCRIPTORS)
    for key, value in changes.items():
        settings = dataclasses.replace(SETTINGS, **{key: value})
        after = describe(y, settings, DESCRIPTORS)
        for name in DESCRIPTORS:
            same = descriptor_spec(name, settings).digest == descriptor_spec(name, SETTINGS).digest
            # A digest that stays though values change would serve stale rows.
            # Feature files have the loudness at the rate of the media file.
            same &= (key, name) != ("sr", LOUDNESS)
            assert not same or np.array_equal(after[name], before[name]), (key, name)
    # The name in caches that were written before the setting was renamed.
    assert descriptor_spec("times", SETTINGS).params["mute_db"] == -60.0
    mfcc = descriptor_spec("mfcc", SETTINGS)
    assert descriptor_spec("mfcc", dataclasses.replace(SETTINGS, lpc_order=12)) == mfcc


@pytest.mark.parametrize(
    "change",
    [
        {"sr": 100}, {"n_fft": 2047}, {"hop_length": 4096}, {"window": "nonsense"},
        {"n_mfcc": 65}, {"n_fft": 64, "hop_length": 32}, {"f0_min": 30_000.0}, {"f0_max": 40.0},
        {"f0_max": 20_000.0}, {"n_formants": 7}, {"contrast_min": 30_000.0},
        {"sr": 192_000, "n_fft": 64, "hop_length": 32},
        {"sr": 192_000, "n_fft": 256, "hop_length": 128},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range(change):
    with pytest.raises(BadOption) as error:
        DescriptorSettings(**change)
    assert "\n" not in str(error.value)


def test_unknown_names():
    for function in (dim_of, descriptor_spec, lambda name, s: describe(noise(4096), s, [name])):
        with pytest.raises(BadOption, match="unknown descriptor 'mfc'; expected one of mel, "):
            function("mfc", SETTINGS)

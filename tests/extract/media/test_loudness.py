"""The loudness meter against FFmpeg's, and the mono mix of layouts."""

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mvemo.extract.media.loudness import LoudnessMeter, gain_to, k_weighting, mono_weights
from mvemo.extract.media.reading import decode_clip


def measured(y, sr):
    meter = LoudnessMeter(sr)
    meter.add(np.asarray(y, np.float32))
    return meter.integrated


def ebur128(path):
    """Return the integrated loudness that FFmpeg's filter finds, in LUFS."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        graph = av.filter.Graph()
        source = graph.add_abuffer(template=stream)
        meter = graph.add("ebur128", "metadata=1:framelog=quiet")
        sink = graph.add("abuffersink")
        source.link_to(meter)
        meter.link_to(sink)
        graph.configure()
        found = ""
        for frame in container.decode(stream):
            source.push(frame)
            while True:
                try:
                    found = dict(sink.pull().metadata).get("lavfi.r128.I", found)
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    return float(found)


def sound(kind, sr, seconds=12):
    rng = np.random.default_rng(3)
    t = np.arange(seconds * sr) / sr
    if kind == "noise":
        return 0.1 * rng.standard_normal(len(t))
    if kind == "tones":
        return 0.3 * np.sin(2 * np.pi * 110 * t) + 0.1 * np.sin(2 * np.pi * 0.4 * sr * t)
    # Quiet parts, which the relative gate leaves out, and silence.
    return (
        0.2 * rng.standard_normal(len(t)) * np.where(t % 6 < 2, 1.0, np.where(t % 6 < 4, 0.01, 0))
    )


@pytest.mark.parametrize("sr", [8000, 16000, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("kind", ["noise", "tones", "gated"])
def test_as_ffmpeg_measures(tmp_path, kind, sr):
    y, path = sound(kind, sr).astype(np.float32), tmp_path / "a.wav"
    soundfile.write(path, y, sr, subtype="FLOAT")
    decoded = decode_clip(path, sample_rates=(16000,), pictures=(), level=-23.0)
    # FFmpeg resamples to 48 kHz first, and prints two digits.
    assert decoded.loudness == pytest.approx(measured(y, sr), abs=1e-6)
    assert decoded.loudness == pytest.approx(ebur128(path), abs=0.1)


def test_filter_of_the_standard_at_48_khz():
    # ITU-R BS.1770-4, Tables 1 and 2.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241]
    assert k_weighting(48000)[0] == pytest.approx([*shelf, 0.73248077421585], abs=1e-10)
    high_pass = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
    assert k_weighting(48000)[1] == pytest.approx(high_pass, abs=1e-10)


@given(st.lists(st.integers(1, 9000), max_size=9), st.floats(-60, 6))
def test_blocks_and_gain(sizes, decibels):
    y = sound("gated", 4000, 7)
    meter, factor = LoudnessMeter(4000), 10 ** (decibels / 20)
    for block in np.split(y, np.minimum(np.cumsum(sizes), len(y)).astype(int)):
        meter.add(block.astype(np.float32))
    whole = measured(y, 4000)
    assert meter.integrated == pytest.approx(whole, abs=1e-5)
    # The absolute gate does not move with the sound, so it is kept out of reach here.
    if decibels > -20:
        assert measured(factor * y, 4000) == pytest.approx(whole + decibels, abs=1e-4)


def test_short_and_silent_sound():
    assert measured(np.zeros(8000), 16000) == LoudnessMeter(16000).integrated == -np.inf
    assert gain_to(-23.0, -np.inf) == gain_to(0.0, -9.0) == 1.0
    assert np.isfinite(measured([0.5, -0.5], 16000))
    faint = 1e-4 * np.random.default_rng(0).standard_normal(48000)
    assert -90 < measured(faint, 16000) < -70


@pytest.mark.parametrize("decibels", [-40, -20, -6, 0])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_sound_at_any_level_decodes_alike(tmp_path, name, decibels):
    y = np.clip(3 * sound("gated", 16000), -1, 1)
    path, found = tmp_path / name, []
    for gain in (1.0, 10 ** (decibels / 20)):
        soundfile.write(path, gain * y, 16000, subtype="PCM_24")
        found.append(decode_clip(path, sample_rates=(8000, 16000), pictures=(), level=-23.0))
    assert found[1].loudness == pytest.approx(found[0].loudness + decibels, abs=0.01)
    for sr in (8000, 16000):
        assert np.abs(found[1].waveforms[sr] - found[0].waveforms[sr]).max() < 1e-3
    assert measured(found[1].waveforms[16000], 16000) == pytest.approx(-23.0, abs=0.01)


@pytest.mark.parametrize(
    "channels",
    ["FL FR FC", "FL FR FC LFE BL BR", "FL FR FC LFE SL SR", "FL FR FC LFE BL BR SL SR"],
)
def test_stereo_in_larger_layouts(channels):
    weights = mono_weights(channels.split())
    assert weights[:2].tolist() == mono_weights(["FL", "FR"]).tolist() == [0.5, 0.5]
    assert weights.tolist() == mono_weights(["NONE"] * len(weights)).tolist()
    # The energy of unrelated channels is that of BS.775: centre 1/2, surround 1/8, front 1/4.
    assert weights[2] ** 2 == pytest.approx(0.5)
    assert np.square(weights[4:]) == pytest.approx(np.full(len(weights[4:]), 0.125))


def test_layouts_without_front_channels_count_alike():
    assert mono_weights(["NONE"] * 24).tolist() == pytest.approx([1 / 24] * 24)
    assert mono_weights(["DL", "DR"]).tolist() == [0.5, 0.5]

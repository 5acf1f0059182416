"""Degraded copies of clips: each degradation changes what its name says, and nothing else."""

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from media_samples import decode, film, index_of

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.reading import decode_clip, probe_seconds
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies.degradations import _join, degradation, find_degradation

SR, SECONDS = 44100, 4.0
CODECS = [f"{codec}-{rate}k" for codec in ("mp3", "aac", "opus", "vorbis") for rate in (32, 320)]


def chords(sr=SR, channels=2, seconds=SECONDS):
    """Changing chords with soft noise, float32 (channels, samples)."""
    t, rng = np.arange(int(seconds * sr)) / sr, np.random.default_rng(0)
    tones = [np.sin(2 * np.pi * f * t * (1 + c)) for c in range(3) for f in (220, 277, 330)]
    y = 0.05 * np.sum(tones, axis=0) * (1 + np.sin(2 * np.pi * 1.5 * t)) / 2
    noise = 0.002 * rng.normal(size=(channels, len(t)))
    return (y + noise).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The same sound as a file of sound and as a video whose frames say their number."""
    folder, y = tmp_path_factory.mktemp("clips"), chords()
    soundfile.write(folder / "song.wav", y.T, SR, subtype="FLOAT")
    film(folder / "mute.mp4", frames=30, step=133)
    _join(folder / "mute.mp4", folder / "song.wav", folder / "film.mkv")
    return folder


def mono(path, **part):
    return decode_clip(path, sample_rates=(SR,), pictures=(), **part).waveforms[SR]


def decibels(y):
    return 20 * np.log10(np.sqrt(np.mean(np.square(y, dtype=np.float64))))


def aligned(x, y):
    """The parts of two waveforms that fit best: codecs delay the sound."""
    n = 2 * max(len(x), len(y))
    found = int(np.fft.irfft(np.fft.rfft(x, n).conj() * np.fft.rfft(y, n), n).argmax())
    late = found - n if found > n // 2 else found
    x, y = x[max(-late, 0) :], y[max(late, 0) :]
    return x[: len(y)], y[: len(x)]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("file", ["song.wav", "film.mkv"])
def test_codecs_keep_the_sound(clips, tmp_path, file, name):
    copy = degradation(clips / file, name, tmp_path / "copy")
    x, y = aligned(mono(clips / file), mono(copy))
    assert np.corrcoef(x, y)[0, 1] > 0.9
    assert len(y) / SR == pytest.approx(SECONDS, abs=0.1)
    with av.open(str(copy)) as container:
        assert container.streams.audio[0].codec_context.name.startswith(name.split("-")[0])
        assert len(container.streams.video) == (file == "film.mkv")
    assert [path.name for path in tmp_path.iterdir()] == [copy.name]


@pytest.mark.parametrize("sr", [8000, 22050, 96000])
@pytest.mark.parametrize("codec", ["mp3", "aac", "opus", "vorbis"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_codecs_take_any_rate_and_layout(tmp_path, codec, sr, channels):
    soundfile.write(tmp_path / "a.wav", chords(sr, channels, 1.0).T, sr, format="WAVEX")
    copy = degradation(tmp_path / "a.wav", f"{codec}-64k", tmp_path / "copy")
    assert probe_seconds(copy) == pytest.approx(1.0, abs=0.2)
    with av.open(str(copy)) as container:
        assert container.streams.audio[0].codec_context.channels == min(channels, 2)


@pytest.mark.parametrize("file", ["song.wav", "film.mkv"])
@pytest.mark.parametrize(
    ("name", "change"), [("level-15", -15), ("level+6", 6), ("level-0.5", -0.5)]
)
def test_levels(clips, tmp_path, file, name, change):
    x, y = mono(clips / file), mono(degradation(clips / file, name, tmp_path / "copy"))
    assert decibels(y) - decibels(x) == pytest.approx(change, abs=0.1)


@pytest.mark.parametrize("file", ["song.wav", "film.mkv"])
@pytest.mark.parametrize(("name", "channels"), [("mono", 1), ("5.1", 6), ("7.1", 8)])
def test_layouts_have_the_same_mono_sound_up_to_a_gain(clips, tmp_path, file, name, channels):
    copy = degradation(clips / file, name, tmp_path / "copy")
    x, y = mono(clips / file), mono(copy)
    gain = (x @ y) / (x @ x)
    assert 0.1 < gain <= 1.001
    np.testing.assert_allclose(y, gain * x, atol=2e-4)
    with av.open(str(copy)) as container:
        layout = container.streams.audio[0].codec_context.layout
        assert (layout.name, layout.nb_channels) == (name, channels)


def test_noise_has_the_stated_ratio(clips, tmp_path):
    x, y = (
        mono(clips / "song.wav"),
        mono(degradation(clips / "song.wav", "noise-20", tmp_path / "copy")),
    )
    assert decibels(x) - decibels(y - x) == pytest.approx(20, abs=0.3)


def test_a_low_pass_attenuates_what_is_above_it(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, SR * 2)
    soundfile.write(tmp_path / "noise.wav", noise, SR, subtype="FLOAT")
    y = mono(degradation(tmp_path / "noise.wav", "lowpass-7k", tmp_path / "copy"))
    assert len(y) == len(noise)
    power, frequency = np.abs(np.fft.rfft(y)) ** 2, np.fft.rfftfreq(len(y), 1 / SR)
    before = np.abs(np.fft.rfft(noise)) ** 2
    assert 10 * np.log10(power[frequency > 7200].sum() / before[frequency > 7200].sum()) < -60
    kept = frequency < 6000
    assert power[kept].sum() / before[kept].sum() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "length"), [("excerpt-2", 2.0), ("excerpt-12", SECONDS)])
@pytest.mark.parametrize("file", ["song.wav", "film.mkv"])
def test_an_excerpt_is_the_middle(clips, tmp_path, file, name, length):
    copy = degradation(clips / file, name, tmp_path / "copy")
    y, start = mono(copy), (SECONDS - length) / 2
    assert len(y) / SR == pytest.approx(length, abs=0.01)
    # Matroska rounds times to milliseconds, so the clip is not read from its middle on.
    x = mono(clips / file)[round(start * SR) :][: len(y)]
    np.testing.assert_allclose(y, x, atol=1e-4)
    if file == "film.mkv":
        first = decode(copy, n_frames=1, sizes=(64,)).frames[64][0]
        assert index_of(first) == pytest.approx(SECONDS / 2 / 0.133, abs=1.1)


@pytest.mark.parametrize("percent", [-4, 2, 5.5])
@pytest.mark.parametrize("file", ["song.wav", "film.mkv"])
def test_speed_changes_length_and_pitch(clips, tmp_path, file, percent):
    copy = degradation(clips / file, f"speed{percent:+g}%", tmp_path / "copy")
    assert len(mono(copy)) / SR == pytest.approx(SECONDS / (1 + percent / 100), abs=0.01)
    if file == "film.mkv":
        with av.open(str(copy)) as container:
            shown = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        assert shown[-1] == pytest.approx(30 * 0.133 / (1 + percent / 100), abs=0.1)


@settings(max_examples=5)
@given(st.sampled_from([-2, -1, -0.5, 0.5, 1, 3]))
def test_pitch_shifts_a_tone_by_semitones(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("pitch")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 22050) / 22050)
    soundfile.write(folder / "tone.wav", tone, 22050)
    copy = degradation(folder / "tone.wav", f"pitch{steps:+g}", folder / "copy")
    y = decode_clip(copy, sample_rates=(22050,), pictures=()).waveforms[22050]
    assert len(y) == len(tone)
    assert decibels(y) == pytest.approx(decibels(tone), abs=0.1)
    found = np.fft.rfftfreq(len(y), 1 / 22050)[np.abs(np.fft.rfft(y)).argmax()]
    assert found == pytest.approx(440 * 2 ** (steps / 12), rel=0.005)


def test_size_and_rate_of_pictures(clips, tmp_path):
    film_frames = decode(clips / "film.mkv", sizes=(32,)).frames[32].astype(float)
    for name, size, rate in (("short-side-32", (40, 32), 25), ("fps-5", (80, 64), 5)):
        copy = degradation(clips / "film.mkv", name, tmp_path / "copy")
        with av.open(str(copy)) as container:
            codec = container.streams.video[0].codec_context
            n_frames = sum(1 for _ in container.decode(video=0))
        assert (codec.width, codec.height) == size
        if name.startswith("fps"):
            assert n_frames == pytest.approx(SECONDS * rate, abs=2)
        same = decode(copy, sizes=(32,)).frames[32].astype(float)
        # At 5 frames a second another frame is shown at times.
        assert np.abs(same - film_frames).max() < (10 if rate == 25 else 25)
        np.testing.assert_allclose(mono(copy), mono(clips / "film.mkv"), atol=1e-4)


def test_a_part_of_a_file_is_degraded(clips, tmp_path):
    part = {"start": 1.0, "duration": 2.0}
    for file in ("song.wav", "film.mkv"):
        copy = degradation(clips / file, "level-6", tmp_path / file, **part)
        x = mono(clips / file)[SR : 3 * SR]
        np.testing.assert_allclose(mono(copy), 10 ** (-6 / 20) * x, atol=1e-4)


def test_sound_that_begins_late_stays_late(tmp_path):
    sound = {"sound": chords(16000, 1)[:, :32000], "sr": 16000, "sound_at": 1.0}
    film(tmp_path / "late.mkv", frames=30, step=100, **sound)
    x, y = (
        decode_clip(path, sample_rates=(16000,), pictures=()).waveforms[16000]
        for path in (
            tmp_path / "late.mkv",
            degradation(tmp_path / "late.mkv", "mono", tmp_path / "c"),
        )
    )
    np.testing.assert_allclose(y, x, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["mp3", "mp4-64k", "mp3-0k", "level15", "6.1", "fps-0", "short-side-0", "speed-100%"]
)
def test_an_unknown_degradation_is_refused_with_the_forms(name):
    with pytest.raises(BadOption, match=r"expected .*"):
        find_degradation(name)


def test_a_file_without_what_a_degradation_changes_is_named(clips, tmp_path):
    (tmp_path / "text.mp3").write_text("no sound at all")
    for file, name, reason in (
        (clips / "song.wav", "fps-12", "no video stream"),
        (clips / "mute.mp4", "mp3-64k", "no audio stream"),
        (tmp_path / "text.mp3", "mp3-64k", "text.mp3"),
    ):
        with pytest.raises(BadMedia, match=reason) as raised:
            degradation(file, name, tmp_path / "copy")
        assert str(file) in str(raised.value)

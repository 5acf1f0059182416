"""Threads of decoders, and the time stamps of packets."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from media_samples import decode, film, grey, index_of, sine, write_media

from mvemo.extract.media import audio, reading
from mvemo.extract.media.packets import Packets, thread_decoders


def test_pictures_do_not_depend_on_threads(tmp_path):
    path = film(tmp_path / "a.mp4")
    one, many = (
        decode(path, sample_rates=(), sizes=(16,), threads=threads).frames[16] for threads in (1, 4)
    )
    assert np.array_equal(one, many)


def part(path, grey_from, hertz, **options):
    """A second of pictures and sound."""
    frames = [grey(grey_from + i // 5) for i in range(25)]
    return film(path, frames, sound=sine(1.0, 48000, hertz), sr=48000, **options).read_bytes()


VOB = {"codec": "mpeg2video", "audio_codec": "ac3", "time_base": Fraction(1, 25)}


@pytest.mark.parametrize(("suffix", "options"), [(".ts", {}), (".vob", VOB), (".mkv", {})])
def test_joined_recordings_are_read_one_after_the_other(tmp_path, suffix, options):
    first = part(tmp_path / f"a{suffix}", 0, 500.0, **options)
    second = part(tmp_path / f"b{suffix}", 10, 2000.0, **options)
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(first + second)
    decoded = decode(joined, n_frames=10, sizes=(16,))
    assert decoded.problems == {}
    assert decoded.seconds == pytest.approx(2.0, abs=0.1)
    assert reading.probe_seconds(joined) == pytest.approx(decoded.seconds, abs=0.03)
    shown = [index_of(frame) for frame in decoded.frames[16]]
    assert set(shown[:5]) <= set(range(5))
    assert set(shown[5:]) <= set(range(10, 15))
    waveform = decoded.waveforms[16000]
    for second, hertz in ((0, 500), (1, 2000)):
        middle = waveform[second * 16000 + 4000 : second * 16000 + 12000]
        assert 2 * abs(np.fft.rfft(middle)).argmax() == pytest.approx(hertz, abs=4)
    later = decode(joined, n_frames=1, sizes=(16,), start=1.2, duration=0.6)
    assert 10 <= index_of(later.frames[16][0]) < 15


@pytest.mark.parametrize(
    ("stamps", "places"),
    [
        ([0, 1, 2, 0, 1, 0, 1], range(7)),  # begin again
        ([0, 1, 2, 900, 901], range(5)),  # begin far ahead
        ([10, 11, 5, 13, 14], range(10, 15)),
        ([10, 11, 500, 13, 14], range(10, 15)),
        ([0, 1, 5, 6], [0, 1, 5, 6]),  # a pause
        ([0, 90000] * 1000, range(2000)),
    ],
)
def test_stamps_of_joined_parts(stamps, places):
    assert stamps_of("mpegts", stamps) == list(places)


def stamps_of(form, stamps, is_keyframe=False):
    """Return the presentation times of packets with these decoding times."""
    stream, unit = SimpleNamespace(index=0), Fraction(1, 1)
    facts = {"pos": 0, "duration": 1, "time_base": unit, "stream": stream}
    packets = [SimpleNamespace(dts=s, pts=s, is_keyframe=is_keyframe, **facts) for s in stamps]
    streams, form = SimpleNamespace(video=[], audio=[stream]), SimpleNamespace(name=form)
    container = SimpleNamespace(format=form, streams=streams, demux=lambda streams: packets)
    return [packet.pts for packet in Packets(container, [stream])]


@pytest.mark.parametrize(
    ("is_keyframe", "places"), [(True, [0, 60, 61, 81]), (False, [0, 60, 20, 40])]
)
def test_only_a_key_frame_begins_a_part_of_matroska(is_keyframe, places):
    # FFmpeg computes decoding times, which go back in a slide show with B frames.
    assert stamps_of("matroska", [0, 60, 20, 40], is_keyframe) == places


@pytest.mark.parametrize("codec", ["ac3", "eac3"])
def test_stretches_of_raw_sound_lie_where_they_are(tmp_path, codec):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 6 * 44100)).astype(np.float32)
    path = write_media(tmp_path / f"a.{codec}", sound=sound, sr=44100, audio_codec=codec)
    whole = decode(path, sample_rates=(44100,)).waveforms[44100]
    late = decode(path, sample_rates=(44100,), start=5.0).waveforms[44100]
    assert np.array_equal(late, whole[5 * 44100 :])
    assert reading.probe_seconds(path) == pytest.approx(len(whole) / 44100)


def test_mp3_before_a_stretch_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 6 * 44100), 44100)
    whole = decode(path, sample_rates=(44100,)).waveforms[44100]
    places = []
    collect = audio.SoundCollector.add
    monkeypatch.setattr(
        audio.SoundCollector,
        "add",
        lambda self, f: places.extend(w for w, _ in f) or collect(self, f),
    )
    late = decode(path, sample_rates=(44100,), start=5.0).waveforms[44100]
    assert np.array_equal(late, whole[5 * 44100 :])
    assert 3.5 < min(places) < 4.1
    problem = decode(path, sample_rates=(44100,), start=9.0).problems["audio"]
    assert "the clip starts at 9 s, but the sound ends at 6.0" in str(problem)


def test_matroska_whose_stamps_begin_late_is_whole(tmp_path):
    path = tmp_path / "a.mkv"
    options = {"output_ts_offset": "100000000", "avoid_negative_ts": "disabled"}
    whole = part(path, 0, 500.0, container_options=options)
    with av.open(str(path)) as container:
        assert min(container.start_time, container.duration) >= 99e6
    assert decode(path).problems == {}
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in decode(path).problems["audio"].reason


@pytest.mark.parametrize(
    ("threads", "small", "large"), [(0, 0, 0), (1, 1, 1), (2, 1, 2), (3, 3, 3)]
)
def test_two_threads_are_for_large_pictures(threads, small, large):
    kinds = [("video", 640, 360), ("video", 1280, 720), ("audio", 0, 0)]
    streams = [
        SimpleNamespace(type=kind, codec_context=SimpleNamespace(width=width, height=height))
        for kind, width, height in kinds
    ]
    thread_decoders(streams, threads)
    counts = [each.codec_context.thread_count for each in streams]
    assert counts == [small, large, threads]

"""The sound that is read from a container, and the queue of its decoder."""

import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from media_samples import decode, film, grey, sine, write_media

from mvemo.extract.media import container
from mvemo.extract.media.container import MAX_WAITING, background_calls
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameTimes

SR = 16000


def write_tracks(path, tracks):
    """Sounds, float32 (1, samples), with their dispositions."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=SR, layout="mono") for _ in tracks]
        for stream, (_, disposition) in zip(streams, tracks, strict=True):
            stream.disposition = disposition
        for stream, (sound, _) in zip(streams, tracks, strict=True):
            samples = np.round(sound * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SR, 0, Fraction(1, SR)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    return path


DEFAULT, COMMENT = Disposition.default, Disposition.comment
SPOKEN = (COMMENT, Disposition.visual_impaired)
OTHERS = (*SPOKEN, Disposition.dub, Disposition.hearing_impaired)
LOW, HIGH, SILENT = sine(1.0, SR, 300.0), sine(1.0, SR, 3000.0), np.zeros((1, SR), np.float32)


@pytest.mark.parametrize(
    ("first", "disposition", "other", "read"),
    [
        (LOW, 0, 0, 1),
        (LOW, 0, DEFAULT, 2),
        *((LOW, DEFAULT | each, 0, 2) for each in OTHERS),
        *((LOW, each, 0, 2) for each in OTHERS),
        *((LOW, each, each, 1) for each in OTHERS),
        *((LOW, each, Disposition.dub, 2) for each in SPOKEN),
        (LOW, DEFAULT | COMMENT, DEFAULT, 2),
        (SILENT, 0, Disposition.dub, 2),
        (SILENT, DEFAULT, 0, 2),
    ],
)
def test_one_of_several_tracks(tmp_path, first, disposition, other, read):
    tracks = [(first, disposition), (HIGH, other)]
    path = write_tracks(tmp_path / "a.mkv", tracks)
    decoded = decode(path, sizes=())
    assert decoded.problems == {}
    assert decoded.note == f"sound track {read} of 2 is read"
    assert np.abs(decoded.waveforms[SR] - tracks[read - 1][0][0]).max() < 1e-4


def test_tracks_that_are_all_silent_are_missing(tmp_path):
    path = write_tracks(tmp_path / "a.mkv", [(SILENT, 0), (SILENT, 0)])
    assert decode(path, sizes=()).problems["audio"].missing


NOISE, OTHER = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2 * SR)).astype(np.float32)
NONE = 0 * NOISE
# Weights of the mono mix, of stereo and of 5.1.
MIX = {2: np.array([0.5, 0.5]), 6: np.array([0.5, 0.5, 0.5**0.5, 0.0, 0.125**0.5, 0.125**0.5])}


@pytest.mark.parametrize(
    ("channels", "channel"),
    [
        ((NOISE, -NOISE), 0),
        ((NOISE, -0.98 * NOISE), 0),
        ((NOISE, -0.6 * NOISE), 0),
        ((-0.6 * NOISE, NOISE), 1),
        ((NOISE + 0.1, -NOISE + 0.1), 0),
        ((NOISE, 0.02 * OTHER - NOISE), 0),  # what a lossy codec leaves
        ((NOISE, -NOISE, NONE, NONE, NONE, 0.1 * OTHER), 0),
        ((NONE, NOISE, NONE, NONE, -NOISE, -0.4 * NOISE), 1),
        ((NONE, NOISE / 2, NOISE / 2, -NOISE, NONE, NONE), None),  # effects do not count
        ((NOISE, NOISE), None),
        ((NOISE, OTHER), None),
        ((NOISE, NONE), None),
        ((0.3 * NOISE + 0.6 * OTHER, 0.3 * NOISE - 0.6 * OTHER), None),  # wide stereo
        ((NONE, NONE, NOISE, NONE, NONE, NONE), None),
    ],
)
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mka"])
def test_channels_that_cancel_each_other(tmp_path, suffix, channels, channel):
    sounds, path = np.stack(channels).astype(np.float32), tmp_path / f"a{suffix}"
    if suffix == ".mka":
        layout = {2: "stereo", 6: "5.1"}[len(sounds)]
        write_media(path, sound=sounds, sr=SR, layout=layout, audio_codec="pcm_s16le")
    else:
        soundfile.write(path, sounds.T, SR)
    decoded = decode(path, sizes=())
    assert decoded.problems == {}
    note = "" if channel is None else f"the channels cancel out: only channel {channel + 1} is read"
    assert decoded.note == note
    mix = MIX[len(sounds)] @ sounds
    expected = mix if channel is None else sounds[channel]
    assert np.abs(decoded.waveforms[SR] - expected).max() < 1e-4


def test_one_channel_of_a_part_and_with_pictures(tmp_path):
    sounds = np.stack([np.append(NOISE, OTHER), np.append(-NOISE, OTHER)])
    options = {"sound": sounds, "sr": SR, "layout": "stereo", "audio_codec": "pcm_s16le"}
    path = film(tmp_path / "a.mkv", [grey(0)] * 100, **options)
    decoded = decode(path, sizes=(16,), duration=2.0)
    assert (decoded.problems, len(decoded.frames[16])) == ({}, 32)
    assert np.abs(decoded.waveforms[SR] - NOISE).max() < 1e-4
    decoded = decode(path, sizes=(), start=2.0)
    assert decoded.note == ""
    assert np.abs(decoded.waveforms[SR] - OTHER).max() < 1e-4


@pytest.mark.parametrize("threaded", [True, False])
def test_calls_are_done_in_order_and_their_errors_raised(threaded):
    done, count, main = [], 3 * MAX_WAITING, threading.get_ident()
    with background_calls(threaded=threaded) as submit:
        for i in range(count):
            submit(lambda i: done.append((i, threading.get_ident() != main)), i)
    assert done == [(i, threaded) for i in range(count)]
    with pytest.raises(ZeroDivisionError), background_calls(threaded=threaded) as submit:
        submit(divmod, 1, 0)


def test_many_frames_are_mapped_from_a_file(tmp_path, monkeypatch):
    path, spool = film(tmp_path / "a.mp4", 20, 100), tmp_path / "spool"
    # After the end, the last frame is repeated.
    times = FrameTimes(16, seconds=np.array([0.0, 0.2, 0.2, 60.0]))
    (plain,) = decode_clip(path, sample_rates=(), pictures=(times,), spool=spool).frames.values()
    monkeypatch.setattr(container, "IN_MEMORY", 1000)
    (mapped,) = decode_clip(path, sample_rates=(), pictures=(times,), spool=spool).frames.values()
    assert isinstance(mapped, np.memmap)
    assert not isinstance(plain, np.memmap)
    assert np.array_equal(mapped, plain)
    assert len(plain) == 4
    assert plain[3].any()
    assert list(spool.iterdir()) == []

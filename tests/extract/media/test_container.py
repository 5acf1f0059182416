"""The sound that is read from a container, and the queue of its decoder."""

import threading
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from media_samples import decode, sine, write_media

from mvemo.extract.media.container import MAX_WAITING, background_calls
from mvemo.extract.media.reading import stream_clip
from mvemo.extract.media.request import StreamRequest

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


def streamed(path):
    """Sound and notes of `stream_clip`."""
    events = []
    assert stream_clip(path, StreamRequest(sample_rates=(SR,)), emit=events.append) == {}
    sound = np.concatenate([y for kind, *_, y in events if kind == "sound"])
    return sound, [values[-1] for values in events if values[0] == "note"]


DEFAULT, COMMENT = Disposition.default, Disposition.comment
LOW, HIGH, SILENT = sine(1.0, SR, 300.0), sine(1.0, SR, 3000.0), np.zeros((1, SR), np.float32)


@pytest.mark.parametrize(
    ("first", "disposition", "other", "read"),
    [
        (LOW, 0, 0, 1),
        (LOW, 0, DEFAULT, 2),
        (LOW, COMMENT, 0, 2),
        (LOW, DEFAULT | COMMENT, DEFAULT, 2),
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
    sound, notes = streamed(path)
    assert np.array_equal(sound, decoded.waveforms[SR])
    assert notes == [decoded.note]


def test_tracks_that_are_all_silent_are_missing(tmp_path):
    path = write_tracks(tmp_path / "a.mkv", [(SILENT, 0), (SILENT, 0)])
    assert decode(path, sizes=()).problems["audio"].missing


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mka"])
def test_channels_that_cancel_each_other(tmp_path, suffix):
    sound, path = sine(1.0, SR)[0], tmp_path / f"a{suffix}"
    both = np.stack([sound, -sound])
    if suffix == ".mka":
        write_media(path, sound=both, sr=SR, layout="stereo", audio_codec="pcm_s16le")
    else:
        soundfile.write(path, both.T, SR)
    decoded = decode(path, sizes=())
    assert decoded.problems == {}
    assert decoded.note == "the channels cancel out: only channel 1 is read"
    assert np.abs(decoded.waveforms[SR] - sound).max() < 1e-4
    found, notes = streamed(path)
    assert np.array_equal(found, decoded.waveforms[SR])
    assert notes == [decoded.note]


@pytest.mark.parametrize("threaded", [True, False])
def test_calls_are_done_in_order_and_their_errors_raised(threaded):
    done, count, main = [], 3 * MAX_WAITING, threading.get_ident()
    with background_calls(threaded=threaded) as submit:
        for i in range(count):
            submit(lambda i: done.append((i, threading.get_ident() != main)), i)
    assert done == [(i, threaded) for i in range(count)]
    with pytest.raises(ZeroDivisionError), background_calls(threaded=threaded) as submit:
        submit(divmod, 1, 0)

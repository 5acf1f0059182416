"""Which frame is shown when, and how a frame becomes a picture."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_samples import MS, decode, film, grey, index_of, sine, write_media

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import packets, reading
from mvemo.extract.media.pictures import SquareScaler

# Milliseconds from which on the pictures of a slide show are shown, and which of 12 spread frames
# show which picture.
SLIDES = {
    "four": ([0, 20_000, 40_000, 59_900], [0] * 4 + [1] * 4 + [2] * 4),
    "three": ([0, 30_000, 59_960], [0] * 6 + [1] * 6),
}


CONTAINERS = {
    "mp4": (".mp4", {}),
    "fragments": (".mp4", {"movflags": "frag_keyframe+delay_moov"}),
    "mov": (".mov", {}),
    "mkv": (".mkv", {}),
    "live": (".mkv", {"live": "1"}),
    "ts": (".ts", {}),
    "flv": (".flv", {}),
}


@pytest.mark.parametrize(
    ("form", "times", "bframes"),
    [
        *((form, "four", "3") for form in CONTAINERS),
        *((form, "three", bframes) for form in ("mp4", "mkv") for bframes in "03"),
    ],
)
def test_slide_shows_end_with_their_sound(tmp_path, form, times, bframes):
    suffix, options = CONTAINERS[form]
    stamps, shown = SLIDES[times]
    path = write_media(
        tmp_path / f"a{suffix}",
        frames=[grey(i) for i in range(len(stamps))],
        times_ms=stamps,
        sound=sine(60.0, 8000),
        sr=8000,
        options={"bf": bframes, "b_strategy": "0"},
        container_options=options,
    )
    decoded = decode(path, n_frames=12, sizes=(16,))
    assert decoded.problems == {}
    assert [index_of(frame) for frame in decoded.frames[16]] == shown
    # A part of the file shows the same.
    part = decode(path, n_frames=4, sizes=(16,), start=40.2, duration=19.0)
    assert part.problems == {}
    assert {index_of(frame) for frame in part.frames[16]} == {shown[-1]}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_silent_slide_shows_are_as_long_as_the_file_states(tmp_path, suffix):
    stamps, shown = SLIDES["three"]
    path = write_media(tmp_path / f"a{suffix}", frames=[grey(i) for i in range(3)], times_ms=stamps)
    assert reading.probe_seconds(path) == pytest.approx(60.0, abs=0.1)
    decoded = decode(path, n_frames=12, sizes=(16,))
    assert decoded.seconds == pytest.approx(60.0, abs=0.1)
    assert [index_of(frame) for frame in decoded.frames[16]] == shown


UNKNOWN = -np.inf
# No statement, and statements that are exact or the latest end.
ANY = (-np.inf, np.inf)


def exactly(end):
    return end, end


def until(end):
    return -np.inf, end


@pytest.mark.parametrize(
    ("frames", "ends", "sound", "end"),
    [
        ([(0, 100), (100, 100), (200, 100)], ANY, UNKNOWN, 3.0),
        # A long last frame, as in GIF: the durations are right.
        ([(0, 100), (100, 100), (200, 500)], ANY, 2.5, 7.0),
        # The file states that the last frame lasts longer.
        ([(0, 100), (100, 100), (200, 100)], exactly(6.0), UNKNOWN, 6.0),
        ([(0, 100), (100, 100), (200, 100)], until(6.0), UNKNOWN, 3.0),
        # Rounded by the writer.
        ([(0, 100), (100, 100), (200, 100)], exactly(3.01), 2.98, 3.0),
        # Durations are differences of decoding times, or a mean.
        ([(0, 2000), (5990, 2000), (2000, 2000), (4000, 3)], exactly(59.93), 60.0, 59.93),
        ([(0, 2000), (5990, 2000), (2000, 2000), (4000, 3)], ANY, 60.0, 60.0),
        ([(0, 2000), (2990, 2000), (5990, 2000)], until(79.9), 60.0, 60.0),
        ([(0, 1500), (4, 1500), (8, 1500), (3000, 1500)], ANY, UNKNOWN, 30.04),
        # The sound ends before the last frame.
        ([(0, 1500), (4, 1500), (8, 1500), (3000, 1500)], exactly(31.0), 20.0, 31.0),
        ([(0, 0), (100, 0), (200, 0)], ANY, UNKNOWN, 3.0),
        ([(0, 4)], ANY, 60.0, 0.04),
    ],
)
def test_end_of_the_last_frame(frames, ends, sound, end):
    times = packets.PacketTimes(frames, 0.01, 0.0, (), ends, sound)
    assert times.end == pytest.approx(end)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cut_off_video_does_not_hold_its_last_frame(tmp_path, suffix):
    noise = list(np.random.default_rng(0).integers(0, 255, (50, 64, 64, 3), dtype=np.uint8))
    options = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = film(tmp_path / f"a{suffix}", noise, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    for asked in ({}, {"start": 1.6, "duration": 0.4}):
        assert "video" in decode(path, n_frames=2, sizes=(16,), **asked).problems


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("default", [0, 1])
def test_the_default_video_track_is_read(tmp_path, suffix, default):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for i, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
            stream.codec_context.time_base = MS
            stream.disposition = Disposition.default if i == default else 0
        for i, stream in enumerate(streams):
            for when in range(0, 400, 40):
                frame = av.VideoFrame.from_ndarray(grey(10 * i), format="rgb24")
                frame.pts, frame.time_base = when, MS
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    decoded = decode(path, n_frames=2, sizes=(16,))
    assert decoded.note == f"video track {default + 1} of 2 is read"
    assert [index_of(frame) for frame in decoded.frames[16]] == [10 * default] * 2


@pytest.mark.parametrize("parts", [("256", "512"), ("256", "256")])
def test_a_recording_that_goes_on_in_other_tracks(tmp_path, parts):
    data = b""
    for i, pid in enumerate(parts):
        options = {"mpegts_start_pid": pid}
        path = tmp_path / f"{i}.ts"
        film(
            path,
            [grey(i // 2) for i in range(50)],
            sound=sine(2.0, 48000),
            sr=48000,
            container_options=options,
        )
        data += path.read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(data)
    decoded = decode(joined, n_frames=2, sizes=(16,))
    if parts[0] == parts[1]:
        assert decoded.problems == {}
        assert reading.probe_seconds(joined) == pytest.approx(4.0, abs=0.1)
        return
    assert set(decoded.problems) == {"audio", "video"}
    for modality in decoded.problems.values():
        assert "a recording with other tracks follows" in str(modality)
    with pytest.raises(BadMedia, match=r"only the first 5.% of the file"):
        reading.probe_seconds(joined)
    # A part of the first recording is whole.
    assert decode(joined, n_frames=2, sizes=(16,), duration=1.5).problems == {}


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyError(None), MemoryError()])
@pytest.mark.parametrize("place", ["frame_times", "squares", "decode"])
def test_failing_pictures_do_not_cost_the_sound(tmp_path, monkeypatch, place, error):
    def fail(*_):
        raise error

    path = film(tmp_path / "a.mp4", sound=sine(1.2, 16000))
    whole = decode(path, n_frames=2).waveforms[16000]
    if place == "frame_times":
        monkeypatch.setattr(packets, "frame_times", fail)
    elif place == "squares":
        monkeypatch.setattr(SquareScaler, "squares", fail)
    else:
        start = packets.Packets.__init__

        def break_decoder(self, container, streams):
            start(self, container, streams)
            names = ("index", "type", "time_base", "codec_context")
            self.streams = [SimpleNamespace(**{n: getattr(s, n) for n in names}) for s in streams]
            self.streams[0].codec_context = SimpleNamespace(name="h264", decode=fail)

        monkeypatch.setattr(packets.Packets, "__init__", break_decoder)
    decoded = decode(path, n_frames=2)
    assert set(decoded.problems) == {"video"}
    assert decoded.frames == {}
    assert np.array_equal(decoded.waveforms[16000], whole)


def made(height, width, value, **tags):
    """Frame of one colour in YCbCr, with tags such as colorspace (ITU-T H.273)."""
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, level in zip(frame.planes, value, strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    for name, tag in tags.items():
        setattr(frame, name, tag)
    return frame


@pytest.mark.parametrize(
    ("size", "tag", "is_709"),
    [
        ((576, 720), 2, False),
        ((576, 1024), 2, False),
        ((720, 1280), 2, True),
        ((534, 1280), 2, True),
        ((1280, 720), 2, True),
        ((1080, 1920), 3, True),
        ((1080, 1920), 6, False),
        ((64, 64), 1, True),
    ],
)
def test_colours_of_untagged_pictures(size, tag, is_709):
    # Lime by BT.709 and by BT.601.
    for value, right in (((172, 42, 26), is_709), ((145, 54, 34), not is_709)):
        picture = SquareScaler().squares(made(*size, value, colorspace=tag), [8])[8]
        error = np.abs(picture.astype(int) - [0, 255, 0]).max()
        assert (error <= 3) == right


@pytest.mark.parametrize("aspect", [64 / 45, 16 / 15, 8 / 9, 1.004])
def test_pixels_that_are_not_square(aspect):
    frame = av.VideoFrame.from_ndarray(grey(0, 240, 320), format="rgb24")
    picture = frame.to_ndarray(format="rgb24").copy()
    # A square of 60 rows on the screen.
    half = round(30 / (aspect if abs(aspect - 1) > 0.01 else 1))
    picture[90:150, 160 - half : 160 + half] = 255
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    shown = SquareScaler(aspect).squares(frame, [120])[120][..., 0] > 128
    assert abs(int(shown.any(axis=0).sum()) - int(shown.any(axis=1).sum())) <= 1


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_mapped(transfer):
    # Reference white (Report ITU-R BT.2408): 58 % in PQ, 75 % in HLG.
    levels = [0.0, 0.2, 0.38, {16: 0.58, 18: 0.75}[transfer], 0.9, 1.0]
    found = []
    for level in levels:
        value = (round(16 + 219 * level), 128, 128)
        frame = made(64, 64, value, colorspace=9, color_trc=transfer, color_primaries=9)
        picture = SquareScaler().squares(frame, [8])[8]
        assert np.ptp(picture) <= 2
        found.append(int(picture[0, 0, 0]))
    assert found[0] == 0
    assert np.all(np.diff(found) >= 0)
    assert 225 <= found[3] <= 240
    # The same light in standard range stays as it is.
    plain = SquareScaler().squares(made(64, 64, (144, 128, 128)), [8])[8]
    assert abs(int(plain[0, 0, 0]) - 149) <= 1


@pytest.mark.parametrize("name", ["ycgco.mp4", "ictcp.mp4"])
def test_reported_pictures_that_cost_the_sound(shared_data, name):
    decoded = decode(shared_data / "reports" / "media" / name)
    assert np.sqrt(np.mean(decoded.waveforms[16000] ** 2)) == pytest.approx(0.088, abs=1e-3)
    assert "colour matrix" in str(decoded.problems["video"])


def test_the_shape_of_the_pixels_is_that_of_the_file(shared_data):
    path = shared_data / "reports" / "media" / "anamorphic.mpg"
    white = decode(path, n_frames=1, sizes=(100,)).frames[100][0].max(axis=-1) > 128
    assert white.any(axis=0).sum() == white.any(axis=1).sum()

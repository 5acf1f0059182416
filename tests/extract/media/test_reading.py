"""Media against ground truth: frames that say their number, and sound that is known."""

import struct

import av
import cv2
import numpy as np
import pytest
import soundfile
from media_samples import decode, film, grey, index_of, sine, write_media

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import packets
from mvemo.extract.media.reading import probe_seconds
from mvemo.extract.media.request import (
    NO_AUDIO,
    NO_VIDEO,
    ClipRequest,
    FrameSampling,
    MediaProblem,
)
from mvemo.manifests.errors import BadOption, MissingFile

# Shown from these milliseconds on; the last one for as long as the container says.
TIMES = [0, 40, 80, 500, 540, 900, 1400, 1410, 1420, 2000, 2500, 2600, 2700, 2800, 3000, 3500]


def chosen(path, **asked):
    decoded = decode(path, sample_rates=(), sizes=(16,), **asked)
    assert decoded.problems == {}
    return [index_of(frame) for frame in decoded.frames[16]]


@pytest.mark.parametrize("bframes", ["0", "3"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("start", "duration"), [(0.0, 3.5), (1.405, 1.1), (3.1, 0.3)])
def test_frames_of_a_variable_rate(tmp_path, suffix, bframes, start, duration):
    path = write_media(
        tmp_path / f"a{suffix}",
        frames=[grey(i) for i in range(len(TIMES))],
        times_ms=TIMES,
        options={"bf": bframes, "b_strategy": "0"},
        gop=6,
    )
    times = [start + (i + 0.5) * duration / 16 for i in range(16)]
    # By the definition: the last frame that is not later.
    expected = [max([i for i, ms in enumerate(TIMES) if ms / 1000 <= t] or [0]) for t in times]
    assert chosen(path, n_frames=16, start=start, duration=duration) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("gop", "options", "is_closed"),
    [
        (10, {"bf": "3", "b_strategy": "0"}, True),
        (10, {"bf": "0", "refs": "4"}, True),
        (10, {"bf": "3", "x264-params": "open-gop=1:b-adapt=0"}, False),
        (40, {"bf": "3", "x264-params": "intra-refresh=1"}, False),
    ],
)
def test_skipped_frames_change_no_other(tmp_path, suffix, gop, options, is_closed):
    moving = list(np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8))
    path = film(tmp_path / f"a{suffix}", frames=moving, options=options, gop=gop)
    with av.open(str(path)) as container:
        shown = {
            float(f.pts * f.time_base): f.to_ndarray(format="rgb24")
            for f in container.decode(video=0)
        }
    assert len(shown) == 40
    for start, n, duration in ((0.0, 7, 1.6), (0.1, 1, 0.3), (0.6, 2, 0.5), (0.47, 3, 0.7)):
        asked = {"start": start, "duration": duration, "n_frames": n}
        decoded = decode(path, sample_rates=(), sizes=(48,), **asked)
        assert decoded.problems == {}
        for i, frame in enumerate(decoded.frames[48]):
            at = max(t for t in shown if t <= start + (i + 0.5) * duration / n)
            assert np.array_equal(frame, shown[at][:, 8:56])
    with av.open(str(path)) as container:
        request = ClipRequest(pictures=(FrameSampling(1, 48),))
        times = packets.frame_times(path, container, container.streams.video[0], 0.0, request)
        unused = times.unused(times.stamps_at(np.array([0.1, 1.5])))
        # Shown frames 2 and 37: with closed groups of ten, at least groups 2 and 3 are left out.
        assert (len(unused) >= 20) == is_closed


def test_pictures_that_begin_late_and_sound_that_does(tmp_path):
    pcm = {"audio_codec": "pcm_s16le"}
    times = {"frames": [grey(i) for i in range(10)], "times_ms": range(1000, 2000, 100)}
    late = write_media(tmp_path / "a.mkv", sound=sine(2.0, 16000), **times, **pcm)
    # Until 1 s there is only the first; they end at 1.94 s.
    assert chosen(late, n_frames=4, duration=2.0) == [0, 0, 2, 6]
    still = film(tmp_path / "still.mkv", 1, sound=sine(2.0, 16000), **pcm)
    assert chosen(still, n_frames=3) == [0, 0, 0]
    path = film(tmp_path / "b.mkv", sound=sine(0.7, 16000), sound_at=0.5, **pcm)
    wave = decode(path).waveforms[16000]
    assert len(wave) == 1.2 * 16000
    assert not wave[:8000].any()
    assert np.abs(wave[8000:] - sine(0.7, 16000)[0]).max() < 1e-4


def test_pictures_that_an_edit_list_leaves_out(tmp_path):
    path = film(tmp_path / "a.mp4", options={"bf": "0"}, gop=30)
    with av.open(str(path)) as container:
        units = int(0.4 / container.streams.video[0].time_base)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    length, start = struct.unpack_from(">2i", data, at)
    struct.pack_into(">2i", data, at, length - 400, start + units)
    path.write_bytes(data)
    assert chosen(path, n_frames=20) == list(range(10, 30))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        # The file says by how much to turn counter-clockwise: 90, 180 and 270 degrees.
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, 3)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
    ],
)
def test_display_matrices(tmp_path, matrix, turn):
    picture = grey(0, 64, 96)
    picture[:16, 16:48] = 250
    plain, turned = film(tmp_path / "a.mp4", [picture] * 10), tmp_path / "b.mp4"
    # Another display matrix in the track header.
    data, (a, b, c, d) = bytearray(plain.read_bytes()), matrix
    values = [65536 * value for value in (a, b, 0, c, d, 0, 0, 0)]
    struct.pack_into(">8i", data, data.index(b"tkhd") + 44, *values)
    turned.write_bytes(data)
    upright, found = (
        decode(path, sample_rates=(), n_frames=1, sizes=(64,)).frames[64][0]
        for path in (plain, turned)
    )
    assert upright[:10, :26].min() > 200 > upright[-10:].max()
    assert np.array_equal(found, turn(upright))


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv444p", "rgb48le"])
def test_odd_sizes_and_pixel_formats(tmp_path, pix_fmt):
    picture = grey(3, 51, 77)
    path = film(tmp_path / "a.mkv", frames=[picture] * 5, codec="ffv1", pix_fmt=pix_fmt)
    decoded = decode(path, sample_rates=(), n_frames=2, sizes=(17, 112))
    for size in (17, 112):
        assert decoded.frames[size].shape == (2, size, size, 3)
        np.testing.assert_allclose(decoded.frames[size], picture[0, 0, 0], atol=2)


def test_short_side_is_scaled_and_the_middle_taken(tmp_path):
    draw = np.random.default_rng(1)
    picture = cv2.resize(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8), (80, 60))
    path = film(tmp_path / "a.mkv", frames=[picture] * 3, codec="ffv1", pix_fmt="bgr0")
    found = decode(path, sample_rates=(), n_frames=1, sizes=(20,)).frames[20][0]
    # Three by three pixels each make one.
    expected = picture[:, 10:70].reshape(20, 3, 20, 3, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mkv"])
@pytest.mark.parametrize("sr", [8000, 48000])
def test_sound_is_the_mix_of_its_channels(tmp_path, name, layout, channels, sr):
    path = tmp_path / name
    tones = [sine(0.5, sr, 200.0 * (i + 1)) for i in range(channels)]
    sound = (np.concatenate(tones) / channels).astype(np.float32)
    if name == "a.mkv":
        write_media(path, sound=sound, sr=sr, layout=layout, audio_codec="pcm_s16le")
    else:
        soundfile.write(path, sound.T, sr)
    decoded = decode(path, sample_rates=(sr,), sizes=())
    wave = decoded.waveforms[sr]
    assert (wave.dtype, wave.shape, decoded.seconds) == (np.float32, (sr // 2,), 0.5)
    # ITU-R BS.775: front, centre 3 dB louder, no effects, surround 3 dB softer.
    mix = sound.mean(axis=0)
    if channels == 6:
        weights = [0.5, 0.5, 0.5**0.5, 0.0, 0.125**0.5, 0.125**0.5]
        # Vorbis has another order of channels, into which soundfile does not sort them.
        order = [0, 2, 1, 4, 5, 3] if name == "a.ogg" else range(6)
        mix = np.array(weights)[list(order)] @ sound
    assert np.abs(wave - mix).max() < (0.05 if name == "a.ogg" else 1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "atol"),
    [("a.wav", "", 1e-7), ("a.mkv", "pcm_s16le", 5e-5), ("a.mp4", "flac", 5e-5)],
)
@pytest.mark.parametrize(
    ("start", "duration"), [(0.0, None), (0.25, 1.0), (3.125, 2.0), (5.0, None)]
)
def test_a_stretch_begins_and_ends_at_the_sample(tmp_path, name, codec, atol, start, duration):
    sr, path = 16000, tmp_path / name
    noise = np.random.default_rng(3).uniform(-0.9, 0.9, (1, 6 * sr)).astype(np.float32)
    if codec:
        film(path, [grey(i // 10) for i in range(150)], sound=noise, audio_codec=codec)
    else:
        soundfile.write(path, noise[0], sr, subtype="FLOAT")
    decoded = decode(path, start=start, duration=duration, sizes=(16,) if codec else ())
    assert decoded.problems == {}
    end = None if duration is None else round((start + duration) * sr)
    expected = noise[0, round(start * sr) : end]
    assert len(decoded.waveforms[sr]) == len(expected)
    assert np.abs(decoded.waveforms[sr] - expected).max() < atol


def test_a_modality_that_is_not_asked_for_is_no_problem(tmp_path):
    sound = write_media(tmp_path / "a.m4a", sound=sine(0.5, 16000))
    silent = film(tmp_path / "b.mp4", frames=10)
    assert decode(sound, sizes=()).problems == {}
    assert decode(silent, sample_rates=()).problems == {}
    assert decode(sound).problems == {"video": NO_VIDEO}
    assert list(decode(sound).waveforms) == [16000]
    decoded = decode(silent, n_frames=2)
    assert decoded.problems == {"audio": NO_AUDIO}
    assert decoded.frames[112].shape == (2, 112, 112, 3)
    assert abs(decoded.seconds - 0.4) < 1e-9


@pytest.mark.parametrize("read", [decode, probe_seconds])
def test_files_that_are_no_media_are_refused(tmp_path, capfd, read):
    data = film(tmp_path / "whole.mp4").read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"This is no film.\n" * 400,
        "text.wav": b"This is no sound.\n" * 400,
        "noise.mp3": np.random.default_rng(0).bytes(40000),
        "no moov.mp4": data[: data.index(b"moov") - 4],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadMedia) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(BadMedia, match="folder"):
        read(tmp_path)
    with pytest.raises(MissingFile, match="no such"):
        read(tmp_path / "gone.mp4")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("start", value) for value in (-1.0, float("nan"), 1e16)),
        *(("duration", value) for value in (0.0, 1e308)),
        ("n_frames", 0),
        ("sizes", (0,)),
        ("sample_rates", (0,)),
    ],
)
def test_bad_settings(tmp_path, name, value):
    with pytest.raises(BadOption, match="must be"):
        decode(tmp_path / "a.mp4", **{name: value})


def test_silent_sound(tmp_path):
    nothing = np.zeros((1, 6400), np.float32)
    quiet = film(tmp_path / "a.mkv", frames=10, sound=nothing, audio_codec="pcm_s16le")
    decoded = decode(quiet, n_frames=2)
    assert decoded.problems["audio"].reason.startswith("silent: ")
    assert decoded.waveforms == {}
    assert list(decoded.frames) == [112]
    # The limit is -80 dB of full scale.
    for peak, silent in ((0.9e-4, True), (1.1e-4, False)):
        soundfile.write(tmp_path / "b.wav", np.tile([peak, -peak], 500), 16000, subtype="FLOAT")
        problems = decode(tmp_path / "b.wav", sizes=()).problems
        assert ("audio" in problems) is silent


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.wav"])
def test_a_clip_after_the_end(tmp_path, name):
    path = tmp_path / name
    if name.endswith("wav"):
        soundfile.write(path, sine(1.2, 16000)[0], 16000)
    else:
        film(path, sound=sine(1.2, 16000))
    decoded = decode(path, start=9.0, duration=1.0)
    assert set(decoded.problems) == {"audio", "video"}
    assert "starts at 9 s" in decoded.problems["audio"].reason
    assert not decoded.frames
    assert not decoded.waveforms


def test_a_file_that_ends_before_the_clip(tmp_path):
    path = film(tmp_path / "a.mp4", sound=sine(1.2, 16000))
    assert decode(path, duration=1.4, n_frames=2).problems == {}
    problems = decode(path, duration=3.0, n_frames=2).problems
    assert problems["video"] == MediaProblem("cut off: only 1.2 of 3.0 s can be decoded")
    assert problems["audio"].reason.startswith("cut off: only 1.")


def test_a_video_of_which_no_frame_decodes(tmp_path):
    codecs = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le"}
    path = film(tmp_path / "a.mkv", frames=10, sound=sine(0.4, 16000), **codecs)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data = data.replace(bytes(packet), bytes(packet.size)) if packet.size else data
    path.write_bytes(data)
    decoded = decode(path, n_frames=2)
    assert decoded.problems == {"video": MediaProblem("no frame can be decoded")}
    assert list(decoded.waveforms) == [16000]


def test_a_title_that_is_not_utf_8(tmp_path):
    path = write_media(tmp_path / "a.mkv", sound=sine(0.5, 16000), audio_codec="pcm_s16le")
    # The title is the name of the program that wrote the file.
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"La\xe9\xff"))
    assert decode(path, sizes=()).problems == {}


# --- lengths by packets

# A codec's last packet is padded, at most by one frame of 1,024 samples.
PACKET = 1024 / 16000


@pytest.mark.parametrize(
    "name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.mp4", "a.mkv", "late.mkv"]
)
def test_files_are_as_long_as_what_decodes(tmp_path, name):
    path = tmp_path / name
    if name.endswith(("mp4", "mkv")):
        sound_at = 0.5 if name == "late.mkv" else 0.0
        film(path, 20, 100, sound=sine(2.7, 16000), sound_at=sound_at)
    else:
        soundfile.write(path, sine(2.7, 16000)[0], 16000)
    seconds = decode(path, n_frames=4, sizes=(32,)).seconds
    assert probe_seconds(path) == pytest.approx(seconds, abs=2 * PACKET)
    assert probe_seconds(path) == 2.7 or name not in ("a.wav", "a.flac", "a.ogg")


def test_a_file_without_sound_is_refused(tmp_path):
    soundfile.write(tmp_path / "d.wav", np.zeros(0, np.float32), 8000)
    with pytest.raises(BadMedia, match="sound: no sound can be decoded; pictures: no video stream"):
        probe_seconds(tmp_path / "d.wav")


@pytest.mark.parametrize(
    ("stated", "reason"),
    [(0, ""), ((1 << 36) - 1, "cut off: only 2.0 of 8589934.6 s can be decoded")],
    ids=["unknown", "a lie"],
)
def test_flac_of_another_length_than_stated(tmp_path, stated, reason):
    path = tmp_path / "a.flac"
    soundfile.write(path, sine(2.0, 8000)[0], 8000)
    whole = decode(path, sample_rates=(8000,)).waveforms[8000]
    data = bytearray(path.read_bytes())
    data[21:26] = (int.from_bytes(data[21:26], "big") >> 36 << 36 | stated).to_bytes(5, "big")
    path.write_bytes(data)
    assert probe_seconds(path) == pytest.approx(2.0)
    decoded = decode(path, sample_rates=(8000,), sizes=())
    assert [str(p) for p in decoded.problems.values()] == ([reason] if reason else [])
    assert reason or np.array_equal(decoded.waveforms[8000], whole)

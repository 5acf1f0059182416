"""A media file is one file of sound or video, whole and readable; others are refused by name."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import soundfile
from media_samples import decode, film, grey, sine

from mvemo.extract.errors import BadMedia, MediaUnavailable
from mvemo.extract.media import audio, formats, packets, request, sound_files
from mvemo.extract.media.reading import decode_clip, probe_seconds


def second(path, frames=25, **options):
    """One second of pictures and sound."""
    return film(path, frames, **{"sound": sine(1, 16000), **options})


def problems(path, **asked):
    found = decode(path, n_frames=2, sizes=(16,), **asked).problems
    return {kind: problem.reason for kind, problem in found.items()}


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.ts\n"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("list.mp4", PLAYLIST + "#EXT-X-ENDLIST\n", "refers to other files"),
        # Without an end a reader would wait for more.
        ("live.m3u8", PLAYLIST, "refers to other files"),
        ("list.ts", "ffconcat version 1.0\nfile whole.ts\n", "refers to other files"),
        ("list.mpd", '<?xml version="1.0"?>\n<MPD></MPD>', "refers to other files"),
        ("list.sdp", "v=0\nm=audio 4000 RTP/AVP 0\n", "refers to other files"),
        ("a.h264", None, "raw h264 stream without time stamps"),
        ("subtitles.mkv", "1\n00:00:00,000 --> 00:00:01,000\nHello\n", "not in a supported audio"),
    ],
)
def test_files_that_name_others_are_refused(tmp_path, name, content, reason):
    second(tmp_path / "whole.ts")
    path = tmp_path / name
    if content is None:
        second(path, sound=None)
    else:
        path.write_text(content)
    for read in (decode_clip, probe_seconds):
        with pytest.raises(BadMedia, match=reason):
            read(path)


def test_pictures_and_patterns_of_pictures_are_refused(tmp_path):
    for name in ("img0.png", "img%d.png", "a.jpg", "a.bmp", "a.webp"):
        cv2.imwrite(str(tmp_path / name), grey(0))
    # 0.8 GB of pixels in 0.8 MB, which nothing inflates.
    header = b"IHDR" + struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + bytes(9999))
    for path in tmp_path.iterdir():
        with pytest.raises(BadMedia, match="is an image"):
            decode_clip(path)


def test_pictures_larger_than_the_limit_are_not_decoded(tmp_path, monkeypatch):
    canvas = b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6)
    (tmp_path / "a.gif").write_bytes(canvas + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;")
    reason = problems(tmp_path / "a.gif")["video"]
    assert "decoded" in reason or "65535 x 65535 pixels" in reason
    path = second(tmp_path / "a.mp4")
    monkeypatch.setattr(packets, "MAX_PIXELS", 80 * 64 - 1)
    assert "80 x 64 pixels" in problems(path)["video"]
    monkeypatch.setattr(packets, "MAX_PIXELS", 4 * 80 * 64)
    assert problems(path) == {}


def test_encrypted_files_say_so(tmp_path):
    cenc = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "0" * 32,
        "encryption_kid": "1" * 32,
    }
    data = (
        second(tmp_path / "b.mp4").read_bytes().replace(b"avc1", b"drmi").replace(b"mp4a", b"drms")
    )
    (tmp_path / "b.mp4").write_bytes(data)
    for path in (second(tmp_path / "a.mp4", container_options=cenc), tmp_path / "b.mp4"):
        with pytest.raises(BadMedia, match="is encrypted"):
            decode_clip(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {"audio_codec": "pcm_s16le"}),
        ("fast.mp4", {"container_options": {"movflags": "faststart"}}),
        ("a.flv", {"codec": "flv"}),
        ("a.wmv", {"codec": "wmv2"}),
        ("a.avi", {"codec": "mpeg4", "audio_codec": "pcm_s16le"}),
        ("a.webm", {"codec": "libvpx", "audio_codec": "libopus", "sr": 48000}),
        ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "gop": 5}),
        ("a.opus", {"frames": 0, "audio_codec": "libopus", "sr": 48000}),
        ("a.ts", {}),
        *((f"a.{ending}", None) for ending in ("wav", "flac", "mp3", "aiff", "au", "w64", "caf")),
    ],
)
def test_half_a_file_is_cut_off(tmp_path, name, options, capfd):
    whole = tmp_path / name
    if options is None:
        soundfile.write(whole, sine(1, 16000)[0], 16000)
    else:
        second(whole, sound=sine(3, 48000) if "sr" in options else sine(1, 16000), **options)
    assert set(problems(whole)) <= {"video"}
    data, half = whole.read_bytes(), tmp_path / f"half{whole.suffix}"
    # A transport stream's packets have 188 bytes: this is inside of one.
    half.write_bytes(data[: len(data) // 376 * 188 + 94])
    assert problems(half)["audio"].startswith("cut off: ")
    if name in ("a.mkv", "fast.mp4", "a.wav", "a.flac", "a.mp3"):
        assert problems(half)["audio"].endswith("of 1.0 s can be decoded")
    # What is asked for and there is not cut off.
    assert "audio" not in problems(half, duration=0.2)
    assert capfd.readouterr() == ("", "")


def test_a_recording_of_a_broadcast_may_end_anywhere(tmp_path):
    frames = [np.random.default_rng(i).integers(0, 255, (64, 80, 3), np.uint8) for i in range(25)]
    path = second(tmp_path / "a.ts", frames=frames)
    data = path.read_bytes()
    assert not formats.is_cut_off(path, "mpegts")
    pictures = next(at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\x00")
    inside = data[: pictures + 3 * 188]
    path.write_bytes(inside)
    assert formats.is_cut_off(path, "mpegts")
    path.write_bytes(inside[3 * 188 :])
    assert not formats.is_cut_off(path, "mpegts")


@pytest.mark.parametrize("ending", ["aac", "ac3", "eac3"])
@pytest.mark.parametrize("sr", [44100, 48000])
def test_a_raw_stream_ends_with_a_frame(tmp_path, ending, sr):
    path = tmp_path / f"a.{ending}"
    second(path, frames=0, audio_codec=ending, sound=sine(1, sr), sr=sr)
    assert "audio" not in problems(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 3])
    assert "cut off" in problems(path)["audio"]
    # Recorded from within a broadcast.
    path.write_bytes(data[5 : len(data) // 2 + 3])
    assert not formats.is_cut_off(path, ending)
    path.write_bytes(data + b"TAG" + bytes(125))
    assert not formats.is_cut_off(path, ending)


def test_sound_with_gaps_is_not_whole(tmp_path):
    whole = second(tmp_path / "a.mkv", audio_codec="pcm_s16le")
    data = bytearray(whole.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(3 * len(data) // 4 - len(data) // 4)
    (tmp_path / "b.mkv").write_bytes(data)
    assert "cut off" in problems(tmp_path / "b.mkv")["audio"]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (12000 * sine(1, 16000)[0], "the largest sample is 6000, expected a full scale of 1"),
        (9.0 * sine(1, 16000)[0], "the largest sample is 4.5, expected a full scale of 1"),
        (np.full(16000, 0.3), "silent: all samples are 0.3"),
        (np.where(np.arange(999) == 5, np.inf, 0.1), "1 samples are NaN or infinite"),
    ],
)
def test_sound_of_another_scale_or_without_any_is_refused(tmp_path, samples, reason):
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    assert problems(tmp_path / "a.wav")["audio"].startswith(reason)


def test_sound_that_overshoots_full_scale_stays_as_it_is(tmp_path):
    soundfile.write(tmp_path / "a.wav", 6.0 * sine(1, 16000)[0], 16000, subtype="FLOAT")
    assert decode_clip(tmp_path / "a.wav").waveforms[16000].max() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("sr", "n_samples", "reason"),
    [
        (2**31 - 1, 800, "too short: 800 samples at 2147483647 Hz give 0 samples at 16000 Hz"),
        (1, 40000, "too long: more than 0 samples at 1 Hz need over 1.5 GiB at [16000] Hz: split"),
    ],
)
def test_rates_that_leave_nothing_or_too_much(tmp_path, sr, n_samples, reason):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(n_samples / 8000, 8000)[0], 8000)
    data = path.read_bytes()
    path.write_bytes(data[:24] + struct.pack("<I", sr) + data[28:])
    assert problems(path)["audio"].startswith(f"the sound is {reason}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), MediaUnavailable),
        (OSError(5, "Input/output error"), MediaUnavailable),
        (OSError(22, "Invalid argument"), BadMedia),
        (ZeroDivisionError("division by zero"), BadMedia),
    ],
)
def test_whatever_a_decoder_raises_is_ours(tmp_path, monkeypatch, error, kind):
    def fail(*_):
        raise error

    path = second(tmp_path / "a.mp4", sound=None)
    monkeypatch.setattr("mvemo.extract.media.container.decode_container", fail)
    with pytest.raises(kind) as caught:
        decode_clip(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("unkcodec.mkv", "codec is unknown"),
        ("f_index11.mp4", "codec is unknown"),
        # FFmpeg 8 finds the codec, but not all frames.
        ("f_ts2.ts", "codec is unknown|cut off: only"),
        ("flac_unknown.flac", request.NO_VIDEO.reason),
        ("gap100h.mkv", "the sound's time stamps jump from 1.0 to 360000 s"),
        ("gap1e7.mkv", "the sound's time stamps jump from 1.0 to 10000000 s"),
    ],
)
def test_media_files_that_once_ended_a_run(shared_data, name, reason):
    try:
        told = list(problems(shared_data / "faults" / name).values())
    except BadMedia as error:
        told = [str(error)]
    assert any(part in "; ".join(told) for part in reason.split("|"))


def test_many_channels_are_read_a_block_at_a_time(tmp_path, monkeypatch):
    path, sizes, read = tmp_path / "a.flac", [], soundfile.SoundFile.read
    soundfile.write(path, sine(1, 16000, channels=8).T, 16000)
    whole = decode_clip(path).waveforms[16000]

    def noted(file, frames, **options):
        sizes.append(frames * file.channels)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", noted)
    monkeypatch.setattr(audio, "_BLOCK", 8 * 1000)
    monkeypatch.setattr(sound_files, "_SEARCHED", 1000)
    np.testing.assert_array_equal(decode_clip(path).waveforms[16000], whole)
    assert max(sizes) == 8 * 1000

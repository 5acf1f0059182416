"""Compressed sound behind a PCM header, and files with tags behind the sound or joined parts."""

import io

import av
import numpy as np
import pytest
import soundfile
from media_samples import decode, sine, write_media

from mvemo.extract.errors import BadMedia
from mvemo.extract.media import formats, reading, sound_files

SR = 48000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2 * SR)).astype(np.float32)


@pytest.fixture(scope="module")
def bursts(tmp_path_factory):
    """AC-3: its waveform, and the words of its bursts behind a PCM header."""
    path, words = tmp_path_factory.mktemp("bursts") / "a.ac3", []
    write_media(path, sound=NOISE, sr=SR, layout="stereo", audio_codec="ac3")
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            payload = np.frombuffer(bytes(packet), ">u2")
            if len(payload):
                # Sync words, kind, length in bits, a frame, and zeros (IEC 61937-1, 6.1).
                burst = [0xF872, 0x4E1F, 1, 16 * len(payload), *payload]
                words += burst + [0] * (2 * 1536 - len(burst))
    samples = np.array(words, np.uint16).view(np.int16).reshape(-1, 2)
    return decode(path, sizes=()).waveforms[16000], samples


@pytest.fixture
def coded(request):
    """AC-3 in bursts, or the shared file of DTS, which PyAV cannot write: waveform, words, rate."""
    if request.param == "spdif":
        return *request.getfixturevalue("bursts"), SR
    path = request.getfixturevalue("shared_data") / "reports" / "media" / "dts.wav"
    raw = request.getfixturevalue("tmp_path") / "a.dts"
    words, _ = soundfile.read(path, dtype="int16")
    raw.write_bytes(words.astype(">i2").tobytes())
    return decode(raw, sizes=()).waveforms[16000], words, 44100


@pytest.mark.parametrize(
    ("name", "kind", "subtype"),
    [
        ("a.wav", "WAV", "PCM_16"),
        ("a.wav", "WAVEX", "PCM_24"),
        ("a.wav", "RF64", "PCM_16"),
        ("a.w64", "W64", "PCM_16"),
        ("a.aiff", "AIFF", "PCM_16"),
        ("a.flac", "FLAC", "PCM_16"),
        ("a.caf", "CAF", "PCM_16"),
    ],
)
@pytest.mark.parametrize("coded", ["spdif", "dts"], indirect=True)
def test_compressed_sound_behind_a_pcm_header(tmp_path, coded, name, kind, subtype):
    waveform, words, sr = coded
    soundfile.write(tmp_path / name, words, sr, format=kind, subtype=subtype)
    check_sound(tmp_path / name, waveform)


@pytest.mark.parametrize("coded", ["spdif", "dts"], indirect=True)
@pytest.mark.parametrize("change", ["swapped", "mono", "late"])
def test_orders_of_the_words(tmp_path, coded, change):
    waveform, words, sr = coded
    changed = {
        "swapped": words.byteswap(),
        "mono": words.reshape(-1, 1),
        "late": np.vstack([np.zeros((70_000, 2), np.int16), words]),
    }
    soundfile.write(tmp_path / "a.wav", changed[change], sr)
    check_sound(tmp_path / "a.wav", waveform)


def check_sound(path, waveform):
    decoded = decode(path, sizes=())
    assert decoded.problems == {}
    assert np.array_equal(decoded.waveforms[16000], waveform)
    assert reading.probe_seconds(path) == pytest.approx(len(waveform) / 16000, abs=1e-3)
    part = decode(path, sizes=(), start=0.5, duration=0.5).waveforms[16000]
    assert np.corrcoef(part, waveform[8000:16000])[0, 1] > 0.999


def test_damaged_compressed_sound(tmp_path, bursts):
    path, (_, words) = tmp_path / "a.wav", bursts
    soundfile.write(path, words, SR)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut off" in decode(path).problems["audio"].reason
    # Dolby MAT (TrueHD) instead of AC-3.
    path.write_bytes(whole.replace(b"\x72\xf8\x1f\x4e\x01", b"\x72\xf8\x1f\x4e\x16"))
    with pytest.raises(BadMedia, match=r"its samples are compressed sound .* of an unknown kind"):
        decode(path)


@pytest.mark.parametrize("sync", [(0xF872, 0x4E1F), (0x7FFE, 0x8001)])
def test_sound_that_contains_sync_words(tmp_path, sync):
    samples = np.round(NOISE.T * 32767).astype(np.int16)
    pair = np.array(sync, np.uint16).view(np.int16)
    steady, clicks = np.tile(pair, (SR, 1)), samples.copy()
    steady[::2] *= -1
    clicks[500 :: 2000 if sync[0] == 0x7FFE else 2 * SR] = pair
    for sound in (steady, clicks):
        soundfile.write(tmp_path / "a.wav", sound, SR)
        decoded = decode(tmp_path / "a.wav", sample_rates=(SR,), sizes=())
        read = (sound[:, :1] if decoded.note else sound) / 32768
        assert np.abs(decoded.waveforms[SR] - read.mean(axis=1)).max() < 1e-6


def mp3(sr=44100, channels=1, seconds=4.0, xing="1"):
    content, sound = io.BytesIO(), sine(seconds, sr, channels=channels)
    with av.open(
        content, "w", format="mp3", options={"write_xing": xing, "id3v2_version": "0"}
    ) as container:
        stream = container.add_stream("mp3", rate=sr, layout="mono" if channels == 1 else "stereo")
        stream.bit_rate = 128_000 if sr == 44100 else 32_000
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=stream.layout.name)
        frame.sample_rate = sr
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return content.getvalue()


COVER = np.random.default_rng(0).integers(0, 255, 200_000, dtype=np.uint8).tobytes()
ID3V2 = b"ID3\4\0\0" + bytes(len(COVER) >> 7 * place & 0x7F for place in (3, 2, 1, 0)) + COVER
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (len(COVER) + 32).to_bytes(4, "little")
APE = APE + b"\1\0\0\0\0\0\0\xa0" + bytes(8) + COVER + APE + b"\1\0\0\0\0\0\0\x80" + bytes(8)
LYRICS = b"LYRICSBEGIN" + b"la " * 20_000 + b"060011LYRICS200"
ID3V1 = b"TAG" + b"x" * 125


@pytest.mark.parametrize(("sr", "channels"), [(44100, 2), (22050, 1), (22050, 2), (8000, 1)])
def test_mp3_files_with_tags_are_whole_and_halves_are_not(tmp_path, sr, channels):
    path, sound = tmp_path / "a.mp3", mp3(sr, channels)
    for after in (ID3V1, APE, APE + ID3V1, LYRICS + ID3V1, ID3V2):
        path.write_bytes(ID3V2 + sound + after)
        assert formats.mp3_seconds(path) == pytest.approx(4.0, abs=0.25)
        decoded = decode(path, sizes=())
        assert (decoded.problems, decoded.seconds) == ({}, pytest.approx(4.0, abs=0.25))
        path.write_bytes(ID3V2 + sound[: len(sound) // 2] + after)
        # A frame that is cut off inside may be completed by the tag, and then be too loud.
        problem = decode(path, sizes=()).problems["audio"].reason
        assert "cut off: only" in problem or "the largest sample" in problem


@pytest.mark.parametrize("between", [b"", ID3V1, ID3V1 + ID3V2])
def test_joined_mp3_files_are_whole(tmp_path, between):
    path = tmp_path / "a.mp3"
    for first, second in ((mp3(), mp3(channels=2)), (mp3(xing="0"), mp3())):
        path.write_bytes(first + between + second)
        decoded = decode(path, sizes=())
        assert (decoded.problems, decoded.seconds) == ({}, pytest.approx(8.1, abs=0.2))


def test_the_length_of_fraunhofers_header(tmp_path):
    path, frames = tmp_path / "a.mp3", mp3(channels=2, xing="0")
    n_frames = (154).to_bytes(4, "big")
    header = frames[:4] + bytes(32) + b"VBRI\0\1\0\0\0\x4b" + bytes(4) + n_frames
    size = 144 * 128_000 // 44_100  # bytes of a frame
    path.write_bytes(header.ljust(size, b"\0") + frames)
    assert formats.mp3_seconds(path) == pytest.approx(154 * 1152 / 44100)
    assert decode(path, sizes=()).problems == {}
    path.write_bytes(header.ljust(size, b"\0") + frames[: len(frames) // 2] + APE)
    assert "cut off: only" in decode(path, sizes=()).problems["audio"].reason


@pytest.mark.parametrize("name", ["a.aac", "a.flac", "a.ogg", "a.m4a", "a.wav"])
def test_tags_behind_other_files(tmp_path, name):
    path = tmp_path / name
    if name in ("a.aac", "a.m4a"):
        write_media(path, sound=sine(4.0, 44100), sr=44100)
    else:
        soundfile.write(path, sine(4.0, 44100)[0], 44100)
    whole = path.read_bytes()
    for after in (ID3V1, APE, ID3V2):
        path.write_bytes(whole + after)
        decoded = decode(path, sizes=())
        assert (decoded.problems, decoded.seconds) == ({}, pytest.approx(4.0, abs=0.1))
        assert reading.probe_seconds(path) == pytest.approx(4.0, abs=0.1)


def test_minutes_of_vorbis_are_written():
    content = io.BytesIO()
    sound_files.write_sound(content, np.tile(NOISE[0], 60), SR, format="OGG", subtype="VORBIS")
    content.seek(0)
    assert soundfile.info(content).frames == 120 * SR

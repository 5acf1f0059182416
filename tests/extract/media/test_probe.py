"""Lengths by packets agree with what decodes."""

import numpy as np
import pytest
import soundfile
from media_samples import decode, film, sine

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.reading import probe_seconds

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

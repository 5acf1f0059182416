"""Audio files of several parts or with odd headers, and long sound that is written to disk."""

import numpy as np
import pytest
import soundfile
from media_samples import decode, sine

from mvemo.extract import decode_clip
from mvemo.extract.media import audio, reading
from mvemo.extract.store import folders
from mvemo.manifests import array_files

SR = 48000


@pytest.mark.parametrize(
    ("suffix", "kind", "subtype"),
    [(".ogg", "OGG", "VORBIS"), (".opus", "OGG", "OPUS"), (".flac", "FLAC", "PCM_16")],
)
def test_chained_parts_are_read_one_after_the_other(tmp_path, suffix, kind, subtype):
    parts, joined = [tmp_path / f"{i}{suffix}" for i in range(3)], tmp_path / f"joined{suffix}"
    for path, seconds in zip(parts, (1.0, 0.5, 1.5), strict=True):
        sound = sine(seconds, SR, 300.0 * seconds, channels=2).T
        soundfile.write(path, sound, SR, format=kind, subtype=subtype)
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    alone = np.concatenate([decode(p, sample_rates=(SR,)).waveforms[SR] for p in parts])
    whole = decode(joined, sample_rates=(SR,))
    assert np.array_equal(whole.waveforms[SR], alone)
    assert set(whole.problems) == {"video"}
    assert reading.probe_seconds(joined) == 3.0
    part = decode(joined, sample_rates=(SR,), start=0.9, duration=1.0)
    assert np.array_equal(part.waveforms[SR], alone[round(0.9 * SR) : round(1.9 * SR)])


def test_parts_at_another_rate_are_refused(tmp_path):
    joined = b""
    for sr in (8000, 16000):
        soundfile.write(tmp_path / "a.flac", sine(1.0, sr)[0], sr)
        joined += (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(joined)
    reason = decode(tmp_path / "a.flac").problems["audio"].reason
    assert reason == "the sampling rate changes from 8000 to 16000 Hz"


@pytest.mark.parametrize("riff", [None, 0, 36])
def test_wav_whose_data_size_was_never_written(tmp_path, riff):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(1.0, 16000)[0], 16000)
    whole = decode(path).waveforms[16000]
    header = bytearray(path.read_bytes())
    at = header.index(b"data") + 4
    header[at : at + 4] = bytes(4)
    header[4:8] = header[4:8] if riff is None else riff.to_bytes(4, "little")
    path.write_bytes(header)
    assert np.array_equal(decode(path).waveforms[16000], whole)


@pytest.fixture
def sound(tmp_path):
    """Four seconds, of which each second is a block."""
    y = 0.1 * np.random.default_rng(0).normal(size=(4 * 44100, 2))
    soundfile.write(tmp_path / "s.flac", y, 44100)
    return tmp_path / "s.flac"


def test_spooled_sound_is_the_same_to_the_bit(sound, tmp_path, monkeypatch):
    rates = (44100, 16000)
    spool = tmp_path / "deep" / "spool"
    plain = decode_clip(sound, sample_rates=rates, pictures=(), spool=spool)
    assert not spool.exists()
    monkeypatch.setattr(audio, "_IN_MEMORY", 1000)
    spooled = decode_clip(sound, sample_rates=rates, pictures=(), spool=spool)
    for rate in rates:
        assert isinstance(spooled.waveforms[rate], np.memmap)
        np.testing.assert_array_equal(spooled.waveforms[rate], plain.waveforms[rate])
        assert not isinstance(plain.waveforms[rate], np.memmap)
    # Its files have no names, and go with the waveforms.
    assert list(spool.iterdir()) == []


def test_the_disk_holds_more_than_the_memory(sound, tmp_path, monkeypatch):
    # Four seconds at 16 kHz are 256,000 bytes.
    monkeypatch.setattr(audio, "MAX_BYTES", 200_000)
    monkeypatch.setattr(audio, "MAX_SPOOLED_BYTES", 300_000)
    kept = decode_clip(sound, sample_rates=(16000,), pictures=())
    assert "split the clip with 'mvemo manifest segment'" in str(kept.problems["audio"])
    spooled = decode_clip(sound, sample_rates=(16000,), pictures=(), spool=tmp_path)
    assert spooled.problems == {}
    assert len(spooled.waveforms[16000]) == 64000


def test_mapped_arrays_are_written_in_parts_and_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_PART_BYTES", 1 << 12)
    monkeypatch.setattr(array_files, "LARGE", 0)
    values = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    np.save(tmp_path / "plain.npy", values)
    mapped = np.load(tmp_path / "plain.npy", mmap_mode="r")
    folders.write_array(tmp_path / "a.npy", mapped)
    folders.write_array(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    # NumPy's own file, and the checksum behind it.
    assert (tmp_path / "a.npy").read_bytes().startswith((tmp_path / "plain.npy").read_bytes())
    found = folders.map_array(tmp_path / "a.npy", np.float32, (None, 3))
    assert found is not None
    array_files.release(found)
    np.testing.assert_array_equal(found, values)

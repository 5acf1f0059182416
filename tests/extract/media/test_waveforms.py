"""Long sound on its way to the disk: the same samples, and no memory that grows with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mvemo.extract import array_types, decode_clip
from mvemo.extract.media import audio
from mvemo.extract.store import folders
from mvemo.extract.store.folders import map_array, write_array


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Four seconds, of which each second is a block."""
    y = 0.1 * np.random.default_rng(0).normal(size=(4 * 44100, 2))
    soundfile.write(tmp_path / "s.flac", y, 44100)
    return tmp_path / "s.flac"


def test_spooled_sound_is_the_same_to_the_bit(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = (44100, 16000)
    plain = decode_clip(sound, sample_rates=rates, pictures=())
    monkeypatch.setattr(audio, "_IN_MEMORY", 1000)
    spool = tmp_path / "deep" / "spool"
    spooled = decode_clip(sound, sample_rates=rates, pictures=(), spool=spool)
    for rate in rates:
        assert isinstance(spooled.waveforms[rate], np.memmap)
        np.testing.assert_array_equal(spooled.waveforms[rate], plain.waveforms[rate])
    assert spooled.seconds == plain.seconds
    # Its files have no names, and go with the waveforms.
    assert list(spool.iterdir()) == []


def test_the_disk_holds_more_than_the_memory(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four seconds at 16 kHz are 256,000 bytes.
    monkeypatch.setattr(audio, "MAX_BYTES", 200_000)
    monkeypatch.setattr(audio, "MAX_SPOOLED_BYTES", 300_000)
    kept = decode_clip(sound, sample_rates=(16000,), pictures=())
    assert "cut the file with 'mvemo manifest segment'" in str(kept.problems["audio"])
    spooled = decode_clip(sound, sample_rates=(16000,), pictures=(), spool=tmp_path)
    assert spooled.problems == {}
    assert len(spooled.waveforms[16000]) == 64000


def test_short_sound_is_kept_in_memory(sound: Path, tmp_path: Path) -> None:
    decoded = decode_clip(sound, sample_rates=(16000,), pictures=(), spool=tmp_path / "spool")
    assert not isinstance(decoded.waveforms[16000], np.memmap)
    assert not (tmp_path / "spool").exists()


def test_mapped_arrays_are_written_in_parts_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_PART_BYTES", 1 << 12)
    monkeypatch.setattr(array_types, "LARGE", 0)
    values = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    np.save(tmp_path / "plain.npy", values)
    mapped = np.load(tmp_path / "plain.npy", mmap_mode="r")
    write_array(tmp_path / "a.npy", mapped)
    write_array(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    # NumPy's own file, and the checksum behind it.
    assert (tmp_path / "a.npy").read_bytes().startswith((tmp_path / "plain.npy").read_bytes())
    found = map_array(tmp_path / "a.npy", np.float32, (None, 3))
    assert found is not None
    array_types.release(found)
    np.testing.assert_array_equal(found, values)
    damaged = bytearray((tmp_path / "b.npy").read_bytes())
    damaged[-5000] ^= 1
    (tmp_path / "b.npy").write_bytes(damaged)
    assert map_array(tmp_path / "b.npy", np.float32, (None, 3)) is None

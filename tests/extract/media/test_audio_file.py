"""Audio files of several parts, and of headers that a crashed recorder left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from media_samples import decode, sine

from mvemo.extract.media.reading import probe_seconds

SR = 48000


@pytest.mark.parametrize(
    ("suffix", "kind", "subtype"),
    [(".ogg", "OGG", "VORBIS"), (".opus", "OGG", "OPUS"), (".flac", "FLAC", "PCM_16")],
)
def test_chained_parts_are_read_one_after_the_other(
    tmp_path: Path, suffix: str, kind: str, subtype: str
) -> None:
    """Each as if it were alone; a page or a marker may lie across two blocks."""
    parts = []
    for i, seconds in enumerate((1.0, 0.5, 1.5)):
        path = tmp_path / f"{i}{suffix}"
        sound = sine(seconds, SR, 300.0 * (i + 1), channels=2).T
        soundfile.write(path, sound, SR, format=kind, subtype=subtype)
        parts.append(path)
    joined = tmp_path / f"joined{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    alone = np.concatenate([decode(p, sample_rates=(SR,)).waveforms[SR] for p in parts])
    whole = decode(joined, sample_rates=(SR,))
    assert np.array_equal(whole.waveforms[SR], alone)
    assert set(whole.problems) == {"video"}
    assert probe_seconds(joined) == 3.0
    part = decode(joined, sample_rates=(SR,), start=0.9, duration=1.0)
    assert np.array_equal(part.waveforms[SR], alone[round(0.9 * SR) : round(1.9 * SR)])


def test_parts_at_another_rate_are_refused(tmp_path: Path) -> None:
    for sr in (8000, 16000):
        soundfile.write(tmp_path / f"{sr}.flac", sine(1.0, sr)[0], sr)
    joined = tmp_path / "joined.flac"
    joined.write_bytes(b"".join((tmp_path / f"{sr}.flac").read_bytes() for sr in (8000, 16000)))
    reason = decode(joined).problems["audio"].reason
    assert reason == "the sampling rate changes from 8000 to 16000 Hz"


@pytest.mark.parametrize("riff", [None, 0, 36])
def test_wav_whose_data_size_was_never_written(tmp_path: Path, riff: int | None) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(1.0, 16000)[0], 16000)
    whole = decode(path).waveforms[16000]
    header = bytearray(path.read_bytes())
    at = header.index(b"data") + 4
    header[at : at + 4] = bytes(4)
    header[4:8] = header[4:8] if riff is None else riff.to_bytes(4, "little")
    path.write_bytes(header)
    assert np.array_equal(decode(path).waveforms[16000], whole)

"""Filter banks and windows are those of librosa and SciPy, to the bit."""

from __future__ import annotations

import librosa.filters
import numpy as np
import pytest
from scipy.signal import get_window

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.descriptors.filter_banks import filter_banks
from mvemo.extract.descriptors.settings import window_of
from mvemo.extract.mel import MelSettings, mel_filter_bank


@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_mel_bands_are_librosas(htk: bool, norm: str) -> None:
    settings = MelSettings(
        sr=22050, n_fft=1024, n_mels=96, fmin=20.0, fmax=9000.0, htk=htk, norm=norm
    )
    expected = librosa.filters.mel(
        sr=22050,
        n_fft=1024,
        n_mels=96,
        fmin=20.0,
        fmax=9000.0,
        htk=htk,
        norm=None if norm == "none" else norm,
        dtype=np.float64,
    )
    np.testing.assert_array_equal(mel_filter_bank(settings), expected.T)


@pytest.mark.parametrize(("sr", "n_fft"), [(44100, 2048), (16000, 512)])
def test_pitch_classes_are_librosas(sr: int, n_fft: int) -> None:
    settings = DescriptorSettings(sr=sr, n_fft=n_fft, hop_length=256, n_mels=40)
    expected = librosa.filters.chroma(sr=sr, n_fft=n_fft, tuning=0.0, dtype=np.float64)
    np.testing.assert_array_equal(filter_banks(settings).chroma, expected.T.astype(np.float32))


@pytest.mark.parametrize("name", ["hann", "blackmanharris", "hamming"])
def test_windows_are_scipys(name: str) -> None:
    np.testing.assert_array_equal(
        window_of(DescriptorSettings(window=name)), get_window(name, 2048)
    )

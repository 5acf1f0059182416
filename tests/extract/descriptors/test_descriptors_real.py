"""Descriptors of recorded music and singing against whole chains of librosa and scipy."""

import librosa
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import soundfile

from mvemo.extract.descriptors import DESCRIPTORS, DescriptorSettings, describe
from mvemo.extract.descriptors.voice import NOISE


@pytest.fixture(scope="module", params=["soundtracks", "ravdess_song"])
def recording(request, shared_data):
    """Three seconds from inside a clip, and settings for its sampling rate."""
    file = sorted((shared_data / request.param / "audio").glob("*.ogg"))[0]
    y, sr = soundfile.read(file, dtype="float32", always_2d=True)
    settings = DescriptorSettings(sr=sr)
    return np.ascontiguousarray(y[sr : 4 * sr].mean(axis=1)), settings


def full_frames(found, count, s):
    """Numbers of the frames that were kept and are among the first `count`."""
    number = np.rint((found["times"][:, 0] * s.sr - s.n_fft / 2) / s.hop_length).astype(int)
    return number[number < count]


def test_spectra_are_librosas(recording):
    y, s = recording
    ours = describe(y, s, DESCRIPTORS)
    stft = librosa.stft(y.astype(float), n_fft=2048, hop_length=1024, window=s.window, center=False)
    magnitude = np.abs(stft)
    number = full_frames(ours, magnitude.shape[1], s)
    assert len(number) > 40
    mel = librosa.feature.melspectrogram(S=magnitude**2, sr=s.sr, n_mels=s.n_mels)
    level = librosa.power_to_db(mel, top_db=None)
    mfcc = librosa.feature.mfcc(S=level, n_mfcc=s.n_mfcc)
    chroma = librosa.feature.chroma_stft(S=magnitude**2, sr=s.sr, tuning=0)
    contrast = librosa.feature.spectral_contrast(S=magnitude, sr=s.sr)
    for name, other, tolerance in (
        ("mel", level, 1e-4),
        ("mfcc", mfcc, 1e-4),
        ("chroma", chroma, 1e-4),
        ("contrast", contrast, 1e-4),
    ):
        assert np.abs(ours[name][: len(number)] - other.T[number]).max() < tolerance, name


def test_residual_phase_is_the_chain_of_scipy(recording):
    y, s = recording
    found = describe(y, s, ["rp", "times"])
    window = scipy.signal.get_window(s.window, s.n_fft)
    for i, number in list(enumerate(full_frames(found, len(y) // s.hop_length - 1, s)))[5::12]:
        start = number * s.hop_length
        x = y[start : start + s.n_fft].astype(float)
        r = np.correlate(x * window, x * window, "full")[s.n_fft - 1 :][: s.lpc_order + 1]
        r[0] *= 1 + NOISE
        a = scipy.linalg.solve_toeplitz(r[:-1], r[1:])
        before = y[start - s.lpc_order : start]
        error = scipy.signal.lfilter(np.r_[1, -a], [1.0], np.r_[before, x])[s.lpc_order :]
        phase = error / np.abs(scipy.signal.hilbert(error))
        power = np.abs(np.fft.rfft(phase * window)) ** 2
        mel = librosa.feature.melspectrogram(S=power[:, None], sr=s.sr, n_mels=s.n_mels)
        level = librosa.power_to_db(mel, top_db=None)
        other = librosa.feature.mfcc(S=level, n_mfcc=s.n_mfcc)[:, 0]
        assert np.abs(found["rp"][i] - other).max() < 1e-3


@pytest.mark.parametrize("recording", ["ravdess_song"], indirect=True)
def test_voiced_frames_agree_with_librosa(recording):
    y, s = recording
    found = describe(y, s, ["f0", "times"])
    other = librosa.yin(
        y,
        fmin=s.f0_min,
        fmax=s.f0_max,
        sr=s.sr,
        frame_length=s.n_fft,
        hop_length=s.hop_length,
        center=False,
    )
    number = full_frames(found, len(other), s)
    ours, other = found["f0"][: len(number)], other[number]
    sure = ours[:, 1] > 0.95
    assert sure.sum() > 5
    assert np.mean(np.abs(other[sure] / ours[sure, 0] - 1) < 0.02) > 0.8

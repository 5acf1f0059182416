"""All descriptors of a clip against librosa and scipy, and against openSMILE.

    python bench/bench_descriptors.py [FOLDER] [--seconds 30] [--rounds 5]

FOLDER holds media files; by default the real clips beside the checkout. Every side gets the
same 44.1 kHz waveform, in one process with one thread, and sides take turns. The openSMILE
side runs where the package `opensmile` can be imported. Then: peak memory over ten minutes
of sound.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import Row, bench_parser, finish, in_turns
from threadpoolctl import threadpool_limits

from mvemo.extract.descriptors import DESCRIPTORS, DescriptorSettings, describe
from mvemo.extract.descriptors.spectral import FilterBanks, filter_banks

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mve"
SETTINGS = DescriptorSettings()
SR = SETTINGS.sr
# What the other sides compute: no spectrogram, which would be a copy of a step of theirs.
NAMES = tuple(name for name in DESCRIPTORS if name != "spectrogram")


def composition(y: np.ndarray) -> dict[str, np.ndarray]:
    """The same descriptors put together from librosa and scipy, a frame at a time."""
    import librosa
    import scipy.signal

    s = SETTINGS
    frame: dict[str, Any] = {
        "n_fft": s.n_fft,
        "hop_length": s.hop_length,
        "window": s.window,
        "center": False,
    }
    out = {
        "mfcc": librosa.feature.mfcc(y=y, sr=SR, n_mfcc=s.n_mfcc, n_mels=s.n_mels, **frame),
        "contrast": librosa.feature.spectral_contrast(y=y, sr=SR, **frame),
        "chroma": librosa.feature.chroma_stft(y=y, sr=SR, tuning=0.0, **frame),
        "f0": librosa.yin(
            y,
            fmin=s.f0_min,
            fmax=s.f0_max,
            sr=SR,
            frame_length=s.n_fft,
            hop_length=s.hop_length,
            center=False,
        ),
    }
    low = librosa.resample(y, orig_sr=SR, target_sr=11_025)
    step = s.hop_length * 11_025 / SR
    width = int(s.n_fft * 11_025 / SR)
    window = scipy.signal.get_window(s.window, width)
    phases, formants = [], []
    for i, x in enumerate(librosa.util.frame(y, frame_length=s.n_fft, hop_length=s.hop_length).T):
        if np.sqrt(np.mean(x**2)) < 10 ** (s.silence_db / 20):
            continue
        a = librosa.lpc(x, order=s.lpc_order)
        error = scipy.signal.lfilter(a, [1.0], x)
        phases.append(error / np.maximum(np.abs(scipy.signal.hilbert(error)), 1e-12))
        part = low[int(i * step) : int(i * step) + width]
        part = np.pad(part, (0, width - len(part))) * window
        if not part.any():
            continue
        roots = np.roots(librosa.lpc(np.diff(part, prepend=0.0), order=s.formant_order))
        roots = roots[roots.imag > 0]
        hz = np.angle(roots) * 11_025 / (2 * np.pi)
        formants.append(np.sort(hz)[: s.n_formants])
    # The residual phase of overlapping frames, through the same front end as the sound.
    power = np.abs(np.fft.rfft(np.array(phases) * scipy.signal.get_window(s.window, s.n_fft))) ** 2
    mel = librosa.feature.melspectrogram(S=power.T, sr=SR, n_mels=s.n_mels)
    out["rp"] = librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=s.n_mfcc)
    return out


def opensmile_side() -> Callable[[np.ndarray], Any] | None:
    """ComParE 2016's low-level descriptors, where the package is there."""
    try:
        import opensmile
    except ImportError:
        return None
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.ComParE_2016,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        num_workers=1,
    )
    return lambda y: smile.process_signal(y, SR)


def load(path: Path, seconds: float) -> np.ndarray:
    """The start of a file's sound, repeated where it is shorter."""
    from mvemo.extract.media.reading import decode_clip

    y = decode_clip(path, sample_rates=(SR,), pictures=()).waveforms[SR]
    return np.resize(y, int(seconds * SR))


def ratios(clips: list[np.ndarray], rounds: int) -> list[Row]:
    sides: dict[str, Callable[[np.ndarray], Any]] = {
        "mvemo": lambda y: describe(y, SETTINGS, NAMES),
        "librosa and scipy": composition,
    }
    smile = opensmile_side()
    if smile is not None:
        sides["ComParE_2016 LLD"] = smile
    total = dict.fromkeys(sides, 0.0)
    for y in clips:
        for side in sides.values():
            side(y[: 2 * SR])  # Compiling and caches are not the clip's.
        best = in_turns([partial(side, y) for side in sides.values()], rounds)
        for name, (wall, _) in zip(sides, best, strict=True):
            total[name] += wall
    if smile is None:
        print("ComParE_2016 LLD: not timed, the package opensmile is not installed")
    ms = {name: 1000 * spent / len(clips) for name, spent in total.items()}
    ours = ms.pop("mvemo")
    what = f"describe {len(clips[0]) / SR:g} s of sound"
    return [
        Row(what, ours, "ms a clip", f"openSMILE {name}" if "ComParE" in name else name, theirs,
            theirs / ours, ">= 1")
        for name, theirs in ms.items()
    ]  # fmt: skip


def peak(banks: FilterBanks, minutes: float) -> float:
    """Peak memory in MiB of a fresh process that describes this much sound."""
    rng = np.random.default_rng(0)
    y = np.empty(int(60 * minutes * SR), np.float32)
    for part in np.array_split(y, max(int(minutes), 1)):
        part[:] = 0.1 * rng.standard_normal(len(part), dtype=np.float32)
    describe(y, SETTINGS, DESCRIPTORS, banks=banks)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process with one thread."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=threadpool_limits, initargs=(1,)) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CLIPS)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int)
    chosen = parser.parse_args()
    chosen.clips = chosen.clips or (1 if chosen.quick else 2)
    chosen.seconds = chosen.seconds or (10.0 if chosen.quick else 30.0)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    minutes = 2.0 if chosen.quick else 10.0
    threadpool_limits(1)
    # First, and each alone: a process begins with the peak of the one that started it.
    banks = in_a_process(filter_banks, SETTINGS)
    small, large = (in_a_process(peak, banks, length) for length in (0.01, minutes))
    files = sorted(f for f in chosen.folder.rglob("*") if f.suffix in (".mp4", ".ogg", ".wav"))
    files = files[:: max(len(files) // chosen.clips, 1)][: chosen.clips]
    if files:
        rows = ratios([load(file, chosen.seconds) for file in files], chosen.rounds)
    else:
        print(f"descriptors: no media under {chosen.folder}, nothing to compare")
        rows = []
    rows.append(Row(f"peak memory of {minutes:g} minutes", large, "MiB", "libraries alone", small))
    finish(chosen, rows)


if __name__ == "__main__":
    main()

"""Songs per hour and core, from mixed media files to features, split into parts.

    python bench/bench_catalogue.py [--files 8] [--rounds 2]

Runs ``mvemo extract --profile pretrained`` in this process, with one thread on one core, over made
files: sound of 30 s and 4 min (MP3), video of 30 s at 360p and 1080p (H.264, AAC). Random weights
take as long as the public ones. A part's time is processor time without the parts within it; idle
is the rest of the wall time, other programs included. Limits: PyAV that only decodes, one call of
soxr, the Fourier transforms of the frames, one file with as many bytes, and the nets' arithmetic
at the rate of a large float32 matrix product (Winograd's way needs less than is counted).
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import av
import cv2
import librosa
import numpy as np
import soundfile
import soxr
import torch
from bench_descriptors import opensmile_side
from figures import Row, Stopwatch, bench_parser, finish, in_turns, write_weights
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from mvemo.cache import CacheWriter
from mvemo.extract.media import audio, container, packets
from mvemo.extract.nets import build_net, effnet
from mvemo.extract.store import decoded, decoding, folders
from mvemo.extract.training import embedding
from mvemo.extract.workers.process import CallResult
from mvemo.manifests.demo import media
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one.division import ExtractRequest
from mvemo.pipeline.stage_one.run import run_extract

SR, FPS = 44_100, 30
NET_SR = 16_000  # of musicnn; descriptors are computed at the files' own rate
# Seconds at full and at small sizes, and the height of the pictures (0: sound only).
KINDS = ((30, 10, 0), (240, 30, 0), (30, 5, 360), (30, 5, 1080))
WRITING = ("__init__", "current", "put", "fail", "clear_failures", "commit", "close")
DECODE, VIDEOS = "demux and decode", "videos: demux, decode, scale, effnet"


def make_files(folder: Path, count: int, *, quick: bool) -> list[tuple[Path, np.ndarray]]:
    """Write files of all kinds in turn and their manifest; return paths and mono sounds."""
    media.SR, media.FPS = SR, FPS
    files = []
    for i in range(count):
        full, small, height = KINDS[i % len(KINDS)]
        seconds, rng = small if quick else full, np.random.default_rng(i)
        sound = media.synthesise(media.SOUNDS["Exciting"], seconds, rng)
        path = folder / f"{i:03}-{height or 'sound'}.{'mp4' if height else 'mp3'}"
        if height:
            n, width = seconds * FPS, height * 16 // 9
            # A grainy texture that moves by a row and two columns a frame.
            size = (width + 2 * n, height + n)
            coarse = rng.integers(0, 122, (24, 40, 3), dtype=np.uint8)
            texture = cv2.resize(coarse, size) + rng.integers(0, 12, (*size[::-1], 3), np.uint8)
            strides = (texture.strides[0] + 2 * texture.strides[1], *texture.strides)
            shape = (n, height, width, 3)
            frames = np.lib.stride_tricks.as_strided(texture, shape, strides, writeable=False)
            media.write_clip(path, frames, np.ones(n, dtype=np.bool_), sound, media.video_codec())
        else:
            soundfile.write(path, sound.T, SR)
        files.append((path, sound.mean(axis=0)))
    lines = ["path", *(path.name for path, _ in files)]
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


class Catalogue:
    """Run over the files: seconds of its parts, and what each net was given."""

    def __init__(self) -> None:
        self.clock = Stopwatch(defaultdict(float))
        for owner, name, part in (
            (decoding, "decode_clip", "decode"),
            (packets, "open_container", "demux"),
            (packets, "frame_times", "demux"),
            (packets.Packets, "__iter__", "demux"),
            (container.SquareScaler, "squares", "scale"),
            (audio.SoundCollector, "add", "mix, measure loudness"),
            (audio.Waveforms, "add", "mix, measure loudness"),
            (audio.Waveforms, "finish", "mix, measure loudness"),
            (audio._Track, "add", "resample"),
            (decoded, "describe", "describe"),
            (folders, "write_array", "write"),
            *((CacheWriter, name, "write") for name in WRITING),
        ):
            self.clock.watch(owner, name, part)
        decoded.run_calls = self._run_calls
        embed = embedding._Embedder.embed

        def embed_timed(embedder: Any, raw: torch.Tensor) -> torch.Tensor:
            self.raws[embedder._net.name].append(raw)
            with self.clock.part(f"embed, {embedder._net.name}"):
                return embed(embedder, raw)

        embedding._Embedder.embed = embed_timed

    def run(self, folder: Path, settings: Settings) -> None:
        """Make the features of all files from nothing."""
        self.videos = 0.0  # seconds to demux, decode and scale the video files
        self.raws: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.clock.seconds.clear()
        started, cpu = time.perf_counter(), time.process_time()
        with tempfile.TemporaryDirectory(dir=folder) as name, self.clock.part("other"):
            work = Path(name)
            import_module("scipy.fft")  # once in each process, not a cost of its first clip
            run_extract(ExtractRequest(folder / "clips.csv", settings, work, work / "features.h5"))
            self.written = sum(f.stat().st_size for f in work.rglob("*") if f.is_file())
        self.parts = {part: spent for part, spent in self.clock.seconds.items() if part}
        self.whole = time.process_time() - cpu
        self.parts["other"] += self.whole - sum(self.parts.values())  # of other threads
        self.idle = max(time.perf_counter() - started - self.whole, 0.0)

    def _run_calls(self, calls: Sequence[Any], **_: object) -> Iterator[CallResult]:
        """Do the calls of workers in this process."""
        for i, call in enumerate(calls):
            module, _, name = call.function.partition(":")
            before = self._decoding()
            value = getattr(import_module(module), name)(*call.arguments)
            if Path(getattr(call.arguments[0], "path", "")).suffix == ".mp4":
                self.videos += self._decoding() - before
            yield CallResult(i, value)

    def _decoding(self) -> float:
        return sum(self.clock.seconds[part] for part in ("demux", "decode", "scale"))


def eager(name: str, raws: Sequence[torch.Tensor], rounds: int) -> tuple[float, float]:
    """Return the seconds of a net run plainly, and its operations."""
    effnet.FRAMES_AT_ONCE, effnet.SINGLY = sys.maxsize, 0  # in one step
    net = build_net(name, 1).eval().requires_grad_(False)
    if name == "musicnn":
        for front in (*net.timbral, *net.temporal):
            front.forward = partial(plain_front, front)
    # Windows of sound have different lengths, those of pictures the same.
    counted = raws if net.modality == "audio" else [raws[0][:1]]
    with FlopCounterMode(display=False) as counter:
        for raw in counted:
            net.embed(net.prepare(raw).contiguous())
    seconds = least(lambda: [net.embed(net.prepare(raw).contiguous()) for raw in raws], rounds)
    return seconds, counter.get_total_flops() * sum(map(len, raws)) / sum(map(len, counted))


def plain_front(front: Any, x: torch.Tensor) -> torch.Tensor:
    """Compute a front of `musicnn` in the order of its layers."""
    x = torch.nn.functional.pad(x, (0, 0, *front.sides))
    return front.norm(front.convolution(x).relu()).amax(dim=3)


def least(side: Callable[[], object], rounds: int) -> float:
    """Return the least processor seconds of some rounds."""
    return in_turns([side], rounds)[0][1]


def decode_all(path: Path) -> None:
    """Decode all pictures and all sound with PyAV, and keep nothing."""
    with av.open(str(path)) as file:
        for _ in file.decode([*file.streams.video[:1], *file.streams.audio[:1]]):
            pass


def read_by_opencv(path: Path) -> None:
    """Read all pictures, and scale those of a window, as video_features does."""
    video, count = cv2.VideoCapture(str(path)), 0
    while (read := video.read())[0]:
        if count < 8:
            cv2.resize(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), (462, 260))
        count += 1


def describe_by_librosa(y: np.ndarray, s: Any) -> None:
    """Compute the four descriptors of the profile from one spectrogram."""
    frame = {"n_fft": s.n_fft, "hop_length": s.hop_length, "window": s.window, "center": False}
    power = np.abs(librosa.stft(y, **frame)) ** 2
    mel = librosa.feature.melspectrogram(S=power, sr=s.sr, n_mels=s.n_mels)
    librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=s.n_mfcc)
    librosa.feature.spectral_contrast(S=np.sqrt(power), sr=s.sr)
    librosa.feature.chroma_stft(S=power, sr=s.sr, tuning=0.0)


def transform_frames(y: np.ndarray, s: Any) -> None:
    frames = np.lib.stride_tricks.sliding_window_view(y, s.n_fft)[:: s.hop_length]
    for first in range(0, len(frames), 256):
        np.fft.rfft(frames[first : first + 256])


def compare(
    files: Sequence[tuple[Path, np.ndarray]], run: Catalogue, s: Any, rounds: int
) -> tuple[list[tuple[str, str, float]], dict[str, float]]:
    """Return (part, another program, its seconds), and the seconds of each part's limit."""

    def on_sounds(side: Callable[[np.ndarray], object]) -> float:
        side(files[0][1][:SR])  # librosa compiles itself
        return least(lambda: [side(y) for _, y in files], rounds)

    a, b = torch.rand(2, 2048, 2048)
    rate = 2 * 2048**3 / least(lambda: torch.mm(a, b), 5)
    print(f"float32 matrix product: {rate / 1e9:.0f} GFLOP/s")
    plain = files[0][0].with_name("plain")
    limits = {
        DECODE: least(lambda: [decode_all(path) for path, _ in files], rounds),
        "resample": on_sounds(lambda y: soxr.resample(y, SR, NET_SR)),
        "describe": on_sounds(lambda y: transform_frames(y, s)),
        "write": least(lambda: plain.write_bytes(bytes(run.written)), 3),
    }
    resampled = on_sounds(lambda y: librosa.resample(y, orig_sr=SR, target_sr=NET_SR))
    others = [
        ("resample", "librosa", resampled),
        ("describe", "librosa", on_sounds(lambda y: describe_by_librosa(y, s))),
    ]
    if smile := opensmile_side():
        others.append(("describe", "openSMILE, ComParE 2016", on_sounds(smile)))
    opencv = least(lambda: [read_by_opencv(p) for p, _ in files if p.suffix == ".mp4"], rounds)
    for name, raws in run.raws.items():
        seconds, operations = eager(name, raws, rounds)
        others.append((f"embed, {name}", "eager PyTorch", seconds))
        limits[f"embed, {name}"] = operations / rate
        if name == "effnet":
            others.append((VIDEOS, "OpenCV, eager PyTorch", opencv + seconds))
    return others, limits


def report(
    run: Catalogue, count: int, others: list[tuple[str, str, float]], limits: dict[str, float]
) -> list[Row]:
    """Return the rows of the whole and of all parts, in processor milliseconds a file."""
    parts, each = run.parts, 1000 / count
    parts[DECODE] = parts["demux"] + parts["decode"]
    parts[VIDEOS] = run.videos + parts["embed, effnet"]
    best = 3600 * count / sum(limits.values())
    rows = [Row(f"{count} files to features", 3600 * count / run.whole, "songs/h", limit=best)]
    nets = [name for name in parts if name.startswith("embed")]
    order = ["demux", "decode", DECODE, "scale", "mix, measure loudness", "resample", "describe"]
    order += [*nets, VIDEOS]
    for part in [*order, "write", "other"]:
        limit, share = each * limits.get(part, math.nan), parts[part] / run.whole
        known = [(name, seconds) for of, name, seconds in others if of == part]
        for name, seconds in known or [("", math.nan)]:
            ratio = seconds / parts[part]
            figures = (name, each * seconds, ratio, "", limit, share)
            rows.append(Row(part, each * parts[part], "ms a file", *figures))
    return [*rows, Row("idle, or other programs", each * run.idle, "ms a file")]


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--files", type=int)
    parser.add_argument("--rounds", type=int)
    chosen = parser.parse_args()
    count = chosen.files or (4 if chosen.quick else 8)
    rounds = chosen.rounds or (1 if chosen.quick else 2)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    threadpool_limits(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder, count, quick=chosen.quick)
        weights = write_weights(load_settings("pretrained").extract.nets, folder)
        options = [f"nets.{name}.weights='{path}'" for name, path in weights.items()]
        options += ["extract.fetch=false", "extract.folds=2"]
        settings = load_settings("pretrained", options)
        catalogue, runs = Catalogue(), []
        for _ in range(rounds):
            catalogue.run(folder, settings)
            runs.append(copy(catalogue))
        run = min(runs, key=lambda run: run.whole)
        others, limits = compare(files, run, settings.descriptors, rounds)
    finish(chosen, report(run, count, others, limits))


if __name__ == "__main__":
    main()

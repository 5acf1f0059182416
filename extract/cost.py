"""Time, memory and disk space of reading clips, and of training and embedding with nets.

Every estimate is measured on a few clips, or on a pass of a net, and extrapolated.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from mvemo.cache.spec import digest_of
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets.parts import cards, fast_conv, registry, sequences
from mvemo.extract.settings import NetSettings, RunSettings, window_starts
from mvemo.extract.store import decoded, folders
from mvemo.extract.training import devices
from mvemo.extract.workers import pool
from mvemo.extract.workers.process import system_text
from mvemo.manifests import files, text_files

T = TypeVar("T")
# Number of clips that are read to measure the time.
N_SAMPLED = 3


def time_sample(
    sizes: Mapping[T, float], read: Callable[[Sequence[T]], object], most: int = N_SAMPLED
) -> tuple[int, float, float]:
    """Time up to `most` items; return their number, seconds for all, and total / timed size."""
    by_size = sorted(sizes, key=lambda item: sizes[item])
    places = np.linspace(0, len(by_size) - 1, min(most, len(by_size)))
    chosen = [by_size[round(place)] for place in places]
    # This first call is not timed: it includes the start-up cost.
    read(chosen[:1])
    start = time.perf_counter()
    read(chosen)
    seconds = time.perf_counter() - start
    share = sum(sizes.values()) / max(sum(sizes[item] for item in chosen), 1e-9)
    return len(chosen), seconds * share, share


# --- reading


@dataclass(frozen=True)
class ReadingCost:
    n_sampled: int = 0  # clips that were read for the measurement
    seconds: float = 0.0  # time for all clips with one worker
    n_bytes: float = 0.0  # size of the clips in the working folder
    worker_bytes: int = 0  # memory of each worker


def measure_reading(
    jobs: Sequence[folders.DecodeJob],
    request: folders.DecodeRequest,
    names: Sequence[str],
    descriptors: DescriptorSettings,
    decoding: decoded.DecodeSettings,
) -> ReadingCost:
    """Decode a few clips, and compute the descriptors `names` of their sound."""
    if not jobs:
        return ReadingCost()
    sizes = {job: job.path.stat().st_size + 1.0 for job in jobs}
    one_worker = replace(decoding, workers=1)
    with tempfile.TemporaryDirectory(prefix="mvemo-plan-") as temp:

        def read(chosen: Sequence[folders.DecodeJob]) -> None:
            shutil.rmtree(temp)
            store = decoded.DecodedStore(Path(temp), request)
            silent: set[str] = set()

            def note(clip_id: str, problems: Mapping[str, object]) -> None:
                if "audio" in problems:
                    silent.add(clip_id)

            decoded.decode_many(store, chosen, one_worker, on_clip=note)
            if names:
                sounding = [job.clip_id for job in chosen if job.clip_id not in silent]
                described = decoded.DescribedStore(store, descriptors, names)
                decoded.describe_many(described, sounding, one_worker)

        n_sampled, seconds, share = time_sample(sizes, read)
        n_bytes = sum(path.stat().st_size for path in Path(temp).rglob("*") if path.is_file())
    worker_bytes = pool.worker_memory()
    pool.stop_workers()
    return ReadingCost(n_sampled, seconds, n_bytes * share, worker_bytes)


# --- nets


# A training step takes as long as three forward passes: the gradients of a layer's inputs and
# of its weights each take as long as the layer.
PASSES = 3
# Number of windows of a timed pass: batch normalisation cannot train on a single window.
N_WINDOWS = 2
# Number of float32 values that training keeps per weight: weight, gradient, two states of Adam.
PER_WEIGHT = 4
# Number of passes, and seconds after which no further pass is started. The fastest pass counts,
# because the first one includes initialisation.
N_TIMED = 3
SECONDS = 3.0
# Efficiency of each of several threads, compared with a single thread.
THREAD_SHARE = 0.75


@dataclass(frozen=True)
class NetCost:
    seconds: float = 0.0  # time of a forward pass of one window
    weight_bytes: int = 0  # size of all weights
    window_bytes: int = 0  # kept per window until the backward pass; 0 under ``frozen``

    def training_seconds(self, settings: NetSettings, n_train: int, n_validation: int) -> float:
        passes = PASSES * n_train + n_validation
        return self.seconds * passes * settings.train.max_epochs(n_train)

    def training_bytes(self, settings: NetSettings) -> int:
        return PER_WEIGHT * self.weight_bytes + settings.train.batch_size * self.window_bytes

    def embedding_bytes(
        self, settings: NetSettings, batch: int, device: torch.device, threads: int
    ) -> int:
        at_once = devices.windows_at_once(batch, device, registry.NETS[settings.name])
        # Inference needs less memory: a layer's input is freed once its output exists.
        windows = devices.embedding_threads(device, threads) * at_once
        return self.weight_bytes + windows * self.window_bytes // 4


def measure_net(
    settings: NetSettings,
    run: RunSettings,
    descriptors: DescriptorSettings | None = None,
    *,
    threads: int = 0,
) -> NetCost:
    """Time a pass of a net with random weights over silence, for `threads` (0: this process's)."""
    device = devices.pick_device(run.device)
    net = registry.build_net(settings.name, 2, width=settings.width, **settings.options)
    net = devices.place(net, device)
    trained = run.protocol != "frozen"
    net.train(trained)
    precision = devices.resolve_precision(run.precision, device)
    passed = net if trained else fast_conv.optimized(net, precision)
    n_windows = N_WINDOWS if trained else 1
    raw = sequences.empty_input(net.input, "cpu", descriptors or DescriptorSettings())
    raw = torch.cat([raw] * n_windows).to(device)
    # The CPU time of one thread hardly depends on other programs.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    threads_before = torch.get_num_threads()
    threads = threads or threads_before
    torch.set_num_threads(1)
    times: list[float] = []
    while len(times) < N_TIMED and sum(times) < SECONDS:
        start = clock()
        with devices.autocast(device, run.precision), torch.inference_mode(not trained):
            x = net.prepare(raw)
            with devices.recorded_storages(net) as stored:
                passed.features(x).sum().item()
        times.append(clock() - start)
    torch.set_num_threads(threads_before)
    speed = 1.0 if device.type == "cuda" or threads == 1 else THREAD_SHARE * threads
    return NetCost(
        seconds=min(times) / n_windows / speed,
        weight_bytes=sum(p.untyped_storage().nbytes() for p in net.parameters()),
        window_bytes=sum(stored.values()) // n_windows,
    )


def clip_windows(net: NetSettings, length: float | None, duration: float | None = None) -> float:
    """Return a net's work for a clip, in windows; the maximum if the length is unknown."""
    taken = registry.input_of(net)
    if length is None or not isinstance(taken, cards.AudioInput):
        return net.view.views
    length = length if duration is None else min(length, duration)
    count = len(window_starts(length, taken.seconds, net.view))
    return count * (min(length / taken.seconds, 1.0) if taken.mark_end else 1.0)


# --- precision


# Maximum time of bf16, relative to float32, for which bf16 is chosen despite its rounding.
MOST_TIME = 0.9


def choose_precision(
    nets: Sequence[NetSettings],
    run: RunSettings,
    descriptors: DescriptorSettings,
    path: Path,
    *,
    keep: bool = True,
) -> tuple[str, str]:
    """Return the precision, the faster one for ``auto`` (times are kept in `path`), and a note."""
    device = devices.pick_device(run.device)
    cpu = _bf16_processor()
    if run.precision != "auto" or (device.type == "cpu" and not cpu):
        return devices.resolve_precision(run.precision, device), ""
    coarse = [net.name for net in nets if not registry.NETS[net.name].faithful_in_bf16]
    if run.protocol == "frozen" and coarse:
        changed = f"bf16 changes predictions from {', '.join(coarse)}"
        return "float32", f"extract.precision=auto is float32: {changed}."
    if device.type != "cpu":
        return devices.resolve_precision(run.precision, device), ""
    facts = [[net.record() for net in nets], run.protocol, cpu, str(torch.__version__)]
    key = digest_of({"measured": facts})
    try:
        bf16, float32 = (
            float(text_files.read_json(path)[key][name]) for name in ("bf16", "float32")
        )
    except (OSError, KeyError, TypeError, ValueError):
        bf16, float32 = (
            sum(
                net.view.views * measure_net(net, replace(run, precision=name), descriptors).seconds
                for net in nets
            )
            for name in ("bf16", "float32")
        )
        if keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, {key: {"bf16": bf16, "float32": float32}})
    precision = "bf16" if bf16 <= MOST_TIME * float32 else "float32"
    return precision, (
        f"extract.precision=auto is {precision}: the nets take {bf16:.2g} s per clip in bf16 and "
        f"{float32:.2g} s in float32 on this processor."
    )


def _bf16_processor() -> str:
    """Return the name of this CPU if it has bf16 instructions, or ''."""
    text = system_text("cpuinfo")
    facts: dict[str, str] = dict(re.findall(r"(?m)^([^:\n]*?)\s*:[ \t]*(.*?)[ \t]*$", text))
    if {"avx512_bf16", "amx_bf16"}.isdisjoint(facts.get("flags", "").split()):
        return ""
    return facts.get("model name", "a processor")

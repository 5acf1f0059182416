"""Estimates of the work, time, memory and disk space of a run of stage one, for ``--plan``.

The time is measured on a few clips and on one pass of each net, and extrapolated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.extract.nets.parts import cards, registry
from mvemo.extract.settings import NetSettings, window_starts
from mvemo.extract.store.decoded import DecodedStore, stored_problems
from mvemo.extract.training import data, devices, protocols
from mvemo.extract.workers import pool, process
from mvemo.manifests import Manifest
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.clips import clip_media, media_files
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.work_folder import measure_work, size_text

T = TypeVar("T")
# Number of clips that are read to measure the time.
N_SAMPLED = 3
# Minimum duration in seconds of a run on a CPU for which a note is printed.
LONG = 3600.0
# Upper bound of the seconds per window: a run that it puts below `LONG` is not measured.
SLOWEST = 5.0


def time_sample(
    sizes: Mapping[T, float], read: Callable[[Sequence[T]], object], most: int = N_SAMPLED
) -> tuple[int, float, float]:
    """Time up to `most` items; return their number, seconds for all, and total / timed size."""
    by_size = sorted(sizes, key=lambda item: sizes[item])
    places = np.linspace(0, len(by_size) - 1, min(most, len(by_size)))
    chosen = [by_size[round(place)] for place in places]
    with messages.silenced():
        # This first call is not timed: it includes the start-up cost.
        read(chosen[:1])
        start = time.perf_counter()
        read(chosen)
        seconds = time.perf_counter() - start
    share = sum(sizes.values()) / max(sum(sizes[item] for item in chosen), 1e-9)
    return len(chosen), seconds * share, share


@dataclass(frozen=True)
class ReadingForecast:
    """Work and cost of reading the clips."""

    n_new: int  # clips to decode
    n_kept: int  # clips that are already in the working folder
    n_sampled: int = 0  # clips that were read for the measurement
    seconds: float = 0.0  # time for all new clips
    n_bytes: float = 0.0  # size of the new clips in the working folder
    worker_bytes: int = 0  # memory of each worker
    workers: int = 1


def forecast_reading(
    manifest: Manifest,
    settings: Settings,
    nets: Sequence[NetSettings],
    sizes: Mapping[str, float],
    n_kept: int = 0,
) -> ReadingForecast:
    """Time the reading of a few new clips; `sizes` are the new clips' file sizes by clip id."""
    if not sizes:
        return ReadingForecast(0, n_kept)
    extract, clips = settings.extract, {clip.clip_id: clip for clip in manifest.clips}
    with tempfile.TemporaryDirectory(prefix="mvemo-plan-") as temp:

        def read(ids: Sequence[str]) -> None:
            shutil.rmtree(temp)
            clip_media.ClipMedia(
                replace(manifest, clips=tuple(clips[i] for i in ids)),
                replace(settings, extract=replace(extract, workers=1)),
                Path(temp),
                plans=nets,
                descriptors=extract.descriptors,
                require_any=False,
            )

        n_sampled, seconds, share = time_sample(sizes, read)
        n_bytes = sum(path.stat().st_size for path in Path(temp).rglob("*") if path.is_file())
    worker_bytes = pool.worker_memory()
    pool.stop_workers()
    workers = min(extract.workers or pool.cores(), len(sizes))
    return ReadingForecast(
        n_new=len(sizes),
        n_kept=n_kept,
        n_sampled=n_sampled,
        seconds=seconds / workers,
        n_bytes=n_bytes * share,
        worker_bytes=worker_bytes,
        workers=workers,
    )


def n_windows(net: NetSettings, length: float | None, duration: float | None = None) -> float:
    """Return a net's work for a clip, in windows; the maximum if the length is unknown."""
    taken = registry.input_of(net)
    if length is None or not isinstance(taken, cards.AudioInput):
        return net.view.views
    length = length if duration is None else min(length, duration)
    count = len(window_starts(length, taken.seconds, net.view))
    return count * (min(length / taken.seconds, 1.0) if taken.mark_end else 1.0)


# --- whole runs


@dataclass(frozen=True)
class NetForecast:
    """Work and cost of one net."""

    name: str
    n_nets: int  # number of trainings; 0 if the protocol trains nothing
    n_trained: int  # trainings that are already finished
    n_new: int  # embeddings to compute, over all trainings
    n_kept: int  # embeddings that are already in the cache
    seconds: float  # upper bound, for training and embedding in one process
    training_bytes: int  # memory of the training, or of embedding if nothing is to be trained
    weight_bytes: int  # size of the weights on the disk


@dataclass(frozen=True)
class Forecast:
    """Work and cost of a run."""

    n_clips: int
    unreadable: Mapping[str, str]  # reasons by clip id
    reading: ReadingForecast
    nets: tuple[NetForecast, ...]  # in the order in which they run
    descriptors: tuple[str, ...]
    processes: int  # processes that share the trainings, or the clips of frozen nets
    place: str  # phrase for the device, after "nets run"
    work: Path  # working folder

    def text(self) -> str:
        """Return the forecast for the terminal."""
        reading = self.reading
        lines = [
            f"clips: {self.n_clips}; {reading.n_new} new to decode, "
            f"{reading.n_kept} already decoded"
        ]
        if self.unreadable:
            clip, reason = next(iter(self.unreadable.items()))
            n_bad = len(self.unreadable)
            lines.append(f"{n_bad} clips cannot be read; the first, {clip}: {reason}")
        rows = [("net", "to train", "trained", "to embed", "embedded", "at most")]
        for net in self.nets:
            trained = (str(net.n_nets - net.n_trained), str(net.n_trained))
            counts = (*(trained if net.n_nets else ("-", "-")), str(net.n_new), str(net.n_kept))
            rows.append((net.name, *counts, progress.duration_text(net.seconds / self.processes)))
        names = [*self.descriptors, *(net.name for net in self.nets)]
        lines += ["", *align_columns(rows), "", f"nets run {self.place}"]
        lines.append(f"features: {', '.join(names)}")
        if reading.n_sampled:
            lines.append(
                f"reading the clips: about {progress.duration_text(reading.seconds)} with "
                f"{reading.workers} workers (measured on {reading.n_sampled} clips)"
            )
        seconds = reading.seconds + sum(net.seconds for net in self.nets) / self.processes
        lines.append(f"time: about {progress.duration_text(seconds)} at most")
        return "\n".join([*lines, self._memory(), self._disk()])

    def _memory(self) -> str:
        largest = max((net.training_bytes for net in self.nets), default=0)
        memory = f"memory: about {size_text(process.peak_memory(os.getpid()) + largest)}"
        if self.processes > 1:
            memory += f" in each of {self.processes} processes"
        if self.reading.worker_bytes:
            in_worker = size_text(self.reading.worker_bytes)
            memory += f", and {in_worker} in each worker while clips are read"
        return memory

    def _disk(self) -> str:
        weights = sum(net.weight_bytes * (net.n_nets - net.n_trained) for net in self.nets)
        needed, taken = self.reading.n_bytes + weights, measure_work(self.work)
        place = self.work.absolute()
        free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
        disk = (
            f"disk: about {size_text(needed)} more in {self.work}, which takes "
            f"{size_text(taken.decoded + taken.nets)} now ({size_text(free)} free)"
        )
        if needed > free:
            disk += ": too little space: give --work FOLDER on a larger disk"
        return disk


@dataclass(frozen=True)
class _Known:
    """Facts about the clips and earlier runs that decide what remains to be done."""

    content: Mapping[str, str]  # digests of the media by clip id
    nets: Path  # folder of trained nets
    cache: Cache | None = None  # existing features
    # Modalities known to be missing, and lengths in seconds, by clip id.
    missing: Mapping[str, Collection[str]] = field(default_factory=dict)
    lengths: Mapping[str, float | None] = field(default_factory=dict)
    threads: int = 0  # number of threads that a net will have; see `measure_net`


def forecast_run(
    plan: ExtractPlan, work: Path, out: Path, execution: backends.Execution
) -> Forecast:
    """Forecast a run from kept results, a few timed clips, and one timed pass of each net."""
    # This comes first, so that a scheduler that does not answer is reported at once.
    processes = _n_processes(plan, execution)
    manifest, settings = plan.manifest, plan.settings
    digests = media_files.digest_media(manifest)
    decodable = clip_media.decode_jobs(manifest, digests)
    names = settings.extract.descriptors
    described = names or any(
        isinstance(registry.input_of(net), cards.SequenceInput) for net in plan.nets
    )
    request = clip_media.decode_request(plan.nets, [settings.descriptors.sr] if described else [])
    store = DecodedStore(work / "decoded", request)
    if not decodable:
        raise BadOption(f"no clip can be read: {next(iter(digests.unreadable.values()))}")
    found = stored_problems(store, decodable, retry_failed=settings.extract.retry_failed)
    new = {j.clip_id: j.path.stat().st_size + 1.0 for j in decodable if found[j.clip_id] is None}
    reading = forecast_reading(manifest, settings, plan.nets, new, len(decodable) - len(new))
    missing = dict.fromkeys(digests.unreadable, frozenset(request.modalities))
    missing |= {clip: frozenset(problems or ()) for clip, problems in found.items()}
    with messages.silenced():
        seconds = media_files.clip_lengths(manifest, lambda problem: None)
    known = _Known(
        digests.content,
        work / "nets",
        open_cache(out) if out.exists() else None,
        missing,
        seconds,
        backends.threads_of(execution.jobs),
    )
    try:
        nets = tuple(_forecast_net(plan, net, known) for net in plan.nets)
    finally:
        if known.cache is not None:
            known.cache.close()
    remark = "; times assume workers as fast as this machine" if execution.scheduler else ""
    return Forecast(
        n_clips=len(manifest),
        unreadable=digests.unreadable,
        reading=reading,
        nets=nets,
        descriptors=names,
        processes=processes,
        place=execution.place(settings.extract.run) + remark,
        work=work,
    )


def long_run_note(plan: ExtractPlan, work: Path, out: Path, execution: backends.Execution) -> str:
    """Return a note if a new run takes an hour or more on this CPU, otherwise ''."""
    run = plan.settings.extract.run
    # A continued run has no note: its progress shows the remaining time.
    begun = (work / "nets").exists() or out.exists()
    if devices.pick_device(run.device).type != "cpu" or begun or execution.scheduler:
        return ""
    parts = execution.shard.count if execution.shard else _n_processes(plan, execution)
    if sum(_most_windows(plan, net) for net in plan.nets) * SLOWEST / parts < LONG:
        return ""
    content = dict.fromkeys(plan.manifest.clip_ids, "")
    known = _Known(content, work / "nets", threads=backends.threads_of(execution.jobs))
    seconds = sum(_forecast_net(plan, net, known).seconds for net in plan.nets) / parts
    if seconds < LONG:
        return ""
    return (
        f"the nets take about {progress.duration_text(seconds)} at most {execution.place(run)}; "
        "run with --plan for details"
    )


def _n_processes(plan: ExtractPlan, execution: backends.Execution) -> int:
    """Return the number of concurrent processes, at most one per GPU and part of the work."""
    run, folds = plan.settings.extract.run, plan.evaluation.table.folds
    frozen = run.protocol == "frozen"
    n_parts = len(plan.manifest) if frozen else len(backends.trainings_of(plan.nets, run, folds))
    if execution.scheduler:
        with backends.connected(execution.scheduler) as client:
            n_workers = backends.check_workers(client, execution.scheduler, [])
        return max(min(n_workers, n_parts), 1)
    on_gpus = devices.pick_device(run.device).type == "cuda"
    return max(
        min(execution.jobs, n_parts, len(backends.visible_gpus()) if on_gpus else n_parts), 1
    )


def _most_windows(plan: ExtractPlan, net: NetSettings) -> int:
    """Return roughly the number of windows that a net reads in a new run."""
    n_clips, run = len(plan.manifest), plan.settings.extract.run
    if run.protocol == "frozen":
        return n_clips * net.view.views
    n_nets = len(backends.trainings_of([net], run, plan.evaluation.table.folds))
    n_passes = devices.PASSES * net.train.max_epochs(n_clips) + net.view.views
    return n_nets * n_clips * n_passes


def _forecast_net(plan: ExtractPlan, net: NetSettings, known: _Known) -> NetForecast:
    manifest, run, table = plan.manifest, plan.settings.extract.run, plan.evaluation.table
    content, modality = known.content, registry.NETS[net.name].modality
    usable = np.array([modality not in known.missing.get(c, ()) for c in manifest.clip_ids])
    clips = data.TrainingClips(manifest, content, usable, table.folds, table.splits)
    trained = protocols.known_nets(net, clips, run, known.nets)
    readable = [clip for clip, has in zip(manifest.clips, usable, strict=True) if has]
    n_kept = 0
    for spec in (each.spec for each in trained):
        if spec is not None and known.cache is not None:
            keys = {
                clip.clip_id: spec.key(content[clip.clip_id], clip.start, clip.duration)
                for clip in readable
            }
            n_kept += len(known.cache.current(spec, keys))
    n_new = len(readable) * len(trained) - n_kept
    to_train = [each.split for each in trained if each.split is not None and each.spec is None]
    cost = devices.NetCost(0.0, 0, 0)
    if n_new or to_train:
        descriptors = plan.settings.descriptors
        cost = devices.measure_net(net, run, descriptors, threads=known.threads)
    windows = [n_windows(net, known.lengths.get(c.clip_id), c.duration) for c in readable]
    seconds = n_new * cost.seconds * sum(windows) / max(len(windows), 1)
    for split in to_train:
        n_validation = int(split.validation.sum())
        seconds += cost.training_seconds(net, len(split.rows) - n_validation, n_validation)
    training_bytes = cost.training_bytes(net)
    if not to_train:
        device, batch = devices.pick_device(run.device), plan.settings.extract.embed_batch
        at_once = devices.windows_at_once(batch, device, registry.NETS[net.name])
        # Inference needs less memory: a layer's input is freed once its output exists.
        training_bytes = cost.weight_bytes + at_once * cost.window_bytes // 4
    n_nets = 0 if run.protocol == "frozen" else len(trained)
    return NetForecast(
        name=net.name,
        n_nets=n_nets,
        n_trained=n_nets - len(to_train),
        n_new=n_new,
        n_kept=n_kept,
        seconds=seconds,
        training_bytes=training_bytes,
        weight_bytes=cost.weight_bytes,
    )

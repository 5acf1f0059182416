"""Estimates of the work, time, memory and disk of a run of stage one, as ``--plan`` prints them."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.extract.nets import NETS, AudioInput, SequenceInput, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.store.decoded import DecodedStore, stored_problems
from mvemo.extract.store.folders import DecodeJob
from mvemo.extract.training.data import TrainingClips
from mvemo.extract.training.devices import pick_device, windows_at_once
from mvemo.extract.training.protocols import known_nets
from mvemo.extract.training.steps import n_epochs
from mvemo.extract.training.timing import PASSES, NetCost, measure_net
from mvemo.extract.views import window_starts
from mvemo.extract.workers.handle import peak_memory
from mvemo.extract.workers.pool import cores, stop_workers, worker_memory
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.clips.inputs import decode_jobs, decode_request, digest_media
from mvemo.pipeline.clips.lengths import clip_lengths
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.ahead import threads_of
from mvemo.pipeline.stage_one.cluster import count_workers
from mvemo.pipeline.stage_one.execution import Execution, trainings_of
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.stage_one.spread import visible_gpus
from mvemo.pipeline.stage_one.steps import place_of_nets
from mvemo.pipeline.work_folder import measure_work, size_text

# Number of clips that are read to measure the time, after one that is not measured.
N_SAMPLED = 3
# Seconds from which a run on a CPU is announced as long.
LONG = 3600.0
# Upper bound of the seconds for one window; runs that stay below `LONG` by it are not measured.
SLOWEST = 5.0


@dataclass(frozen=True)
class NetForecast:
    """Work and cost of one net."""

    name: str
    n_nets: int  # number of trainings; 0 if the protocol trains nothing
    n_trained: int  # trainings that are finished already
    n_new: int  # embeddings to compute, over all trainings
    n_kept: int  # embeddings in the cache
    seconds: float  # at most, for training and embedding in one process
    training_bytes: int  # memory of the training, or of embedding if nothing is to be trained
    weight_bytes: int  # size of the weights on the disk


@dataclass(frozen=True)
class ReadingForecast:
    """Work and cost of reading the clips."""

    n_new: int  # clips to decode
    n_kept: int  # clips in the working folder
    n_sampled: int = 0  # clips that were read to measure
    seconds: float = 0.0  # for all new clips
    n_bytes: float = 0.0  # size of the new clips in the working folder
    worker_bytes: int = 0  # memory of each worker
    workers: int = 1


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
    taken_bytes: int  # size of the working folder
    free_bytes: int  # free space on its disk
    own_bytes: int  # memory of this process

    @property
    def seconds(self) -> float:
        """Upper limit for the whole run."""
        return self.reading.seconds + sum(net.seconds for net in self.nets) / self.processes

    def text(self) -> str:
        """Return the forecast for the terminal."""
        reading = self.reading
        lines = [f"clips: {self.n_clips}; {reading.n_new} new to decode, {reading.n_kept} kept"]
        if self.unreadable:
            clip, reason = next(iter(self.unreadable.items()))
            lines.append(f"{len(self.unreadable)} cannot be read; the first, {clip}: {reason}")
        head = ("net", "to train", "trained", "to embed", "embedded", "at most")
        rows: list[tuple[str, ...]] = [head]
        for net in self.nets:
            trained = ("-", "-") if not net.n_nets else (net.n_nets - net.n_trained, net.n_trained)
            cells = (net.name, *trained, net.n_new, net.n_kept)
            at_most = duration_text(net.seconds / self.processes)
            rows.append((*map(str, cells), at_most))
        lines += ["", *align_columns(rows), "", f"nets run {self.place}"]
        names = [*self.descriptors, *(net.name for net in self.nets)]
        lines.append(f"features: {', '.join(names)}")
        if reading.n_sampled:
            lines.append(
                f"reading the clips: about {duration_text(reading.seconds)} with "
                f"{reading.workers} workers (measured on {reading.n_sampled} of them)"
            )
        lines.append(f"time: about {duration_text(self.seconds)} at most")
        lines.append(self._memory_and_disk())
        return "\n".join(lines)

    def _memory_and_disk(self) -> str:
        reading = self.reading
        largest = max((net.training_bytes for net in self.nets), default=0)
        memory = f"memory: about {size_text(self.own_bytes + largest)}"
        if self.processes > 1:
            memory += f" in each of {self.processes} processes"
        if reading.worker_bytes:
            memory += f", and {size_text(reading.worker_bytes)} in each worker while clips are read"
        weights = sum(net.weight_bytes * (net.n_nets - net.n_trained) for net in self.nets)
        needed = reading.n_bytes + weights
        disk = (
            f"disk: about {size_text(needed)} more in {self.work}, which takes "
            f"{size_text(self.taken_bytes)} now ({size_text(self.free_bytes)} free)"
        )
        if needed > self.free_bytes:
            disk += ": too little room; give --work FOLDER on a larger disk"
        return f"{memory}\n{disk}"


def forecast_run(plan: ExtractPlan, work: Path, out: Path, execution: Execution) -> Forecast:
    """Forecast a run from kept results, a few sampled clips and one timed pass of each net."""
    # First, so that a scheduler that does not answer is reported at once.
    processes = _n_processes(plan, execution)
    manifest, settings = plan.manifest, plan.settings
    digests = digest_media(manifest)
    jobs = decode_jobs(manifest, digests)
    names = settings.extract.descriptors
    described = names or any(isinstance(input_of(net), SequenceInput) for net in plan.nets)
    request = decode_request(plan.nets, [settings.descriptors.sr] if described else [])
    store = DecodedStore(work / "decoded", request)
    if not jobs:
        raise BadOption(f"not one clip can be read: {next(iter(digests.unreadable.values()))}")
    found = stored_problems(store, jobs, retry_failed=settings.extract.retry_failed)
    new = [job for job in jobs if found[job.clip_id] is None]
    reading = _read_samples(plan, new, len(jobs) - len(new))
    missing = dict.fromkeys(digests.unreadable, frozenset(request.modalities))
    missing |= {clip: frozenset(problems or ()) for clip, problems in found.items()}
    with silenced():
        lengths = clip_lengths(manifest, lambda problem: None)
    cache, threads = open_cache(out) if out.exists() else None, threads_of(execution.jobs)
    try:
        nets = tuple(
            _net_forecast(
                plan, net, digests.content, missing, (work / "nets", cache), lengths, threads
            )
            for net in plan.nets
        )
    finally:
        if cache is not None:
            cache.close()
    run, taken = settings.extract.run, measure_work(work)
    remark = "; times are as if each were this machine" if execution.scheduler else ""
    disk = next(folder for folder in (work.absolute(), *work.absolute().parents) if folder.exists())
    return Forecast(
        n_clips=len(manifest),
        unreadable=digests.unreadable,
        reading=reading,
        nets=nets,
        descriptors=names,
        processes=processes,
        place=place_of_nets(run, execution) + remark,
        work=work,
        taken_bytes=taken.decoded + taken.nets,
        free_bytes=shutil.disk_usage(disk).free,
        own_bytes=peak_memory(os.getpid()),
    )


def long_run_note(plan: ExtractPlan, work: Path, out: Path, execution: Execution) -> str:
    """Return a note on a new run that takes an hour or more on CPUs, or ''.

    The speed of a scheduler's workers is not known, so such a run has no note.
    """
    settings, manifest = plan.settings, plan.manifest
    run = settings.extract.run
    # A continued run shows its remaining time as it goes.
    begun = (work / "nets").exists() or out.exists()
    if pick_device(run.device).type != "cpu" or begun or execution.scheduler:
        return ""
    parts = execution.shard.count if execution.shard else _n_processes(plan, execution)
    n_windows = sum(_most_windows(plan, net) for net in plan.nets)
    if n_windows * SLOWEST / parts < LONG:
        return ""
    content = dict.fromkeys(manifest.clip_ids, "")
    found, threads = (work / "nets", None), threads_of(execution.jobs)
    nets = [_net_forecast(plan, net, content, {}, found, {}, threads) for net in plan.nets]
    seconds = sum(net.seconds for net in nets) / parts
    if seconds < LONG:
        return ""
    place = place_of_nets(run, execution)
    return f"the nets take about {duration_text(seconds)} at most {place}; --plan says more"


def _n_processes(plan: ExtractPlan, execution: Execution) -> int:
    """Return the number of concurrent processes: at most one per GPU and per part of the work."""
    run, folds = plan.settings.extract.run, plan.evaluation.table.folds
    frozen = run.protocol == "frozen"
    n_parts = len(plan.manifest) if frozen else len(trainings_of(plan.nets, run, folds))
    if execution.scheduler:
        return max(min(count_workers(execution.scheduler), n_parts), 1)
    n_gpus = len(visible_gpus()) if pick_device(run.device).type == "cuda" else n_parts
    return max(min(execution.jobs, n_parts, n_gpus), 1)


def _most_windows(plan: ExtractPlan, net: NetSettings) -> int:
    """Return roughly how many windows a net reads in a new run."""
    n_clips, run = len(plan.manifest), plan.settings.extract.run
    if run.protocol == "frozen":
        return n_clips * net.view.views
    n_nets = len(trainings_of([net], run, plan.evaluation.table.folds))
    return n_nets * n_clips * (PASSES * n_epochs(net.train, n_clips) + net.view.views)


def _net_forecast(
    plan: ExtractPlan,
    net: NetSettings,
    content: Mapping[str, str],
    missing: Mapping[str, Collection[str]],
    found: tuple[Path, Cache | None],
    lengths: Mapping[str, float | None],
    threads: int,
) -> NetForecast:
    """Forecast the work of one net.

    `content` are the digests of the media and `missing` the modalities known to be missing, both
    by clip id; `found` is the folder of trained nets and the existing cache; `lengths` are in
    seconds; `threads` is passed to `measure_net`.
    """
    jobs, cache = found
    manifest, settings = plan.manifest, plan.settings
    run, table = settings.extract.run, plan.evaluation.table
    modality = NETS[net.name].modality
    usable = np.array([modality not in missing.get(clip, ()) for clip in manifest.clip_ids])
    clips = TrainingClips(manifest, content, usable, table.folds, table.splits)
    known = known_nets(net, clips, run, jobs)
    readable = [clip for clip, has in zip(manifest.clips, usable, strict=True) if has]
    n_kept = 0
    for spec in (each.spec for each in known):
        if spec is not None and cache is not None:
            keys = {
                clip.clip_id: spec.key(content[clip.clip_id], clip.start, clip.duration)
                for clip in readable
            }
            n_kept += len(cache.current(spec, keys))
    n_new = len(readable) * len(known) - n_kept
    to_train = [each.split for each in known if each.split is not None and each.spec is None]
    cost = NetCost(0.0, 0, 0)
    if n_new or to_train:
        cost = measure_net(net, run, settings.descriptors, threads=threads)
    windows = [_n_windows(net, lengths.get(clip.clip_id), clip.duration) for clip in readable]
    seconds = n_new * cost.seconds * sum(windows) / max(len(windows), 1)
    for split in to_train:
        n_validation = int(split.validation.sum())
        seconds += cost.training_seconds(net, len(split.rows) - n_validation, n_validation)
    n_nets = 0 if run.protocol == "frozen" else len(known)
    return NetForecast(
        name=net.name,
        n_nets=n_nets,
        n_trained=n_nets - len(to_train),
        n_new=n_new,
        n_kept=n_kept,
        seconds=seconds,
        training_bytes=_bytes_of(net, cost, trained=bool(to_train), settings=settings),
        weight_bytes=cost.weight_bytes,
    )


def _n_windows(net: NetSettings, length: float | None, duration: float | None) -> float:
    """Return a net's work for a clip, in whole windows; the maximum for an unknown length."""
    taken = input_of(net)
    if length is None or not isinstance(taken, AudioInput):
        return net.view.views
    length = length if duration is None else min(length, duration)
    count = len(window_starts(length, taken.seconds, net.view))
    return count * (min(length / taken.seconds, 1.0) if taken.mark_end else 1.0)


def _bytes_of(net: NetSettings, cost: NetCost, *, trained: bool, settings: Settings) -> int:
    if trained:
        return cost.training_bytes(net)
    extract = settings.extract
    device = pick_device(extract.run.device)
    at_once = windows_at_once(extract.embed_batch, device, NETS[net.name])
    # Inference frees the input of a layer as soon as its output exists.
    return cost.weight_bytes + at_once * cost.window_bytes // 4


def _read_samples(plan: ExtractPlan, new: Sequence[DecodeJob], n_kept: int) -> ReadingForecast:
    """Measure the reading of a few new clips of small to large files, in a temporary folder."""
    if not new:
        return ReadingForecast(0, n_kept)
    by_size = sorted(new, key=lambda job: job.path.stat().st_size)
    places = np.linspace(0, len(by_size) - 1, min(N_SAMPLED, len(by_size)) + 2)[1:-1]
    chosen = [by_size[round(place)] for place in places] if len(by_size) > 2 else by_size
    sampled = {job.clip_id: job for job in chosen}
    settings = replace(plan.settings, extract=replace(plan.settings.extract, workers=1))
    with silenced(), tempfile.TemporaryDirectory(prefix="mvemo-plan-") as temp:
        clips = {clip.clip_id: clip for clip in plan.manifest.clips}

        def read(ids: Sequence[str], folder: Path) -> None:
            part = replace(plan.manifest, clips=tuple(clips[i] for i in ids))
            ClipMedia(
                part,
                settings,
                folder,
                plans=plan.nets,
                descriptors=settings.extract.descriptors,
                require_any=False,
            )

        ids = list(sampled)
        # The start-up cost of a worker is not measured.
        read(ids[:1], Path(temp) / "first")
        start = time.perf_counter()
        read(ids, Path(temp) / "second")
        seconds = time.perf_counter() - start
        files = [path for path in (Path(temp) / "second").rglob("*") if path.is_file()]
        n_bytes = sum(path.stat().st_size for path in files)
    worker_bytes = worker_memory()
    stop_workers()
    workers = min(plan.settings.extract.workers or cores(), len(new))
    share = len(new) / len(ids)
    return ReadingForecast(
        n_new=len(new),
        n_kept=n_kept,
        n_sampled=len(ids),
        seconds=seconds * share / workers,
        n_bytes=n_bytes * share,
        worker_bytes=worker_bytes,
        workers=workers,
    )

"""Estimates of the work, time, memory and disk space of a run of stage one, for ``--plan``.

The time is measured on a few clips and on one pass of each net, and extrapolated.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.extract.nets.parts import cards, registry
from mvemo.extract.settings import NetSettings
from mvemo.extract.store.decoded import DecodedStore, stored_problems
from mvemo.extract.training import data, devices, protocols
from mvemo.extract.workers import pool, process
from mvemo.manifests import Manifest
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.clips import clip_media, media_files
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, steps
from mvemo.pipeline.stage_one import plan as planning
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
    """Cost of reading the clips."""

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
) -> ReadingForecast:
    """Time the reading of a few new clips; `sizes` are the new clips' file sizes by clip id."""
    if not sizes:
        return ReadingForecast()
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
    return ReadingForecast(n_sampled, seconds / workers, n_bytes * share, worker_bytes, workers)


# --- whole runs


@dataclass(frozen=True)
class NetForecast:
    """Work and cost of one net."""

    name: str
    # Numbers of trainings that are to be done and that are done ("-" if the protocol trains
    # nothing), of embeddings to compute over all trainings, and of those in the cache.
    counts: tuple[object, ...]
    seconds: float  # upper bound, for training and embedding in one process
    training_bytes: int  # memory of the training, or of embedding if nothing is to be trained
    weight_bytes: int  # size on the disk of the weights to be trained


@dataclass(frozen=True)
class _Known:
    """Facts about the clips and earlier runs that decide what remains to be done."""

    content: Mapping[str, str]  # digests of the media by clip id
    cache: Cache | None = None  # existing features
    # Modalities known to be missing, and lengths in seconds, by clip id.
    missing: Mapping[str, Collection[str]] = field(default_factory=dict)
    lengths: Mapping[str, float | None] = field(default_factory=dict)


def forecast_run(plan: planning.ExtractPlan) -> str:
    """Forecast a run from kept results, a few timed clips, and one timed pass of each net."""
    # This comes first, so that a scheduler that does not answer is reported at once.
    processes = _n_processes(plan)
    manifest, settings, out = plan.manifest, plan.settings, plan.out
    digests = media_files.digest_media(manifest)
    decodable = clip_media.decode_jobs(manifest, digests)
    described = settings.extract.descriptors or any(
        isinstance(registry.input_of(net), cards.SequenceInput) for net in plan.nets
    )
    rates = [settings.descriptors.sr] if described else []
    request = clip_media.decode_request(plan.nets, rates, settings.descriptors.level)
    store = DecodedStore(plan.work / "decoded", request)
    if not decodable:
        raise BadOption(f"no clip can be read: {next(iter(digests.unreadable.values()))}")
    found = stored_problems(store, decodable, retry_failed=settings.extract.retry_failed)
    new = {j.clip_id: j.path.stat().st_size + 1.0 for j in decodable if found[j.clip_id] is None}
    n_kept = len(decodable) - len(new)
    reading = forecast_reading(manifest, settings, plan.nets, new)
    missing = dict.fromkeys(digests.unreadable, frozenset(request.modalities))
    missing |= {clip: frozenset(problems or ()) for clip, problems in found.items()}
    with messages.silenced():
        seconds = media_files.clip_lengths(manifest, lambda problem: None)
    with open_cache(out) if out.exists() else nullcontext() as cache:
        known = _Known(digests.content, cache, missing, seconds)
        nets = [_forecast_net(plan, net, known) for net in plan.nets]
    lines = [f"clips: {len(manifest)}; {len(new)} new to decode, {n_kept} already decoded"]
    if digests.unreadable:
        clip, reason = next(iter(digests.unreadable.items()))
        n_bad = len(digests.unreadable)
        lines.append(f"{n_bad} clips cannot be read; the first, {clip}: {reason}")
    return "\n".join([*lines, *_cost_lines(plan, reading, nets, processes)])


def _cost_lines(
    plan: planning.ExtractPlan,
    reading: ReadingForecast,
    nets: Sequence[NetForecast],
    processes: int,
) -> list[str]:
    """Return the table of nets, and lines on time, memory and disk space."""
    settings, work = plan.settings, plan.work
    rows = [["net", "to train", "trained", "to embed", "embedded", "at most"]]
    for net in nets:
        duration = progress.duration_text(net.seconds / processes)
        rows.append([net.name, *map(str, net.counts), duration])
    names = [*settings.extract.descriptors, *(net.name for net in nets)]
    remark = "; times assume workers as fast as this machine" if plan.execution.scheduler else ""
    place = plan.execution.place(settings.extract.run) + remark
    lines = ["", *align_columns(rows), "", f"nets run {place}", f"features: {', '.join(names)}"]
    if reading.n_sampled:
        lines.append(
            f"reading the clips: about {progress.duration_text(reading.seconds)} with "
            f"{reading.workers} workers (measured on {reading.n_sampled} clips)"
        )
    seconds = reading.seconds + sum(net.seconds for net in nets) / processes
    largest = max((net.training_bytes for net in nets), default=0)
    memory = f"memory: about {size_text(process.peak_memory(os.getpid()) + largest)}"
    if processes > 1:
        memory += f" in each of {processes} processes"
    if reading.worker_bytes:
        in_worker = size_text(reading.worker_bytes)
        memory += f", and {in_worker} in each worker while clips are read"
    needed = reading.n_bytes + sum(net.weight_bytes for net in nets)
    taken = measure_work(work)
    absolute = work.absolute()
    free = shutil.disk_usage(next(p for p in (absolute, *absolute.parents) if p.exists())).free
    disk = (
        f"disk: about {size_text(needed)} more in {work}, which takes "
        f"{size_text(taken.decoded + taken.nets)} now ({size_text(free)} free)"
    )
    if needed > free:
        disk += ": too little space: give --work FOLDER on a larger disk"
    return [*lines, f"time: about {progress.duration_text(seconds)} at most", memory, disk]


def long_run_note(plan: planning.ExtractPlan) -> str:
    """Return a note if a new run takes an hour or more on this CPU, otherwise ''."""
    run, execution = plan.settings.extract.run, plan.execution
    # A continued run has no note: its progress shows the remaining time.
    begun = (plan.work / "nets").exists() or plan.out.exists()
    if devices.pick_device(run.device).type != "cpu" or begun or execution.scheduler:
        return ""
    parts = execution.shard.count if execution.shard else _n_processes(plan)
    if sum(_most_seconds(plan, net) for net in plan.nets) / parts < LONG:
        return ""
    known = _Known(dict.fromkeys(plan.manifest.clip_ids, ""))
    seconds = sum(_forecast_net(plan, net, known).seconds for net in plan.nets) / parts
    if seconds < LONG:
        return ""
    return (
        f"the nets take about {progress.duration_text(seconds)} at most {execution.place(run)}; "
        "run with --plan for details"
    )


def _n_processes(plan: planning.ExtractPlan) -> int:
    """Return the number of concurrent processes, at most one per GPU and part of the work."""
    run, folds, execution = plan.settings.extract.run, plan.evaluation.table.folds, plan.execution
    frozen = run.protocol == "frozen"
    n_parts = len(plan.manifest) if frozen else len(backends.trainings_of(plan.nets, run, folds))
    most = execution.jobs
    if execution.scheduler:
        with backends.connected(execution.scheduler) as client:
            most = backends.check_workers(client, execution.scheduler, [])
    elif devices.pick_device(run.device).type == "cuda":
        most = min(most, len(backends.visible_gpus()))
    return max(min(most, n_parts), 1)


def _most_seconds(plan: planning.ExtractPlan, net: NetSettings) -> float:
    """Return the time of a net in a new run if a window takes `SLOWEST`."""
    n_clips, run = len(plan.manifest), plan.settings.extract.run
    embedding = n_clips * net.view.views * SLOWEST
    if run.protocol == "frozen":
        return embedding
    training = devices.NetCost(SLOWEST, 0, 0).training_seconds(net, n_clips, 0)
    n_nets = len(backends.trainings_of([net], run, plan.evaluation.table.folds))
    return n_nets * (training + embedding)


def _forecast_net(plan: planning.ExtractPlan, net: NetSettings, known: _Known) -> NetForecast:
    manifest, extract, table = plan.manifest, plan.settings.extract, plan.evaluation.table
    content, modality = known.content, registry.NETS[net.name].modality
    usable = np.array([modality not in known.missing.get(c, ()) for c in manifest.clip_ids])
    clips = data.TrainingClips(manifest, content, usable, table.folds, table.splits)
    trained = protocols.known_nets(net, clips, extract.run, plan.work / "nets")
    readable = [clip for clip, has in zip(manifest.clips, usable, strict=True) if has]
    n_kept = 0
    for spec in (each.spec for each in trained):
        if spec is not None and known.cache is not None:
            n_kept += len(known.cache.current(spec, steps.row_keys(spec, readable, content)))
    n_new = len(readable) * len(trained) - n_kept
    to_train = [each.split for each in trained if each.split is not None and each.spec is None]
    cost = devices.NetCost(0.0, 0, 0)
    if n_new or to_train:
        threads = backends.threads_of(plan.execution.jobs)
        cost = devices.measure_net(net, extract.run, plan.settings.descriptors, threads=threads)
    windows = [
        devices.clip_windows(net, known.lengths.get(c.clip_id), c.duration) for c in readable
    ]
    seconds = n_new * cost.seconds * sum(windows) / max(len(windows), 1)
    for split in to_train:
        n_validation = int(split.validation.sum())
        seconds += cost.training_seconds(net, len(split.rows) - n_validation, n_validation)
    training_bytes = cost.training_bytes(net)
    if not to_train:
        device, batch = devices.pick_device(extract.run.device), extract.embed_batch
        at_once = devices.windows_at_once(batch, device, registry.NETS[net.name])
        # Each thread of a CPU embeds windows. Inference needs less memory: a layer's input is
        # freed once its output exists.
        n_threads = devices.embedding_threads(device, backends.threads_of(plan.execution.jobs))
        training_bytes = cost.weight_bytes + n_threads * at_once * cost.window_bytes // 4
    trainings = (len(to_train), len(trained) - len(to_train))
    counts = ("-", "-") if extract.run.protocol == "frozen" else trainings
    weight_bytes = cost.weight_bytes * len(to_train)
    return NetForecast(net.name, (*counts, n_new, n_kept), seconds, training_bytes, weight_bytes)

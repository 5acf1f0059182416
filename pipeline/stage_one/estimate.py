"""Forecast of the work, time, memory and disk space of a run of stage one, for ``--plan``."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.extract import cost
from mvemo.extract.nets.parts import registry
from mvemo.extract.settings import NetSettings
from mvemo.extract.store import decoded
from mvemo.extract.training import data, devices, protocols
from mvemo.extract.workers import pool, process
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.clips import clip_media, media_files
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.stage_one import backends, division, steps
from mvemo.pipeline.stage_one import plan as planning
from mvemo.pipeline.work_folder import measure_work, size_text

# Minimum duration in seconds of a run on a CPU for which a note is printed.
LONG = 3600.0
# Upper bound of the cost of a window: if a run takes less than `LONG` at it, nothing is timed.
SLOWEST = cost.NetCost(5.0)


@dataclass(frozen=True)
class _NetForecast:
    """Work and cost of one net."""

    # Numbers of trainings to do and of finished ones ("-" if the protocol trains nothing), of
    # embeddings to compute over all trainings, and of embeddings in the cache.
    counts: tuple[object, ...]
    seconds: float  # upper bound, for training and embedding in one process
    n_bytes: int  # memory of the training, or of embedding if nothing is to be trained
    weight_bytes: int  # size on the disk of the weights to be trained


def forecast_run(request: division.ExtractRequest) -> str:
    """Forecast a run from existing results, a few timed clips, and a timed pass of each net."""
    return _forecast(planning.plan_extract(replace(request, fetch=False, force=False)))


def _forecast(plan: planning.ExtractPlan) -> str:
    # This comes first, so that a scheduler that does not answer is reported at once.
    processes = _n_processes(plan)
    manifest, settings = plan.manifest, plan.settings
    extract = settings.extract
    with messages.silenced():
        digests = media_files.digest_media(manifest)
    jobs = clip_media.decode_jobs(manifest, digests)
    if not jobs:
        raise BadOption(f"no clip can be read: {next(iter(digests.unreadable.values()))}")
    request, names = clip_media.media_request(plan.nets, extract.descriptors, settings.descriptors)
    store = decoded.DecodedStore(plan.work / "decoded", request)
    found = decoded.stored_problems(store, jobs, retry_failed=extract.retry_failed)
    new = [job for job in jobs if found[job.clip_id] is None]
    reading = cost.measure_reading(new, request, names, settings.descriptors, extract.decoding)
    missing = dict.fromkeys(digests.unreadable, frozenset(request.modalities))
    missing |= {clip: frozenset(problems or ()) for clip, problems in found.items()}
    with messages.silenced():
        lengths = media_files.clip_lengths(manifest, lambda problem: None)
    nets = {}
    with open_cache(plan.request.out) if plan.request.out.exists() else nullcontext() as cache:
        for net in plan.nets:
            modality = registry.NETS[net.name].modality
            usable = np.array([modality not in missing.get(c, ()) for c in manifest.clip_ids])
            table, content = plan.table, digests.content
            clips = data.TrainingClips(manifest, content, usable, table.folds, table.splits)
            nets[net.name] = _forecast_net(plan, net, clips, cache, lengths)
    n_new = len(new)
    lines = [f"clips: {len(manifest)}; {n_new} new to decode, {len(jobs) - n_new} already decoded"]
    for clip, reason in list(digests.unreadable.items())[:1]:
        n_bad = len(digests.unreadable)
        lines.append(f"{n_bad} clips cannot be read; the first, {clip}: {reason}")
    workers = min(extract.workers or pool.cores(), max(n_new, 1))
    return "\n".join([*lines, "", *_cost_lines(plan, reading, nets, processes, workers)])


def _cost_lines(
    plan: planning.ExtractPlan,
    reading: cost.ReadingCost,
    nets: Mapping[str, _NetForecast],
    processes: int,
    workers: int,
) -> list[str]:
    """Return the table of nets, and lines on time, memory and disk space."""
    settings, work = plan.settings, plan.work
    rows = [["net", "to train", "trained", "to embed", "embedded", "at most"]]
    for name, net in nets.items():
        duration = progress.duration_text(net.seconds / processes)
        rows.append([name, *map(str, net.counts), duration])
    remark = "; times assume workers as fast as this machine" if plan.request.scheduler else ""
    features = ", ".join([*settings.extract.descriptors, *nets])
    place = f"nets run {plan.place()}{remark}"
    lines = [*align_columns(rows), "", place, f"features: {features}"]
    if reading.n_sampled:
        lines.append(
            f"reading the clips: about {progress.duration_text(reading.seconds / workers)} with "
            f"{workers} workers (measured on {reading.n_sampled} clips)"
        )
    seconds = reading.seconds / workers + sum(net.seconds for net in nets.values()) / processes
    largest = max((net.n_bytes for net in nets.values()), default=0)
    memory = f"memory: about {size_text(process.peak_memory(os.getpid()) + largest)}"
    if processes > 1:
        memory += f" in each of {processes} processes"
    if reading.worker_bytes:
        in_worker = size_text(reading.worker_bytes)
        memory += f", and {in_worker} in each worker while clips are read"
    needed = reading.n_bytes + sum(net.weight_bytes for net in nets.values())
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


def _forecast_net(
    plan: planning.ExtractPlan,
    net: NetSettings,
    clips: data.TrainingClips,
    cache: Cache | None,
    lengths: Mapping[str, float | None],
) -> _NetForecast:
    extract = plan.settings.extract
    trained = protocols.known_nets(net, clips, plan.run, plan.work / "nets")
    readable = [plan.manifest.clips[row] for row in np.flatnonzero(clips.usable)]
    n_kept = 0
    for spec in (each.spec for each in trained):
        if spec is not None and cache is not None:
            n_kept += len(cache.current(spec, steps.row_keys(spec, readable, clips.content)))
    n_new = len(readable) * len(trained) - n_kept
    to_train = [each.split for each in trained if each.split is not None and each.spec is None]
    of_window = _measured(plan, net) if n_new or to_train else cost.NetCost()
    windows = [cost.clip_windows(net, lengths.get(c.clip_id), c.duration) for c in readable]
    seconds = n_new * of_window.seconds * sum(windows) / max(len(windows), 1)
    for split in to_train:
        seconds += of_window.training_seconds(net, len(split.train_rows), len(split.val_rows))
    n_bytes = of_window.training_bytes(net)
    if not to_train:
        device = devices.pick_device(plan.run.device)
        n_bytes = of_window.embedding_bytes(net, extract.embed_batch, device, plan.threads)
    trainings: tuple[object, ...] = (len(to_train), len(trained) - len(to_train))
    counts = ("-", "-") if plan.run.protocol == "frozen" else trainings
    weight_bytes = of_window.weight_bytes * len(to_train)
    return _NetForecast((*counts, n_new, n_kept), seconds, n_bytes, weight_bytes)


def long_run_note(plan: planning.ExtractPlan) -> str:
    """Return a note if a new run takes an hour or more on this CPU, otherwise ''."""
    request = plan.request
    # A continued run needs no note, because its progress shows the remaining time.
    begun = (plan.work / "nets").exists() or plan.request.out.exists()
    if devices.pick_device(plan.run.device).type != "cpu" or begun or request.scheduler:
        return ""
    parts = request.shard.count if request.shard else _n_processes(plan)
    if _most_seconds(plan, [SLOWEST] * len(plan.nets)) / parts < LONG:
        return ""
    seconds = _most_seconds(plan, [_measured(plan, net) for net in plan.nets]) / parts
    if seconds < LONG:
        return ""
    return (
        f"the nets take about {progress.duration_text(seconds)} at most {plan.place()}; "
        "run with --plan for details"
    )


def _most_seconds(plan: planning.ExtractPlan, of_windows: Sequence[cost.NetCost]) -> float:
    """Return the time of all nets in a new run, if each trains on all clips."""
    seconds, n_clips = 0.0, len(plan.manifest)
    for net, of_window in zip(plan.nets, of_windows, strict=True):
        n_trainings = sum(name == net.name for name, _ in plan.trainings)
        seconds += max(n_trainings, 1) * n_clips * net.view.views * of_window.seconds
        seconds += n_trainings * of_window.training_seconds(net, n_clips, 0)
    return seconds


def _measured(plan: planning.ExtractPlan, net: NetSettings) -> cost.NetCost:
    return cost.measure_net(net, plan.run, plan.settings.descriptors, threads=plan.threads)


def _n_processes(plan: planning.ExtractPlan) -> int:
    """Return the number of concurrent processes, at most one per GPU and part of the work."""
    request = plan.request
    n_parts = len(plan.manifest) if plan.run.protocol == "frozen" else len(plan.trainings)
    most = request.jobs
    if request.scheduler:
        with backends.connected(request.scheduler) as client:
            most = backends.check_workers(client, request.scheduler, [])
    elif devices.pick_device(plan.run.device).type == "cuda":
        most = min(most, len(backends.visible_gpus()))
    return max(min(most, n_parts), 1)

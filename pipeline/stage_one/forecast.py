"""What a run of stage one will do, and what it will cost: ``mvemo extract --plan``."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.extract.nets import NETS, SequenceInput, input_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.store.decoded import DecodedStore, stored_problems
from mvemo.extract.store.folders import DecodeJob
from mvemo.extract.training.devices import describe_device, pick_device, windows_at_once
from mvemo.extract.training.jobs import n_epochs
from mvemo.extract.training.protocols import known_nets
from mvemo.extract.training.splits import TrainingClips
from mvemo.extract.training.timing import PASSES, NetCost, measure_net
from mvemo.extract.workers.pool import cores, stop_workers
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.clips.inputs import decode_jobs, decode_request, digest_media
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.execution import trainings_of
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.work_folder import measure_work, size_text

# Clips that are read to see how long it takes, and one more before them.
N_SAMPLED = 3
# Seconds from which a run on a processor is told of before it begins, and what no net takes
# longer for than for a window: of fewer windows nothing is measured.
LONG = 3600.0
SLOWEST = 5.0


@dataclass(frozen=True)
class NetForecast:
    """What is done with one net.

    Parameters
    ----------
    name
        Of the net.
    n_nets, n_trained
        How many there will be, and how many of them are trained already; both 0 where none
        is trained.
    n_new, n_kept
        Embeddings to compute, over all nets, and such as are in the cache.
    seconds
        Of training and embedding, at most.
    training_bytes, weight_bytes
        Memory of the training, or of the net alone; and its weights on the disk.
    """

    name: str
    n_nets: int
    n_trained: int
    n_new: int
    n_kept: int
    seconds: float
    training_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class ReadingForecast:
    """What reading the clips takes.

    Parameters
    ----------
    n_new, n_kept
        Clips to decode, and such as are in the working folder.
    n_sampled
        Of how many `seconds` is known.
    seconds
        Of all new ones.
    n_bytes
        That they leave in the working folder.
    worker_bytes
        Memory of a worker.
    workers
        How many read at a time.
    """

    n_new: int
    n_kept: int
    n_sampled: int = 0
    seconds: float = 0.0
    n_bytes: float = 0.0
    worker_bytes: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Forecast:
    """What a run will do.

    Parameters
    ----------
    n_clips
        Of the manifest.
    unreadable
        Why files cannot be read, by clip.
    reading
        Of clips.
    nets
        In the order in which they run.
    descriptors
        That are written.
    device
        In words.
    work, taken_bytes, free_bytes
        Working folder, what it takes now, and the room on its disk.
    own_bytes
        Memory that this process has taken.
    """

    n_clips: int
    unreadable: Mapping[str, str]
    reading: ReadingForecast
    nets: tuple[NetForecast, ...]
    descriptors: tuple[str, ...]
    device: str
    work: Path
    taken_bytes: int
    free_bytes: int
    own_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run, at most."""
        return self.reading.seconds + sum(net.seconds for net in self.nets)

    def text(self) -> str:
        """For the terminal."""
        reading = self.reading
        lines = [f"clips: {self.n_clips}; {reading.n_new} new to decode, {reading.n_kept} kept"]
        if self.unreadable:
            clip, reason = next(iter(self.unreadable.items()))
            lines.append(f"{len(self.unreadable)} cannot be read; the first, {clip}: {reason}")
        head = ("net", "to train", "trained", "to embed", "embedded", "at most")
        rows: list[tuple[str, ...]] = [head]
        for net in self.nets:
            trained = ("-", "-") if not net.n_nets else (net.n_nets - net.n_trained, net.n_trained)
            cells = (net.name, *trained, net.n_new, net.n_kept, duration_text(net.seconds))
            rows.append(tuple(map(str, cells)))
        lines += ["", *align_columns(rows), "", f"nets run on {self.device}"]
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


def forecast_run(plan: ExtractPlan, work: Path, out: Path) -> Forecast:
    """Look at what is there, read a few clips, and time a pass of each net.

    Parameters
    ----------
    plan
        Of the run.
    work, out
        As of `mvemo.pipeline.stage_one.run.run_extract`.
    """
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
    cache = open_cache(out) if out.exists() else None
    try:
        nets = tuple(
            _net_forecast(plan, net, digests.content, missing, (work / "nets", cache))
            for net in plan.nets
        )
    finally:
        if cache is not None:
            cache.close()
    run, taken = settings.extract.run, measure_work(work)
    place = next(
        folder for folder in (work.absolute(), *work.absolute().parents) if folder.exists()
    )
    return Forecast(
        n_clips=len(manifest),
        unreadable=digests.unreadable,
        reading=reading,
        nets=nets,
        descriptors=names,
        device=describe_device(pick_device(run.device), run.precision),
        work=work,
        taken_bytes=taken.decoded + taken.nets,
        free_bytes=shutil.disk_usage(place).free,
        own_bytes=_peak_memory("RUSAGE_SELF"),
    )


def long_run_note(plan: ExtractPlan, work: Path, out: Path) -> str:
    """A note on a run of an hour or more on a processor that begins afresh; empty for others."""
    settings, manifest = plan.settings, plan.manifest
    run = settings.extract.run
    # Of a run that goes on, what is left is told as it goes.
    if pick_device(run.device).type != "cpu" or (work / "nets").exists() or out.exists():
        return ""
    n_windows = sum(_most_windows(plan, net) for net in plan.nets)
    if n_windows * SLOWEST < LONG:
        return ""
    content = dict.fromkeys(manifest.clip_ids, "")
    nets = [_net_forecast(plan, net, content, {}, (work / "nets", None)) for net in plan.nets]
    seconds = sum(net.seconds for net in nets)
    if seconds < LONG:
        return ""
    device = describe_device(pick_device(run.device), run.precision)
    return f"the nets take about {duration_text(seconds)} at most on {device}; --plan says more"


def _most_windows(plan: ExtractPlan, net: NetSettings) -> int:
    """About how many windows a net reads in a run that begins afresh."""
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
) -> NetForecast:
    """What one net does.

    Parameters
    ----------
    plan, net
        Of the run.
    content
        Clip id to the digest of its file.
    missing
        Clip id to the modalities that it is known to lack.
    found
        Folder of trained nets, and the cache that is there.
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
        cost = measure_net(net, run, settings.descriptors)
    seconds = n_new * net.view.views * cost.seconds
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


def _bytes_of(net: NetSettings, cost: NetCost, *, trained: bool, settings: Settings) -> int:
    if trained:
        return cost.training_bytes(net)
    extract = settings.extract
    device = pick_device(extract.run.device)
    at_once = windows_at_once(extract.embed_batch, device, NETS[net.name])
    # A layer's input goes when its output is there.
    return cost.weight_bytes + at_once * cost.window_bytes // 4


def _read_samples(plan: ExtractPlan, new: Sequence[DecodeJob], n_kept: int) -> ReadingForecast:
    """Read a few of the new clips, of small, middle and large files, in a folder that goes."""
    if not new:
        return ReadingForecast(0, n_kept)
    by_size = sorted(new, key=lambda job: job.path.stat().st_size)
    places = np.linspace(0, len(by_size) - 1, min(N_SAMPLED, len(by_size)) + 2)[1:-1]
    chosen = [by_size[round(place)] for place in places] if len(by_size) > 2 else by_size
    sampled = {job.clip_id: job for job in chosen}
    settings = replace(plan.settings, extract=replace(plan.settings.extract, workers=1))
    before = _peak_memory("RUSAGE_CHILDREN")
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
        # What the first clip of a worker takes longer for is not measured.
        read(ids[:1], Path(temp) / "first")
        start = time.perf_counter()
        read(ids, Path(temp) / "second")
        seconds = time.perf_counter() - start
        files = [path for path in (Path(temp) / "second").rglob("*") if path.is_file()]
        n_bytes = sum(path.stat().st_size for path in files)
    # Their memory is known when they have ended.
    stop_workers()
    workers = min(plan.settings.extract.workers or cores(), len(new))
    share = len(new) / len(ids)
    return ReadingForecast(
        n_new=len(new),
        n_kept=n_kept,
        n_sampled=len(ids),
        seconds=seconds * share / workers,
        n_bytes=n_bytes * share,
        worker_bytes=max(_peak_memory("RUSAGE_CHILDREN"), before),
        workers=workers,
    )


def _peak_memory(who: str) -> int:
    """Bytes that this process, or the largest of those it waited for, has taken; 0 if unknown."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(getattr(resource, who)).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""Plan of a run of stage one: all checks, downloads and choices that come before the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvemo.cache.table import ClipTable, subset
from mvemo.extract import NetSettings, RunSettings, WeightReport, cost
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.training import devices, losses, protocols
from mvemo.manifests import Folds, Manifest
from mvemo.manifests.errors import BadOption
from mvemo.manifests.labels import UNLABELLED
from mvemo.pipeline import starting_weights
from mvemo.pipeline.clips import clip_tables, media_files
from mvemo.pipeline.console.messages import tell, tell_note, tell_notes
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, division, shards

PRECISION_FILE = "precision.json"


@dataclass(frozen=True)
class ExtractPlan:
    """Checked inputs of a run of stage one, or of a part of it."""

    request: division.ExtractRequest  # its settings include the precision chosen for the device
    manifest: Manifest
    nets: tuple[NetSettings, ...]
    table: ClipTable
    folds: Folds | None  # None if the clips have a split, or for a part of a run
    facts: dict[str, Any]  # provenance for the cache
    notes: tuple[str, ...]  # notes on omitted nets
    weights: tuple[WeightReport, ...]
    numbers: tuple[int, ...] | None = None  # for a part: rows of its clips in the manifest

    @property
    def settings(self) -> Settings:
        return self.request.settings

    @property
    def run(self) -> RunSettings:
        return self.settings.extract.run

    @property
    def work(self) -> Path:
        return self.request.work

    @property
    def threads(self) -> int:
        """Number of torch threads in each process; 0 for that of this process."""
        return backends.threads_of(self.request.jobs)

    @property
    def trainings(self) -> list[division.Training]:
        return division.trainings_of(self.nets, self.run.protocol, self.table.folds)

    def part(self, rows: Sequence[int]) -> ExtractPlan:
        """Return the plan of some clips."""
        clips = tuple(self.manifest.clips[row] for row in rows)
        return replace(
            self,
            manifest=replace(self.manifest, clips=clips),
            table=subset(self.table, rows),
            folds=None,
            facts={},
            numbers=tuple(rows),
        )

    def for_processes(self, workers: int) -> ExtractPlan:
        """Return the plan with absolute paths and `workers` decoders in each process."""
        request, manifest = self.request, self.manifest
        extract = replace(self.settings.extract, workers=workers)
        request = replace(
            request,
            work=request.work.absolute(),
            out=request.out.absolute(),
            settings=replace(self.settings, extract=extract),
        )
        manifest = replace(manifest, root=manifest.root.absolute())
        nets = tuple(net.with_absolute_weights() for net in self.nets)
        return replace(self, request=request, manifest=manifest, nets=nets)

    def place(self) -> str:
        """Return the phrase for the device in the message "nets run …"."""
        jobs, scheduler = self.request.jobs, self.request.scheduler
        if scheduler:
            return f"on the workers of {scheduler}"
        device = devices.pick_device(self.run.device)
        where = devices.describe_device(device, self.run.precision, self.threads)
        processes = f"in up to {jobs} processes, each " if jobs > 1 else ""
        return f"{processes}on {where}"


def plan_extract(request: division.ExtractRequest) -> ExtractPlan:
    """Check a request, and download missing weights."""
    settings, work, out = request.settings, request.work, request.out
    run = settings.extract.run
    devices.pick_device(run.device)
    nets = [with_fetched_weights(settings.nets[n], run.protocol) for n in settings.extract.nets]
    starting_weights.refuse_missing_weights(nets, settings)
    if request.manifest is None:
        from mvemo.manifests import demo

        manifest = demo.make_demo(work / "demo")
    else:
        manifest = media_files.manifest_with_media(request.manifest, request.options)
    folds, settings = clip_tables.read_fold_file(request.fold_file, manifest, settings)
    if media_files.only_sound(manifest):
        nets = starting_weights.without_picture_nets(nets)
    nets, notes = starting_weights.fetch_missing_weights(nets, settings, fetch=request.fetch)
    reports = _check_losses_and_weights(nets, manifest, run)
    if not (request.force or request.shard):
        clip_tables.refuse_other_clips(out, manifest)
    if request.manifest is not None:
        _check_protocol(manifest, settings)
    earlier, source = None, shards.ShardFolder(out).clips if request.shard else out
    if settings.extract.keep_folds and source.exists():
        earlier = clip_tables.folds_of_cache(source)
    evaluation = clip_tables.extracted_clips(manifest, settings.extract, folds, earlier=earlier)
    if seed := settings.extract.fold_seed:
        clip_tables.tell_unused_seed(
            f"extract.fold_seed={seed}", evaluation.table, request.fold_file
        )
    precision, chosen = cost.choose_precision(
        nets, run, settings.descriptors, work / PRECISION_FILE, keep=request.fetch
    )
    extract = replace(settings.extract, run=replace(run, precision=precision))
    settings = replace(settings, extract=extract)
    start = [*filter(None, (starting_weights.random_start_note(nets, settings), chosen))]
    tell_notes(start)
    what = "split" if evaluation.folds is None else "folds"
    for note in evaluation.notes:
        tell(f"{what}: {note}")
    path = request.manifest or work / "demo" / "manifest.csv"
    named = [("nets", net.name) for net in nets]
    named += [("losses", net.train.loss) for net in nets]
    named += [("descriptors", name) for name in settings.extract.descriptors]
    facts = provenance(
        named,
        settings=settings.record(),
        manifest=clip_tables.manifest_facts(manifest, path, request.options),
        notes=start,
    )
    request = replace(request, settings=settings)
    clips = evaluation.table, evaluation.folds
    return ExtractPlan(request, manifest, tuple(nets), *clips, facts, tuple(notes), reports)


def _check_protocol(manifest: Manifest, settings: Settings) -> None:
    """Raise BadOption if a split would be ignored; note that training without a GPU is slow."""
    protocol = settings.extract.run.protocol
    if protocol not in ("frozen", "holdout"):
        clip_tables.ask_about_split(
            manifest,
            settings,
            who=f"the protocol {protocol}",
            instead="--protocol holdout trains and tests on the split",
        )
    on_cpu = devices.pick_device(settings.extract.run.device).type == "cpu"
    if on_cpu and protocol != "frozen" and not settings.profile_named:
        tell_note(
            "this machine has no GPU, so these nets train for hours or days; "
            "--profile pretrained embeds with public pretrained nets in minutes"
        )


def _check_losses_and_weights(
    plans: Sequence[NetSettings], manifest: Manifest, run: RunSettings
) -> tuple[WeightReport, ...]:
    """Check that losses fit the task and weights fit the nets; return reports on weights."""
    reports: list[WeightReport | None] = []
    if manifest.task == UNLABELLED and run.protocol != "frozen":
        raise BadOption(
            f"{manifest.name}: its clips have no labels, but the protocol {run.protocol} trains on "
            "labels: use --profile pretrained or --protocol frozen"
        )
    n_outputs = len(manifest.classes)
    for plan in plans:
        if manifest.task != UNLABELLED:
            train = plan.train
            losses.make_loss(train.loss, manifest.task, n_outputs, 1, train.tau)
        if plan.weights:
            reports.append(protocols.make_net(plan, n_outputs, run)[1])
    return tuple(filter(None, reports))

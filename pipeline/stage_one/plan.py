"""Plan of a run of stage one: all checks, downloads and choices that come before the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvemo import manifests
from mvemo.cache import ClipTable, open_cache, unfinished_run
from mvemo.cache.table import subset
from mvemo.extract import NetSettings, RunSettings, WeightReport, cost
from mvemo.extract.nets import NETS
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.training import devices, losses, protocols
from mvemo.manifests import labels, plugins
from mvemo.manifests.errors import BadOption
from mvemo.pipeline import starting_weights
from mvemo.pipeline.clips import clip_tables, media_files
from mvemo.pipeline.console.messages import tell, tell_note, tell_notes
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, shards
from mvemo.pipeline.stage_one.division import ExtractRequest, Training, trainings_of

PRECISION_FILE = "precision.json"


@dataclass(frozen=True)
class ExtractPlan:
    """Checked inputs of a run of stage one, or of a part of it."""

    request: ExtractRequest  # its settings include the precision chosen for the device
    manifest: manifests.Manifest
    nets: tuple[NetSettings, ...]
    table: ClipTable
    folds: manifests.Folds | None  # None if the clips have a split, or for a part of a run
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
    def trainings(self) -> list[Training]:
        return trainings_of(self.nets, self.run, self.table.folds)

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
        where = devices.describe_device(device, self.run.precision, backends.threads_of(jobs))
        processes = f"in up to {jobs} processes, each " if jobs > 1 else ""
        return f"{processes}on {where}"


def plan_extract(request: ExtractRequest) -> ExtractPlan:
    """Check a request, and download missing weights."""
    settings, work, out = request.settings, request.work, request.out
    run = settings.extract.run
    devices.pick_device(run.device)
    nets = [with_fetched_weights(settings.nets[name], run) for name in settings.extract.nets]
    starting_weights.refuse_missing_weights(nets, settings)
    if request.manifest is None:
        from mvemo.manifests import demo

        manifest = demo.make_demo(work / "demo")
    else:
        manifest = manifest_with_media(request.manifest, request.options)
    folds, settings = read_fold_file(request.fold_file, manifest, settings)
    nets = _without_picture_nets(nets, manifest)
    nets, notes = starting_weights.fetch_missing_weights(nets, settings, fetch=request.fetch)
    reports = _check_losses_and_weights(nets, manifest, run)
    if not (request.force or request.shard):
        _refuse_other_clips(out, manifest)
    if request.manifest is not None:
        _check_protocol(manifest, settings)
    earlier, source = None, shards.ShardFolder(out).clips if request.shard else out
    if settings.extract.keep_folds and source.exists():
        with open_cache(source) as cache:
            earlier = clip_tables.folds_of_table(cache.table)
    evaluation = clip_tables.extracted_clips(manifest, settings.extract, folds, earlier=earlier)
    if seed := settings.extract.fold_seed:
        tell_unused_seed(f"extract.fold_seed={seed}", evaluation.table, request.fold_file)
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
        settings=settings.record(),
        manifest=clip_tables.manifest_facts(manifest, path, request.options),
        notes=start,
        **({"plugins": used} if (used := plugins.used_plugins(named)) else {}),
    )
    request = replace(request, settings=settings)
    clips = evaluation.table, evaluation.folds
    return ExtractPlan(request, manifest, tuple(nets), *clips, facts, tuple(notes), reports)


def _check_protocol(manifest: manifests.Manifest, settings: Settings) -> None:
    """Raise BadOption if a split would be ignored; note that training without a GPU is slow."""
    protocol = settings.extract.run.protocol
    if protocol not in ("frozen", "holdout"):
        ask_about_split(
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


def _without_picture_nets(
    plans: list[NetSettings], manifest: manifests.Manifest
) -> list[NetSettings]:
    """Leave out video nets, with a message, if all files are audio files."""
    if not media_files.only_sound(manifest):
        return plans
    names = [plan.name for plan in plans if NETS[plan.name].modality == "video"]
    if len(names) in (0, len(plans)):
        return plans
    tell(f"{', '.join(names)} left out: all files are audio files")
    return [plan for plan in plans if plan.name not in names]


def ask_about_split(
    manifest: manifests.Manifest, settings: Settings, *, who: str, instead: str
) -> None:
    """Raise BadOption if `who` would ignore the manifest's split; `instead` is the advice."""
    if settings.folds_named or manifests.prescribed_split(manifest)[0] is None:
        return
    raise BadOption(
        f"the manifest prescribes a split, but {who} makes folds: {instead}; "
        f"--folds {settings.extract.folds} ignores the split"
    )


def tell_unused_seed(option: str, table: ClipTable, fold_file: Path | None) -> None:
    """Print a note if the seed in an option does not change the folds or the split."""
    if why := clip_tables.prescribed_by(table, fold_file):
        tell_note(f"{option} changes no fold: {why}")


def _check_losses_and_weights(
    plans: Sequence[NetSettings], manifest: manifests.Manifest, run: RunSettings
) -> tuple[WeightReport, ...]:
    """Check that losses fit the task and weights fit the nets; return reports on weights."""
    reports: list[WeightReport | None] = []
    if manifest.task == labels.UNLABELLED and run.protocol != "frozen":
        raise BadOption(
            f"{manifest.name}: its clips have no labels, but the protocol {run.protocol} trains on "
            "labels: use --profile pretrained or --protocol frozen"
        )
    n_outputs = len(manifest.classes)
    for plan in plans:
        if manifest.task != labels.UNLABELLED:
            train = plan.train
            losses.make_loss(train.loss, manifest.task, n_outputs, 1, train.tau)
        if plan.weights:
            reports.append(protocols.make_net(plan, n_outputs, run)[1])
    return tuple(filter(None, reports))


def manifest_with_media(path: Path, options: manifests.ManifestOptions) -> manifests.Manifest:
    """Read a manifest; print a note on missing media; raise BadOption if all are missing."""
    manifest = manifests.read_manifest(path, options, media=False)
    tell_notes(manifest.notes)
    if missing := media_files.missing_media(manifest, path):
        n_files = len(media_files.media_files(manifest))
        tell_note(
            f"{len(missing)} of {n_files} media files are not in {manifest.root}, such as "
            f"{missing[0]!r}: their clips will fail; all others are processed"
        )
    return manifest


def read_fold_file(
    fold_file: Path | None, manifest: manifests.Manifest, settings: Settings
) -> tuple[manifests.Folds | None, Settings]:
    """Return the folds in a file, in the clips' order, and settings with their number."""
    if fold_file is None:
        return None, settings
    if settings.extract.run.protocol == "holdout":
        raise BadOption(f"--folds {fold_file}: the holdout protocol has no folds: leave it out")
    folds = manifests.read_folds(fold_file, manifest)
    notes = manifests.fold_notes(
        manifest.labels, manifest.groups, folds.k, manifest.task, manifest.classes
    )
    # Seed -1 marks prescribed folds, which no seed can reproduce.
    folds = replace(folds, seed=-1, manifest_digest=manifest.digest, notes=notes)
    return folds, replace(settings, extract=replace(settings.extract, folds=folds.k))


def _refuse_other_clips(out: Path, manifest: manifests.Manifest) -> None:
    """Raise BadOption if the run would drop another data set or imported features."""
    clip_ids = set(manifest.clip_ids)
    name, unfinished = unfinished_run(out)
    if dropped := unfinished - clip_ids:
        if len(dropped) == len(unfinished):
            raise BadOption(
                f"{out}: an interrupted run of other clips ({name!r}) left features of "
                f"{len(dropped)} clips there: finish that run with its own command, write to "
                "another file with --out, or drop them with --force"
            )
        tell_note(
            f"{out}: features of {len(dropped)} clips of the interrupted run are dropped, such as "
            f"{min(dropped)!r}: the manifest no longer lists these clips"
        )
    if not out.exists():
        return
    with open_cache(out) as cache:
        table = cache.table
        imported = any(each.protocol == "imported" for each in cache.specs)
    dropped = frozenset(table.clip_ids) - clip_ids
    # Features of the demo set may be replaced: computing them again takes a minute.
    if len(dropped) == len(table) > 0 and (imported or not table.synthetic):
        raise BadOption(
            f"{out}: holds features of other clips ({table.name!r}, {len(table)} clips): write "
            "to another file with --out, or replace it with --force"
        )
    if dropped and imported:
        raise BadOption(
            f"{out}: holds imported features of {len(dropped)} clips that the manifest does not "
            f"list, such as {min(dropped)!r}; mvemo cannot compute them again: write to another "
            "file with --out, or drop them with --force"
        )

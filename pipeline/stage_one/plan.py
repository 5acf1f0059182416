"""Plan of a run of stage one: all checks, downloads and choices that come before the work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvemo.cache import ClipTable, open_cache, unfinished_run
from mvemo.extract import NetSettings, RunSettings, WeightReport, cost
from mvemo.extract.nets import NETS
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.training import devices, losses, protocols
from mvemo.manifests import (
    Folds,
    Manifest,
    fold_notes,
    labels,
    prescribed_split,
    read_folds,
    read_manifest,
)
from mvemo.manifests.errors import BadOption
from mvemo.manifests.layouts.scan import AUDIO_SUFFIXES
from mvemo.pipeline.clips import clip_tables, media_files
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, shards
from mvemo.pipeline.starting_weights import (
    fetch_missing_weights,
    random_start_note,
    refuse_missing_weights,
)

PRECISION_FILE = "precision.json"


@dataclass(frozen=True)
class ExtractPlan:
    """Checked inputs of a run of stage one."""

    manifest: Manifest
    settings: Settings  # including the precision chosen for the device
    nets: tuple[NetSettings, ...]
    evaluation: clip_tables.Evaluation
    facts: dict[str, Any]  # provenance for the cache
    notes: tuple[str, ...]  # notes on omitted nets
    weights: tuple[WeightReport, ...]
    work: Path  # folder of decoded media and checkpoints
    out: Path  # feature cache; for a shard, the whole cache
    execution: backends.Execution


def plan_extract(
    manifest_path: Path | None,
    settings: Settings,
    *,
    work: Path,
    out: Path,
    root: Path | None,
    fold_file: Path | None,
    execution: backends.Execution,
    columns: Mapping[str, str] | None = None,
    task: labels.Task | None = None,
) -> ExtractPlan:
    """Check the arguments of `run_extract`, and download missing weights."""
    run = settings.extract.run
    devices.pick_device(run.device)
    plans = [with_fetched_weights(settings.nets[name], run) for name in settings.extract.nets]
    refuse_missing_weights(plans, settings)
    if manifest_path is None:
        from mvemo.manifests import demo

        manifest = demo.make_demo(work / "demo")
    else:
        manifest = manifest_with_media(manifest_path, root, columns, task)
    folds, settings = read_fold_file(fold_file, manifest, settings)
    plans = _without_picture_nets(plans, manifest)
    plans, notes = fetch_missing_weights(plans, settings, fetch=execution.fetch)
    reports = _check_losses_and_weights(plans, manifest, run)
    if not (execution.force or execution.shard):
        _refuse_other_clips(out, manifest)
    if manifest_path is not None:
        _check_protocol(manifest, settings)
    earlier, source = None, shards.ShardFolder(out).clips if execution.shard else out
    if settings.extract.keep_folds and source.exists():
        with open_cache(source) as cache:
            earlier = clip_tables.folds_of_table(cache.table)
    evaluation = clip_tables.extracted_clips(manifest, settings.extract, folds, earlier=earlier)
    if settings.extract.fold_seed:
        option = f"extract.fold_seed={settings.extract.fold_seed}"
        tell_unused_seed(option, evaluation.table, fold_file)
    precision, chosen = cost.choose_precision(
        plans, run, settings.descriptors, work / PRECISION_FILE, keep=execution.fetch
    )
    run = replace(run, precision=precision)
    settings = replace(settings, extract=replace(settings.extract, run=run))
    start = [*filter(None, (random_start_note(plans, settings), chosen))]
    for note in start:
        tell_note(note)
    what = "split" if evaluation.folds is None else "folds"
    for note in evaluation.notes:
        tell(f"{what}: {note}")
    path = manifest_path or work / "demo" / "manifest.csv"
    facts = provenance(
        settings=settings.record(),
        manifest=clip_tables.manifest_facts(manifest, path, columns, task),
        notes=start,
    )
    known = (evaluation, facts, tuple(notes), reports)
    return ExtractPlan(manifest, settings, tuple(plans), *known, work, out, execution)


def _check_protocol(manifest: Manifest, settings: Settings) -> None:
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


def _without_picture_nets(plans: list[NetSettings], manifest: Manifest) -> list[NetSettings]:
    """Leave out video nets, with a message, if all files are audio files."""
    if not {Path(clip.path).suffix.lower() for clip in manifest.clips} <= AUDIO_SUFFIXES:
        return plans
    names = [plan.name for plan in plans if NETS[plan.name].modality == "video"]
    if len(names) in (0, len(plans)):
        return plans
    tell(f"{', '.join(names)} left out: all files are audio files")
    return [plan for plan in plans if plan.name not in names]


def ask_about_split(manifest: Manifest, settings: Settings, *, who: str, instead: str) -> None:
    """Raise BadOption if `who` would ignore the manifest's split; `instead` is the advice."""
    if settings.folds_named or prescribed_split(manifest)[0] is None:
        return
    raise BadOption(
        f"the manifest prescribes a split, but {who} makes folds: {instead}; "
        f"--folds {settings.extract.folds} ignores the split"
    )


def tell_unused_seed(option: str, table: ClipTable, fold_file: Path | None) -> None:
    """Print a note if the seed in an option does not change the folds or the split."""
    why = clip_tables.prescribed_by(table, fold_file)
    if why:
        tell_note(f"{option} changes no fold: {why}")


def _check_losses_and_weights(
    plans: Sequence[NetSettings], manifest: Manifest, run: RunSettings
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


def manifest_with_media(
    path: Path,
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    task: labels.Task | None = None,
) -> Manifest:
    """Read a manifest; print a note on missing media; raise BadOption if all are missing."""
    manifest = read_manifest(path, root=root, columns=columns, task=task, media=False)
    for note in manifest.notes:
        tell_note(note)
    missing = media_files.missing_media(manifest, path)
    if missing:
        n_files = len(media_files.media_files(manifest))
        tell_note(
            f"{len(missing)} of {n_files} media files are not in {manifest.root}, such as "
            f"{missing[0]!r}: their clips will fail; all others are processed"
        )
    return manifest


def read_fold_file(
    fold_file: Path | None, manifest: Manifest, settings: Settings
) -> tuple[Folds | None, Settings]:
    """Return the folds in a file, in the clips' order, and settings with their number."""
    if fold_file is None:
        return None, settings
    if settings.extract.run.protocol == "holdout":
        raise BadOption(f"--folds {fold_file}: the holdout protocol has no folds: leave it out")
    folds = read_folds(fold_file, manifest)
    notes = fold_notes(manifest.labels, manifest.groups, folds.k, manifest.task, manifest.classes)
    # Seed -1 marks prescribed folds, which no seed can reproduce.
    folds = replace(folds, seed=-1, manifest_digest=manifest.digest, notes=notes)
    return folds, replace(settings, extract=replace(settings.extract, folds=folds.k))


def _refuse_other_clips(out: Path, manifest: Manifest) -> None:
    """Raise BadOption if the run would drop another data set or imported features."""
    clip_ids = set(manifest.clip_ids)
    unfinished = unfinished_run(out)
    if unfinished is not None and (dropped := unfinished.clip_ids - clip_ids):
        if len(dropped) == len(unfinished.clip_ids):
            raise BadOption(
                f"{out}: an interrupted run of other clips ({unfinished.name!r}) left features of "
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

"""Stage one: from a manifest to one feature cache, or to one shard of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mvemo.cache import CacheError, CacheWriter, DamagedCache, open_cache
from mvemo.cache.table import subset
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.memory import keep_freed_memory, return_freed_memory
from mvemo.extract.training.protocols import train_nets
from mvemo.extract.training.ranks import Ranks, current_ranks, joined_ranks
from mvemo.extract.training.splits import TrainingClips
from mvemo.extract.workers.pool import cores, stop_workers
from mvemo.manifests import write_folds
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.clips.inputs import same_file_notes
from mvemo.pipeline.clips.lengths import longer_clips_note
from mvemo.pipeline.console.messages import note_resumable, silenced, tell, tell_note
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.cluster import cluster_backend
from mvemo.pipeline.stage_one.estimates import long_run_note
from mvemo.pipeline.stage_one.execution import Execution, Shard, Training, trainings_of
from mvemo.pipeline.stage_one.finished import ExtractSummary
from mvemo.pipeline.stage_one.plan import ExtractPlan, plan_extract
from mvemo.pipeline.stage_one.shards import ShardFolder, run_facts
from mvemo.pipeline.stage_one.spread import (
    SpreadRun,
    local_backend,
    require_decoded_clip,
    settings_per_process,
)
from mvemo.pipeline.stage_one.steps import FeatureWriter, tell_device, write_nets
from mvemo.pipeline.stage_one.tasks import Backend, TaskSettings
from mvemo.pipeline.starting_weights import tell_weights


def run_extract(
    manifest_path: Path | None,
    settings: Settings,
    *,
    work: Path,
    out: Path,  # feature cache; for a shard, the cache that it is a part of
    root: Path | None = None,  # media root, if it is not the one in the manifest
    fold_file: Path | None = None,  # replaces the folds of the settings and of the manifest
    execution: Execution | None = None,  # by default, this process does all the work
) -> ExtractSummary:
    """Decode the clips, train nets, embed the clips, and write the feature cache.

    Without a manifest, the demo set is made under `work`, which also keeps decoded media and
    checkpoints for later runs. Failures of single clips are in the summary. If the loss of a
    training is not finite, `TrainingDiverged` is raised after all other features were written.
    """
    keep_freed_memory()
    note_resumable()
    execution = execution or Execution()
    with joined_ranks(settings.extract.run.device) as ranks:
        _check_rank_options(settings, execution, ranks)
        if not ranks.first:
            # Wait until the first rank has read all media and fetched missing weights.
            ranks.wait()
        elif execution.force:
            shard = execution.shard
            _remove_damaged(out if shard is None else ShardFolder(out).cache(shard))
        with nullcontext() if ranks.first else silenced():
            plan = plan_extract(
                manifest_path,
                settings,
                work=work,
                out=out,
                root=root,
                fold_file=fold_file,
                execution=execution,
            )
        if ranks.first:
            return _run(plan, work, out, execution)
        return _train_with_first_rank(plan, work, out)


def _remove_damaged(path: Path) -> None:
    """Remove a cache that is too damaged to be opened."""
    try:
        with open_cache(path):
            pass
    except DamagedCache:
        tell_note(f"{path}: damaged, and made anew")
        path.unlink()
    except CacheError:
        # The writer reports other errors.
        pass


def _run(plan: ExtractPlan, work: Path, out: Path, execution: Execution) -> ExtractSummary:
    """Carry out a plan of `run_extract`."""
    for report in plan.weights:
        tell_weights(report)
    warning = long_run_note(plan, work, out, execution)
    if warning:
        tell_note(warning, lasting=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    return_freed_memory()
    if plan.evaluation.folds is not None:
        write_folds(plan.evaluation.folds, work / "folds.csv")
    if execution.shard is not None:
        return _run_shard(plan, execution.shard, work, out, force=execution.force)
    with (
        _backend(plan, execution, [work, out.parent, plan.manifest.root]) as backend,
        CacheWriter(out, plan.evaluation.table, provenance=plan.facts) as writer,
    ):
        spread = None if backend is None else SpreadRun(writer, backend)
        frozen = plan.settings.extract.run.protocol == "frozen"
        if spread is not None and (frozen or execution.scheduler):
            extracted = _spread_clips(plan, writer, spread, work, execution)
        if spread is None or not frozen:
            # This finds the clips that workers have read.
            extracted = _extract(plan, writer, spread, work, execution)
        failures = writer.failures
    if spread is not None and frozen:
        # Only workers have digested the files, but rows of the same bytes have the same key.
        _tell_same_files(plan, _row_keys(out, extracted.features))
    if extracted.diverged:
        raise _divergence(extracted.diverged, extracted.features, extracted.nets, out)
    return ExtractSummary(
        path=out,
        clips=len(plan.manifest),
        features=tuple(extracted.features),
        failures=failures,
        missing=extracted.missing,
        notes=(*plan.notes, *extracted.notes),
        work=work,
        settled=_is_settled(plan, extracted, failures),
    )


def _is_settled(
    plan: ExtractPlan, extracted: _Extracted, failures: Sequence[tuple[str, str, str]]
) -> bool:
    """Return True if the same run again would not fetch, decode or embed anything."""
    # The plan's notes name nets whose weights could not be fetched.
    if plan.notes:
        return False
    return extracted.settled and all(stage.startswith("decode:") for _, stage, _ in failures)


def _check_rank_options(settings: Settings, execution: Execution, ranks: Ranks) -> None:
    """Raise BadOption for options that several processes training one net do not support."""
    if ranks.count == 1:
        return
    if settings.extract.run.protocol == "frozen":
        raise BadOption("torchrun: nothing is trained under frozen: spread clips with --jobs")
    if settings.extract.run.compile:
        raise BadOption("torchrun: nets that several processes train are not compiled: leave "
                        "extract.compile out")  # fmt: skip
    if execution.shard or execution.scheduler or execution.jobs > 1:
        raise BadOption("torchrun: leave --shard, --jobs and --backend out: each spreads the work")


def _train_with_first_rank(plan: ExtractPlan, work: Path, out: Path) -> ExtractSummary:
    """Train every net together with the first rank, the only one that writes."""
    with silenced():
        media = ClipMedia(plan.manifest, plan.settings, work, plans=plan.nets)
        stop_workers()
        run, table = plan.settings.extract.run, plan.evaluation.table
        for net in plan.nets:
            if media.absent(NETS[net.name].modality):
                continue
            usable = media.usable(net)
            clips = TrainingClips(plan.manifest, media.digests, usable, table.folds, table.splits)
            reader = partial(media.batches, view=net.view)
            # A training diverges on all ranks; the first one reports it.
            with suppress(TrainingDiverged):
                for _ in train_nets(net, clips, run, batches=reader, jobs=work / "nets"):
                    pass
    return ExtractSummary(out, len(plan.manifest), tuple(net.name for net in plan.nets), ())


@contextmanager
def _backend(
    plan: ExtractPlan, execution: Execution, folders: Sequence[Path]
) -> Iterator[Backend | None]:
    """Yield the backend of a run, or None if only this process works."""
    if execution.scheduler:
        with cluster_backend(execution.scheduler, [f.absolute() for f in folders]) as backend:
            yield backend
    else:
        many = execution.jobs > 1
        yield local_backend(plan.settings, execution.jobs) if many else None


@dataclass(frozen=True)
class _Extracted:
    """Outcome of a run, for its summary."""

    nets: Sequence[NetSettings]
    features: Sequence[str]
    missing: tuple[tuple[str, str, str], ...]
    notes: Sequence[str] = ()
    diverged: Sequence[TrainingDiverged] = ()
    settled: bool = False


def _extract(
    plan: ExtractPlan,
    writer: CacheWriter,
    spread: SpreadRun | None,
    work: Path,
    execution: Execution,
) -> _Extracted:
    """Read all clips in this process; train and embed here or through `spread`."""
    settings = plan.settings
    descriptors = settings.extract.descriptors
    media = ClipMedia(plan.manifest, settings, work, plans=plan.nets, descriptors=descriptors)
    # The nets need the memory of the workers.
    stop_workers()
    _tell_same_files(plan, media.digests)
    features = FeatureWriter(media, settings, writer, work)
    features.write_failures()
    nets = features.runnable(plan.nets)
    if not nets:
        raise features.nothing_to_read(plan.nets)
    tell_device(settings.extract.run, execution)
    notes = _notes_on_length(nets, media, settings)
    features.write_descriptors()
    current_ranks().wait()
    if spread is not None:
        shared = TaskSettings.of(settings, plan.nets, work, writer.path)
        trainings = trainings_of(nets, settings.extract.run, writer.table.folds)
        spread.do_trainings(shared, media, trainings)
    # Nets trained by `spread` are found here together with their rows.
    diverged = write_nets(features, nets, writer, None if spread is None else spread.diverged)
    return _Extracted(
        nets, features.features, media.missing, notes, diverged, settled=media.settled
    )


def _tell_same_files(plan: ExtractPlan, content: Mapping[str, str]) -> None:
    for note in same_file_notes(plan.manifest, content):
        tell_note(note)


def _row_keys(path: Path, features: Sequence[str]) -> dict[str, str]:
    """Return the keys of each clip's rows, joined; a clip without a row has fewer."""
    with open_cache(path) as cache:
        specs = [spec for spec in cache.specs if spec.name in features]
        keys = zip(*(cache.keys(spec.name, spec.fold) for spec in specs), strict=True)
        return {c: b"".join(k).decode() for c, k in zip(cache.table.clip_ids, keys, strict=False)}


def _spread_clips(
    plan: ExtractPlan, writer: CacheWriter, spread: SpreadRun, work: Path, execution: Execution
) -> _Extracted:
    """Read and embed all clips through `spread`, in batches."""
    if plan.settings.extract.run.protocol == "frozen":
        tell_device(plan.settings.extract.run, execution)
    # A worker of a scheduler may share its machine with other workers.
    settings = settings_per_process(
        plan.settings, cores() if execution.scheduler else execution.jobs
    )
    shared = TaskSettings.of(settings, plan.nets, work, writer.path)
    spread.do_clips(shared, replace(plan.manifest, root=plan.manifest.root.absolute()))
    require_decoded_clip(spread, plan.manifest)
    settled = not writer.failures
    return _Extracted(plan.nets, spread.features, tuple(spread.missing), settled=settled)


def _notes_on_length(
    plans: Sequence[NetSettings], media: ClipMedia, settings: Settings
) -> list[str]:
    """Tell and return a note for each net that does not read some clips to their end."""
    seconds = media.seconds()
    notes = [longer_clips_note(plan, seconds, settings.shared) for plan in plans]
    notes = [note for note in notes if note]
    for note in notes:
        tell_note(note)
    return notes


def _run_shard(
    plan: ExtractPlan, shard: Shard, work: Path, out: Path, *, force: bool
) -> ExtractSummary:
    """Run one shard of a planned run.

    A shard that is done with the same settings is not run again without `force`.
    """
    settings, manifest = plan.settings, plan.manifest
    rows = shard.rows(manifest)
    whole = plan.evaluation.table
    trainings = shard.trainings(trainings_of(plan.nets, settings.extract.run, whole.folds))
    folder, facts = ShardFolder(out), run_facts(settings, whole, shard.count)
    folder.claim(facts, whole, plan.facts, force=force)
    path = folder.cache(shard)
    if folder.is_done(shard, facts) and not force:
        tell(f"shard {shard} is done: {path}")
        with open_cache(path) as done:
            failures = tuple((f.clip_id, f.stage, f.reason) for f in done.failures)
            return ExtractSummary(path, len(rows), done.names(), failures, work=work)
    # Trained nets embed all clips.
    table = whole if trainings else subset(whole, rows)
    part = replace(manifest, clips=tuple(manifest.clips[row] for row in rows))
    with CacheWriter(path, table, provenance=plan.facts) as writer:
        media = ClipMedia(
            part,
            settings,
            work,
            plans=plan.nets,
            descriptors=settings.extract.descriptors,
            require_any=False,
            numbers=rows,
        )
        stop_workers()
        features = FeatureWriter(media, settings, writer, work)
        features.write_failures()
        features.write_descriptors()
        nets = list(plan.nets) if settings.extract.run.protocol == "frozen" and rows else []
        if trainings:
            features, nets = _trainer(plan, trainings, writer, work)
        tell_device(settings.extract.run)
        diverged = write_nets(features, nets, writer)
        failures = writer.failures
    if diverged:
        raise _divergence(diverged, features.features, nets, path)
    folder.finish(shard, facts)
    with open_cache(path) as done:
        names = done.names()
    return ExtractSummary(path, len(rows), names, failures, media.missing, plan.notes, work)


def _trainer(
    plan: ExtractPlan, trainings: Sequence[Training], writer: CacheWriter, work: Path
) -> tuple[FeatureWriter, list[NetSettings]]:
    """Return a writer that trains some nets and embeds all clips, and these nets."""
    chosen = {name for name, _ in trainings}
    nets = [net for net in plan.nets if net.name in chosen]
    media = ClipMedia(plan.manifest, plan.settings, work, plans=nets)
    stop_workers()
    features = FeatureWriter(media, plan.settings, writer, work, trainings)
    return features, features.runnable(nets)


def _divergence(
    diverged: Sequence[TrainingDiverged],
    features: Sequence[str],
    plans: Sequence[NetSettings],
    out: Path,
) -> TrainingDiverged:
    """Return one error for all nets that diverged, with advice."""
    finished = [plan.name for plan in plans if plan.name in features]
    advice = "; ".join(error.advice for error in diverged)
    if finished:
        advice += (
            f", or leave out what diverged, --nets {','.join(finished)}; {out} has the features "
            f"of {', '.join(finished)}, which are not trained again"
        )
    return TrainingDiverged("; ".join(error.problem for error in diverged), advice)

"""Stage one: computes a feature cache, or one shard of a cache, from a manifest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvemo.cache import CacheWriter, DamagedCache, open_cache
from mvemo.cache.table import subset
from mvemo.extract import TrainingDiverged
from mvemo.extract.training import devices
from mvemo.extract.workers.pool import cores, stop_workers
from mvemo.manifests import Manifest, write_folds
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.labels import Task
from mvemo.pipeline.clips import clip_media, media_files
from mvemo.pipeline.console.messages import note_resumable, tell, tell_note
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, estimate, shards, steps, summary, tasks
from mvemo.pipeline.stage_one.plan import ExtractPlan, plan_extract
from mvemo.pipeline.starting_weights import tell_weights


def run_extract(
    manifest_path: Path | None,
    settings: Settings,
    *,
    work: Path,
    out: Path,  # feature cache; for a shard, the whole cache
    root: Path | None = None,  # media root, if it is not the one in the manifest
    columns: Mapping[str, str] | None = None,  # names of the manifest's columns, by ours
    task: Task | None = None,  # task of the labels, if the manifest has those of several
    fold_file: Path | None = None,  # folds that replace those of settings and manifest
    execution: backends.Execution | None = None,  # by default, this process does all the work
) -> summary.ExtractSummary:
    """Decode the clips, train nets, embed the clips, and write the feature cache.

    Without a manifest, the demo set is made under `work`, which also keeps decoded media and
    checkpoints for later runs. Failures of single clips are in the summary. If the loss of a
    training is not finite, `TrainingDiverged` is raised after all other features were written.
    """
    devices.keep_freed_memory()
    note_resumable()
    execution = execution or backends.Execution()
    if execution.force:
        shard = execution.shard
        _remove_damaged(out if shard is None else shards.ShardFolder(out).cache(shard))
    return _write(
        plan_extract(
            manifest_path,
            settings,
            work=work,
            out=out,
            root=root,
            columns=columns,
            task=task,
            fold_file=fold_file,
            execution=execution,
        )
    )


def _remove_damaged(path: Path) -> None:
    """Remove a cache that is too damaged to open; other errors are left to the writer."""
    try:
        open_cache(path).close()
    except DamagedCache:
        tell_note(f"{path}: is damaged, and will be written anew")
        path.unlink()
    except MvemoError:
        pass


def _write(plan: ExtractPlan) -> summary.ExtractSummary:
    """Write the cache, or the shard."""
    for report in plan.weights:
        tell_weights(report)
    warning = estimate.long_run_note(plan)
    if warning:
        tell_note(warning, lasting=False)
    for folder in (plan.out.parent, plan.work):
        folder.mkdir(parents=True, exist_ok=True)
    devices.return_freed_memory()
    if plan.evaluation.folds is not None:
        write_folds(plan.evaluation.folds, plan.work / "folds.csv")
    if plan.execution.shard is not None:
        return _write_shard(plan, plan.execution.shard)
    frozen = plan.settings.extract.run.protocol == "frozen"
    diverged: list[TrainingDiverged] = []
    with (
        _backend(plan) as backend,
        CacheWriter(plan.out, plan.evaluation.table, provenance=plan.facts) as writer,
    ):
        spread = None if backend is None else tasks.SpreadRun(writer, backend)
        if spread is not None and (frozen or plan.execution.scheduler):
            extracted = _spread_clips(plan, writer, spread)
        if spread is None or not frozen:
            # This also uses the clips that workers have read.
            extracted, diverged = _extract(plan, writer, spread)
    if spread is not None and frozen:
        # Only workers know the files' digests, but rows of equal files have equal keys.
        _tell_same_files(plan, _row_keys(plan.out, extracted.features))
    if diverged:
        raise _divergence(plan, plan.out, diverged, extracted.features)
    return extracted


def _summary(
    plan: ExtractPlan,
    writer: CacheWriter,
    features: Sequence[str],
    missing: Sequence[tuple[str, str, str]],
    notes: Sequence[str] = (),
    *,
    settled: bool,  # True if no clip would be decoded again
) -> summary.ExtractSummary:
    """Return the summary of a run; the plan's notes name nets without weights."""
    failures = writer.failures
    settled = settled and not plan.notes
    return summary.ExtractSummary(
        path=plan.out,
        clips=len(plan.manifest),
        features=tuple(features),
        failures=failures,
        missing=tuple(missing),
        notes=(*plan.notes, *notes),
        work=plan.work,
        settled=settled and all(stage.startswith("decode:") for _, stage, _ in failures),
    )


@contextmanager
def _backend(plan: ExtractPlan) -> Iterator[backends.Backend | None]:
    """Yield the backend of a run, or None if only this process works."""
    execution = plan.execution
    if execution.scheduler:
        folders = [plan.work, plan.out.parent, plan.manifest.root]
        shared = [folder.absolute() for folder in folders]
        with backends.dask_backend(execution.scheduler, shared) as backend:
            yield backend
    elif execution.jobs > 1:
        yield backends.local_backend(plan.settings.extract.run, execution.jobs)
    else:
        yield None


def _extract(
    plan: ExtractPlan, writer: CacheWriter, spread: tasks.SpreadRun | None
) -> tuple[summary.ExtractSummary, list[TrainingDiverged]]:
    """Read all clips in this process; train and embed here or through `spread`."""
    settings, descriptors = plan.settings, plan.settings.extract.descriptors
    _tell_other_level(plan)
    features = _decode(plan, writer, plan.manifest, plans=plan.nets, descriptors=descriptors)
    media = features.media
    _tell_same_files(plan, media.digests)
    features.write_failures()
    nets = features.runnable(plan.nets)
    if not nets:
        first = plan.manifest.clip_ids[0]
        raise BadOption(
            f"no clip has the input of any net ({', '.join(net.name for net in plan.nets)}); "
            f"the first clip, {first}: {media.reason(first)}"
        )
    _tell_device(plan)
    seconds = media.seconds()
    notes = [media_files.longer_clips_note(net, seconds, settings.shared) for net in nets]
    notes = [note for note in notes if note]
    for note in notes:
        tell_note(note)
    features.write_descriptors()
    if spread is not None:
        shared = tasks.TaskSettings.of(settings, plan.nets, plan.work, writer.path)
        trainings = backends.trainings_of(nets, settings.extract.run, writer.table.folds)
        spread.do_trainings(shared, media, trainings)
    # Nets that `spread` has trained are not trained again here.
    diverged = steps.write_nets(features, nets, writer, spread.diverged if spread else None)
    settled = media.settled
    found = _summary(plan, writer, features.features, media.missing, notes, settled=settled)
    return found, diverged


def _spread_clips(
    plan: ExtractPlan, writer: CacheWriter, spread: tasks.SpreadRun
) -> summary.ExtractSummary:
    """Read and embed all clips through `spread`, in batches."""
    extract, manifest = plan.settings.extract, plan.manifest
    if extract.run.protocol == "frozen":
        _tell_device(plan)
    # A worker of a scheduler may share its machine with other workers.
    jobs = cores() if plan.execution.scheduler else plan.execution.jobs
    extract = replace(extract, workers=max((extract.workers or cores()) // jobs, 1))
    settings = replace(plan.settings, extract=extract)
    shared = tasks.TaskSettings.of(settings, plan.nets, plan.work, writer.path)
    spread.do_clips(shared, replace(manifest, root=manifest.root.absolute()))
    failures = writer.failures
    failed = {clip for clip, stage, _ in failures if stage.startswith("decode:")}
    if len(failed) == len(manifest):
        clip, _, reason = failures[0]
        raise BadOption(f"no clip could be decoded; the first, {clip}: {reason}")
    return _summary(plan, writer, spread.features, spread.missing, settled=not failures)


def _tell_device(plan: ExtractPlan) -> None:
    tell(f"nets run {plan.execution.place(plan.settings.extract.run)}")


def _tell_other_level(plan: ExtractPlan) -> None:
    """Name the stored nets of sound that read it at another level, as those are run again."""
    level = plan.settings.extract.run.level
    if plan.out.is_file():
        with open_cache(plan.out) as stored:
            specs = [spec for spec in stored.specs if spec.weights]  # those of nets
        sound = [s for s in specs if s.modality == "audio" and s.params.get("level") != level]
        if names := list(dict.fromkeys(spec.name for spec in sound)):
            tell(
                f"{plan.out}: {', '.join(names)} read sound at another level (extract.level) or by "
                f"an earlier version at its own: run again with {level:g} LUFS"
            )


def _tell_same_files(plan: ExtractPlan, content: Mapping[str, str]) -> None:
    for note in media_files.same_file_notes(plan.manifest, content):
        tell_note(note)


def _write_shard(plan: ExtractPlan, shard: backends.Shard) -> summary.ExtractSummary:
    """Write one shard, unless it is already done with the same settings (see ``--force``)."""
    settings, whole = plan.settings, plan.evaluation.table
    rows, run, force = shard.rows(plan.manifest), settings.extract.run, plan.execution.force
    trainings = shard.trainings(backends.trainings_of(plan.nets, run, whole.folds))
    folder, facts = shards.ShardFolder(plan.out), shards.run_facts(settings, whole, shard.count)
    folder.claim(facts, whole, plan.facts, force=force)
    path = folder.cache(shard)
    if folder.is_done(shard, facts) and not force:
        tell(f"shard {shard} is already done: {path}")
        with open_cache(path) as done:
            failures = tuple((f.clip_id, f.stage, f.reason) for f in done.failures)
            return summary.ExtractSummary(path, len(rows), done.names(), failures, work=plan.work)
    # A shard with trainings embeds all clips with the trained nets.
    table = whole if trainings else subset(whole, rows)
    clips = tuple(plan.manifest.clips[row] for row in rows)
    with CacheWriter(path, table, provenance=plan.facts) as writer:
        part = replace(plan.manifest, clips=clips)
        descriptors = settings.extract.descriptors
        features = _decode(
            plan,
            writer,
            part,
            plans=plan.nets,
            descriptors=descriptors,
            require_any=False,
            numbers=rows,
        )
        missing = features.media.missing
        features.write_failures()
        features.write_descriptors()
        nets = list(plan.nets) if run.protocol == "frozen" and rows else []
        if trainings:
            chosen = {name for name, _ in trainings}
            nets = [net for net in plan.nets if net.name in chosen]
            features = _decode(plan, writer, plan.manifest, trainings, plans=nets)
            nets = features.runnable(nets)
        _tell_device(plan)
        diverged = steps.write_nets(features, nets, writer)
        failures = writer.failures
    if diverged:
        raise _divergence(plan, path, diverged, features.features)
    folder.finish(shard, facts)
    with open_cache(path) as done:
        names = done.names()
    return summary.ExtractSummary(path, len(rows), names, failures, missing, plan.notes, plan.work)


def _decode(
    plan: ExtractPlan,
    writer: CacheWriter,
    manifest: Manifest,
    trainings: Sequence[backends.Training] | None = None,
    **options: Any,
) -> steps.FeatureWriter:
    """Read clips, and return a writer of their features; `options` are those of `ClipMedia`."""
    media = clip_media.ClipMedia(manifest, plan.settings, plan.work, **options)
    # Workers are stopped to free their memory for the nets.
    stop_workers()
    return steps.FeatureWriter(media, plan.settings, writer, plan.work, trainings)


def _row_keys(path: Path, features: Sequence[str]) -> dict[str, str]:
    """Return the joined keys of each clip's rows, by clip id."""
    with open_cache(path) as cache:
        specs = [spec for spec in cache.specs if spec.name in features]
        keys = zip(*(cache.keys(spec.name, spec.fold) for spec in specs), strict=True)
        return {c: b"".join(k).decode() for c, k in zip(cache.table.clip_ids, keys, strict=False)}


def _divergence(
    plan: ExtractPlan,
    out: Path,
    diverged: Sequence[TrainingDiverged],
    features: Sequence[str],
) -> TrainingDiverged:
    """Return one error for all nets that diverged, with advice."""
    names = ",".join(net.name for net in plan.nets if net.name in features)
    advice = "; ".join(error.advice for error in diverged)
    if names:
        advice += (
            f", or leave out these nets with --nets {names}; {out} has the features of "
            f"{names.replace(',', ', ')}, which are not trained again"
        )
    return TrainingDiverged("; ".join(error.problem for error in diverged), advice)

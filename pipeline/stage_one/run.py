"""Stage one: computes a feature cache, or one shard of a cache, from a manifest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mvemo.cache import CacheWriter, DamagedCache, open_cache
from mvemo.extract import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.extract.training import devices
from mvemo.extract.workers.pool import stop_workers
from mvemo.manifests import Manifest, write_folds
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.clips import media_files
from mvemo.pipeline.console.messages import note_resumable, tell, tell_note, tell_notes
from mvemo.pipeline.stage_one import backends, division, estimate, shards, steps, summary, tasks
from mvemo.pipeline.stage_one.plan import ExtractPlan, plan_extract
from mvemo.pipeline.starting_weights import tell_weights


def run_extract(request: division.ExtractRequest) -> summary.ExtractSummary:
    """Decode the clips, train nets, embed the clips, and write the feature cache.

    Failures of single clips are in the summary. If the loss of a training is not finite,
    `TrainingDiverged` is raised after all other features were written.
    """
    devices.keep_freed_memory()
    note_resumable()
    folder, shard = shards.ShardFolder(request.out), request.shard
    path = request.out if shard is None else folder.cache(shard)
    if request.force:
        _remove_damaged(path)
    plan = plan_extract(request)
    for report in plan.weights:
        tell_weights(report)
    if warning := estimate.long_run_note(plan):
        tell_note(warning, lasting=False)
    for parent in (request.out.parent, plan.work):
        parent.mkdir(parents=True, exist_ok=True)
    devices.return_freed_memory()
    if plan.folds is not None:
        write_folds(plan.folds, plan.work / "folds.csv")
    if shard is None:
        return _write(plan, plan, path)
    part = plan.part(shard.rows(plan.manifest.clip_ids))
    facts = shards.run_facts(plan.settings, plan.table, shard.count)
    folder.claim(facts, plan.table, plan.facts, force=request.force)
    missing: tuple[summary.Problem, ...] = ()
    if folder.is_done(shard, facts) and not request.force:
        tell(f"shard {shard} is already done: {path}")
    else:
        missing = _write(plan, part, path).missing
        folder.finish(shard, facts)
    with open_cache(path) as done:
        failures = tuple((f.clip_id, f.stage, f.reason) for f in done.failures)
        features = done.names()
    return summary.ExtractSummary(
        path, len(part.manifest), features, failures, missing, plan.notes, plan.work
    )


def _remove_damaged(path: Path) -> None:
    """Remove a cache that is too damaged to open; other errors are left to the writer."""
    with suppress(MvemoError):
        try:
            open_cache(path).close()
        except DamagedCache:
            tell_note(f"{path}: is damaged, and will be written anew")
            path.unlink()


def _write(plan: ExtractPlan, part: ExtractPlan, path: Path) -> summary.ExtractSummary:
    """Write the clips of `part` (a shard, or the whole plan), and train its nets."""
    frozen = plan.run.protocol == "frozen"
    nets, trainings = plan.nets, plan.trainings
    if shard := plan.request.shard:
        trainings = shard.trainings(trainings)
        chosen = {name for name, _ in trainings}
        nets = tuple(net for net in nets if net.name in chosen)
    diverged: list[TrainingDiverged] = []
    notes: list[str] = []
    # A shard that trains nets embeds all clips with them, not only its own clips.
    table = plan.table if trainings else part.table
    with _backend(plan) as backend, CacheWriter(path, table, provenance=plan.facts) as writer:
        spread = None if backend is None else tasks.SpreadRun(plan, writer, backend)
        if spread is not None and (frozen or plan.request.scheduler):
            if frozen:
                tell(f"nets run {plan.place()}")
            spread.do_clips()
        if spread is not None and frozen:
            names, missing = spread.features, tuple(spread.missing)
            settled = spread.settled
        else:
            # The media of clips that workers have read are reused.
            features = _read(part, writer)
            runnable, notes = _runnable(features)
            features.write_descriptors()
            missing, settled = features.media.missing, features.media.settled
            if part is not plan:
                runnable = runnable if frozen and len(part.manifest) else []
                if trainings:
                    features = _read(replace(plan, nets=nets), writer, trainings)
                    runnable = features.runnable()
            elif spread is not None:
                chosen = {net.name for net in runnable}
                spread.do_trainings(features.media, [t for t in trainings if t[0] in chosen])
            # Nets that `spread` has trained are not trained again here.
            known = spread.diverged if spread else {}
            diverged = steps.write_nets(features, runnable, writer, known)
            names = features.features
        failures = writer.failures
    if spread is not None and frozen:
        _tell_same_files(plan.manifest, path, names)
    if diverged:
        raise _divergence(plan, path, diverged, names)
    # A later run retries failures other than decoding, and weights that could not be downloaded.
    settled &= not plan.notes and all(stage.startswith("decode:") for _, stage, _ in failures)
    return summary.ExtractSummary(
        path=plan.request.out,
        clips=len(plan.manifest),
        features=tuple(names),
        failures=failures,
        missing=tuple(missing),
        notes=(*plan.notes, *notes),
        work=plan.work,
        settled=settled,
    )


@contextmanager
def _backend(plan: ExtractPlan) -> Iterator[backends.Backend | None]:
    request = plan.request
    if request.scheduler:
        folders = [plan.work, request.out.parent, plan.manifest.root]
        shared = [folder.absolute() for folder in folders]
        with backends.dask_backend(request.scheduler, shared) as backend:
            yield backend
    else:
        yield backends.local_backend(plan.run.device, request.jobs) if request.jobs > 1 else None


def _read(
    plan: ExtractPlan, writer: CacheWriter, trainings: Sequence[division.Training] | None = None
) -> steps.FeatureWriter:
    if plan.numbers is None and trainings is None:
        _tell_other_level(plan)
    features = steps.FeatureWriter.read(plan, writer, trainings)
    # Workers are stopped to free their memory for the nets.
    stop_workers()
    if trainings is None:
        features.write_failures()
    return features


def _tell_same_files(manifest: Manifest, path: Path, names: Sequence[str]) -> None:
    """Print notes on identical files, which are known by the keys of their rows of features.

    Only workers know the digests of the files, but rows of identical files have equal keys.
    """
    with open_cache(path) as cache:
        named = [spec for spec in cache.specs if spec.name in names]
        keys = zip(*(cache.keys(spec.name, spec.fold) for spec in named), strict=True)
        content = dict(zip(cache.table.clip_ids, map(b"".join, keys), strict=False))
    keys_of = {clip: key.decode() for clip, key in content.items()}
    tell_notes(media_files.same_file_notes(manifest, keys_of))


def _runnable(features: steps.FeatureWriter) -> tuple[list[NetSettings], list[str]]:
    """Return the nets that can run, and notes on clips that are longer than a net's input."""
    plan, media = features.plan, features.media
    tell_notes(media_files.same_file_notes(plan.manifest, media.digests))
    nets = features.runnable()
    if not nets:
        first = plan.manifest.clip_ids[0]
        raise BadOption(
            f"no clip has the input of any net ({', '.join(net.name for net in plan.nets)}); "
            f"the first clip, {first}: {media.reason(first)}"
        )
    tell(f"nets run {plan.place()}")
    seconds, shared = media.seconds(), plan.settings.shared
    notes = [media_files.longer_clips_note(net, seconds, shared) for net in nets]
    notes = [note for note in notes if note]
    tell_notes(notes)
    return nets, notes


def _tell_other_level(plan: ExtractPlan) -> None:
    """Print which audio nets in the cache used another level, and so will run again."""
    level, out = plan.run.level, plan.request.out
    if out.is_file():
        with open_cache(out) as stored:
            specs = [spec for spec in stored.specs if spec.weights]  # only nets have weights
        sound = [s for s in specs if s.modality == "audio" and s.params.get("level") != level]
        if names := list(dict.fromkeys(spec.name for spec in sound)):
            tell(
                f"{out}: {', '.join(names)} read sound at another level (extract.level) or by "
                f"an earlier version at its own: run again with {level:g} LUFS"
            )


def _divergence(
    plan: ExtractPlan, out: Path, diverged: Sequence[TrainingDiverged], features: Sequence[str]
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

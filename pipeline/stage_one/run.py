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
from mvemo.extract.training import data, devices, protocols, ranks
from mvemo.extract.workers.pool import cores, stop_workers
from mvemo.manifests import write_folds
from mvemo.pipeline.clips import clip_media, media_files
from mvemo.pipeline.console.messages import note_resumable, silenced, tell, tell_note
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one import backends, estimate, shards, steps, summary, tasks
from mvemo.pipeline.stage_one import plan as planning
from mvemo.pipeline.starting_weights import tell_weights


def run_extract(
    manifest_path: Path | None,
    settings: Settings,
    *,
    work: Path,
    out: Path,  # feature cache; for a shard, the cache that it is a part of
    root: Path | None = None,  # media root, if it is not the one in the manifest
    fold_file: Path | None = None,  # replaces the folds of the settings and of the manifest
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
    with ranks.joined_ranks(settings.extract.run.device) as joined:
        if joined.count > 1:
            _check_rank_options(settings, execution)
        if not joined.is_writer:
            # Wait until the first rank has read all media and fetched missing weights.
            joined.wait()
        elif execution.force:
            shard = execution.shard
            _remove_damaged(out if shard is None else shards.ShardFolder(out).cache(shard))
        with nullcontext() if joined.is_writer else silenced():
            plan = planning.plan_extract(
                manifest_path,
                settings,
                work=work,
                out=out,
                root=root,
                fold_file=fold_file,
                execution=execution,
            )
            run = _Run(plan, work, out, execution)
            return run.write() if joined.is_writer else run.train_with_first_rank()


def _check_rank_options(settings: Settings, execution: backends.Execution) -> None:
    """Raise BadOption for options that several processes training one net do not support."""
    if settings.extract.run.protocol == "frozen":
        raise BadOption("torchrun: nothing is trained under frozen: spread clips with --jobs")
    if settings.extract.run.compile:
        raise BadOption(
            "torchrun: nets that several processes train are not compiled: leave "
            "extract.compile out"
        )
    if execution.shard or execution.scheduler or execution.jobs > 1:
        raise BadOption("torchrun: leave --shard, --jobs and --backend out: each spreads the work")


def _remove_damaged(path: Path) -> None:
    """Remove a cache that is too damaged to be opened; the writer reports other errors."""
    try:
        open_cache(path).close()
    except DamagedCache:
        tell_note(f"{path}: damaged, and made anew")
        path.unlink()
    except CacheError:
        pass


@dataclass(frozen=True)
class _Extracted:
    """Outcome of a run, for its summary."""

    nets: Sequence[NetSettings]
    features: Sequence[str]
    missing: tuple[tuple[str, str, str], ...]
    notes: Sequence[str] = ()
    diverged: Sequence[TrainingDiverged] = ()
    settled: bool = False  # True if reading the clips again would find nothing new


@dataclass(frozen=True)
class _Run:
    """Run of a plan by one process, which may give tasks to others."""

    plan: planning.ExtractPlan
    work: Path
    out: Path
    execution: backends.Execution

    def write(self) -> summary.ExtractSummary:
        """Write the cache, or the shard."""
        plan, table = self.plan, self.plan.evaluation.table
        for report in plan.weights:
            tell_weights(report)
        warning = estimate.long_run_note(plan, self.work, self.out, self.execution)
        if warning:
            tell_note(warning, lasting=False)
        for folder in (self.out.parent, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        devices.return_freed_memory()
        if plan.evaluation.folds is not None:
            write_folds(plan.evaluation.folds, self.work / "folds.csv")
        if self.execution.shard is not None:
            return self._write_shard(self.execution.shard)
        frozen = plan.settings.extract.run.protocol == "frozen"
        with (
            self._backend() as backend,
            CacheWriter(self.out, table, provenance=plan.facts) as writer,
        ):
            spread = None if backend is None else tasks.SpreadRun(writer, backend)
            if spread is not None and (frozen or self.execution.scheduler):
                extracted = self._spread_clips(writer, spread)
            if spread is None or not frozen:
                # This finds the clips that workers have read.
                extracted = self._extract(writer, spread)
            failures = writer.failures
        if spread is not None and frozen:
            # Only workers have digested the files, but rows of the same bytes have the same key.
            self._tell_same_files(_row_keys(self.out, extracted.features))
        if extracted.diverged:
            raise _divergence(extracted.diverged, extracted.features, extracted.nets, self.out)
        # The plan's notes name nets whose weights could not be fetched.
        settled = extracted.settled and not plan.notes
        return summary.ExtractSummary(
            path=self.out,
            clips=len(plan.manifest),
            features=tuple(extracted.features),
            failures=failures,
            missing=extracted.missing,
            notes=(*plan.notes, *extracted.notes),
            work=self.work,
            settled=settled and all(stage.startswith("decode:") for _, stage, _ in failures),
        )

    def train_with_first_rank(self) -> summary.ExtractSummary:
        """Train every net together with the first rank, the only one that writes."""
        plan, table = self.plan, self.plan.evaluation.table
        media = clip_media.ClipMedia(plan.manifest, plan.settings, self.work, plans=plan.nets)
        stop_workers()
        for net in plan.nets:
            if media.absent(NETS[net.name].modality):
                continue
            clips = data.TrainingClips(
                plan.manifest, media.digests, media.usable(net), table.folds, table.splits
            )
            reader, run = partial(media.batches, view=net.view), plan.settings.extract.run
            # A training diverges on all ranks; the first one reports it.
            with suppress(TrainingDiverged):
                for _ in protocols.train_nets(
                    net, clips, run, batches=reader, jobs=self.work / "nets"
                ):
                    pass
        names = tuple(net.name for net in plan.nets)
        return summary.ExtractSummary(self.out, len(plan.manifest), names, ())

    @contextmanager
    def _backend(self) -> Iterator[backends.Backend | None]:
        """Yield the backend of a run, or None if only this process works."""
        execution = self.execution
        if execution.scheduler:
            folders = [self.work, self.out.parent, self.plan.manifest.root]
            shared = [folder.absolute() for folder in folders]
            with backends.dask_backend(execution.scheduler, shared) as backend:
                yield backend
        elif execution.jobs > 1:
            yield backends.local_backend(self.plan.settings.extract.run, execution.jobs)
        else:
            yield None

    def _extract(self, writer: CacheWriter, spread: tasks.SpreadRun | None) -> _Extracted:
        """Read all clips in this process; train and embed here or through `spread`."""
        plan, settings = self.plan, self.plan.settings
        descriptors = settings.extract.descriptors
        media = clip_media.ClipMedia(
            plan.manifest, settings, self.work, plans=plan.nets, descriptors=descriptors
        )
        # The nets need the memory of the workers.
        stop_workers()
        self._tell_same_files(media.digests)
        features = steps.FeatureWriter(media, settings, writer, self.work)
        features.write_failures()
        nets = features.runnable(plan.nets)
        if not nets:
            first = plan.manifest.clip_ids[0]
            raise BadOption(
                f"no clip has the input of the nets {', '.join(net.name for net in plan.nets)}; "
                f"the first clip, {first}: {media.reason(first)}"
            )
        self._tell_device()
        seconds = media.seconds()
        notes = [media_files.longer_clips_note(net, seconds, settings.shared) for net in nets]
        notes = [note for note in notes if note]
        for note in notes:
            tell_note(note)
        features.write_descriptors()
        ranks.current_ranks().wait()
        if spread is not None:
            shared = tasks.TaskSettings.of(settings, plan.nets, self.work, writer.path)
            trainings = backends.trainings_of(nets, settings.extract.run, writer.table.folds)
            spread.do_trainings(shared, media, trainings)
        # Nets trained by `spread` are found here together with their rows.
        diverged = steps.write_nets(features, nets, writer, spread.diverged if spread else None)
        return _Extracted(nets, features.features, media.missing, notes, diverged, media.settled)

    def _spread_clips(self, writer: CacheWriter, spread: tasks.SpreadRun) -> _Extracted:
        """Read and embed all clips through `spread`, in batches."""
        plan, extract, manifest = self.plan, self.plan.settings.extract, self.plan.manifest
        if extract.run.protocol == "frozen":
            self._tell_device()
        # A worker of a scheduler may share its machine with other workers.
        jobs = cores() if self.execution.scheduler else self.execution.jobs
        extract = replace(extract, workers=max((extract.workers or cores()) // jobs, 1))
        settings = replace(plan.settings, extract=extract)
        shared = tasks.TaskSettings.of(settings, plan.nets, self.work, writer.path)
        spread.do_clips(shared, replace(manifest, root=manifest.root.absolute()))
        failures = writer.failures
        failed = {clip for clip, stage, _ in failures if stage.startswith("decode:")}
        if len(failed) == len(manifest):
            clip, _, reason = failures[0]
            raise BadOption(f"no clip could be decoded; the first: {clip}: {reason}")
        return _Extracted(plan.nets, spread.features, tuple(spread.missing), settled=not failures)

    def _tell_device(self) -> None:
        tell(f"nets run {self.execution.place(self.plan.settings.extract.run)}")

    def _tell_same_files(self, content: Mapping[str, str]) -> None:
        for note in media_files.same_file_notes(self.plan.manifest, content):
            tell_note(note)

    def _write_shard(self, shard: backends.Shard) -> summary.ExtractSummary:
        """Write one shard; one that is done with the same settings only with ``--force``."""
        plan, settings, whole = self.plan, self.plan.settings, self.plan.evaluation.table
        rows, run, force = shard.rows(plan.manifest), settings.extract.run, self.execution.force
        trainings = shard.trainings(backends.trainings_of(plan.nets, run, whole.folds))
        folder, facts = shards.ShardFolder(self.out), shards.run_facts(settings, whole, shard.count)
        folder.claim(facts, whole, plan.facts, force=force)
        path = folder.cache(shard)
        if folder.is_done(shard, facts) and not force:
            tell(f"shard {shard} is done: {path}")
            with open_cache(path) as done:
                failures = tuple((f.clip_id, f.stage, f.reason) for f in done.failures)
                return summary.ExtractSummary(
                    path, len(rows), done.names(), failures, work=self.work
                )
        # Trained nets embed all clips.
        table = whole if trainings else subset(whole, rows)
        clips = tuple(plan.manifest.clips[row] for row in rows)
        with CacheWriter(path, table, provenance=plan.facts) as writer:
            media = clip_media.ClipMedia(
                replace(plan.manifest, clips=clips),
                settings,
                self.work,
                plans=plan.nets,
                descriptors=settings.extract.descriptors,
                require_any=False,
                numbers=rows,
            )
            stop_workers()
            features = steps.FeatureWriter(media, settings, writer, self.work)
            features.write_failures()
            features.write_descriptors()
            nets = list(plan.nets) if run.protocol == "frozen" and rows else []
            if trainings:
                features, nets = self._trainer(trainings, writer)
            self._tell_device()
            diverged = steps.write_nets(features, nets, writer)
            failures = writer.failures
        if diverged:
            raise _divergence(diverged, features.features, nets, path)
        folder.finish(shard, facts)
        with open_cache(path) as done:
            names = done.names()
        return summary.ExtractSummary(
            path, len(rows), names, failures, media.missing, plan.notes, self.work
        )

    def _trainer(
        self, trainings: Sequence[backends.Training], writer: CacheWriter
    ) -> tuple[steps.FeatureWriter, list[NetSettings]]:
        """Return a writer that trains some nets and embeds all clips, and these nets."""
        plan, chosen = self.plan, {name for name, _ in trainings}
        nets = [net for net in plan.nets if net.name in chosen]
        media = clip_media.ClipMedia(plan.manifest, plan.settings, self.work, plans=nets)
        stop_workers()
        features = steps.FeatureWriter(media, plan.settings, writer, self.work, trainings)
        return features, features.runnable(nets)


def _row_keys(path: Path, features: Sequence[str]) -> dict[str, str]:
    """Return the keys of each clip's rows, joined; a clip without a row has fewer."""
    with open_cache(path) as cache:
        specs = [spec for spec in cache.specs if spec.name in features]
        keys = zip(*(cache.keys(spec.name, spec.fold) for spec in specs), strict=True)
        return {c: b"".join(k).decode() for c, k in zip(cache.table.clip_ids, keys, strict=False)}


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

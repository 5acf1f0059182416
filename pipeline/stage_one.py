"""Stage one as a function: manifest in, one feature cache out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo.cache import CacheWriter, ClipTable, failures_by_reason, open_cache
from mvemo.cache.storage.layout import subset
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import describe_device, pick_device
from mvemo.extract.training.memory import keep_freed_memory
from mvemo.extract.workers.pool import stop_workers
from mvemo.manifests import write_folds
from mvemo.pipeline.clip_media import ClipMedia
from mvemo.pipeline.execution import Execution, Shard, Training, trainings_of
from mvemo.pipeline.input_lengths import longer_clips_note
from mvemo.pipeline.messages import tell, tell_note
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.shards import ShardFolder, run_facts
from mvemo.pipeline.stage_plan import ExtractPlan, plan_extract
from mvemo.pipeline.stage_steps import FeatureWriter


@dataclass(frozen=True)
class ExtractSummary:
    """What stage one did.

    Parameters
    ----------
    path
        The feature cache.
    clips
        How many clips the manifest has.
    features
        Names in the cache.
    failures
        (clip id, stage, reason) of all that failed.
    missing
        (clip id, modality, reason) of clips that have the other modality alone: no failure.
    notes
        On nets that were left out, and on clips that are longer than a net's input.
    """

    path: Path
    clips: int
    features: tuple[str, ...]
    failures: tuple[tuple[str, str, str], ...]
    missing: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """For the terminal: notes, missing modalities, failures with reasons, the file last."""
        lines = [f"note: {note}" for note in self.notes]
        for modality in ("audio", "video"):
            clips = [(clip, why) for clip, kind, why in self.missing if kind == modality]
            if clips:
                lines.append(
                    f"{len(clips)} of {self.clips} clips without {modality}, which counts as "
                    f"missing and not as failed; the first, {clips[0][0]}: {clips[0][1]}"
                )
        if self.failures:
            shown = 20
            lines.append(f"{len(self.failures)} failures, kept in the cache, by reason:")
            kinds = failures_by_reason(self.failures)
            lines += [f"  {kind.text()}" for kind in kinds[:shown]]
            if len(kinds) > shown:
                lines.append(f"  and {len(kinds) - shown} more reasons: mvemo cache info")
        lines.append(f"{self.clips} clips, features {', '.join(self.features)}: {self.path}")
        return "\n".join(lines)


def run_extract(
    manifest_path: Path | None,
    settings: Settings,
    *,
    work: Path,
    out: Path,
    root: Path | None = None,
    fold_file: Path | None = None,
    execution: Execution | None = None,
) -> ExtractSummary:
    """Decode, train, embed and write the cache.

    Parameters
    ----------
    manifest_path
        None for the demo set, which is made under `work`.
    settings
        Of the run.
    work
        Folder of decoded media and checkpoints. Everything in it is found again by a
        later run, and nothing in it travels.
    out
        The feature cache; of a shard the cache that it is a part of, see
        `mvemo.pipeline.shards`.
    root
        Media root, where it is not the manifest's own.
    fold_file
        The folds, in place of those that the settings ask for or the manifest prescribes.
    execution
        How the work is spread; by default this process does all of it.

    Returns
    -------
    A summary; failures of single clips are in it, never raised.

    Raises
    ------
    TrainingDiverged
        A net's training had no finite loss. It is raised at the end: the cache has the
        features of all other nets.
    """
    keep_freed_memory()
    execution = execution or Execution()
    plan = plan_extract(
        manifest_path,
        settings,
        work=work,
        out=out,
        root=root,
        fold_file=fold_file,
        execution=execution,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if plan.evaluation.folds is not None:
        write_folds(plan.evaluation.folds, work / "folds.csv")
    if execution.shard is not None:
        return _run_shard(plan, execution.shard, work, out, force=execution.force)
    settings, manifest, table = plan.settings, plan.manifest, plan.evaluation.table
    with CacheWriter(out, table, provenance=plan.facts) as writer:
        descriptors = settings.extract.descriptors
        media = ClipMedia(manifest, settings, work, plans=plan.nets, descriptors=descriptors)
        # Their memory is worth more to the nets.
        stop_workers()
        features = FeatureWriter(media, settings, writer, work)
        features.write_failures()
        nets = features.runnable(plan.nets)
        if not nets:
            raise features.nothing_to_read(plan.nets)
        _tell_device(settings)
        notes = [*plan.notes, *_notes_on_length(nets, media, settings)]
        features.write_descriptors()
        diverged = _write_embeddings(features, nets, table)
        failures = writer.failures
    if diverged:
        raise _divergence(diverged, features.features, nets, out)
    return ExtractSummary(
        path=out,
        clips=len(manifest),
        features=tuple(features.features),
        failures=failures,
        missing=media.missing,
        notes=tuple(notes),
    )


def _run_shard(
    plan: ExtractPlan, shard: Shard, work: Path, out: Path, *, force: bool
) -> ExtractSummary:
    """Do one shard: what is asked of its clips alone, and the nets that it trains."""
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
            return ExtractSummary(path, len(rows), done.names(), failures)
    # Nets that are trained embed all clips.
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
        _tell_device(settings)
        diverged = _write_embeddings(features, nets, table)
        failures = writer.failures
    if diverged:
        raise _divergence(diverged, features.features, nets, path)
    folder.finish(shard, facts)
    with open_cache(path) as done:
        names = done.names()
    return ExtractSummary(path, len(rows), names, failures, media.missing, plan.notes)


def _trainer(
    plan: ExtractPlan, trainings: Sequence[Training], writer: CacheWriter, work: Path
) -> tuple[FeatureWriter, list[NetSettings]]:
    """What trains some of a run's nets and embeds all clips by them, and those nets."""
    chosen = {name for name, _ in trainings}
    nets = [net for net in plan.nets if net.name in chosen]
    media = ClipMedia(plan.manifest, plan.settings, work, plans=nets)
    stop_workers()
    features = FeatureWriter(media, plan.settings, writer, work, trainings)
    return features, features.runnable(nets)


def _tell_device(settings: Settings) -> None:
    run = settings.extract.run
    tell(f"nets run on {describe_device(pick_device(run.device), run.precision)}")


def _notes_on_length(
    plans: Sequence[NetSettings], media: ClipMedia, settings: Settings
) -> list[str]:
    """A note for each net that does not read the end of some clips; told before it runs."""
    seconds = media.seconds()
    notes = [longer_clips_note(plan, seconds, settings.shared) for plan in plans]
    notes = [note for note in notes if note]
    for note in notes:
        tell_note(note)
    return notes


def _write_embeddings(
    features: FeatureWriter, plans: Sequence[NetSettings], table: ClipTable
) -> list[TrainingDiverged]:
    """Write the embeddings of all nets; the errors of those whose training diverged."""
    diverged = []
    for plan in plans:
        try:
            features.write_embeddings(plan, table.folds, table.splits)
        except TrainingDiverged as error:
            diverged.append(error)
            if plan is not plans[-1]:
                tell_note(f"{plan.name} diverged; the next nets go on")
    return diverged


def _divergence(
    diverged: Sequence[TrainingDiverged],
    features: Sequence[str],
    plans: Sequence[NetSettings],
    out: Path,
) -> TrainingDiverged:
    """One error of all nets that diverged, with how to go on."""
    finished = [plan.name for plan in plans if plan.name in features]
    advice = "; ".join(error.advice for error in diverged)
    if finished:
        advice += (
            f", or leave out what diverged, --nets {','.join(finished)}; {out} has the features "
            f"of {', '.join(finished)}, which are not trained again"
        )
    return TrainingDiverged("; ".join(error.problem for error in diverged), advice)

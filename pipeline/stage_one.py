"""Stage one as a function: manifest in, one feature cache out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvemo.cache import CacheWriter, ClipTable, failures_by_reason, open_cache, unfinished_run
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.pretrained import with_fetched_weights
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.devices import describe_device, pick_device, resolve_precision
from mvemo.extract.training.losses import make_loss
from mvemo.extract.training.memory import keep_freed_memory
from mvemo.extract.training.protocols import make_net
from mvemo.extract.workers.pool import stop_workers
from mvemo.manifests import (
    Folds,
    Manifest,
    read_folds,
    read_manifest,
    write_folds,
)
from mvemo.manifests.splits.folds import fold_notes
from mvemo.pipeline.clip_media import ClipMedia
from mvemo.pipeline.clip_tables import extracted_clips, folds_of_table
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.input_lengths import longer_clips_note
from mvemo.pipeline.inputs import media_files, missing_media
from mvemo.pipeline.messages import tell, tell_note
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_steps import FeatureWriter
from mvemo.pipeline.starting_weights import (
    fetch_missing_weights,
    random_start_note,
    refuse_missing_weights,
)


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
    force: bool = False,
    fold_file: Path | None = None,
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
        The feature cache.
    root
        Media root, where it is not the manifest's own.
    force
        Replace a cache of other clips.
    fold_file
        The folds, in place of those that the settings ask for or the manifest prescribes.

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
    settings = with_resolved_precision(settings)
    run = settings.extract.run
    plans = [with_fetched_weights(settings.nets[name], run) for name in settings.extract.nets]
    # What is wrong with settings or weights is told before hours of decoding.
    refuse_missing_weights(plans, settings)
    manifest = _demo(work) if manifest_path is None else manifest_with_media(manifest_path, root)
    folds, settings = read_fold_file(fold_file, manifest, settings)
    plans, notes = fetch_missing_weights(plans, settings)
    _check_losses_and_weights(plans, manifest, run)
    if not force:
        _refuse_other_clips(out, manifest)
    if manifest_path is not None:
        _propose_pretrained(settings)
    earlier = _earlier_folds(out) if settings.extract.keep_folds else None
    evaluation = extracted_clips(manifest, settings.extract, folds, earlier=earlier)
    start = [note for note in [random_start_note(plans, settings)] if note]
    for note in start:
        tell_note(note)
    facts = provenance(
        settings=settings.record(),
        manifest={"name": manifest.name, "digest": manifest.digest},
        notes=start,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with CacheWriter(out, evaluation.table, provenance=facts) as writer:
        work.mkdir(parents=True, exist_ok=True)
        if evaluation.folds is not None:
            write_folds(evaluation.folds, work / "folds.csv")
        what = "split" if evaluation.folds is None else "folds"
        for note in evaluation.notes:
            tell(f"{what}: {note}")
        descriptors = settings.extract.descriptors
        media = ClipMedia(manifest, settings, work, plans=plans, descriptors=descriptors)
        # Their memory is worth more to the nets.
        stop_workers()
        features = FeatureWriter(media, settings, writer, work)
        features.write_failures()
        plans = features.runnable(plans)
        tell(f"nets run on {describe_device(pick_device(run.device), run.precision)}")
        notes += _notes_on_length(plans, media, settings)
        features.write_descriptors()
        diverged = _write_embeddings(features, plans, evaluation.table)
        failures = writer.failures
    if diverged:
        raise _divergence(diverged, features.features, plans, out)
    return ExtractSummary(
        path=out,
        clips=len(manifest),
        features=tuple(features.features),
        failures=failures,
        missing=media.missing,
        notes=tuple(notes),
    )


def with_resolved_precision(settings: Settings) -> Settings:
    """Settings that name the precision that ``auto`` means here, as the cache records it.

    Raises
    ------
    BadSetting
        A CUDA device is named, and torch finds none.
    """
    run = settings.extract.run
    run = replace(run, precision=resolve_precision(run.precision, pick_device(run.device)))
    return replace(settings, extract=replace(settings.extract, run=run))


def _propose_pretrained(settings: Settings) -> None:
    """Say that there is a quicker way, where nobody chose this one and there is no GPU."""
    run = settings.extract.run
    if settings.profile_named or run.protocol == "frozen" or pick_device(run.device).type != "cpu":
        return
    tell_note(
        "there is no GPU here, without which these nets train for hours or days; "
        "--profile pretrained embeds with public pretrained nets in minutes"
    )


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


def _check_losses_and_weights(
    plans: Sequence[NetSettings], manifest: Manifest, run: RunSettings
) -> None:
    """Refuse a loss that is not for the manifest's task, and weights that do not fit."""
    for plan in plans:
        make_loss(plan.train.loss, manifest.task, len(manifest.classes), 1, tau=plan.train.tau)
        if plan.weights:
            make_net(plan, len(manifest.classes), run)


def manifest_with_media(path: Path, root: Path | None = None) -> Manifest:
    """Read a manifest some of whose media files may not be there.

    A file that is not there is a failure of its clips, told when they are decoded; where
    there is none at all, the folder is wrong.

    Raises
    ------
    BadOption
        Not one media file is there.
    """
    manifest = read_manifest(path, root=root, media=False)
    missing = missing_media(manifest, path)
    if missing:
        n_files = len(media_files(manifest))
        tell_note(
            f"{len(missing)} of {n_files} media files are not in {manifest.root}, as "
            f"{missing[0]!r}: their clips will fail, all others are done"
        )
    return manifest


def read_fold_file(
    fold_file: Path | None, manifest: Manifest, settings: Settings
) -> tuple[Folds | None, Settings]:
    """The folds of a file, in the order of the manifest's clips, and settings of as many folds.

    The manifest stays as it is, so that its digest is still that of its file.

    Raises
    ------
    BadManifest
        The file's clips are not the manifest's, or it divides a group.
    BadOption
        The protocol has no folds.
    """
    if fold_file is None:
        return None, settings
    if settings.extract.run.protocol == "holdout":
        raise BadOption(f"--folds {fold_file}: the holdout protocol has one split, not folds")
    folds = read_folds(fold_file, manifest)
    notes = fold_notes(manifest.labels, manifest.groups, folds.k, manifest.task, manifest.classes)
    # Seed -1: they are prescribed, and no seed would make them again.
    folds = replace(folds, seed=-1, manifest_digest=manifest.digest, notes=notes)
    return folds, replace(settings, extract=replace(settings.extract, folds=folds.k))


def _earlier_folds(out: Path) -> Folds | None:
    """The folds of the feature file that a run before has written."""
    if not out.exists():
        return None
    with open_cache(out) as cache:
        return folds_of_table(cache.table)


def _refuse_other_clips(out: Path, manifest: Manifest) -> None:
    """A cache of another data set is not replaced unasked: imported features would go, too."""
    _refuse_other_run(out, manifest)
    if not out.exists():
        return
    with open_cache(out) as cache:
        table = cache.table
        imported = any(spec.protocol == "imported" for spec in cache.specs)
    dropped = set(table.clip_ids) - set(manifest.clip_ids)
    # The demo set's can be made again in a minute.
    if len(dropped) == len(table) > 0 and (imported or not table.synthetic):
        raise BadOption(
            f"{out}: holds features of other clips ({table.name!r}, {len(table)} clips): write "
            "to another file with --out, or replace it with --force"
        )
    if dropped and imported:
        raise BadOption(
            f"{out}: holds imported features of {len(dropped)} clips that the manifest has not, as "
            f"{min(dropped)!r}, which nothing here could make again: write to another file with "
            "--out, or drop them with --force"
        )


def _refuse_other_run(out: Path, manifest: Manifest) -> None:
    """Rows that an unfinished run of other clips has committed are not dropped unasked."""
    unfinished = unfinished_run(out)
    if unfinished is None:
        return
    dropped = unfinished.clip_ids - set(manifest.clip_ids)
    if len(dropped) == len(unfinished.clip_ids):
        raise BadOption(
            f"{out}: a run of other clips ({unfinished.name!r}) was cut off, and its features of "
            f"{len(dropped)} clips wait there: finish it by its own command, write to another "
            "file with --out, or drop them with --force"
        )
    if dropped:
        tell_note(
            f"{out}: features of {len(dropped)} clips of the run that was cut off are dropped, as "
            f"{min(dropped)!r}: the manifest does not have them any more"
        )


def _demo(work: Path) -> Manifest:
    from mvemo.manifests.demo import make_demo

    return make_demo(work / "demo")

"""What stage two will know of a manifest's clips: their folds, or the split that they have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvemo.cache import ClipTable
from mvemo.manifests import (
    Folds,
    Holdout,
    Manifest,
    folds_of,
    holdout_of,
    parse_fractions,
    prescribed_split,
)
from mvemo.pipeline.settings import ExtractSettings


@dataclass(frozen=True)
class Evaluation:
    """How the clips of a run will be evaluated."""

    table: ClipTable
    folds: Folds | None  # in the table; None if the clips have a split instead
    notes: tuple[str, ...]


def extracted_clips(
    manifest: Manifest,
    settings: ExtractSettings,
    folds: Folds | None = None,
    *,
    earlier: Folds | None = None,
) -> Evaluation:
    """The clips as stage one's protocol needs them.

    ``holdout`` trains on a split, the manifest's or one made here. ``frozen`` trains
    nothing, so a split that the manifest prescribes is kept for stage two. All else has
    folds: those given, in the order of the clips, or new ones in which clips of `earlier`
    folds keep theirs.
    """
    if folds is not None:
        return Evaluation(clip_table(manifest, folds), folds, folds.notes)
    if settings.run.protocol == "holdout":
        split = holdout_of(manifest, parse_fractions(settings.split), settings.fold_seed)
        return Evaluation(clip_table(manifest, split=split), None, split.notes)
    notes: tuple[str, ...] = ()
    if settings.run.protocol == "frozen":
        prescribed, notes = prescribed_split(manifest)
        if prescribed is not None:
            return Evaluation(clip_table(manifest, split=prescribed), None, notes)
    elif any(clip.split for clip in manifest.clips):
        notes = (
            f"the manifest's split is not used: {settings.run.protocol} makes folds; "
            "--protocol holdout trains and tests on the split",
        )
    folds = folds_of(manifest, settings.folds, settings.fold_seed, earlier=earlier)
    return Evaluation(clip_table(manifest, folds), folds, (*notes, *folds.notes))


def folds_of_table(table: ClipTable) -> Folds | None:
    """The folds of a cache's clips; None where they have none."""
    if not table.k:
        return None
    return Folds(table.folds, table.k, table.fold_seed, table.clip_ids, table.digest)


def prescribed_by(table: ClipTable, fold_file: Path | None = None) -> str:
    """Why the folds or the split of clips are the same with any seed; empty if they are not."""
    if fold_file is not None:
        return f"they are those of {fold_file}"
    if table.fold_seed != -1:
        return ""
    return "they are prescribed" if table.splits is None else "the clips have one prescribed split"


def imported_clips(manifest: Manifest) -> Evaluation:
    """The clips of features that another program made: what the manifest prescribes, alone."""
    split, notes = prescribed_split(manifest)
    if split is not None:
        return Evaluation(clip_table(manifest, split=split), None, notes)
    folds = None
    if any(clip.fold is not None for clip in manifest.clips):
        folds = folds_of(manifest)
    return Evaluation(clip_table(manifest, folds), folds, notes)


def clip_table(
    manifest: Manifest, folds: Folds | None = None, *, split: Holdout | None = None
) -> ClipTable:
    """A manifest as the table of a cache, with folds, a split or neither."""
    nowhere = np.full(len(manifest), -1, dtype=np.int64)
    source = folds or split
    return ClipTable(
        name=manifest.name,
        task=manifest.task,
        classes=manifest.classes,
        clip_ids=manifest.clip_ids,
        groups=manifest.groups,
        labels=manifest.labels,
        folds=nowhere if folds is None else folds.assignment,
        k=0 if folds is None else folds.k,
        fold_seed=0 if source is None else source.seed,
        digest=manifest.digest,
        synthetic=manifest.synthetic,
        splits=None if split is None else split.assignment,
        scale=manifest.scale,
        predicted_by=manifest.predicted_by,
    )

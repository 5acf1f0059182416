"""Clip tables of caches, with the clips' folds or split, and links to the media files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mvemo import manifests
from mvemo.cache import Cache, ClipTable, open_cache, unfinished_run
from mvemo.cache.table import subset
from mvemo.manifests.annotators import Ceiling, ceilings_of, disagreement_of
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.settings import ExtractSettings, Settings


@dataclass(frozen=True)
class Evaluation:
    """Clip table of a run, with the folds or the split for its evaluation."""

    table: ClipTable
    folds: manifests.Folds | None  # None if the clips have a split
    notes: tuple[str, ...]


def extracted_clips(
    manifest: manifests.Manifest,
    settings: ExtractSettings,
    folds: manifests.Folds | None = None,
    *,
    earlier: manifests.Folds | None = None,
) -> Evaluation:
    """Return a manifest's clips with the folds or the split that the run's protocol needs."""
    if folds is not None:
        return Evaluation(clip_table(manifest, folds), folds, folds.notes)
    if settings.run.protocol == "holdout":
        split = manifests.holdout_of(
            manifest, manifests.parse_fractions(settings.split), settings.fold_seed
        )
        return Evaluation(clip_table(manifest, split=split), None, split.notes)
    notes: tuple[str, ...] = ()
    if settings.run.protocol == "frozen":
        prescribed, notes = manifests.prescribed_split(manifest)
        if prescribed is not None:
            return Evaluation(clip_table(manifest, split=prescribed), None, notes)
    elif any(clip.split for clip in manifest.clips):
        notes = (
            f"the manifest's split is not used, because {settings.run.protocol} makes folds: "
            "give --protocol holdout to train and test on the split",
        )
    folds = manifests.folds_of(manifest, settings.folds, settings.fold_seed, earlier=earlier)
    return Evaluation(clip_table(manifest, folds), folds, (*notes, *folds.notes))


def folds_of_table(table: ClipTable) -> manifests.Folds | None:
    """Return the folds of a cache's clips, or None if the clips have no folds."""
    if not table.k:
        return None
    return manifests.Folds(table.folds, table.k, table.fold_seed, table.clip_ids, table.digest)


def folds_of_cache(path: Path) -> manifests.Folds | None:
    """Return the folds of the clips of a cache file, or None."""
    with open_cache(path) as cache:
        return folds_of_table(cache.table)


def prescribed_by(table: ClipTable, fold_file: Path | None = None) -> str:
    """Return the reason why a seed does not change the folds or the split, or '' if it does."""
    if fold_file is not None:
        return f"they are read from {fold_file}"
    if table.fold_seed != -1:
        return ""
    return "they are prescribed" if table.splits is None else "the clips have one prescribed split"


def imported_clips(manifest: manifests.Manifest) -> Evaluation:
    """Return the clips of imported features with the manifest's folds or split, if it has any."""
    split, notes = manifests.prescribed_split(manifest)
    if split is not None:
        return Evaluation(clip_table(manifest, split=split), None, notes)
    folds = None
    if any(clip.fold is not None for clip in manifest.clips):
        folds = manifests.folds_of(manifest)
    return Evaluation(clip_table(manifest, folds), folds, notes)


def clip_table(
    manifest: manifests.Manifest,
    folds: manifests.Folds | None = None,
    *,
    split: manifests.Holdout | None = None,
) -> ClipTable:
    """Return the clip table of a manifest, with folds, with a split, or without both."""
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
        disagreement=disagreement_of(manifest),
    )


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
    if why := prescribed_by(table, fold_file):
        tell_note(f"{option} changes no fold: {why}")


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


def refuse_other_clips(out: Path, manifest: manifests.Manifest) -> None:
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


def ceilings_of_clips(
    table: ClipTable, manifest: Path | None, annotators: int | None
) -> Sequence[Ceiling]:
    """Return the scores that the annotators' disagreement allows; () if it is not known.

    The disagreement is that of `manifest` if it is given.
    """
    if manifest is not None:
        name, known = table.name, {*table.clip_ids}
        table = clip_table(manifests.read_manifest(manifest, media=False))
        table = subset(table, [i for i, clip in enumerate(table.clip_ids) if clip in known])
        if not len(table):
            raise BadOption(f"--manifest {manifest}: has none of the clips of {name}")
        if table.disagreement is None:
            tell_note(f"{manifest}: no column states deviations or agreement: no ceiling is known")
    if table.disagreement is None:
        return ()
    return ceilings_of(table.task, table.classes, table.labels, table.disagreement, annotators)


def manifest_facts(
    manifest: manifests.Manifest, path: Path, options: manifests.ManifestOptions
) -> dict[str, Any]:
    """Return what a cache stores about its manifest, to find the media files later."""
    return {
        **({"columns": dict(options.columns)} if options.columns else {}),
        **({"task": options.task} if options.task else {}),
        "name": manifest.name,
        "digest": manifest.digest,
        "file": str(path.absolute()),
        "root": str(Path(manifest.root).absolute()),
    }


def manifest_of(facts: Mapping[str, Any]) -> manifests.Manifest | None:
    """Return the manifest that `manifest_facts` describes, or None if it is gone."""
    file, root = Path(str(facts.get("file", ""))), Path(str(facts.get("root", "")))
    if not file.is_file():
        return None
    columns, task = facts.get("columns") or {}, facts.get("task")
    return manifests.read_manifest(file, root=root, columns=columns, task=task, media=False)


def links_of_manifest(manifest: manifests.Manifest, out: Path) -> dict[str, str]:
    """Return, by clip id, links from a page in the folder `out` to the media files that exist."""
    links = {}
    for clip in manifest.clips:
        path = manifest.media_path(clip)
        if clip.path and path.is_file():
            end = "" if clip.duration is None else f",{clip.start + clip.duration:g}"
            part = f"#t={clip.start:g}{end}" if clip.start or end else ""
            links[clip.clip_id] = _link(path, out) + part
    return links


def _link(path: Path, out: Path) -> str:
    try:
        return quote(Path(os.path.relpath(path.absolute(), out.absolute())).as_posix())
    except ValueError:
        # The file is on another drive, so there is no relative path.
        return path.absolute().as_uri()


def links_of_folder(clip_ids: Iterable[str], folder: Path, out: Path) -> dict[str, str]:
    """Return the links to files of a folder that are named like clips, with any suffix."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    links = {}
    for clip_id in clip_ids:
        name, _, start = clip_id.partition("@")
        if path := named.get(clip_id) or named.get(name):
            links[clip_id] = _link(path, out) + f"#t={start}" * (path is not named.get(clip_id))
    if not links:
        first = min(clip_ids, default="")
        raise BadOption(f"--media {folder}: has no file for any clip, such as {first}.mp4")
    return links


def links_of_cache(cache: Cache, out: Path) -> dict[str, str]:
    """Return the links of a cache's manifest, or {} if it is missing or has changed."""
    manifest = _manifest_of_cache(cache)
    return {} if manifest is None else links_of_manifest(manifest, out)


def paths_of_cache(cache: Cache) -> dict[str, str]:
    """Return the paths of a cache's clips by id, or {} if its manifest is missing or changed.

    A segment is named as in predictions, such as ``song.mp3@30``.
    """
    if (manifest := _manifest_of_cache(cache)) is None:
        return {}
    paths = {}
    for clip in filter(lambda clip: clip.path, manifest.clips):
        part = f"@{clip.start:g}" if clip.start or clip.duration is not None else ""
        paths[clip.clip_id] = f"{manifest.media_path(clip)}{part}"
    return paths


def _manifest_of_cache(cache: Cache) -> manifests.Manifest | None:
    """Return the manifest that a cache was made of, or None if it is missing or has changed."""
    provenance, digest = cache.provenance, cache.table.digest
    # Look at all runs that wrote to the cache, the last run first.
    for run in (provenance, *provenance.get("history", ())):
        facts = run.get("manifest")
        if isinstance(facts, dict) and facts.get("digest") == digest:
            with suppress(MvemoError, OSError):
                found = manifest_of(facts)
                if found and Path(found.root).is_dir() and found.digest == digest:
                    return found
    return None

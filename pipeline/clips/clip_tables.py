"""Clip tables of caches, with the clips' folds or split, and links to the media files."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mvemo import manifests
from mvemo.cache import Cache, ClipTable
from mvemo.manifests.annotators import disagreement_of
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.settings import ExtractSettings


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

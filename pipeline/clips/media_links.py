"""Links from a report to the media files of its clips."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mvemo.cache import Cache
from mvemo.manifests import Manifest, read_manifest
from mvemo.manifests.errors import ManifestError


def manifest_facts(manifest: Manifest, path: Path) -> dict[str, str]:
    """Return the facts about a manifest that a cache keeps to find its media again."""
    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "file": str(path.absolute()),
        "root": str(Path(manifest.root).absolute()),
    }


def links_of_manifest(manifest: Manifest, out: Path) -> dict[str, str]:
    """Return for each clip id a link from a page in the folder `out` to the clip's file.

    Examples
    --------
    >>> from mvemo.manifests import Clip
    >>> clips = (Clip("a", "my song.mp3", ("sad",), "g", start=10.0, duration=5.0),)
    >>> manifest = Manifest("songs", "multiclass", ("sad",), clips, Path("media"))
    >>> links_of_manifest(manifest, Path("out"))
    {'a': '../media/my%20song.mp3#t=10,15'}
    """
    links = {}
    for clip in (clip for clip in manifest.clips if clip.path):
        path = manifest.media_path(clip).absolute()
        try:
            link = quote(Path(os.path.relpath(path, out.absolute())).as_posix())
        except ValueError:
            # The file is on another drive.
            link = path.as_uri()
        if clip.start or clip.duration is not None:
            link += f"#t={clip.start:g}"
            link += "" if clip.duration is None else f",{clip.start + clip.duration:g}"
        links[clip.clip_id] = link
    return links


def links_of_cache(cache: Cache, out: Path) -> dict[str, str]:
    """Return the links of the manifest that a cache was made from.

    Empty if the manifest is not on this machine or has changed.
    """
    for facts in _manifests_of(cache.provenance):
        file, root = Path(str(facts.get("file", ""))), Path(str(facts.get("root", "")))
        if facts.get("digest") != cache.table.digest or not (file.is_file() and root.is_dir()):
            continue
        try:
            manifest = read_manifest(file, root=root, media=False)
        except (ManifestError, OSError):
            continue
        if manifest.digest == cache.table.digest:
            return links_of_manifest(manifest, out)
    return {}


def _manifests_of(provenance: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the manifest facts of the runs that wrote to a cache, the last run first."""
    for run in (provenance, *provenance.get("history", ())):
        facts = run.get("manifest")
        if isinstance(facts, dict):
            yield facts

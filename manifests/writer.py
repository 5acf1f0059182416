"""Writing of manifests as CSV files for `read_manifest`."""

from __future__ import annotations

import os
from pathlib import Path

from mvemo.manifests.clip_rows import inside_root
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import label_kind
from mvemo.manifests.model import Clip, Manifest
from mvemo.manifests.tables import MANIFEST_VERSION, RESERVED, format_names, write_table


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest so that `read_manifest` returns an equal one, with the same digest.

    Paths stay relative to the manifest's root, and the root is written relative to the file's
    folder, so that both can be moved together. The file is replaced atomically.

    Raises
    ------
    BadManifest
        A name, id or path cannot be represented in the file, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.manifests import Clip, Manifest
    >>> folder = Path(tempfile.mkdtemp())
    >>> clips = (Clip("a", "a.mp4", ("calm",), "a"), Clip("b", "b.mp4", ("tense",), "b"))
    >>> write_manifest(Manifest("two", "multiclass", ("calm", "tense"), clips, folder),
    ...                folder / "two.csv")
    >>> (folder / "two.csv").read_text().splitlines()[-2:]
    ['a,a.mp4,calm,a', 'b,b.mp4,tense,b']
    """
    path = Path(path)
    root = _relative_root(manifest.root, path.parent)
    for text in (manifest.name, root, *manifest.classes):
        if text != text.strip() or "\n" in text or "\r" in text:
            raise BadManifest(f"{path}: {text!r} must not have blanks around it or line breaks")
    settings = {
        "name": manifest.name,
        "task": manifest.task,
        "classes": format_names(manifest.classes, ","),
        "root": root,
        "synthetic": "true" if manifest.synthetic else "",
        "scale": manifest.scale,
        "predicted": manifest.predicted_by,
    }
    clips, kind = manifest.clips, label_kind(manifest.task)
    # Features are enough for the clips of a manifest without media.
    columns = ["path"] * any(clip.path for clip in clips)
    columns += [*kind.columns(manifest.classes), "group"]
    if any(clip.start or clip.duration is not None for clip in clips):
        columns += ["start", "duration"]
    columns += ["fold"] * any(clip.fold is not None for clip in clips)
    columns += ["split"] * any(clip.split is not None for clip in clips)
    extra = dict.fromkeys(name for clip in clips for name, _ in clip.extra)
    columns += [name for name in extra if name not in (*RESERVED, *manifest.classes)]
    rows = [["clip_id", *columns]]
    for clip in clips:
        _check_clip(clip, manifest.root, path)
        label = kind.format(clip.label, manifest.classes)
        cells = {
            **dict(clip.extra),
            "path": clip.path,
            **dict(zip(kind.columns(manifest.classes), label, strict=True)),
            "group": clip.group,
            "start": repr(clip.start),
            "duration": "" if clip.duration is None else repr(clip.duration),
            "fold": "" if clip.fold is None else str(clip.fold),
            "split": clip.split or "",
        }
        rows.append([clip.clip_id, *(cells.get(column, "") for column in columns)])
    stated = {key: value for key, value in settings.items() if value or key == "classes"}
    write_table(path, f"mvemo manifest {MANIFEST_VERSION}", stated, rows)


def _check_clip(clip: Clip, root: Path, path: Path) -> None:
    for text in (clip.clip_id, clip.group, clip.split or "", *map(str, clip.label)):
        if text != text.strip() or "\0" in text:
            raise BadManifest(f"{path}: {text!r} must not have blanks around it")
    if clip.path and (inside_root(clip.path, root) != clip.path or "\0" in clip.path):
        raise BadManifest(f"{path}: {clip.path!r} is not a plain path below the media root")


def _relative_root(root: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # Windows: on another drive
        return root.resolve().as_posix()

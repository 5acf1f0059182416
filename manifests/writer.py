"""Writing of manifests as CSV files for `read_manifest`."""

from __future__ import annotations

import io
import os
from pathlib import Path

from mvemo.manifests.cells import format_names
from mvemo.manifests.csv_files import CsvWriter
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import label_kind
from mvemo.manifests.model import Clip, Manifest
from mvemo.manifests.rows import inside_root
from mvemo.manifests.tables import MANIFEST_VERSION, RESERVED, write_table


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest so that `read_manifest` returns an equal one, with the same digest.

    Paths stay relative to the manifest's root. The root is written relative to the file's
    folder, so that both can be moved together. The file is replaced atomically.

    Parameters
    ----------
    manifest
        Manifest to write.
    path
        Path of the CSV file.

    Raises
    ------
    BadManifest
        A name, id or path cannot be represented in the file, or the file cannot be written.

    See Also
    --------
    read_manifest : Read a manifest.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.manifests import Clip, Manifest
    >>> folder = Path(tempfile.mkdtemp())
    >>> clips = (Clip("a", "a.mp4", ("calm",), "a"), Clip("b", "b.mp4", ("tense",), "b"))
    >>> write_manifest(Manifest("two", "multiclass", ("calm", "tense"), clips, folder),
    ...                folder / "two.csv")
    >>> print((folder / "two.csv").read_text(), end="")
    # mvemo manifest 1
    # name: two
    # task: multiclass
    # classes: calm, tense
    # root: .
    clip_id,path,label,group
    a,a.mp4,calm,a
    b,b.mp4,tense,b
    """
    path = Path(path)
    root = _relative_root(manifest.root, path.parent)
    for text in (manifest.name, root, *manifest.classes):
        if text != text.strip() or "\n" in text or "\r" in text:
            raise BadManifest(f"{path}: {text!r} must not have blanks around it or line breaks")
    head = [
        f"# mvemo manifest {MANIFEST_VERSION}",
        f"# name: {manifest.name}",
        f"# task: {manifest.task}",
        f"# classes: {format_names(manifest.classes, ',')}",
        f"# root: {root}",
    ]
    if manifest.synthetic:
        head.append("# synthetic: true")
    head += [f"# scale: {manifest.scale}"] if manifest.scale else []
    head += [f"# predicted: {manifest.predicted_by}"] if manifest.predicted_by else []

    kind = label_kind(manifest.task)
    optional = _optional_columns(manifest)
    extra = _extra_columns(manifest)
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    # Features are enough for the clips of a manifest without media.
    path_column = ["path"] if any(clip.path for clip in manifest.clips) else []
    writer.writerow(
        ["clip_id", *path_column, *kind.columns(manifest.classes), "group", *optional, *extra]
    )
    for clip in manifest.clips:
        _check_clip(clip, manifest.root, path)
        cells = {
            **dict(clip.extra),
            "start": repr(clip.start),
            "duration": "" if clip.duration is None else repr(clip.duration),
            "fold": "" if clip.fold is None else str(clip.fold),
            "split": clip.split or "",
        }
        writer.writerow(
            [
                clip.clip_id,
                *([clip.path] if path_column else []),
                *kind.format(clip.label, manifest.classes),
                clip.group,
                *(cells.get(column, "") for column in (*optional, *extra)),
            ]
        )
    write_table(path, "\n".join(head) + "\n" + buffer.getvalue())


def _optional_columns(manifest: Manifest) -> list[str]:
    """Return the optional columns that some clip needs."""
    clips = manifest.clips
    columns: list[str] = []
    if any(clip.start or clip.duration is not None for clip in clips):
        columns += ["start", "duration"]
    if any(clip.fold is not None for clip in clips):
        columns.append("fold")
    if any(clip.split is not None for clip in clips):
        columns.append("split")
    return columns


def _extra_columns(manifest: Manifest) -> list[str]:
    """Return the names in `Clip.extra`, except those of other columns."""
    names = dict.fromkeys(name for clip in manifest.clips for name, _ in clip.extra)
    return [name for name in names if name not in (*RESERVED, *manifest.classes)]


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

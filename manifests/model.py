"""Clips with labels and groups, the manifest that lists them, and its file."""

import hashlib
import json
import os
import posixpath
import re
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.labels import Label, Task, label_kind
from mvemo.manifests.tables import MANIFEST_VERSION, RESERVED, format_names, write_table

# Paths that need no normalisation, which would be slower.
_TIDY = re.compile(r"(?:[^./\\][^/\\]*/)*[^./\\][^/\\]*")


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled media file, or a part of one.

    A label is one class, any number of tags, or one value for each target in the manifest's order.
    """

    clip_id: str  # unique in its manifest
    path: str  # relative to the manifest's root, with forward slashes
    label: Label
    group: str  # song, source video, artist or actor; clips of a group stay in one fold
    start: float = 0.0  # in the file, in seconds
    duration: float | None = None  # in seconds, above 0; None for the rest of the file
    fold: int | None = None  # prescribed fold, from 0
    split: str | None = None  # prescribed split: train, val or test
    # (column, cell) of other facts, such as RAVDESS's intensity; manifest files keep them.
    extra: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Manifest:
    """Labelled clips in fixed order, and everything needed to read their labels."""

    name: str  # for reports; by default the name of the file or folder
    task: Task
    classes: tuple[str, ...]  # class names, tags or regression targets, in fixed order
    clips: tuple[Clip, ...]  # row i of every aligned array belongs to clip i
    root: Path  # folder that the clips' paths are relative to
    synthetic: bool = False  # generated data; every report is marked with it
    scale: str = ""  # lowest and highest valence and arousal, such as 1..9; empty if unknown
    predicted_by: str = ""  # model that predicted the labels; empty if people gave them
    # Sentences on how a user's own table was read.
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        n_groups = len(set(self.groups))
        return (
            f"<Manifest {self.name!r}: {len(self)} clip{'s' * (len(self) != 1)} in {n_groups} "
            f"group{'s' * (n_groups != 1)}, {self.task}: {', '.join(self.classes)}>"
        )

    @cached_property
    def clip_ids(self) -> tuple[str, ...]:
        return tuple(clip.clip_id for clip in self.clips)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        return tuple(clip.group for clip in self.clips)

    @cached_property
    def labels(self) -> Ints | F64:
        """int64 (clips,) classes or (clips, tags) of 0 and 1, or float64 (clips, targets)."""
        return label_kind(self.task).array([clip.label for clip in self.clips], self.classes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of task, classes, scale, and the clips in order; the root does not matter."""
        clips = [
            (c.clip_id, c.path, c.label, c.group, c.start, c.duration, c.fold, c.split)
            for c in self.clips
        ]
        # A missing scale is left out, so that it does not change the digest.
        facts = [self.task, self.classes, clips, *filter(None, [self.scale])]
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_pandas(self) -> Any:
        """Return the clips as a data frame (pandas), with the clip ids as its index.

        Its columns are those of the file: ``path``, those of the labels, ``group``, ``start``,
        ``duration``, ``fold``, ``split``, and further ones of the manifest.
        """
        pandas: Any = import_module("pandas")
        index = pandas.Index(self.clip_ids, name="clip_id")
        return pandas.DataFrame(map(self._cells, self.clips), index=index)

    def _cells(self, clip: Clip) -> dict[str, Any]:
        """Return the cells of a clip by column, without its id."""
        kind = label_kind(self.task)
        label = kind.format(clip.label, self.classes)
        cells = {"path": clip.path, **dict(zip(kind.columns(self.classes), label, strict=True))}
        names = ("group", "start", "duration", "fold", "split")
        cells |= {name: getattr(clip, name) for name in names}
        return cells | {name: cell for name, cell in clip.extra if name not in cells}

    def media_path(self, clip: Clip) -> Path:
        """Return the path of the clip's media file."""
        return self.root / clip.path


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
    ['a,a.mp4,calm,a,', 'b,b.mp4,tense,b,']
    """
    path = Path(path)
    root = os.path.relpath(manifest.root.resolve(), path.parent.resolve())
    for text in (manifest.name, root, *manifest.classes):
        if text != text.strip() or "\n" in text or "\r" in text:
            raise BadManifest(f"{path}: {text!r} must not have spaces around it or line breaks")
    stated = {
        "name": manifest.name,
        "task": manifest.task,
        "classes": format_names(manifest.classes, ","),
        "root": root,
        "synthetic": "true" * manifest.synthetic,
        "scale": manifest.scale,
        "predicted": manifest.predicted_by,
    }
    stated = {key: value for key, value in stated.items() if value or key == "classes"}
    clips = manifest.clips
    # A manifest without media has no paths; its clips only have features.
    columns = ["path"] * any(clip.path for clip in clips)
    columns += [*label_kind(manifest.task).columns(manifest.classes), "group"]
    if any(clip.start or clip.duration is not None for clip in clips):
        columns += ["start", "duration"]
    for name in ("fold", "split"):
        columns += [name] * any(getattr(clip, name) is not None for clip in clips)
    extra = dict.fromkeys(name for clip in clips for name, _ in clip.extra)
    # If ratings are the labels, a column `label` with classes is kept, too.
    columns += [name for name in extra if name not in (*RESERVED[1:], *columns)]
    rows: list[list[Any]] = [["clip_id", *columns]]
    for clip in clips:
        for text in (clip.clip_id, clip.group, clip.split or "", *map(str, clip.label)):
            if text != text.strip() or "\0" in text:
                raise BadManifest(f"{path}: {text!r} must not have spaces around it or a zero byte")
        place = clip.path
        if place and (inside_root(place, manifest.root) != place or "\0" in place):
            raise BadManifest(f"{path}: {place!r} is not a normalised path below the media root")
        # None becomes an empty cell.
        rows.append([clip.clip_id, *map(manifest._cells(clip).get, columns)])
    write_table(path, "manifest", MANIFEST_VERSION, stated, rows)


def inside_root(cell: str, root: Path) -> str | None:
    """Return the normalised path relative to the root, or None if it is not below it."""
    if _TIDY.fullmatch(cell):
        return cell
    if os.path.isabs(cell):
        cell = os.path.relpath(cell, os.path.abspath(root))
    tidy = posixpath.normpath(cell.replace(os.sep, "/"))
    return None if tidy in (".", "..") or tidy.startswith(("../", "/")) else tidy

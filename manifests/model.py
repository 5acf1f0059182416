"""Clips with labels and groups, and the manifest that lists them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mvemo.manifests.labels import F64, Ints, Label, Task, label_kind


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
    # (column, cell) of other facts, such as RAVDESS's intensity; kept in manifest files.
    extra: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Manifest:
    """Labelled clips in fixed order, and everything needed to read their labels."""

    name: str  # for reports; by default that of the file or folder
    task: Task
    classes: tuple[str, ...]  # class names, tags or regression targets, in fixed order
    clips: tuple[Clip, ...]  # in the order of every array that is aligned to this manifest
    root: Path  # folder that the clips' paths are relative to
    synthetic: bool = False  # generated data; every report is marked with it
    scale: str = ""  # lowest and highest value of valence and arousal, as 1..9; empty if unknown
    predicted_by: str = ""  # model whose predictions the labels are; empty for labels by people
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
        """SHA-256 of task, classes, scale and all facts of the clips in order; not of the root."""
        facts = [
            self.task,
            list(self.classes),
            [
                [c.clip_id, c.path, list(c.label), c.group, c.start, c.duration, c.fold, c.split]
                for c in self.clips
            ],
            # Manifests without a scale keep the digest from before scales existed.
            *([self.scale] if self.scale else []),
        ]
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def media_path(self, clip: Clip) -> Path:
        """Return the path of the clip's media file."""
        return self.root / clip.path

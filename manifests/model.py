"""What a manifest is: clips, their labels and groups, the task and its classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mvemo.manifests.labels import Label, Task, label_kind
from mvemo.manifests.types import F64, Ints


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled stretch of one media file.

    Parameters
    ----------
    clip_id
        Unique in its manifest.
    path
        Of the media file, relative to the manifest's root, with forward slashes.
    label
        multiclass: one class name. multilabel: the tags that apply, any number.
        regression: one value for each target, in the manifest's order.
    group
        Song, source video, artist or actor: what must not straddle folds.
    start
        Seconds into the file, from 0.
    duration
        Seconds, above 0; None for all that follows `start`.
    fold
        0-based, where the manifest prescribes folds.
    split
        Name of a prescribed split (``train``, ``val``, ``test``), where given.
    extra
        (column, cell) of what else a data set says of a clip, as RAVDESS's intensity: kept
        in manifest files, and used by nothing else.
    """

    clip_id: str
    path: str
    label: Label
    group: str
    start: float = 0.0
    duration: float | None = None
    fold: int | None = None
    split: str | None = None
    extra: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Manifest:
    """Labelled clips in fixed order, with all that reading their labels needs.

    Parameters
    ----------
    name
        For reports; the file's or folder's name by default.
    task
        One of `mvemo.manifests.TASKS`.
    classes
        Class names, tags or regression targets, in fixed order.
    clips
        In the order of every array that is aligned to this manifest.
    root
        Folder that the clips' paths are relative to.
    synthetic
        True for generated data; every report is marked with it.
    scale
        Lowest and highest value of the scale of valence and arousal, as ``1..9``; empty if it
        is not stated.
    predicted_by
        The model whose predictions the labels are; empty for labels by people.
    notes
        How a user's own table was read, as sentences.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    root: Path
    synthetic: bool = False
    scale: str = ""
    predicted_by: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        """One line, whatever the number of clips.

        Examples
        --------
        >>> clips = (Clip("a", "a.wav", ("sad",), "song"), Clip("b", "b.wav", ("calm",), "song"))
        >>> Manifest("songs", "multiclass", ("calm", "sad"), clips, Path("media"))
        <Manifest 'songs': 2 clips in 1 group, multiclass: calm, sad>
        """
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
        """Labels as one array.

        Returns
        -------
        multiclass: int64 (clips,), indices into `classes`. multilabel: int64
        (clips, classes) of 0 and 1. regression: float64 (clips, classes).
        """
        return label_kind(self.task).array([clip.label for clip in self.clips], self.classes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of task, classes, scale and every clip's facts, in order; not of the root."""
        facts = [
            self.task,
            list(self.classes),
            [
                [c.clip_id, c.path, list(c.label), c.group, c.start, c.duration, c.fold, c.split]
                for c in self.clips
            ],
            # Manifests without a scale keep the digest that they had.
            *([self.scale] if self.scale else []),
        ]
        text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def media_path(self, clip: Clip) -> Path:
        """Where the clip's media file lies."""
        return self.root / clip.path

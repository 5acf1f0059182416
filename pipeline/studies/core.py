"""What all studies share: the manifest, its folds, and what nets are given.

Every figure of a study is out of fold: a clip is predicted by a net, or a classical model,
whose training had neither the clip nor any other of its group. All that a study compares is
on the same folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mvemo.extract.nets import with_length
from mvemo.extract.settings import NetSettings
from mvemo.fuse.arrays import Ints
from mvemo.manifests import Folds, Manifest, folds_of, song_of
from mvemo.pipeline.clips.lengths import longer_clips_note
from mvemo.pipeline.console.messages import note_resumable, tell_note
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.plan import manifest_with_media, read_fold_file
from mvemo.pipeline.starting_weights import random_start_note
from mvemo.pipeline.studies.media import StudyMedia


@dataclass(frozen=True)
class Study:
    """One study's data and settings."""

    manifest: Manifest  # of any task; its labels are shuffled where that is asked for
    settings: Settings  # of the nets, the descriptors and the folds
    work: Path  # folder of the working cache and of trained nets
    permuted: bool = False  # whether labels were shuffled
    runs: int = 1  # repeats with other folds and other seeds
    jobs: int = 1  # processes that train nets
    # The folds of all repeats, in place of those that the settings ask for.
    prescribed: Folds | None = None
    songs: Manifest | None = None  # the whole clips, where `manifest` has their segments
    # Length of the segments that nets are given; 0 for the length that their settings say.
    seconds: float = 0.0
    # On the nets: what they start from and do not read; `media` fills it.
    notes: dict[str, None] = field(default_factory=dict, compare=False)
    # Nets that are narrower than published, with their width; `media` fills it.
    narrow: dict[str, None] = field(default_factory=dict, compare=False)
    # Clip id to why it could not be used; `media` fills it.
    failures: dict[str, str] = field(default_factory=dict, compare=False)

    def folds(self, run: int = 0) -> Ints:
        """int64 (clips,): the fold of each clip in a repeat; groups and songs are whole."""
        extract, songs = self.settings.extract, self.songs or self.manifest
        folds = self.prescribed or folds_of(songs, extract.folds, extract.fold_seed + run)
        of_clip = dict(zip(folds.clip_ids, folds.assignment.tolist(), strict=True))
        ids = self.manifest.clip_ids
        wanted = ids if self.songs is None else map(song_of, ids)
        return np.array([of_clip[clip_id] for clip_id in wanted], dtype=np.int64)

    def folds_of_runs(self, runs: int | None = None) -> list[Ints]:
        """`folds` of each repeat; as many as the study has, unless a number is given."""
        return [self.folds(run) for run in range(self.runs if runs is None else runs)]

    def plan(self, net: str, **train: object) -> NetSettings:
        """A net's plan from the settings, with other values of its `TrainSettings`."""
        plan = self.settings.nets[net]
        if self.seconds:
            plan = with_length(plan, self.seconds, self.settings.shared)
        return replace(plan, train=replace(plan.train, **train))  # type: ignore[arg-type]

    def media(
        self, plans: Sequence[NetSettings] = (), descriptors: Sequence[str] = ()
    ) -> StudyMedia:
        """The working cache of these clips, filled with what is asked for; notes on the nets."""
        media = StudyMedia(
            self.manifest, self.settings, self.work, plans=plans, descriptors=descriptors
        )
        self.failures.update((clip, media.reason(clip)) for clip, _, _ in media.failures)
        self.narrow.update(
            (f"{p.name} (width {p.width:g} of 1)", None) for p in plans if p.width < 1
        )
        seconds, shared = media.seconds(), self.settings.shared
        starts = [random_start_note([plan], self.settings) for plan in plans]
        for note in (*starts, *(longer_clips_note(plan, seconds, shared) for plan in plans)):
            if note and note not in self.notes:
                self.notes[note] = None
                tell_note(note)
        return media


def open_study(
    path: Path,
    settings: Settings,
    *,
    work: Path,
    root: Path | None = None,
    permute_labels: bool = False,
    runs: int = 1,
    jobs: int = 1,
    fold_file: Path | None = None,
    tasks: Sequence[str] = (),
) -> Study:
    """Read the manifest of a study."""
    note_resumable()
    manifest = manifest_with_media(path, root)
    if tasks and manifest.task not in tasks:
        raise BadOption(
            f"{path}: the task is {manifest.task}; this study is of {' and '.join(tasks)} alone"
        )
    prescribed, settings = read_fold_file(fold_file, manifest, settings)
    if permute_labels:
        manifest = with_permuted_labels(manifest, settings.extract.run.seed)
    return Study(manifest, settings, work, permute_labels, runs, jobs, prescribed)


def with_permuted_labels(manifest: Manifest, seed: int) -> Manifest:
    """The manifest with its labels shuffled over clips; all else is as it was."""
    order = np.random.default_rng(seed).permutation(len(manifest))
    clips = tuple(
        replace(clip, label=manifest.clips[int(other)].label)
        for clip, other in zip(manifest.clips, order, strict=True)
    )
    return replace(manifest, clips=clips)

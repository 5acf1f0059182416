"""Data of a study: manifest, folds, media, and the rule for published figures.

Every figure of a study is out of fold: a clip is predicted by a net or a classical model
that was trained without the clip and without all other clips of its group. Everything that
a study compares has the same folds. Published figures stand only next to scores of the
published model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mvemo.extract.array_types import F64, Mask
from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import (
    SharedSettings,
    default_settings,
    options_of,
    with_length,
    with_shared_options,
)
from mvemo.extract.settings import NetSettings
from mvemo.fuse.numeric import Ints
from mvemo.fuse.report.published import J22, comparable
from mvemo.manifests import Folds, Manifest, folds_of, song_of
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.clips.media_files import longer_clips_note
from mvemo.pipeline.console.messages import note_resumable, tell_note
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import ExtractSettings, Settings
from mvemo.pipeline.stage_one.plan import manifest_with_media, read_fold_file
from mvemo.pipeline.starting_weights import random_start_note

# Frames and descriptors of profile ``paper``, which all nets share.
_SHARED = SharedSettings(ExtractSettings().n_frames, DescriptorSettings())


class StudyMedia(ClipMedia):
    """Media of a study's clips for nets and classical models; see `ClipMedia`."""

    def left_out(self, usable: Mask, rows: str = "clips") -> tuple[str, ...]:
        """Return a note on the `rows` that are not `usable`, with the reason of the first."""
        unused = [self.manifest.clip_ids[row] for row in np.flatnonzero(~usable)]
        if not unused:
            return ()
        reason = self.reason(unused[0]) or "not decoded"
        return (
            f"{len(unused)} of {len(usable)} {rows} could not be used and are in no "
            f"score; the first, {unused[0]}: {reason}.",
        )

    def statistics(self, names: Sequence[str]) -> F64:
        """Return mean, then standard deviation, of descriptors over frames; NaN if missing."""
        rows: dict[int, F64] = {}
        for clip_id, row in self._rows.items():
            if self.described[row]:
                frames = self._sequences.joined(clip_id, names).astype(np.float64)
                rows[row] = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
        width = len(next(iter(rows.values()), ()))
        table = np.full((len(self.manifest), width), np.nan)
        for row, values in rows.items():
            table[row] = values
        return table


@dataclass(frozen=True)
class Study:
    """Data and settings of one study; `media` fills the last three fields."""

    manifest: Manifest  # shuffled labels if `permuted`
    settings: Settings
    work: Path  # folder of the working cache and of trained nets
    permuted: bool = False
    runs: int = 1  # repeats with other folds and other seeds
    jobs: int = 1  # processes that train nets
    prescribed: Folds | None = None  # the folds of all repeats, in place of the settings' folds
    songs: Manifest | None = None  # the whole clips, if `manifest` has their segments
    seconds: float = 0.0  # length of the segments that nets read; 0 for the nets' own length
    notes: dict[str, None] = field(default_factory=dict, compare=False)  # notes on the nets
    # Nets that are narrower than published, with their width.
    narrow: dict[str, None] = field(default_factory=dict, compare=False)
    failures: dict[str, str] = field(default_factory=dict, compare=False)  # clip id -> reason

    def folds(self, run: int = 0) -> Ints:
        """Return the fold of each clip in a repeat, int64 (clips,); groups and songs are whole."""
        extract, songs = self.settings.extract, self.songs or self.manifest
        folds = self.prescribed or folds_of(songs, extract.folds, extract.fold_seed + run)
        of_clip = dict(zip(folds.clip_ids, folds.assignment.tolist(), strict=True))
        ids = self.manifest.clip_ids
        wanted = ids if self.songs is None else map(song_of, ids)
        return np.array([of_clip[clip_id] for clip_id in wanted], dtype=np.int64)

    def folds_of_runs(self, runs: int | None = None) -> list[Ints]:
        """Return the folds of each repeat; `runs` is by default the number of the study."""
        return [self.folds(run) for run in range(self.runs if runs is None else runs)]

    def plan(self, net: str, **train: object) -> NetSettings:
        """Return the settings of a net, with the given values of its `TrainSettings`."""
        plan = self.settings.nets[net]
        if self.seconds:
            plan = with_length(plan, self.seconds, self.settings.shared)
        return replace(plan, train=replace(plan.train, **train))  # type: ignore[arg-type]

    def media(
        self, plans: Sequence[NetSettings] = (), descriptors: Sequence[str] = ()
    ) -> StudyMedia:
        """Decode and describe the clips as `plans` and `descriptors` need; collect notes."""
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
    """Read the manifest of a study; refuse a task that is not one of `tasks`."""
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
    """Return the manifest with its labels shuffled over clips."""
    order = np.random.default_rng(seed).permutation(len(manifest))
    clips = tuple(
        replace(clip, label=manifest.clips[int(other)].label)
        for clip, other in zip(manifest.clips, order, strict=True)
    )
    return replace(manifest, clips=clips)


def matches_pl20(study: Study, *plans: NetSettings) -> bool:
    """Return True if figures of PL20 and Z22 may stand next to scores of these nets."""
    return comparable(study.manifest.classes) and _published(study, plans)


def matches_j22(study: Study, *plans: NetSettings, seconds: float = 10.0) -> bool:
    """Return True if figures of J22 may stand next to scores of these nets.

    The nets must read segments of `seconds`. Without nets only the data are checked.
    """
    known = bool(J22.known_classes(study.manifest.classes))
    return known and _published(study, plans, seconds)


def _published(study: Study, plans: Sequence[NetSettings], seconds: float = 0.0) -> bool:
    """Return True if labels are not shuffled and nets and descriptors are as in ``paper``."""
    if study.permuted or study.settings.descriptors != _SHARED.descriptors:
        return False
    for plan in plans:
        known = replace(default_settings(plan.name), weights=plan.weights)
        known = with_shared_options(known, _SHARED)
        if seconds:
            known = with_length(known, seconds, _SHARED)
        if (plan.width, plan.view) != (known.width, known.view):
            return False
        if options_of(plan) != options_of(known):
            return False
    return True

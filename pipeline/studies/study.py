"""Data of a study: manifest, folds, segments, media, and the rules for published values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo import extract, manifests
from mvemo.extract.nets import SharedSettings, options_of, with_length, with_shared_options
from mvemo.fuse import Task, numeric, task_of
from mvemo.fuse import songs as song_scores
from mvemo.fuse.report.published import comparable
from mvemo.manifests import Manifest, song_of
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.errors import BadOption
from mvemo.manifests.segments import Tail
from mvemo.manifests.splits.assignment import TEST
from mvemo.pipeline import starting_weights
from mvemo.pipeline.clips import clip_media, clip_tables, media_files
from mvemo.pipeline.console.messages import note_resumable, tell_note
from mvemo.pipeline.settings import ExtractSettings, Settings

# Classes of J22, in the order of its Table 4.
J22_CLASSES = ("sad", "happy", "anger", "relaxation")
# Number of frames and descriptor settings of profile ``paper``, which all nets share.
_SHARED = SharedSettings(ExtractSettings().n_frames, extract.DescriptorSettings())


class StudyMedia(clip_media.ClipMedia):
    """Media of a study's clips for nets and classical models; see `ClipMedia`."""

    def __init__(self, study: Study, **needed: Any) -> None:
        super().__init__(study.manifest, study.settings, study.work, **needed)
        self.extract: ExtractSettings = study.settings.extract
        self._statistics: dict[tuple[str, ...], F64] = {}

    def left_out(self, usable: Bools, rows: str = "clips") -> tuple[str, ...]:
        """Return a note on the unusable clips, with the reason of the first; () if there are none.

        `rows` is the noun for the clips in the note.
        """
        unused = [self.manifest.clip_ids[row] for row in np.flatnonzero(~usable)]
        if not unused:
            return ()
        n, first = f"{len(unused)} of {len(usable)} {rows}", unused[0]
        text = f"{n} could not be used and do not count in any score; the first is {first}"
        return (f"{text}: {self.reason(first) or 'not decoded'}.",)

    def statistics(self, names: tuple[str, ...]) -> F64:
        """Return each clip's means, then standard deviations, over frames; NaN if missing."""
        if names not in self._statistics:
            found = {}
            for row in np.flatnonzero(self.described).tolist():
                frames = self._sequences.joined(self.clip_of[row], names).astype(np.float64)
                found[row] = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
            width = len(next(iter(found.values()), ()))
            table = self._statistics[names] = np.full((len(self.manifest), width), np.nan)
            for row, values in found.items():
                table[row] = values
        return self._statistics[names]

    def embedded(self, net: extract.Net, view: extract.ViewSettings, rows: Ints) -> Iterator[Any]:
        """Yield each batch of rows together with the net's embeddings."""
        return extract.embed_rows(
            net,
            self.batches(net, view),
            rows.tolist(),
            batch_size=self.extract.embed_batch,
            device=extract.pick_device(self.extract.run.device),
            precision=self.extract.run.precision,
        )


@dataclass(frozen=True)
class Study:
    """Data and settings of one study; `media` fills the last three fields."""

    manifest: Manifest  # clips or segments; labels are shuffled if `permuted`
    settings: Settings
    work: Path  # folder of the working cache and of trained nets
    permuted: bool = False
    runs: int = 1  # number of repeats, each with different folds and seeds; 0 without training
    jobs: int = 1  # number of processes that train nets
    prescribed: manifests.Folds | None = None  # folds of all repeats; None: made from the settings
    songs: Manifest | None = None  # the whole clips, if `manifest` holds their segments
    seconds: float = 0.0  # length of the segments that nets read; 0 for the nets' own length
    split: manifests.Holdout | None = (
        None  # of whole clips; nets then train and test on it, not on folds
    )
    first_fold: bool = False  # only the first fold is tested
    # Notes on the nets, each once, in order.
    notes: dict[str, None] = field(default_factory=dict, compare=False)
    # Names and widths of the nets that are narrower than published, each once, in order.
    small_nets: dict[str, None] = field(default_factory=dict, compare=False)
    failures: dict[str, str] = field(default_factory=dict, compare=False)  # clip id -> reason

    def folds(self, run: int = 0) -> Ints:
        """Return each clip's fold in a repeat, int64 (clips,); groups and songs stay whole."""
        if self.split is not None:
            return np.zeros(len(self.manifest), dtype=np.int64)
        settings, songs = self.settings.extract, self.songs or self.manifest
        seed = settings.fold_seed + run
        folds = self.prescribed or manifests.folds_of(songs, settings.folds, seed)
        return self._of_songs(folds.clip_ids, folds.assignment)

    @property
    def parts(self) -> Ints | None:
        """Return the part of the split that each clip is in, int64 (clips,), or None."""
        if self.split is None:
            return None
        return self._of_songs((self.songs or self.manifest).clip_ids, self.split.assignment)

    def _of_songs(self, clip_ids: Sequence[str], assignment: Ints) -> Ints:
        """Return the number of each clip, or of its song, int64 (clips,)."""
        of_clip = dict(zip(clip_ids, assignment.tolist(), strict=True))
        ids = self.manifest.clip_ids
        wanted = ids if self.songs is None else map(song_of, ids)
        return np.array([of_clip[clip_id] for clip_id in wanted], dtype=np.int64)

    def tested(self, run: int = 0) -> Ints:
        """Return the fold that tests each clip in a repeat; -1 for clips that none tests."""
        if self.parts is not None:
            return np.where(self.parts == TEST, 0, -1)
        folds = self.folds(run)
        return np.where(folds == folds.min(), 0, -1) if self.first_fold else folds

    def shuffled(self) -> Manifest:
        """Return the manifest with shuffled labels; segments of a song get the same label."""
        seed = self.settings.extract.run.seed + 1
        if self.songs is None:
            return with_permuted_labels(self.manifest, seed)
        label = {c.clip_id: c.label for c in with_permuted_labels(self.songs, seed).clips}
        clips = (replace(c, label=label[song_of(c.clip_id)]) for c in self.manifest.clips)
        return replace(self.manifest, clips=tuple(clips))

    def plan(self, net: str, **train: object) -> extract.NetSettings:
        """Return the settings of a net, with the given values of its `TrainSettings`."""
        settings = self.settings
        plan = settings.nets.get(net)
        if plan is None:  # a Hugging Face folder that ``extract.nets`` does not list
            plan = extract.default_settings(net, settings.profile)
            plan = with_shared_options(plan, settings.shared)
        if self.seconds:
            plan = with_length(plan, self.seconds, settings.shared)
        return replace(plan, train=replace(plan.train, **train))  # type: ignore[arg-type]

    def media(
        self, plans: Sequence[extract.NetSettings] = (), descriptors: Sequence[str] = ()
    ) -> StudyMedia:
        """Decode the clips, compute what `plans` and `descriptors` need, and collect notes."""
        media = StudyMedia(self, plans=plans, descriptors=descriptors)
        self.failures.update((clip, media.reason(clip)) for clip, _, _ in media.failures)
        self.small_nets.update(
            (f"{p.name} (width {p.width:g} of 1)", None) for p in plans if p.width < 1
        )
        seconds, shared = media.seconds(), self.settings.shared
        notes = [starting_weights.random_start_note([plan], self.settings) for plan in plans]
        notes += [media_files.longer_clips_note(plan, seconds, shared) for plan in plans]
        for note in notes:
            if note and note not in self.notes:
                self.notes[note] = None
                tell_note(note)
        return media


def open_study(
    path: Path,
    settings: Settings,
    *,
    root: Path | None = None,
    fold_file: Path | None = None,
    tasks: Sequence[str] = (),
    permute_labels: bool = False,
    **facts: Any,
) -> Study:
    """Read the manifest of a study; refuse a task that is not one of `tasks`.

    A study without training (0 runs) may also read a folder. `facts` are fields of `Study`.
    """
    trains = facts.get("runs") != 0
    if trains:
        note_resumable()
    if path.is_dir() and not trains:
        manifest = manifests.scan_clips(path).manifest
    else:
        manifest = media_files.manifest_with_media(path, manifests.ManifestOptions(root))
    if tasks and manifest.task not in tasks:
        raise BadOption(
            f"{path}: the task is {manifest.task}; this study needs {' or '.join(tasks)}"
        )
    prescribed, settings = clip_tables.read_fold_file(fold_file, manifest, settings)
    if permute_labels:
        manifest = with_permuted_labels(manifest, settings.extract.run.seed)
    return Study(manifest, settings, permuted=permute_labels, prescribed=prescribed, **facts)


def read_labels(manifest: Manifest) -> tuple[Task, numeric.Labels]:
    """Return the task of a manifest and the labels of all clips, as stage two reads them."""
    task = task_of(manifest.task)
    y_true = task.read_labels(np.asarray(manifest.labels))
    return task.for_labels(manifest.classes, y_true, manifest.scale), y_true


def with_permuted_labels(manifest: Manifest, seed: int) -> Manifest:
    """Return the manifest with its labels shuffled over clips."""
    order = np.random.default_rng(seed).permutation(len(manifest))
    clips = tuple(
        replace(clip, label=manifest.clips[int(other)].label)
        for clip, other in zip(manifest.clips, order, strict=True)
    )
    return replace(manifest, clips=clips)


@dataclass(frozen=True)
class Cut:
    """Rule for cutting clips into segments; the default is J22's (section 3)."""

    first: float | None = 30.0  # seconds used from the start of each clip; None for all
    tail: Tail = "drop"  # what to do with the rest of a clip; see `segment_manifest`

    def note(self) -> str:
        """Describe the cut in a sentence."""
        used = "all of" if self.first is None else f"the first {self.first:g} s of"
        return f"Segments are cut from {used} each clip (rule for the rest: {self.tail})."


@dataclass(frozen=True)
class Songs:
    """Clips of a study whose sound can be read."""

    manifest: Manifest
    durations: Mapping[str, float]  # clip id -> length in s
    notes: tuple[str, ...]  # notes on the clips that could not be read

    def decide(self, segments: Manifest, outputs: F64) -> F64:
        """Return the outputs of each song: the mean of its segments' outputs."""
        rows = {clip_id: row for row, clip_id in enumerate(self.manifest.clip_ids)}
        of_segments = np.array([rows[song_of(each)] for each in segments.clip_ids], dtype=np.int64)
        return song_scores.decide_songs(outputs, of_segments, len(self.manifest), "mean")


def find_songs(study: Study) -> Songs:
    """Decode the sound of all clips, and return the clips that could be read."""
    media = study.media(descriptors=["mel"])
    durations = media.seconds()
    clips = tuple(clip for clip in study.manifest.clips if clip.clip_id in durations)
    songs = replace(study.manifest, clips=clips)
    return Songs(songs, durations, media.left_out(media.described))


def cut_study(study: Study, songs: Songs, seconds: float, cut: Cut) -> Study:
    """Cut the songs into segments of `seconds`; no net reads more than the longest segment."""
    segments = manifests.segment_manifest(
        songs.manifest, seconds, durations=songs.durations, **vars(cut)
    )
    lengths = [clip.duration or songs.durations[song_of(clip.clip_id)] for clip in segments.clips]
    heard = min(seconds, max((length or seconds for length in lengths), default=seconds))
    return replace(study, manifest=segments, songs=songs.manifest, seconds=heard)


def matches_pl20(study: Study, *plans: extract.NetSettings) -> bool:
    """Return True if PL20's and Z22's values may be shown next to scores of these nets."""
    return comparable(study.manifest.classes) and _published(study, plans)


def matches_j22(study: Study, *plans: extract.NetSettings, seconds: float = 10.0) -> bool:
    """Return True if J22's values may be shown next to scores on segments of `seconds`."""
    return bool(j22_classes(study.manifest.classes)) and _published(study, plans, seconds)


def j22_classes(names: Sequence[str]) -> list[str]:
    """Return J22's names for a data set's classes; [] if they are not J22's four classes."""
    known = [str(manifests.SCHEMES["j22"].class_of(name)) for name in names]
    return known if sorted(known) == sorted(J22_CLASSES) else []


def _published(study: Study, plans: Sequence[extract.NetSettings], seconds: float = 0.0) -> bool:
    """Return True if labels are true, and nets and descriptors are those of profile ``paper``."""
    if study.permuted or study.settings.descriptors != _SHARED.descriptors:
        return False
    for plan in plans:
        known = replace(extract.default_settings(plan.name), weights=plan.weights)
        known = with_shared_options(known, _SHARED)
        if seconds:
            known = with_length(known, seconds, _SHARED)
        ours, theirs = ((p.width, p.view, options_of(p)) for p in (plan, known))
        if ours != theirs:
            return False
    return True

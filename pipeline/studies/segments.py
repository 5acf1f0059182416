"""Study T3: accuracy by the length of segments (J22 3.2, Tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mvemo.extract.nets import SequenceInput, input_of, with_length
from mvemo.extract.settings import NetSettings
from mvemo.fuse.numeric import Ints
from mvemo.fuse.report.published import J22 as j22
from mvemo.fuse.songs import decide_songs
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import Manifest
from mvemo.manifests.segments import Tail, segment_manifest, song_of
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies import tags
from mvemo.pipeline.studies.comparison import (
    Compared,
    NetPredictor,
    Variant,
    compare,
    divergence_notes,
)
from mvemo.pipeline.studies.core import Study, matches_j22
from mvemo.pipeline.studies.output import Plot, StudyResult
from mvemo.pipeline.studies.plots import score_lines
from mvemo.pipeline.studies.scores import NO_SCORES, Labels, Scores, score
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Column, Table, capital

SECONDS = (3.0, 5.0, 10.0, 16.0)
# Length of the segments on which J22 compares nets (3.2).
SEGMENT_SECONDS = 10.0
NETS = ("cnn", "crnn")


@dataclass(frozen=True)
class Cut:
    """Rule for cutting clips to segments.

    The defaults are J22's (section 3): the first 30 s of a song, and only whole segments, so
    that 30 s give one segment of 16 s, as in its Table 1.
    """

    first: float | None = 30.0  # seconds of each clip that are used; None for all
    tail: Tail = "drop"  # use of the rest of a clip, see `segment_manifest`

    def segments(
        self, clips: Manifest, seconds: float, durations: Mapping[str, float | None]
    ) -> Manifest:
        """Cut the clips to segments of `seconds`."""
        return segment_manifest(
            clips, seconds, durations=durations, tail=self.tail, first=self.first
        )

    def input_seconds(
        self, segments: Manifest, seconds: float, durations: Mapping[str, float | None]
    ) -> float:
        """Return the seconds of sound that a net needs for segments of `seconds`.

        If all segments are shorter, a longer input would only be padding, which changes no
        prediction and takes as long as sound.
        """
        lengths = (segment.duration or durations[song_of(segment.clip_id)]
                   for segment in segments.clips)  # fmt: skip
        return min(seconds, max((length or seconds for length in lengths), default=seconds))

    def note(self) -> str:
        """Describe the cut in a sentence."""
        used = "All of" if self.first is None else f"The first {self.first:g} s of"
        return f"{used} each clip; a rest after the last whole segment: {self.tail}."


def known_lengths(study: Study) -> tuple[Manifest, dict[str, float], list[str]]:
    """Return the clips whose sound can be read, their lengths in s, and notes on the others."""
    whole = study.media(descriptors=["mel"])
    durations = whole.seconds()
    clips = tuple(clip for clip in study.manifest.clips if clip.clip_id in durations)
    songs = replace(study.manifest, clips=clips)
    return songs, durations, list(whole.left_out(whole.described))


def cut_study(study: Study, seconds: float, cut: Cut | None) -> tuple[Study, list[str]]:
    """Cut the clips of a study to segments for its nets; 0 s leaves clips whole."""
    if not seconds:
        return study, []
    cut = cut or Cut()
    songs, durations, notes = known_lengths(study)
    segments = cut.segments(songs, seconds, durations)
    heard = cut.input_seconds(segments, seconds, durations)
    notes.append(
        f"{len(segments)} segments of {seconds:g} s of {len(songs)} clips are trained on and "
        f"scored, those of a clip in its fold. {cut.note()} --seconds 0 takes whole clips."
    )
    return replace(study, manifest=segments, songs=songs, seconds=heard), notes


@dataclass(frozen=True)
class LengthScores:
    """Scores of one net on segments of one length, per segment and per song."""

    net: str
    seconds: float
    segments: Scores
    songs: Scores
    printed: float | None


def run_segments(
    study: Study,
    *,
    seconds: Sequence[float] = SECONDS,
    nets: Sequence[str] = NETS,
    cut: Cut | None = None,
) -> StudyResult:
    """Cut the clips to segments of each length and cross-fit each net on them.

    All segments of a clip are in one fold. A song's class comes from the mean of its
    segments' probabilities. J22 does not say whether its accuracies are of segments or songs.
    """
    cut = cut or Cut()
    for length in seconds:
        if not length > 0:
            raise BadOption(f"--seconds {length:g}: a segment must be longer than 0 s")
    plans = [study.plan(net) for net in nets]
    for plan in plans:
        if not isinstance(input_of(plan), SequenceInput):
            raise BadOption(f"--nets {plan.name}: segments are studied with nets on sequences")
    songs, durations, notes = known_lengths(study)
    folds = replace(study, manifest=songs).folds_of_runs()
    counts = []
    scores: list[LengthScores] = []
    # Inputs that nets were trained on, with their length and scores.
    scored: list[tuple[tuple[Manifest, float], float, list[LengthScores]]] = []
    for length in seconds:
        segments = cut.segments(songs, length, durations)
        printed = j22.TABLE_1.get(length) if matches_j22(study) else None
        counts.append((length, len(segments), len(songs), printed))
        heard = cut.input_seconds(segments, length, durations)
        same = next((known for known in scored if known[0] == (segments, heard)), None)
        if same is not None:
            scores += [replace(each, seconds=length) for each in same[2]]
            notes.append(
                f"Segments of {length:g} s are those of {same[1]:g} s, for no clip is longer: the "
                "same nets, trained once."
            )
            continue
        of_length = [with_length(plan, heard, study.settings.shared) for plan in plans]
        length_scores, problems = _score_length(study, songs, segments, folds, of_length, length)
        scored.append(((segments, heard), length, length_scores))
        scores += length_scores
        notes += problems
    task = Labels.of(songs).task
    return StudyResult(
        name="segments",
        title="Length of segments",
        tables=(_count_table(counts), _score_table(scores, task)),
        plots=(_plot(scores, task),),
        notes=(
            "low and high: 95 % interval over groups. A song's class is that of its segments' "
            "mean probabilities. A clip shorter than a segment is one segment, whole.",
            cut.note(),
            *notes,
        ),
        sources=(tags.SOURCE,),
    )


def _score_length(
    study: Study,
    songs: Manifest,
    segments: Manifest,
    folds: Sequence[Ints],
    plans: Sequence[NetSettings],
    seconds: float,
) -> tuple[list[LengthScores], tuple[str, ...]]:
    """Score each net on segments of one length; return notes on segments left out."""
    media = replace(study, manifest=segments).media(plans)
    rows = {clip_id: row for row, clip_id in enumerate(songs.clip_ids)}
    song = np.array([rows[song_of(clip_id)] for clip_id in segments.clip_ids], dtype=np.int64)
    variants = [
        Variant(
            plan.name,
            NetPredictor(study, media, plan, title=f"{plan.name} {seconds:g} s"),
            cells=(plan.name, seconds),
        )
        for plan in plans
    ]
    compared = compare(study, variants, segments, [assignment[song] for assignment in folds])
    scores = [
        LengthScores(
            plan.name,
            seconds,
            each.scores,
            _song_scores(each, songs, song, folds),
            j22.TABLE_2.get(plan.name, {}).get(seconds)
            if matches_j22(study, plan, seconds=seconds)
            else None,
        )
        for plan, each in zip(plans, compared, strict=True)
    ]
    notes = [f"Segments of {seconds:g} s: {note}" for note in divergence_notes(compared)]
    return scores, (*media.left_out(media.described, f"segments of {seconds:g} s"), *notes)


def _song_scores(compared: Compared, songs: Manifest, song: Ints, folds: Sequence[Ints]) -> Scores:
    """Score whole songs; `song` is int64 (segments,), the row of each segment's song."""
    if compared.divergence:
        return NO_SCORES
    outputs = [decide_songs(run.outputs, song, len(songs), "mean") for run in compared.runs]
    return score(Labels.of(songs), outputs, folds)


def _count_table(counts: Sequence[tuple[float, int, int, int | None]]) -> Table:
    return Table(
        "counts",
        "Segments by length (as J22 Table 1)",
        (
            Column("seconds", NUMBER),
            Column("segments", NUMBER),
            Column("songs", NUMBER),
            Column("J22 Table 1", NUMBER, published=True),
        ),
        tuple(counts),
    )


def _score_table(scores: Sequence[LengthScores], task: Task) -> Table:
    kind = PERCENT if task.in_percent else NUMBER
    published = [Column("J22 Table 2", PERCENT, published=True)] if task.in_percent else []
    return Table(
        "accuracy",
        f"{capital(task.primary_title)} by length of segments (as J22 Table 2)",
        (
            Column("net"),
            Column("seconds", NUMBER),
            *(
                Column(name, kind)
                for rows in ("segments", "songs")
                for name in (rows, "low", "high")
            ),
            Column("majority" if task.in_percent else "baseline", kind),
            *published,
        ),
        tuple(
            (
                each.net,
                each.seconds,
                *(each.segments.primary, each.segments.low, each.segments.high),
                *(each.songs.primary, each.songs.low, each.songs.high),
                each.songs.baseline,
                *(each.printed for _ in published),
            )
            for each in scores
        ),
    )


def _plot(scores: Sequence[LengthScores], task: Task) -> Plot:
    lines: dict[str, dict[float, float]] = {}
    for each in scores:
        lines.setdefault(f"{each.net}, segments", {})[each.seconds] = each.segments.primary
        lines.setdefault(f"{each.net}, songs", {})[each.seconds] = each.songs.primary
    published: dict[str, dict[float, float]] = {}
    for each in scores:
        if each.printed is not None and task.in_percent:
            published.setdefault(each.net, {})[each.seconds] = each.printed
    # Baseline of the last length that has scores.
    baseline = next((s.songs.baseline for s in reversed(scores) if s.songs.n_clips), None)
    return Plot(
        "accuracy",
        f"{capital(task.primary_title)} by length of segments",
        lambda axes: score_lines(axes, lines, published, baseline, "length of a segment, s", task),
        (6.4, 4.6),
    )

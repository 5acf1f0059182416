"""T3: the length of segments against accuracy (J22 3.2, Tables 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mvemo.extract.training.plan import NetPlan
from mvemo.fuse.report import published_j22 as j22
from mvemo.fuse.songs import decide
from mvemo.manifests.segments import segment_manifest, song_of
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.studies.core import Scores, Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.output import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
)
from mvemo.pipeline.studies.plots import accuracy_lines

SECONDS = (3.0, 5.0, 10.0, 16.0)
NETS = ("cnn", "crnn")


def run_segments(
    study: Study, *, seconds: Sequence[float] = SECONDS, nets: Sequence[str] = NETS
) -> StudyResult:
    """Cut the clips to segments of each length and cross-fit each net on them.

    All segments of a clip lie in its fold. A song's class is that of the mean of its
    segments' probabilities; J22 does not say which of the two its accuracies are.

    Parameters
    ----------
    study
        Of whole clips.
    seconds
        Lengths of segments.
    nets
        Names of nets that read descriptor sequences; their input gets the segments' length.
    """
    for each in seconds:
        if not each > 0:
            raise BadOption(f"--seconds {each:g}: a segment must be longer than 0 s")
    plans = [study.plan(net) for net in nets]
    for plan in plans:
        if "n_frames" not in plan.options:
            raise BadOption(f"--nets {plan.name}: segments are studied with nets on sequences")
    # Lengths come from decoding; this also finds clips that cannot be read.
    whole = study.media(descriptors=["mel"])
    durations = whole.seconds()
    kept = tuple(clip for clip in study.manifest.clips if clip.clip_id in durations)
    manifest = replace(study.manifest, clips=kept)
    folds = [replace(study, manifest=manifest).folds(run) for run in range(study.runs)]
    rows_of = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}

    counts: list[tuple[Cell, ...]] = []
    table: list[tuple[Cell, ...]] = []
    lines: dict[str, dict[float, float]] = {}
    majority = math.nan
    notes = list(whole.left_out(whole.described))
    for length in seconds:
        cut = segment_manifest(manifest, length, durations=durations)
        media = replace(study, manifest=cut).media(
            [_of_length(plan, length, study.settings) for plan in plans]
        )
        notes += media.left_out(media.described, f"segments of {length:g} s")
        song = np.array([rows_of[song_of(clip_id)] for clip_id in cut.clip_ids], dtype=np.int64)
        counts.append((length, len(cut), len(manifest), j22.TABLE_1.get(length)))
        for plan in plans:
            runs = [
                cross_fit(
                    study,
                    media,
                    _of_length(plan, length, study.settings),
                    folds[run][song],
                    run=run,
                    title=f"{plan.name} {length:g} s",
                ).probabilities
                for run in range(study.runs)
            ]
            of_segments = score(labels_of(media), runs, [fold[song] for fold in folds], cut.groups)
            of_songs = score(
                np.asarray(manifest.labels, dtype=np.int64),
                [decide(p, song, len(manifest), "mean") for p in runs],
                folds,
                manifest.groups,
            )
            majority = of_songs.majority
            table.append(_row(plan.name, length, of_segments, of_songs))
            lines.setdefault(f"{plan.name}, segments", {})[length] = of_segments.accuracy
            lines.setdefault(f"{plan.name}, songs", {})[length] = of_songs.accuracy
    published = {net: j22.TABLE_2[net] for net in nets if net in j22.TABLE_2}
    return StudyResult(
        name="segments",
        title="Length of segments",
        tables=(
            Table(
                "counts",
                "Segments by length (as J22 Table 1)",
                (
                    Column("seconds", NUMBER),
                    Column("segments", NUMBER),
                    Column("songs", NUMBER),
                    Column("J22 Table 1", NUMBER, published=True),
                ),
                tuple(counts),
            ),
            Table(
                "accuracy",
                "Accuracy by length of segments, per cent (as J22 Table 2)",
                (
                    Column("net"),
                    Column("seconds", NUMBER),
                    Column("segments", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("songs", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("majority", PERCENT),
                    Column("J22 Table 2", PERCENT, published=True),
                ),
                tuple(table),
            ),
        ),
        plots=(
            Plot(
                "accuracy",
                "Accuracy by length of segments",
                lambda axes: accuracy_lines(
                    axes, lines, published, majority, "length of a segment, s"
                ),
                (6.4, 4.6),
            ),
        ),
        notes=(
            "low and high: 95 % interval over groups. A song's class is that of its segments' "
            "mean probabilities. A clip shorter than a segment is one segment, whole.",
            *notes,
        ),
        sources=(j22.SOURCE,),
    )


def _of_length(plan: NetPlan, seconds: float, settings: Settings) -> NetPlan:
    """The plan with the input that a segment fills."""
    described = settings.descriptors
    frames = max(1, round(seconds * described.sr / described.hop_length))
    return replace(plan, options={**plan.options, "n_frames": frames})


def _row(net: str, seconds: float, segments: Scores, songs: Scores) -> tuple[Cell, ...]:
    return (
        net,
        seconds,
        segments.accuracy,
        segments.low,
        segments.high,
        songs.accuracy,
        songs.low,
        songs.high,
        songs.majority,
        j22.TABLE_2.get(net, {}).get(seconds),
    )

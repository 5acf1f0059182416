"""Segments cover their clips, keep what folds need, and lead back to their songs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    folds_of,
    read_manifest,
    segment_manifest,
    song_of,
    write_manifest,
)
from mvemo.manifests.segments import TAILS


def manifest(*clips):
    return Manifest("made", "multiclass", ("happy", "sad"), clips, Path())


def clip(name="a", **more):
    return Clip(name, f"{name}.wav", ("sad",), f"group of {name}", **more)


def spans(segments):
    return [(c.start, c.duration) for c in segments.clips]


@pytest.mark.parametrize(
    ("seconds", "tail", "expected"),
    [
        # J22 Table 1: 30 s give 10, 6 and 3 segments, and one of 16 s.
        (3, "drop", [(3.0 * i, 3) for i in range(10)]),
        (5, "drop", [(5.0 * i, 5) for i in range(6)]),
        (10, "drop", [(0, 10), (10, 10), (20, 10)]),
        (16, "drop", [(0, 16)]),
        # A rest of 14 s is more than half of 16 s, one of 6 s less.
        (16, "half", [(0, 16), (16, 14)]),
        (12, "half", [(0, 12), (12, 12), (24, 6)]),
        (13, "half", [(0, 13), (13, 13)]),
        (13, "join", [(0, 13), (13, 17)]),
        (16, "join", [(0, 16), (16, 14)]),
    ],
)
def test_thirty_seconds_are_cut_as_stated(seconds, tail, expected):
    segments = segment_manifest(manifest(clip()), seconds, durations={"a": 30.0}, tail=tail)
    assert spans(segments) == expected


@pytest.mark.parametrize(
    ("seconds", "length", "options", "expected"),
    [
        (10, 300.0, {"first": 30.0}, [(0, 10), (10, 10), (20, 10)]),
        (10, 300.0, {"first": 8.0}, [(0, 8.0)]),
        (4, 10.0, {"overlap": 1.0}, [(0, 4), (3, 4), (6, 4)]),
        # A rest of 2 s is a segment of its own, which overlaps like the others.
        (4, 12.0, {"overlap": 1.0}, [(0, 4), (3, 4), (6, 4), (9, 3)]),
    ],
)
def test_first_seconds_and_overlaps(seconds, length, options, expected):
    segments = segment_manifest(manifest(clip()), seconds, durations={"a": length}, **options)
    assert spans(segments) == expected


def test_segments_keep_what_their_clip_has():
    given = clip("a@b", start=7.5, duration=20.0, fold=1, split="val")
    segments = segment_manifest(manifest(given), 10, durations={"a@b": 99.0})
    assert [c.clip_id for c in segments.clips] == ["a@b@7.5", "a@b@17.5"]
    assert spans(segments) == [(7.5, 10.0), (17.5, 10.0)]
    for c in segments.clips:
        assert replace(c, clip_id="a@b", start=7.5, duration=20.0) == given
        assert song_of(c.clip_id) == "a@b"


def test_short_and_unknown_clips_stay_whole():
    clips = clip("a"), clip("b", duration=4.0), clip("c", start=2.0)
    segments = segment_manifest(
        manifest(*clips), 10, durations={"a": 9.0, "b": 4.0, "c": None}, first=30.0
    )
    assert [(c.clip_id, c.start, c.duration) for c in segments.clips] == [
        ("a@0", 0.0, None),
        ("b@0", 0.0, 4.0),
        ("c@2", 2.0, None),
    ]


@settings(max_examples=100)
@given(
    seconds=st.floats(0.5, 40),
    length=st.floats(0.05, 200),
    share=st.floats(0, 0.9),
    start=st.sampled_from([0.0, 0.1, 33.3]),
    tail=st.sampled_from(TAILS),
)
def test_whatever_the_lengths(seconds, length, share, start, tail):
    segments = segment_manifest(
        manifest(clip(start=start, duration=length)),
        seconds,
        durations={},
        overlap=share * seconds,
        tail=tail,
    )
    pieces = spans(segments)
    assert pieces
    assert len({c.clip_id for c in segments.clips}) == len(pieces)
    assert {song_of(c.clip_id) for c in segments.clips} == {"a"}
    assert pieces[0][0] == pytest.approx(start)
    step = seconds - share * seconds
    ends = [s + d for s, d in pieces]
    for i, (s, d) in enumerate(pieces):
        assert s == pytest.approx(start + i * step, abs=1e-5)
        assert d > 0
        assert s + d <= start + length + 2e-3
        # No gap between one and the next.
        assert i == 0 or s <= ends[i - 1] + 1e-5
    lost = start + length - max(ends)
    # The most that each rule may leave out, within the millisecond that lengths are known to.
    most = {"half": seconds / 2, "join": 0.0, "drop": step}[tail]
    assert lost <= most + 2e-3


def test_segments_of_a_song_share_a_fold_and_survive_a_file(tmp_path):
    clips = tuple(
        Clip(f"s{i}", f"s{i}.wav", (("happy", "sad")[i % 2],), f"s{i}") for i in range(12)
    )
    whole = replace(manifest(*clips), root=tmp_path)
    segments = segment_manifest(whole, 3, durations=dict.fromkeys(whole.clip_ids, 10.0))
    assert len(segments) == 36
    folds = folds_of(segments, 3).assignment
    for song in whole.clip_ids:
        inside = [f for c, f in zip(segments.clip_ids, folds, strict=True) if song_of(c) == song]
        assert len(inside) == 3
        assert len(set(inside)) == 1
    write_manifest(segments, tmp_path / "m.csv")
    again = read_manifest(tmp_path / "m.csv", media=False)
    assert again.clips == segments.clips
    assert again.digest == segments.digest


@pytest.mark.parametrize(
    ("clip_id", "song"),
    [
        ("a@10", "a"),
        ("a@10.25", "a"),
        ("a@10@3", "a@10"),
        ("a", "a"),
        ("me@home", "me@home"),
        ("@5", "@5"),
        ("a@", "a@"),
        ("a@inf", "a@inf"),
        ("a@-1", "a@-1"),
    ],
)
def test_songs_of_ids(clip_id, song):
    assert song_of(clip_id) == song


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "must be above 0"),
        ({"seconds": math.nan}, "must be above 0"),
        ({"overlap": 10.0}, "below the segment length of 10 s"),
        ({"tail": "keep"}, "one of half, join, drop"),
        ({"first": 0.0}, "used length of each clip is 0.0 s"),
        ({"durations": {}}, "length of clip 'a' is unknown"),
        ({"durations": {"a": 0.0}}, "is 0.0 s long"),
    ],
)
def test_wrong_requests_are_refused(options, message):
    given = {"seconds": 10, "durations": {"a": 30.0}, **options}
    with pytest.raises(BadManifest, match=message):
        segment_manifest(manifest(clip()), given.pop("seconds"), **given)


def test_two_clips_that_give_one_id_are_refused():
    clips = clip("a"), replace(clip("a"), path="b.wav")
    with pytest.raises(BadManifest, match="both give a segment 'a@0'"):
        segment_manifest(manifest(*clips), 10, durations={"a": 30.0})

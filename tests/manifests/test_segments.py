"""Segments cover their clips, keep what folds need, and lead back to their songs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import BadManifest, Clip, Manifest, segment_manifest, song_of
from mvemo.manifests.segments import TAILS


def manifest(*clips):
    return Manifest("made", "multiclass", ("happy", "sad"), clips, Path())


def clip(name="a", **more):
    return Clip(name, f"{name}.wav", ("sad",), f"group of {name}", **more)


def spans(segments):
    return [(c.start, c.duration) for c in segments.clips]


@pytest.mark.parametrize(
    ("seconds", "options", "expected"),
    [
        # J22 Table 1: 30 s give 10, 6 and 3 segments, and one of 16 s.
        (3, {"tail": "drop"}, [(3.0 * i, 3) for i in range(10)]),
        (10, {"tail": "drop"}, [(0, 10), (10, 10), (20, 10)]),
        (16, {"tail": "drop"}, [(0, 16)]),
        # A rest of 14 s is more than half of 16 s; a rest of half a segment is one, too.
        (16, {}, [(0, 16), (16, 14)]),
        (12, {}, [(0, 12), (12, 12), (24, 6)]),
        (13, {}, [(0, 13), (13, 13)]),
        (13, {"tail": "join"}, [(0, 13), (13, 17)]),
        (16, {"tail": "join"}, [(0, 16), (16, 14)]),
        (10, {"first": 20.0}, [(0, 10), (10, 10)]),
        (10, {"first": 8.0}, [(0, 8.0)]),
        (12, {"overlap": 3.0}, [(0, 12), (9, 12), (18, 12)]),
        # A rest of 5 s is a segment of its own, which overlaps like the others.
        (10, {"overlap": 2.5}, [(0, 10), (7.5, 10), (15, 10), (22.5, 7.5)]),
    ],
)
def test_thirty_seconds_are_cut_as_stated(seconds, options, expected):
    segments = segment_manifest(manifest(clip()), seconds, durations={"a": 30.0}, **options)
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
    durations = {"a": 9.0, "b": 4.0, "c": None}
    segments = segment_manifest(manifest(*clips), 10, durations=durations, first=30.0)
    assert [c.clip_id for c in segments.clips] == ["a@0", "b@0", "c@2"]
    assert spans(segments) == [(0.0, None), (0.0, 4.0), (2.0, None)]


@settings(max_examples=100)
@given(
    seconds=st.floats(0.5, 40),
    length=st.floats(0.05, 200),
    share=st.floats(0, 0.9),
    start=st.sampled_from([0.0, 0.1, 33.3]),
    tail=st.sampled_from(TAILS),
)
def test_whatever_the_lengths(seconds, length, share, start, tail):
    whole, overlap = manifest(clip(start=start, duration=length)), share * seconds
    segments = segment_manifest(whole, seconds, durations={}, overlap=overlap, tail=tail)
    pieces = spans(segments)
    assert len({c.clip_id for c in segments.clips}) == len(pieces)
    step = seconds - overlap
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


@pytest.mark.parametrize("clip_id", ["a", "me@home", "@5", "a@", "a@inf", "a@-1"])
def test_other_ids_are_songs(clip_id):
    assert song_of(clip_id) == clip_id
    assert song_of(f"{clip_id}@10.25") == clip_id


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

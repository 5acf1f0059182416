"""Clips compared with each other, as values, in all outputs of predict, and as an offer."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mvemo
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.formats import relative_cell, relative_columns
from mvemo.fuse.final.prediction_records import read_predictions, records
from mvemo.manifests import read_manifest
from mvemo.pipeline.prediction import relative
from mvemo.pipeline.prediction.predictions import predict_features
from mvemo.pipeline.prediction.wording import predictions_table

TABLES = st.integers(0, 30).flatmap(
    lambda n: st.lists(st.sampled_from([-3.5, 0.0, 0.1, 0.3, 7.0]), min_size=2 * n, max_size=2 * n)
)
RATED = SimpleNamespace(
    name="m",
    scale={"valence": 1, "arousal": 1},
    ends=lambda name: (-1.0, 1.0),
    predictors=[SimpleNamespace(name="x")],
    alarm=lambda predictor: {"folder": 0.8},
)


@given(TABLES)
def test_ranks_and_scores_agree_with_scipy(numbers):
    values = np.array(numbers).reshape(-1, 2)
    expected = (stats.rankdata(values, axis=0) - 0.5) / max(len(values), 1)
    assert relative.ranks(values) == pytest.approx(expected)
    found = relative.compare(rated(*map(tuple, values.tolist())))
    if len(values) < relative.FEWEST:
        assert found == [{}] * len(values)
        return
    for name, own, rank in zip(("valence", "arousal"), values.T, expected.T, strict=True):
        scores = stats.zscore(own) if len({*own}) > 1 else np.zeros(len(own))
        assert [entries[name] for entries in found] == [
            {"value": v, "rank": pytest.approx(r), "score": pytest.approx(s, abs=1e-12)}
            for v, r, s in zip(own, rank, scores, strict=True)
        ]


def rated(*pairs):
    """Return predicted ratings on -1 to 1; None failed."""
    values = [p and dict(zip(("valence", "arousal"), p, strict=True)) for p in pairs]
    return [
        ClipPrediction("a", v and "m/x", values=v and {k: {"value": n} for k, n in v.items()})
        for v in values
    ]


def classes(*labels, **others):
    """Return predicted classes whose label has a probability of 0.7."""
    names = {"Excited", "Sad", "Tension", *labels}
    return [
        ClipPrediction(
            "a",
            "m/x",
            {n: 0.7 if n == label else 0.3 / (len(names) - 1) for n in names},
            label=label,
            **others,
        )
        for label in labels
    ]


def tags(**proba):
    return ClipPrediction("a", "m/x", proba, label=[])


def test_failed_clips_are_left_out_and_quadrants_follow_the_ranks():
    pairs = [(0.9, 0.9), None, (0.5, 0.95), (0.4, 0.5), (0.8, 0.4)]
    first, failed, second, third, last, *_ = relative.compare(rated(*pairs * 3))
    assert failed == {}
    words = [entries["quadrant"] for entries in (first, second, third, last)]
    assert words == ["excited", "tense", "sad", "calm"]
    score = pytest.approx(0.25 / np.std([0.9, 0.5, 0.4, 0.8]))
    assert first["valence"] == {"value": 0.9, "rank": 0.875, "score": score}
    assert last["arousal"]["rank"] == 0.125


def test_classes_are_compared_by_their_place_and_others_by_probability():
    happy, sad, *_ = relative.compare(classes(*["Excited", "Sad"] * 5))
    assert happy["valence"]["value"] > sad["valence"]["value"]
    assert (happy["valence"]["rank"], sad["arousal"]["score"]) == (0.75, pytest.approx(-1))
    assert (happy["quadrant"], sad["quadrant"]) == ("excited", "sad")
    low, high, *_ = relative.compare([tags(guitar=p, drums=0.5) for p in (0.1, 0.9) * 5])
    assert low == {
        "guitar": {"value": 0.1, "rank": 0.25, "score": pytest.approx(-1)},
        "drums": {"value": 0.5, "rank": 0.5, "score": 0.0},
    }
    assert relative_cell({"relative": high}) == "guitar 0.75, drums 0.50"
    assert relative_columns({"relative": {"quadrant": "sad", "energy": {"rank": 0.5}}}) == {
        "relative_quadrant": "sad",
        "energy_rank": 0.5,
    }


@pytest.mark.parametrize(
    ("clips", "reason"),
    [
        (classes(*["Sad"] * 15, *["Excited"] * 5), "15 of 20 clips came out as Sad"),
        (classes(*["Sad"] * 14, *["Excited"] * 6), ""),
        (classes(*["Sad"] * 19), ""),
        (rated(*[(-0.1, 0.3)] * 20, None), "20 of 20 clips came out as tense"),
        (
            classes(*["Sad", "Excited"] * 6, unlikeness=1.2)
            + classes(*["Sad", "Excited"] * 5, unlikeness=0.5),
            "these clips as a whole are unlike the music that m was made of",
        ),
        (classes(*["Sad", "Excited"] * 15, unlikeness=0.7), ""),
        ([tags(drums=0.5)] * 30, ""),
    ],
)
def test_comparing_is_offered_where_one_word_or_the_alarm_has_the_folder(clips, reason):
    assert relative.reason_to_compare(RATED, clips) == reason


def test_clips_without_a_plane_are_compared_in_one_unit_with_the_others():
    found = classes(*["Sad", "Excited"] * 6)
    plane = {"valence": -0.9, "arousal": 0.4}
    everywhere = relative.compare([replace(clip, plane=plane) for clip in found])
    assert {entries["valence"]["value"] for entries in everywhere} == {-0.9}
    # A video without sound has no plane.
    mixed = [found[0], *(replace(clip, plane=plane) for clip in found[1:])]
    assert relative.compare(mixed) == relative.compare(found)


def test_all_outputs_say_the_same(tiny_run, model, tmp_path, program):
    features = tiny_run / "work" / "features.h5"
    predict = ["mvemo", "predict", features, "--model", model, "--relative"]
    table = program(*predict, "--csv", tmp_path / "a.csv").out
    found = json.loads(program(*predict, "--json", "--csv", tmp_path / "a.parquet").out)
    lines = [json.loads(line) for line in program(*predict, "--jsonl").out.splitlines()]
    assert [r["relative"] for r in lines] == [r["relative"] for r in found]
    assert mvemo.predict(features, model, relative=True).records() == found
    assert "relative: quadrant and ranks (0 to 1) among 12 clips of this call" in table
    assert relative_cell(found[0]) in table.splitlines()[1]
    ranks = sorted(r["relative"]["valence"]["rank"] for r in found)
    assert np.mean(ranks) == pytest.approx(0.5)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["arousal_rank"]) for row in rows] == [
        record["relative"]["arousal"]["rank"] for record in found
    ]
    assert rows[3]["relative_quadrant"] == found[3]["relative"]["quadrant"]
    # The columns are no outputs, neither for playlists nor for manifests.
    for file in ("a.csv", "a.parquet"):
        read = next(read_predictions(tmp_path / file))
        assert read.proba == pytest.approx(found[0]["proba"])
    manifest = read_manifest(tmp_path / "a.csv", media=False)
    assert manifest.task == "multiclass"
    assert not [note for note in manifest.notes if "_score" in note]


def test_clips_that_failed_may_leave_too_few(tiny_run, model, capsys):
    features = tiny_run / "work" / "features.h5"
    model, found = predict_features(model, features, ("audio", "video"))
    lost = [ClipPrediction(p.path, error="?") for p in found[:3]]
    _, compared = relative.compared(model, [*lost, *found[3:]], True, "")
    assert "need at least 10 predicted clips in one call" in capsys.readouterr().err
    assert {record["relative"] for record in records(model, compared)} == {None}
    assert "relative: " not in predictions_table(model, compared)

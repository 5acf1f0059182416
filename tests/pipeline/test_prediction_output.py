"""Predictions of ratings and tags, as records, table and CSV."""

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mvemo.fuse import BadFeatures, SavedHeads
from mvemo.fuse.conformal import GRID, Asked
from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import FinalModel, Predictor, asked_of, with_coverage
from mvemo.fuse.final.prediction_records import record_rows, records
from mvemo.manifests.tables import CsvWriter
from mvemo.pipeline.commands.predict import _show
from mvemo.pipeline.desk.playlists import read_moods
from mvemo.pipeline.models.boxed import expected_words
from mvemo.pipeline.prediction.predictions import _ask_a_person
from mvemo.pipeline.prediction.wording import legend, predictions_table


def limits_of(*row):
    """Return thresholds that are the same at every coverage."""
    return (row,) * len(GRID)


EXPECTED = {"metric": "r2_macro", "mean": 0.5, "interval": [0.4, 0.6], "scores": {}}
PREDICTOR = Predictor("lld", ("lld",), ("audio",), EXPECTED, nonconformity=limits_of(1.0, 0.25))
BARE = replace(PREDICTOR, nonconformity=())
SCALE = {"minimum": 1.0, "maximum": 9.0, "mean": 5.0, "deviation": 1.5}
MODEL = FinalModel(
    name="songs",
    task="regression",
    heads=SavedHeads(("valence", "energy"), (), (), {}),
    specs=(),
    predictors=(PREDICTOR,),
    reference={},
    scale={"valence": SCALE, "energy": SCALE},
    facts={"n_clips": 40, "n_groups": 25, "notes": ["made of generated data"]},
)


def predicted(model, predictor, outputs, path="a.mp3", **facts):
    """Return the prediction of a clip from its outputs."""
    clip = ClipPrediction(path, **facts)
    return format_of(model).predicted(clip, predictor, np.array(outputs))


PREDICTIONS = [
    predicted(MODEL, PREDICTOR, [5.0, 0.9], notes=("12 s long",)),
    ClipPrediction("b.mp3", error="no such file"),
]


def rows_of(model, predictions):
    """Return the rows of the CSV file, by column."""
    text = io.StringIO()
    CsvWriter(text).writerows(record_rows(model, records(model, predictions)))
    return csv.DictReader(io.StringIO(text.getvalue()))


def test_ratings_have_an_interval_and_their_scale_in_words():
    first, second = records(MODEL, PREDICTIONS)
    assert first["model"] == "songs/lld"
    assert first["values"] == {
        "valence": {"value": 5.0, "low": 4.0, "high": 6.0},
        # No rating was below 1.
        "energy": {"value": 1.0, "low": 1.0, "high": 1.15},
    }
    assert first["scale"]["valence"] == (
        "the 40 training clips were rated 1 to 9, mean 5, standard deviation 1.5"
    )
    assert first["notes"] == ["12 s long"]
    assert (second["values"], second["error"]) == (None, "no such file")


@pytest.mark.parametrize(
    ("stated", "rated", "value", "expected"),
    [
        ("1..9", (1.5, 6.8), 8.0, (8.0, 7.0, 9.0)),  # above all training clips, on the scale
        ("1..9", (1.5, 6.8), 0.5, (1.0, 1.0, 1.5)),
        ("-1..1", (-0.6, 0.7), -1.4, (-1.0, -1.0, -0.4)),
        ("", (1.5, 6.8), 8.0, (6.8, 6.8, 6.8)),  # none is stated: the training clips' range
        ("1..9", (0.0, 100.0), 50.0, (50.0, 49.0, 51.0)),  # the target has another scale
    ],
)
def test_ratings_end_where_the_stated_scale_ends(stated, rated, value, expected):
    scale = {"valence": {**SCALE, "minimum": rated[0], "maximum": rated[1]}, "energy": SCALE}
    model = replace(MODEL, scale=scale, facts={**MODEL.facts, "scale": stated})
    (record,) = records(model, [predicted(model, PREDICTOR, [value, 5.0])])
    assert record["values"]["valence"] == pytest.approx(
        dict(zip(("value", "low", "high"), expected, strict=True))
    )


def test_the_table_of_ratings_says_what_the_numbers_are():
    table = predictions_table(MODEL, PREDICTIONS)
    assert "5 (4 to 6)" in table
    assert "not predicted: b.mp3: no such file" in table
    assert "songs was trained on 40 clips. On new clips, expect:" in table
    assert "by lld: about 50% of the variance of clips' ratings is explained" in table
    assert "valence, energy: the 40 training clips were rated 1 to 9" in table
    assert "in brackets: 90% prediction interval of each rating" in table
    (line, *_) = legend(MODEL, PREDICTIONS)[1:]
    assert line.startswith("lld: R2 0.500 (0.400 to 0.600) on clips that it was not")
    # The cost of choosing the model is in what to expect.
    chosen = replace(MODEL, facts={**MODEL.facts, "nested": {"model": "lld", "mean": 0.42}})
    assert "by lld: about 42% of the" in predictions_table(chosen, PREDICTIONS)
    assert predictions_table(MODEL, PREDICTIONS[1:]) == "not predicted: b.mp3: no such file"


PER_GROUP = {
    "pop and rock": {
        "n": 900,
        "r2_macro": [0.3, 0.25, 0.35],
        "quadrant_accuracy": [0.581, 0.55, 0.61],
        "r valence": [0.6, 0.55, 0.65],
        "r arousal": [0.7, 0.66, 0.74],
    },
    "film music": {"n": 360, "r2_macro": [0.1, None, None], "r valence": [None, None, None]},
}


def test_sets_that_were_left_out_say_what_to_expect():
    predictor = replace(PREDICTOR, expected={**EXPECTED, "per_group": PER_GROUP})
    clips, model = (
        [replace(PREDICTIONS[0], predictor=predictor)],
        replace(MODEL, predictors=(predictor,)),
    )
    assert (
        "r 0.60 for valence, 0.70 for arousal and the right quadrant for 58% on pop and rock; "
        "r not known for valence on film music; unknown on yours: judge 20 clips to see"
    ) in predictions_table(model, clips)
    assert "r 0.60 [0.55 to 0.65] for valence" in "\n".join(legend(model, clips))
    sets = {"songs": {"n": 30, "accuracy": [0.61, 0.5, 0.7]}}
    predictor = replace(PREDICTOR, expected={**EXPECTED, "per_group": sets})
    assert expected_words(MODEL, predictor).startswith("about 61% of the labels are correct on so")
    assert "about 61% [50% to 70%] of" in expected_words(MODEL, predictor, ends=True)


def test_what_was_measured_replaces_what_to_expect_and_other_music_is_told_if_asked():
    table = predictions_table(MODEL, PREDICTIONS, "right on 17 of 24 of your judged clips")
    assert "trained on 40 clips. On your clips:\n  right on 17 of 24" in table
    assert "on new clips" not in table.lower()
    about = {"elsewhere": {"film music": "16 % of 150 clips are right"}}
    model = replace(MODEL, facts={**MODEL.facts, "about": about})
    assert "On film music" not in predictions_table(model, PREDICTIONS)
    lines = legend(model, PREDICTIONS)
    assert "On film music: 16 % of 150 clips are right." in lines
    assert "Unknown on yours: judge 20 clips to see." in lines


def test_distances_of_unlike_clips_are_left_to_the_records(monkeypatch):
    clips = [replace(PREDICTIONS[0], unlikeness=d, notes=()).warned(Caution.UNLIKE) for d in (2, 3)]
    assert f"note: 2 clips, the first a.mp3: {Caution.UNLIKE.text}" in predictions_table(
        MODEL, clips
    )
    found = [(r["cautions"], r["notes"], r["unlikeness"]) for r in records(MODEL, clips)]
    assert found == [(["unlike"], [Caution.UNLIKE.text], d) for d in (2, 3)]
    monkeypatch.setattr("mvemo.pipeline.prediction.wording.verbosity", lambda: "verbose")
    assert "prediction (3.0 times as far as" in predictions_table(MODEL, clips)


def test_what_is_the_same_of_many_clips_is_said_once():
    bad = [ClipPrediction(f"{i}.mp3", error="is empty") for i in range(3)]
    made = replace(PREDICTIONS[0], path="音\n" + "x" * 200 + ".mp3")
    lines = predictions_table(MODEL, [*PREDICTIONS, made, *bad]).split("\n")
    notes = [line for line in lines if line.startswith(("note: ", "not predicted: "))]
    assert notes == [
        "note: 2 clips, the first a.mp3: 12 s long",
        "not predicted: b.mp3: no such file",
        "not predicted: 3 clips, the first 0.mp3: is empty",
        "note: made of generated data",
    ]
    # Names of any kind take one line of a width that can be read.
    assert lines[0].index("by") == lines[2].index("lld") == lines[1].index("lld")
    assert lines[2].startswith("…xxx")
    assert len(lines[2]) < 120


def test_quiet_leaves_notes_and_legend_out(monkeypatch):
    monkeypatch.setattr("mvemo.pipeline.prediction.wording.verbosity", lambda: "quiet")
    header, line, *rest = predictions_table(MODEL, PREDICTIONS).split("\n")
    assert header.split() == ["path", "valence", "energy", "by"]
    assert line.startswith("a.mp3  5 (4 to 6)")
    assert rest == ["", "not predicted: b.mp3: no such file"]


def test_many_ratings_have_a_line_each():
    names = ("valence", "energy", "tension", "anger", "fear")
    heads = SavedHeads(names, (), (), {})
    model = replace(MODEL, heads=heads, scale=dict.fromkeys(names, SCALE))
    predictor = replace(PREDICTOR, nonconformity=limits_of(*[1.0] * 5))
    lines = predictions_table(model, [predicted(model, predictor, np.full(5, 4.5))]).split("\n")
    assert lines[:2] == ["a.mp3  by lld", "  valence  4.5 (3.5 to 5.5)"]
    assert lines[5:7] == ["  fear     4.5 (3.5 to 5.5)", ""]


def test_csv_of_ratings():
    first, second = rows_of(MODEL, PREDICTIONS)
    assert (first["valence"], first["valence low"], first["energy high"]) == ("5.0", "4.0", "1.15")
    assert (second["valence"], second["error"]) == ("", "no such file")
    # As in lists of clips and manifests, which also read the earlier name, file.
    assert [first["path"], records(MODEL, PREDICTIONS)[0]["path"]] == ["a.mp3", "a.mp3"]


@pytest.mark.parametrize(("proba", "label"), [((0.6, 0.2), ["calm"]), ((0.1, 0.2), [])])
def test_tags_are_a_list_of_those_that_apply(proba, label):
    heads = SavedHeads(("calm", "tense"), (), (), {})
    model = replace(MODEL, task="multilabel", heads=heads, scale={})
    clips = [predicted(model, PREDICTOR, proba)]
    (record,) = records(model, clips)
    assert (record["label"], record["confidence"]) == (label, None)
    (row,) = rows_of(model, clips)
    assert row["label"] == ";".join(label)
    assert (", ".join(label) or "none") in predictions_table(model, clips)


def test_intervals_are_as_wide_as_the_coverage_needs():
    predictor = replace(PREDICTOR, nonconformity=limits_of(2.0, 0.5))
    model = with_coverage(replace(MODEL, predictors=(predictor,)), Asked(0.8))
    clips = [predicted(model, predictor, [5.0, 0.9])]
    (record,) = records(model, clips)
    assert record["coverage"] == 0.8
    assert record["values"]["valence"] == {"value": 5.0, "low": 3.0, "high": 7.0}
    assert "in brackets: 80% prediction interval of each rating" in predictions_table(model, clips)
    # A predictor without thresholds has no interval, instead of one of another coverage.
    (record,) = records(model, [predicted(model, BARE, [5.0, 0.9])])
    assert record["values"]["valence"]["low"] is None


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_sets_have_the_likeliest_first_and_large_ones_ask_a_person(task):
    predictor = replace(PREDICTOR, features=(), nonconformity=limits_of(0.75))
    heads = SavedHeads(("calm", "sad", "tense"), (), (), {})
    changes = {"task": task, "heads": heads, "scale": {}, "predictors": (predictor,)}
    model = with_coverage(replace(MODEL, **changes), Asked(0.9))
    outputs = [np.array(p) for p in ((0.3, 0.1, 0.6), (0.1, 0.1, 0.8))]
    clip = ClipPrediction("a.mp3")
    notes = [_ask_a_person(model, predictor, clip, p).notes for p in outputs]
    nouns = "classes" if task == "multiclass" else "tags"
    assert notes == [(f"ask a person: the set has 2 of 3 {nouns}",), ()]
    unlike = _ask_a_person(model, BARE, clip.warned(Caution.UNLIKE), outputs[0])
    assert unlike.cautions == (Caution.UNLIKE, Caution.ASK)
    assert "lld was not evaluated" in unlike.notes[-1]
    assert "unlike the training clips" in unlike.notes[-1]
    clips = [predicted(model, predictor, outputs[0]), ClipPrediction("b.mp3", error="empty")]
    learned = (Caution.TRAINED_ON,)
    clips.append(predicted(model, predictor, outputs[0], "c.mp3", cautions=learned))
    first, second, third = records(model, clips)
    assert (first["coverage"], first["set"]) == (0.9, ["tense", "calm"])
    assert (second["set"], third["set"], third["confidence"]) == (None, None, None)
    rows = list(rows_of(model, clips))
    assert [row["set"] for row in rows] == ["tense;calm", "", ""]
    table = predictions_table(model, clips)
    assert "tense, calm" in table
    assert "set: has" in table
    assert "90% of new clips" in table


def test_the_other_form_has_its_own_thresholds_and_words():
    both = replace(PREDICTOR, optional=limits_of(3.0, 1.0))
    model = replace(MODEL, predictors=(both,))
    asked = with_coverage(model, asked_of(0.9, per_class=False, jointly=True))
    clips = [predicted(asked, both, [5.0, 0.9])]
    assert records(asked, clips)[0]["values"]["valence"] == {"value": 5.0, "low": 2.0, "high": 8.0}
    assert "90% prediction intervals, for all ratings of a clip at once" in predictions_table(
        asked, clips
    )
    heads = SavedHeads(("calm", "sad"), (), (), {})
    for task, words in (("multiclass", "each class"), ("multilabel", "each tag of")):
        one = replace(both, optional=limits_of(0.1, 0.9))
        sets = replace(model, task=task, heads=heads, scale={}, predictors=(one,))
        asked = with_coverage(sets, asked_of(0.9, per_class=True, jointly=False))
        clips = [predicted(asked, one, [0.7, 0.3])]
        # The likeliest is always a member; the other one is by its own threshold.
        assert records(asked, clips)[0]["set"] == ["calm", "sad"]
        assert words in predictions_table(asked, clips)
        with pytest.raises(BadFeatures, match="--jointly is for models of ratings, but songs is"):
            with_coverage(sets, asked_of(0.9, per_class=False, jointly=True))


@pytest.mark.parametrize(
    ("coverage", "per_class", "jointly", "message"),
    [
        *((share, False, False, r"expected 0\.5 to 0\.99") for share in (0.3, 1.0, math.nan)),
        (None, True, False, "--per-class needs a coverage: add --coverage 0.9"),
        (None, False, True, "--jointly needs a coverage"),
        (0.9, True, True, "expected one of them, got both"),
        (0.9, True, False, "--per-class is for models of classes or tags, but songs is not one"),
        (0.9, False, True, "no thresholds for --jointly, as it is of an earlier version: make it"),
    ],
)
def test_options_that_do_not_fit_are_one_line(coverage, per_class, jointly, message):
    with pytest.raises(BadFeatures, match=message):
        with_coverage(MODEL, asked_of(coverage, per_class=per_class, jointly=jointly))
    with pytest.raises(BadFeatures, match="the model songs has no thresholds for --coverage"):
        with_coverage(replace(MODEL, predictors=(BARE,)), Asked(0.9))
    assert with_coverage(MODEL, None) is MODEL


def test_few_groups_are_warned_of_where_a_coverage_is_promised():
    few = replace(PREDICTOR, limit_groups=11)
    clips = [replace(PREDICTIONS[0], predictor=few)]
    assert predictions_table(MODEL, clips).count("the intervals come from only 11 groups") == 1
    assert "groups: below" not in predictions_table(MODEL, PREDICTIONS)
    model = with_coverage(MODEL, Asked(0.9))
    (note,) = _ask_a_person(model, few, ClipPrediction("a.mp3"), clips[0].outputs).notes
    assert note.startswith("the intervals come from only 11 groups: below 20")


@pytest.mark.parametrize(
    ("point", "quadrant"),
    [((0.3, 0.4), "excited"), ((-0.3, 0.4), "tense"), ((-0.2, -0.6), "sad"), ((0.5, -0.1), "calm")],
)
def test_valence_and_arousal_have_a_quadrant_with_its_probability(point, quadrant, tmp_path):
    covariance = [[0.16, 0.05], [0.05, 0.25]]
    plane = {"at": [1, 0], "centre": [0.0, 0.1], "covariance": covariance}
    predictor = replace(PREDICTOR, expected={**EXPECTED, "plane": plane})
    heads = SavedHeads(("arousal", "valence"), (), (), {})
    scale = {name: {**SCALE, "minimum": -1.0, "maximum": 1.0} for name in heads.classes}
    model = replace(MODEL, heads=heads, scale=scale, predictors=(predictor,))
    path = tmp_path / "a.mp3"
    outputs = np.array([point[1] + 0.1, point[0]])
    clips = [predicted(model, predictor, outputs, str(path))]
    clips.append(ClipPrediction("b.mp3", error="empty"))
    clips.append(predicted(model, predictor, outputs, "c.mp3", cautions=(Caution.TRAINED_ON,)))
    first, second, third = records(model, clips)
    errors = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 200_000)
    inside = ((errors + point > 0) == (np.array(point) > 0)).all(axis=1).mean()
    assert first["quadrant"] == third["quadrant"] == quadrant
    assert first["confidence"] == pytest.approx(inside, abs=0.005)
    assert (second["quadrant"], second["confidence"], third["confidence"]) == (None, None, None)
    table = predictions_table(model, clips)
    assert f"{quadrant:8}" in table
    assert f"{first['confidence']:.2f}" in table
    assert "about 70 are in that quadrant" in table
    rows = list(rows_of(model, clips))
    assert [row["quadrant"] for row in rows] == [quadrant, "", quadrant]
    # Playlists and tags take the quadrant for the mood, from either file.
    (tmp_path / "found.jsonl").write_text(json.dumps(first))
    with (tmp_path / "found.csv").open("w", newline="") as file:
        CsvWriter(file).writerows(record_rows(model, records(model, clips[:1])))
    for name in ("found.jsonl", "found.csv"):
        (mood,) = read_moods(tmp_path / name, None, None)
        assert mood.moods == {quadrant: pytest.approx(first["confidence"])}
        assert mood.place == pytest.approx((outputs[1], outputs[0]))


@pytest.mark.parametrize(("unlikeness", "n", "told"), [(0.9, 20, 1), (0.9, 19, 0), (0.7, 20, 0)])
def test_a_folder_that_is_unlike_as_a_whole_is_told_once(unlikeness, n, told, capsys):
    model = replace(MODEL, facts={**MODEL.facts, "alarm": {"lld": {"folder": 0.8}}})
    clips = [replace(PREDICTIONS[0], unlikeness=unlikeness)] * n
    shown = {"as_json": True, "jsonl": False, "csv_file": None, "strict": False}
    shown |= {"relative": False, "works": []}
    assert _show(model, [*clips, PREDICTIONS[1]], shown, facts=False) == 0
    out, error = capsys.readouterr()
    assert len(json.loads(out)) == n + 1
    assert error.count("these clips as a whole are unlike the music that songs was made of") == told

"""Predictions that other programs made."""

import dataclasses
import hashlib
import re

import numpy as np
import pytest
from fuse_samples import make_results

from mvemo.fuse import (
    BadFeatures,
    Predictions,
    format_table,
    read_predictions,
    results_of_predictions,
)
from mvemo.fuse.crossval.evaluation import with_repeats
from mvemo.fuse.models import Model
from mvemo.fuse.report.findings import banners
from mvemo.fuse.report.report_files import predictions_csv
from mvemo.fuse.report.summary import opening, scoring_note
from mvemo.fuse.results import score_model
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import MvemoError

HEAD = "clip_id,label,calm,tense\n"
GOOD = HEAD + "a,calm,0.9,0.1\nb,tense,0.6,0.4\nc,tense,0.2,0.8\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read(folder, text, **options):
    return read_predictions(write(folder / "x.csv", text), **options)


def test_the_smallest_file(tmp_path):
    path = write(tmp_path / "net.csv", GOOD)
    predictions = read_predictions(path)
    assert predictions.classes == ("calm", "tense")
    assert predictions.clip_ids == predictions.groups == ("a", "b", "c")
    assert predictions.y_true.tolist() == [0, 1, 1]
    assert (predictions.k, predictions.folds.tolist()) == (1, [0, 0, 0])
    assert predictions.outputs["net"].tolist() == [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
    assert predictions.files == (("net.csv", hashlib.sha256(path.read_bytes()).hexdigest()),)
    results = results_of_predictions(predictions, name="mine")
    (model,) = results.models
    assert (model.name, model.per_fold["accuracy"].tolist()) == ("net", [2 / 3])
    assert model.confusion.tolist() == [[1, 0], [1, 1]]
    assert results.primary_per_fold(results.baseline).tolist() == [2 / 3]
    assert (results.protocol, results.leaky) == ("others", False)


def test_folds_and_marked_columns(tmp_path):
    rng = np.random.default_rng(3)
    labels, values = rng.integers(0, 4, 60), rng.dirichlet(np.ones(4), 60)
    lines = ["fold,p_w,p_x,p_y,p_z,clip_id,remark,label"]
    for i in range(60):
        cells = ",".join(map(repr, values[i].tolist()))
        lines.append(f"{2 * (i % 3) + 5},{cells},clip {i},other,{'wxyz'[labels[i]]}")
    predictions = read(tmp_path, "\n".join(lines))
    (model,) = results_of_predictions(predictions).models
    right = values.argmax(axis=1) == labels
    assert model.per_fold["accuracy"].tolist() == [right[f::3].mean() for f in range(3)]


FOLDED = "clip_id,label,group,fold,p_x,p_y\n"


@pytest.mark.parametrize("predict_untested", [False, True])
def test_clips_that_were_not_tested_are_no_fold_and_not_scored(tmp_path, predict_untested):
    lines = [f"clip{i},{'xy'[i % 2]},g{i},0,0.9,0.1" for i in range(10)]
    untested = "0.9,0.1" if predict_untested else ","
    lines += [f"clip{i},y,g{i},-1,{untested}" for i in range(10, 50)]
    results = results_of_predictions(read(tmp_path, FOLDED + "\n".join(lines)))
    (model,) = results.models
    assert (results.k, results.folds.tolist()) == (1, [0] * 10 + [-1] * 40)
    assert (model.per_fold["accuracy"].tolist(), model.valid.sum()) == ([0.5], 10)
    # The commonest class of the clips that were not tested, on those that were.
    assert results.baseline.y_pred.tolist() == [1] * 10 + [-1] * 40
    text = " ".join(format_table(results).split())
    assert "predictions of 1 model for 10 of 50 clips" in text
    _, (first, *_), _ = opening(results)
    assert "for each of 10 clips" in first
    assert "40 other clips had no test" in first


def test_several_files_are_several_models(tmp_path):
    one = write(tmp_path / "one.csv", GOOD)
    # Another order of classes and clips, one clip unknown to it and one not predicted.
    two = write(tmp_path / "two.csv", "tense,calm,label,clip_id\n0.7,0.3,tense,c\n,nan,calm,a\n")
    predictions = read_predictions(one, two)
    assert list(predictions.outputs) == ["one", "two"]
    got = predictions.outputs["two"]
    np.testing.assert_array_equal(got, [[np.nan, np.nan], [np.nan, np.nan], [0.3, 0.7]])
    results = results_of_predictions(predictions)
    assert results.models[1].per_fold["accuracy"].tolist() == [1.0]
    with pytest.raises(BadFeatures, match=r"repeats .*one\.csv:2"):
        read_predictions(one, one)


@pytest.mark.parametrize("second", ["2,0,1", "-1,,"])
def test_a_group_in_two_folds_or_both_tested_and_not_is_told(tmp_path, second):
    text = f"{FOLDED}a,x,g,1,1,0\nb,y,g,{second}\nc,y,,10,0,1\n"
    results = results_of_predictions(read(tmp_path, text))
    assert results.groups == ("g", "g", "c")
    assert results.folds.tolist() == ([0, 1, 2] if second[0] == "2" else [0, -1, 1])
    assert results.leaky
    assert results.provenance["groups_in_several_folds"] == 1
    assert "more than one fold" in banners(results)[0].text


REFUSED = {
    None: {
        "": "the file is empty",
        HEAD: "has no predictions",
        "id,label,x,y\na,x,1,0\n": "has no column 'clip_id', only id",
        "clip_id,label,x\na,x,1\n": "expected a column of probabilities for each class, got 1",
        "clip_id,label,x,x\na,x,1,0\n": "duplicate column 'x'",
        HEAD + "a,calm,1\n": "x.csv:2: expected 4 cells, got 3",
        HEAD + "\na,angry,1,0\n": "x.csv:3: label: expected one of the classes calm, tense",
        HEAD + "a,calm,1,0\n,calm,1,0\n": "x.csv:3: clip_id is empty",
        HEAD + "a,calm,high,0\n": "got 'high'",
        HEAD + "a,calm,0.5,0.4\n": "x.csv:2: the probabilities sum to 0.9",
        HEAD + "a,calm,1.5,-0.5\n": "x.csv:2: expected a probability from 0 to 1, got 1.5",
        HEAD + "a,calm,inf,0\n": "x.csv:2: expected a probability from 0 to 1, got inf",
        HEAD + "a,calm,1,\n": "x.csv:2: 1 of 2 probabilities are missing",
        HEAD + "a,calm,1,0\na,calm,1,0\n": "x.csv:3: clip 'a' of model 'x' repeats",
        "fold," + HEAD + "-1,a,calm,1,0\n": "x.csv:2: every clip's fold is -1, which means not",
        f"model,{HEAD}m,a,calm,1,0\nn,a,tense,1,0\n": "x.csv:3: clip 'a' has label 'tense', but",
    },
    "multilabel": {
        "clip_id,label,x,y\na,x|y,1,0\n": "join tags with ';', not '|'",
        "clip_id,label,x,y\na,x;z,1,0\n": "x.csv:2: tag 'z' has no column",
        "clip_id,label,x\na,x,7\n": "x.csv:2: expected a probability from 0 to 1, got 7",
        "clip_id,label\na,x\n": "no columns of scores",
    },
    "regression": {
        "clip_id,valence\na,1\n": "expected columns label_NAME (true value",
        "clip_id,label_v\na,1\n": "has no column for 'v'",
        "clip_id,label_v,v\na,,1\n": "x.csv:2: the true v: expected a finite number",
        "clip_id,label_v,v\na,1,inf\n": "x.csv:2: expected a finite number, got inf",
    },
    "multiclass": {"clip_id,x,y\na,1,0\n": "has no column 'label', only clip_id, x, y"},
}


@pytest.mark.parametrize(
    ("task", "text", "message"), [(t, *case) for t in REFUSED for case in REFUSED[t].items()]
)
def test_refused_with_the_line(tmp_path, task, text, message):
    with pytest.raises(MvemoError) as caught:
        read(tmp_path, text, task=task)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_go_together(tmp_path):
    one, other = write(tmp_path / "one.csv", GOOD), tmp_path / "other.csv"
    for text, message in (
        ("clip_id,label,x,y\na,x,1,0\n", r"its classes \(x, y\) differ from those of"),
        ("fold," + HEAD + "1,q,calm,1,0\n", "this clip has no fold"),
    ):
        with pytest.raises(BadFeatures, match=message):
            read_predictions(one, write(other, text))


def test_what_mvemo_writes_gives_the_same_scores_in_all_repeats(tmp_path):
    first = make_results(24, 2, classes=("Calm, or so", "Fear", "Joy"), missing=2)
    folds = np.arange(24) // 2 % 2
    models = tuple(
        score_model(first.task, Model(m.name, (), ()), m.outputs, first.y_true, folds, 2)
        for m in first.models
    )
    repeated = with_repeats(first, [dataclasses.replace(first, folds=folds, models=models)])
    again = results_of_predictions(read(tmp_path, predictions_csv(repeated)))
    assert predictions_csv(again) == predictions_csv(repeated)
    for one, other in zip(again.repeats, repeated.repeats, strict=True):
        np.testing.assert_array_equal(one.folds, other.folds)
    for model, expected in zip(again.models, repeated.models, strict=True):
        assert model.scores == expected.scores
        for name, values in expected.per_fold.items():
            np.testing.assert_array_equal(model.per_fold[name], values)


def test_numbers_of_thousands_of_digits(tmp_path):
    many = "9" * 5000
    text = f"clip_id,label,fold,x,y\na,x,{many},0.9,0.1\nb,y,10,0.6,0.4\nc,y,2,1,0\n"
    assert read(tmp_path, text).folds.tolist() == [2, 1, 0]
    with pytest.raises(BadFeatures) as error:
        read(tmp_path, HEAD + f"a,calm,{many}x,0.1\n")
    assert len(str(error.value)) < 300


def test_tags_are_joined_in_the_label(tmp_path):
    text = "clip_id,label,calm,dark\na,dark;calm,0.9,0.8\nb,,0.2,0.4\nc,dark,0.1,0.3\n"
    predictions = read(tmp_path, text, task="multilabel")
    assert predictions.y_true.tolist() == [[1, 1], [0, 0], [0, 1]]
    (model,) = results_of_predictions(predictions).models
    assert model.y_pred.tolist() == [[True, True], [False, False], [False, False]]
    assert model.per_output["roc_auc"].tolist() == [1.0, 0.5]


def test_ratings_and_their_truth(tmp_path):
    text = "clip_id,label_valence,valence,label_arousal,arousal\na,1,2,3,3\nb,2,2,1,2\nc,4,3,2,2\n"
    predictions = read(tmp_path, text, task="regression")
    assert predictions.classes == ("valence", "arousal")
    assert predictions.y_true.tolist() == [[1, 3], [2, 1], [4, 2]]
    (model,) = results_of_predictions(predictions).models
    assert model.per_output["mae"] == pytest.approx([2 / 3, 1 / 3])
    # The true values of a single target may be a vector.
    changes = {"classes": ("valence",), "y_true": predictions.y_true[:, 0]}
    changes["outputs"] = {"x": predictions.outputs["x"][:, :1]}
    (model,) = results_of_predictions(dataclasses.replace(predictions, **changes)).models
    assert model.per_output["mae"] == pytest.approx([2 / 3])


def test_hard_labels_are_certain(tmp_path):
    soft = write(tmp_path / "soft.csv", "clip_id,label,x,y,z\na,x,1,0,0\nb,y,0,1,0\nc,z,0,0,1\n")
    hard = write(tmp_path / "hard.csv", "clip_id,label,predicted\na,x,x\nb,y,x\nc,z,\n")
    predictions = read_predictions(soft, hard)
    got = predictions.outputs["hard"]
    np.testing.assert_array_equal(got, [[1, 0, 0], [1, 0, 0], [np.nan] * 3])
    assert read_predictions(hard).classes == ("x", "y", "z")
    assert results_of_predictions(predictions).models[1].per_fold["accuracy"].tolist() == [0.5]


def test_rounded_probabilities_are_taken_as_they_are_or_divided_by_their_sum(tmp_path):
    results = results_of_predictions(read(tmp_path, HEAD + "a,calm,1.0004,0\nb,tense,0,1\n"))
    assert results.models[0].outputs[0].tolist() == [1.0, 0.0]
    assert results.models[0].calibration["brier"] == 0.0
    predictions = read(tmp_path, "clip_id,label,x,y,z\na,x,0.333,0.333,0.333\n")
    assert predictions.outputs["x"].tolist() == [[0.333, 0.333, 0.333]]
    text = "clip_id,label,x,y,z\na,x,0.33,0.33,0.33\nb,y,0.1,0.8,0.1\n"
    predictions = read(tmp_path, text)
    np.testing.assert_allclose(predictions.outputs["x"][0], [1 / 3] * 3, rtol=1e-12)
    (note,) = predictions.notes
    assert note.startswith("In 1 of 2 rows the probabilities")
    assert note in scoring_note(results_of_predictions(predictions))
    in_memory = dataclasses.replace(predictions, outputs={"m": np.array([[0.66, 0.33, 0]] * 2)})
    results = results_of_predictions(in_memory)
    np.testing.assert_array_equal(results.models[0].outputs.sum(axis=1), [1, 1])
    assert "divided by their sum" in results.provenance["prediction_notes"][-1]
    for row in ("0.33,0.33,0.31", "0.3,0.3,0.3", "0.3300,0.3300,0.3300"):
        with pytest.raises(BadFeatures, match=r"the probabilities sum to 0\.9"):
            read(tmp_path, f"clip_id,label,x,y,z\na,x,{row}\n")


def test_truth_and_groups_of_a_manifest(tmp_path):
    clips = write(tmp_path / "m.csv", "path,label,group\na.mp3,x,g\nb.mp3,y,g\nc.mp3,y,h\n")
    manifest = read_manifest(clips, media=False)
    path = write(tmp_path / "p.csv", "clip_id,artist,y,x\nb,me,1,0\na,you,0,1\n")
    predictions = read_predictions(path, manifest=manifest)
    assert (predictions.classes, predictions.groups) == (("x", "y"), ("g", "g"))
    assert predictions.y_true.tolist() == [1, 0]
    assert predictions.outputs["p"].tolist() == [[0, 1], [1, 0]]
    # A class with a column that the manifest does not list.
    lacking = "sum to 0.75, not 1: 'z' may be missing from the manifest, whose classes are x, y"
    for text, message in (
        ("clip_id,x,y\nq,1,0\n", "p.csv:2: clip 'q' is not in the manifest m"),
        ("clip_id,label,x,y\na,y,1,0\n", "p.csv:2: clip 'a' has label 'y', but the manifest m"),
        ("clip_id,x\na,1\n", "has no column for 'y', only clip_id, x"),
        ("clip_id,p_x,p_y,p_z\na,0.5,0.25,0.25\n", lacking),
        ("clip_id,x,y,z,n\na,0.5,0.25,0.25,7\n", "not 1: 'z' may be missing"),
    ):
        with pytest.raises(BadFeatures, match=re.escape(message)):
            read_predictions(write(path, text), manifest=manifest)
    with pytest.raises(BadFeatures, match="manifest of the task regression, got multiclass"):
        read_predictions(path, task="regression", manifest=manifest)


def accuracy(predictions, **options):
    (model,) = results_of_predictions(predictions, **options).models
    return model.scores["accuracy"]


def test_reports_of_other_people(shared_data):
    def of(name):
        return read_predictions(shared_data / "reports" / "tables" / f"{name}.csv")

    assert accuracy(of("floatpred")) == accuracy(of("intpred")) > 0.8
    folds, same = of("foldfloat"), of("foldint")
    assert folds.folds.tolist() == same.folds.tolist()
    assert accuracy(folds) == accuracy(same) == pytest.approx(0.9)


def test_other_spellings_of_classes_folds_and_missing_groups(tmp_path):
    head = "clip_id,label,predicted,fold,group\n"
    text = head + "a,Happy,happy,0,NaN\nb,1,1.0,1.0,None\nc,1.0,HAPPY,1,g\nd,Happy,nan,-1.0,g\n"
    predictions = read(tmp_path, text)
    assert predictions.classes == ("1", "Happy")
    assert predictions.folds.tolist() == [0, 1, 1, -1]
    assert predictions.groups == ("a", "b", "g", "g")
    np.testing.assert_array_equal(predictions.outputs["x"], [[0, 1], [1, 0], [0, 1], [np.nan] * 2])
    assert "'1.0' as '1', 'HAPPY' as 'Happy'" in predictions.notes[0]
    (note,) = read(tmp_path, "clip_id,label,predicted\na,x,x\nb,y,z\n").notes
    assert note == "In x.csv, 'z' is predicted, but never a label."
    with pytest.raises(BadFeatures, match="none of the predicted classes"):
        read(tmp_path, "clip_id,label,predicted\na,1,x\nb,2,y\n")
    with pytest.raises(BadFeatures, match=r"csv:2: fold '-2': expected 0 or more, or -1"):
        read(tmp_path, FOLDED + "a,x,g,-2.0,1,0\n")


@pytest.mark.parametrize("untested", ["-1e0", "-1.00", "\N{MINUS SIGN}1", '"-1,0"', '"-1 "'])
def test_every_spelling_of_not_tested_is_not_scored(tmp_path, untested):
    text = FOLDED + f"a,x,g,0.0,1,0\nb,y,h,{untested},1,0\nc,y,i,-0.0,0,1\n"
    assert read(tmp_path, text).folds.tolist() == [0, -1, 0]


@pytest.mark.parametrize("fold", ["train", "Training", "-1.5", "0.5", "-x"])
def test_a_fold_that_may_be_of_the_training_is_refused(tmp_path, fold):
    with pytest.raises(BadFeatures, match=rf"csv:3: fold '{fold}': expected 0 or more, or -1"):
        read(tmp_path, FOLDED + f"a,x,g,test,1,0\nb,y,h,{fold},1,0\n")


def test_decimal_commas_of_probabilities(tmp_path):
    predictions = read(tmp_path, "clip_id;label;a,b;c\nx;a,b;0,75;0,25\ny;c;0.5;0,5\n")
    np.testing.assert_array_equal(predictions.outputs["x"], [[0.75, 0.25], [0.5, 0.5]])
    assert predictions.notes == ("In x.csv, 'a,b' has decimal commas and points: both are read.",)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_logits_of_a_file_and_in_memory(tmp_path, task):
    text = HEAD + "a,calm,2.5,-1\nb,tense,-3,1\n"
    with pytest.raises(BadFeatures, match=r"csv:2: expected a probability .*--from-logits"):
        read(tmp_path, text, task=task)
    of_file = read(tmp_path, text, task=task, from_logits=True)
    logits = dataclasses.replace(of_file, outputs={"x": np.array([[2.5, -1], [-3, 1]])})
    in_memory = results_of_predictions(logits, from_logits=True)
    np.testing.assert_array_equal(in_memory.models[0].outputs, of_file.outputs["x"])
    total = of_file.outputs["x"].sum(axis=1)
    assert np.allclose(total, 1) == (task == "multiclass")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": [[2.0, -1], [0, 3]]}, "clip 'a' of model 'm': expected a probability"),
        ({"outputs": [[np.inf, 0], [1, 0]]}, "got inf"),
        ({"outputs": [[0.5, 0.4], [1, 0]]}, "clip 'a' of model 'm': the probabilities sum to 0.9"),
        ({"outputs": [[1, np.nan], [1, 0]]}, "1 of 2 probabilities are missing"),
        ({"outputs": [0, 1]}, r"outputs of 'm': expected numbers in the shape \(2, 2\), got"),
        ({"outputs": [["a", "b"], ["c", "d"]]}, "outputs of 'm': expected numbers"),
        ({"clip_ids": ("a", "a")}, "duplicate clip id 'a'"),
        ({"classes": ("x", "x")}, "duplicate class 'x'"),
        ({"groups": ("g",)}, "groups: expected numbers in the shape"),
        ({"y_true": np.array([0, 2])}, "y_true of clip 'b': expected 0 to 1, got 2"),
        ({"y_true": np.array(["x", "y"])}, "y_true: expected numbers"),
        ({"folds": np.array([0, 3])}, r"folds: expected each of 0 to 0, .*, got \[0, 3\]"),
        ({"folds": np.array([-1, -1])}, "folds: expected each of 0 to 0"),
    ],
)
def test_predictions_in_memory_are_checked_as_files_are(changes, message):
    outputs = {"m": np.array(changes.pop("outputs", [[0.9, 0.1], [0.4, 0.6]]))}
    facts = {"classes": ("x", "y"), "clip_ids": ("a", "b"), "groups": ("g", "h"), "k": 1}
    arrays = {"y_true": np.array([0, 1]), "folds": np.array([0, 0]), "outputs": outputs}
    predictions = Predictions(**{**facts, **arrays, **changes})
    with pytest.raises(BadFeatures, match=message):
        results_of_predictions(predictions)

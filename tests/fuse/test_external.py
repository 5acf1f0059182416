"""Predictions that other programs made."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from fuse_samples import make_results
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mvemo.fuse import (
    BadFeatures,
    format_table,
    metrics_dict,
    read_predictions,
    results_of_predictions,
)
from mvemo.fuse.crossval.repeats import with_repeats
from mvemo.fuse.models import Model
from mvemo.fuse.report.banners import banners
from mvemo.fuse.report.files import predictions_csv
from mvemo.fuse.report.page import report_html
from mvemo.fuse.report.summary import summarise
from mvemo.fuse.results import score_model

HEAD = "clip_id,label,calm,tense\n"
GOOD = HEAD + "a,calm,0.9,0.1\nb,tense,0.6,0.4\nc,tense,0.2,0.8\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_file(tmp_path):
    path = write(tmp_path / "net.csv", GOOD)
    predictions = read_predictions(path)
    assert predictions.classes == ("calm", "tense")
    assert predictions.clip_ids == predictions.groups == ("a", "b", "c")
    assert predictions.y_true.tolist() == [0, 1, 1]
    assert (predictions.k, predictions.folds.tolist()) == (1, [0, 0, 0])
    assert list(predictions.proba) == ["net"]
    np.testing.assert_array_equal(predictions.proba["net"], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert predictions.files == (("net.csv", hashlib.sha256(path.read_bytes()).hexdigest()),)
    results = results_of_predictions(predictions, name="mine")
    (model,) = results.models
    assert model.per_fold["accuracy"].tolist() == [2 / 3]
    assert model.confusion.tolist() == [[1, 0], [1, 1]]
    assert results.primary_per_fold(results.baseline).tolist() == [2 / 3]
    assert (results.protocol, results.leaky) == ("others", False)


def test_scores_are_scikit_learns(tmp_path):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 60)
    values = rng.dirichlet(np.ones(4), 60)
    lines = ["fold,p_w,p_x,p_y,p_z,clip_id,remark,label"]
    for i in range(60):
        cells = ",".join(map(repr, values[i].tolist()))
        lines.append(f"{2 * (i % 3) + 5},{cells},clip {i},other,{'wxyz'[labels[i]]}")
    predictions = read_predictions(write(tmp_path / "x.csv", "\n".join(lines)))
    (model,) = results_of_predictions(predictions).models
    assert predictions.k == 3
    y_pred = values.argmax(axis=1)
    for fold in range(3):
        rows = np.arange(60) % 3 == fold
        assert model.per_fold["accuracy"][fold] == accuracy_score(labels[rows], y_pred[rows])
    assert model.scores["f1_macro"] == pytest.approx(
        f1_score(labels, y_pred, average="macro"), abs=1e-12
    )
    auc = roc_auc_score(labels, values, multi_class="ovr")
    assert model.scores["roc_auc_macro_ovr_pooled"] == pytest.approx(auc, abs=1e-12)


def test_what_mvemo_writes_gives_the_same_scores(tmp_path):
    results = make_results(classes=("Calm, or so", "Fear", "Joy"), missing=5)
    path = write(tmp_path / "predictions.csv", predictions_csv(results))
    again = results_of_predictions(read_predictions(path), name=results.name)
    for what in ("classes", "clip_ids", "groups", "k"):
        assert getattr(again, what) == getattr(results, what)
    np.testing.assert_array_equal(again.y_true, results.y_true)
    np.testing.assert_array_equal(again.folds, results.folds)
    np.testing.assert_array_equal(
        again.primary_per_fold(again.baseline), results.primary_per_fold(results.baseline)
    )
    assert [m.name for m in again.models] == [m.name for m in results.models]
    for new, old in zip(again.models, results.models, strict=True):
        np.testing.assert_array_equal(new.outputs, old.outputs)
        for name, values in old.per_fold.items():
            np.testing.assert_array_equal(new.per_fold[name], values)
        np.testing.assert_array_equal(new.confusion, old.confusion)
        assert new.scores["f1_macro"] == old.scores["f1_macro"]
    assert predictions_csv(again) == predictions_csv(results)


FOLDED = "clip_id,label,group,fold,p_x,p_y\n"


def folded(path, n_tested, n_untested, *, predict_untested):
    """A file of clips of class x, then y, then x ...; those that are tested come first."""
    lines = []
    for i in range(n_tested + n_untested):
        fold, label = (0, "xy"[i % 2]) if i < n_tested else (-1, "y")
        p = "0.9,0.1" if predict_untested or i < n_tested else ","
        lines.append(f"clip{i},{label},g{i},{fold},{p}")
    return write(path, FOLDED + "\n".join(lines))


@pytest.mark.parametrize("predict_untested", [False, True])
def test_clips_that_were_not_tested_are_no_fold_and_not_scored(tmp_path, predict_untested):
    path = folded(tmp_path / "x.csv", 10, 40, predict_untested=predict_untested)
    predictions = read_predictions(path)
    assert predictions.k == 1
    assert predictions.folds.tolist() == [0] * 10 + [-1] * 40
    results = results_of_predictions(predictions)
    (model,) = results.models
    assert results.k == 1
    assert model.per_fold["accuracy"].tolist() == [0.5]
    assert model.scores["accuracy"] == 0.5
    assert not model.valid[10:].any()
    # The commonest class of the clips that were not tested, on those that were.
    assert results.primary_per_fold(results.baseline).tolist() == [0.5]
    assert not results.baseline.valid[10:].any()
    assert results.baseline.y_pred[:10].tolist() == [1] * 10
    text = " ".join(format_table(results).split())
    assert "2 folds" not in text
    assert "predictions of 1 model for 10 of 50 clips" in text
    assert "for each of 10 clips" in summarise(results)
    assert "40 other clips had no test" in summarise(results)


def test_not_tested_is_no_number_of_a_fold(tmp_path):
    lines = [f"c{i},x,g{i},{fold},1,0" for i, fold in enumerate((2, -1, 1, 10, -1))]
    predictions = read_predictions(write(tmp_path / "x.csv", FOLDED + "\n".join(lines)))
    assert predictions.folds.tolist() == [1, -1, 0, 2, -1]
    assert predictions.k == 3
    lines = [f"c{i},x,g{i},-1,1,0" for i in range(2)]
    with pytest.raises(BadFeatures, match=r"x\.csv:2: every clip's fold is -1, which means not"):
        read_predictions(write(tmp_path / "x.csv", FOLDED + "\n".join(lines)))


def test_a_group_both_tested_and_not_may_have_been_trained_on(tmp_path):
    text = FOLDED + "a,x,g,0,1,0\nb,y,h,0,0,1\nc,x,g,-1,,\n"
    results = results_of_predictions(read_predictions(write(tmp_path / "x.csv", text)))
    assert results.leaky
    assert results.provenance["groups_in_several_folds"] == 1


def test_several_files_are_several_models(tmp_path):
    one = write(tmp_path / "one.csv", GOOD)
    # Another order of classes and clips, one clip unknown to it and one not predicted.
    two = write(tmp_path / "two.csv", "tense,calm,label,clip_id\n0.7,0.3,tense,c\n,nan,calm,a\n")
    predictions = read_predictions(one, two)
    assert list(predictions.proba) == ["one", "two"]
    got = predictions.proba["two"]
    np.testing.assert_array_equal(got, [[np.nan, np.nan], [np.nan, np.nan], [0.3, 0.7]])
    results = results_of_predictions(predictions)
    assert results.models[1].per_fold["accuracy"].tolist() == [1.0]
    with pytest.raises(BadFeatures, match=r"already at .*one\.csv:2"):
        read_predictions(one, one)


def test_a_group_in_two_folds_is_told(tmp_path):
    text = "clip_id,label,group,fold,x,y\na,x,g,1,1,0\nb,y,g,2,0,1\nc,y,,10,0,1\n"
    predictions = read_predictions(write(tmp_path / "x.csv", text))
    assert predictions.groups == ("g", "g", "c")
    assert predictions.folds.tolist() == [0, 1, 2]
    results = results_of_predictions(predictions)
    assert results.leaky
    assert results.provenance["groups_in_several_folds"] == 1
    assert "more than one fold" in banners(results)[0].text


def test_every_report_says_whose_predictions_they_are(tmp_path):
    predictions = read_predictions(write(tmp_path / "net.csv", GOOD))
    results = results_of_predictions(predictions, synthetic=True)
    said = "cannot vouch that the model had not"
    assert said in " ".join(format_table(results).replace("\n! ", " ").split())
    page = report_html(results)
    assert said in page
    assert "trained on the other" not in page
    assert "SYNTHETIC DATA" in page
    assert "not known" in summarise(results)
    assert metrics_dict(results)["protocol"] == "others"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (HEAD, "no predictions"),
        ("id,label,x,y\na,x,1,0\n", "no column 'clip_id'; there are id"),
        ("clip_id,label,x\na,x,1\n", "1 columns of probabilities"),
        ("clip_id,label,x,x\na,x,1,0\n", "column 'x' is there twice"),
        (HEAD + "a,calm,1\n", "x.csv:2: 3 cells"),
        (HEAD + "\na,angry,1,0\n", "x.csv:3: label 'angry' is none of the classes calm, tense"),
        (HEAD + "a,calm,1,0\n,calm,1,0\n", "x.csv:3: clip_id is empty"),
        (HEAD + "a,calm,high,0\n", "x.csv:2: probability 'high' is no number"),
        (HEAD + "a,calm,0.5,0.4\n", "x.csv:2: the probabilities sum to 0.9"),
        (HEAD + "a,calm,1.5,-0.5\n", "x.csv:2: 1.5 is no probability"),
        (HEAD + "a,calm,inf,0\n", "x.csv:2: inf is no probability"),
        (HEAD + "a,calm,1,\n", "x.csv:2: 1 of 2 probabilities are missing"),
        (HEAD + "a,calm,1,0\na,calm,1,0\n", "x.csv:3: clip 'a' of model 'x' is already"),
        (
            "model," + HEAD + "m,a,calm,1,0\nn,a,tense,1,0\n",
            "x.csv:3: clip 'a' has label 'tense', but 'calm' at",
        ),
    ],
)
def test_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(BadFeatures) as caught:
        read_predictions(write(tmp_path / "x.csv", text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_go_together(tmp_path):
    one = write(tmp_path / "one.csv", GOOD)
    other = write(tmp_path / "other.csv", "clip_id,label,x,y\na,x,1,0\n")
    with pytest.raises(BadFeatures, match="its classes are x, y, those of"):
        read_predictions(one, other)
    folded = write(tmp_path / "folded.csv", "fold," + HEAD + "1,q,calm,1,0\n")
    with pytest.raises(BadFeatures, match="no fold is given for this clip"):
        read_predictions(one, folded)
    with pytest.raises(BadFeatures, match="no such file"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(HEAD.encode() + b"\xe9,calm,1,0\n")
    with pytest.raises(BadFeatures, match="is not UTF-8"):
        read_predictions(tmp_path / "latin.csv")


def test_a_probability_a_little_above_one_is_one(tmp_path):
    path = write(tmp_path / "x.csv", HEAD + "a,calm,1.0004,0\nb,tense,0,1\n")
    results = results_of_predictions(read_predictions(path))
    assert results.models[0].outputs[0].tolist() == [1.0, 0.0]
    assert results.models[0].calibration["brier"] == 0.0


def test_rounded_probabilities_are_probabilities(tmp_path):
    path = write(tmp_path / "x.csv", "clip_id,label,x,y,z\na,x,0.333,0.333,0.333\n")
    assert read_predictions(path).proba["x"].tolist() == [[0.333, 0.333, 0.333]]


def test_repeats_are_read_back(tmp_path):
    first = make_results(24, 2, missing=0)
    second = dataclasses.replace(first, folds=np.arange(24) // 2 % 2)
    repeated = with_repeats(first, [rescored(second)])
    path = write(tmp_path / "predictions.csv", predictions_csv(repeated))
    again = results_of_predictions(read_predictions(path))
    assert len(again.repeats) == 2
    for one, expected in zip(again.repeats, repeated.repeats, strict=True):
        assert one.folds.tolist() == expected.folds.tolist()
    for model, expected in zip(again.models, repeated.models, strict=True):
        np.testing.assert_array_equal(model.per_fold["accuracy"], expected.per_fold["accuracy"])


def rescored(results):
    """The same predictions, scored on the folds that `results` has now."""
    models = tuple(
        score_model(
            results.task,
            Model(m.name, m.features, m.modalities),
            m.outputs,
            results.y_true,
            results.folds,
            results.k,
        )
        for m in results.models
    )
    return dataclasses.replace(results, models=models)


def test_numbers_of_thousands_of_digits(tmp_path):
    many = "9" * 5000
    text = (
        f"clip_id,label,fold,calm,tense\na,calm,{many},0.9,0.1\nb,tense,10,0.6,0.4\nc,tense,2,1,0\n"
    )
    assert read_predictions(write(tmp_path / "net.csv", text)).folds.tolist() == [2, 1, 0]
    bad = write(tmp_path / "bad.csv", HEAD + f"a,calm,{many}x,0.1\n")
    with pytest.raises(BadFeatures) as error:
        read_predictions(bad)
    assert len(str(error.value)) < 300


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path):
    text = GOOD.replace("a,calm", "'=a,calm").replace("b,tense", "'@b,tense")
    predictions = read_predictions(write(tmp_path / "net.csv", text))
    assert predictions.clip_ids == ("=a", "@b", "c")

import csv
import io
import json
import os
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fuse_samples import CLASSES, NASTY, empty_results, few_results, nasty_results, primary
from sklearn.metrics import precision_recall_fscore_support

from mvemo.fuse import read_predictions
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.report.report_files import (
    metrics_dict,
    predictions_csv,
    provenance_sections,
    report_html,
    require_other_folder,
    write_report,
)


def as_json(results):
    return json.loads(json.dumps(metrics_dict(results), allow_nan=False))


@pytest.fixture
def quick(few):
    """One model, without curves."""
    return replace(few, models=few.models[:1], curves={})


def test_metrics_of_classes(results):
    found = as_json(results)
    assert (found["task"], found["protocol"], found["synthetic"]) == (
        "multiclass",
        "crossfit",
        False,
    )
    assert (found["folds"], found["clips"], found["classes"]) == (6, 96, list(CLASSES))
    assert list(found["models"]) == [model.name for model in results.models]
    assert found["baseline"]["accuracy"]["mean"] == results.primary_mean(results.baseline)
    assert found["provenance"]["command"].startswith("mvemo-cv")
    assert (found["failures"], found["missing"]["c3d"]) == (3, 6)
    for model in results.models:
        entry = found["models"][model.name]
        assert entry["modalities"] == list(model.modalities)
        per_fold = model.per_fold["accuracy"]
        assert entry["accuracy"] == {
            "min": per_fold.min(),
            "mean": pytest.approx(per_fold.mean(), abs=1e-12),
            "max": per_fold.max(),
            "per_fold": per_fold.tolist(),
            "pooled": model.scores["accuracy"],
        }
        for name in ("f1_macro", "roc_auc_macro_ovr"):
            assert entry[name] == model.scores[name]
        assert entry["confusion"] == model.confusion.tolist()
        assert sum(map(sum, entry["confusion"])) == entry["predicted"]
    model, valid = results.models[-1], results.models[-1].valid
    each = precision_recall_fscore_support(
        results.y_true[valid], model.outputs[valid].argmax(axis=1), labels=range(6), zero_division=0
    )
    for c, name in enumerate(CLASSES):
        scores = entry["per_output"][name]
        got = [scores[score] for score in ("precision", "recall", "f1")]
        np.testing.assert_allclose(got, [values[c] for values in each[:3]], atol=1e-12)


def test_metrics_of_tags_and_of_values(outputs):
    found = as_json(outputs)
    assert (found["task"], found["folds"], found["clips"]) == (outputs.task.name, 3, 90)
    name = {"multilabel": "roc_auc", "regression": "r2"}[outputs.task.name]
    for model in outputs.models:
        entry = found["models"][model.name]
        score = entry[f"{name}_macro"]
        assert score["mean"] == pytest.approx(np.mean(score["per_fold"]))
        assert score["min"] == min(score["per_fold"])
        for i, output in enumerate(outputs.classes):
            assert entry["per_output"][output][name] == model.per_output[name][i]
        low, high = entry["intervals"]["primary"]
        assert low < high
    assert found["models"]["c3d"]["predicted"] == 89
    assert ("quadrant_accuracy" in entry) == (outputs.task.name == "regression")
    assert ("quadrants" in found) == (outputs.task.name == "regression")
    assert ("f1_micro" in entry) == (outputs.task.name == "multilabel")


def test_no_score_is_null_not_nan(results):
    found = as_json(empty_results())
    entry = found["models"]["c3d"]
    nothing = dict.fromkeys(("min", "mean", "max", "pooled"))
    assert entry["accuracy"] == {**nothing, "per_fold": [None, None]}
    assert (entry["roc_auc_macro_ovr"], entry["predicted"]) == (None, 0)
    assert found["baseline"]["accuracy"]["mean"] is None
    # A fold without a score is left out of the mean.
    values = np.array([0.5, np.nan, 0.7, 0.6, np.nan, 0.6])
    model = results.models[0]
    model = replace(model, per_fold={**model.per_fold, "accuracy": values})
    accuracy = as_json(replace(results, models=(model,)))["models"]["music1d"]["accuracy"]
    assert (accuracy["min"], accuracy["max"]) == (0.5, 0.7)
    assert accuracy["mean"] == pytest.approx(0.6, abs=1e-12)
    assert accuracy["per_fold"] == [0.5, None, 0.7, 0.6, None, 0.6]


def test_flags_and_values_of_other_types(results):
    provenance = {"C": np.float32(0.5), "n": np.int64(3), "p": Path("a/b"), "x": float("inf")}
    flags = {"synthetic": True, "leaky": True, "permuted": True}
    found = as_json(replace(results, **flags, protocol="shared", provenance=provenance))
    assert flags.items() <= found.items()
    assert found["provenance"] == {"C": 0.5, "n": 3, "p": str(Path("a/b")), "x": None}
    changed = replace(results, provenance={"a": [1, {"b": object()}]})
    with pytest.raises(TypeError, match=r"provenance\.a\[1\]\.b is of type object"):
        metrics_dict(changed)


def assert_read_back(results, path):
    path.write_text(predictions_csv(results), encoding="utf-8")
    again = read_predictions(path, task=results.task.name)
    for name in ("classes", "clip_ids", "groups", "k"):
        assert getattr(again, name) == getattr(results, name)
    np.testing.assert_array_equal(again.y_true, results.y_true)
    np.testing.assert_array_equal(again.folds, results.folds)
    assert list(again.outputs) == [model.name for model in results.models]
    for model in results.models:
        np.testing.assert_array_equal(again.outputs[model.name], model.outputs)


def test_predictions_give_back_every_number(outputs, few, tmp_path):
    assert_read_back(few, tmp_path / "p.csv")
    assert_read_back(outputs, tmp_path / "p.csv")
    for results, start in ((few, "predicted"), (outputs, "decided_")):
        rows = list(csv.DictReader(io.StringIO(predictions_csv(results))))
        mine = [row for row in rows if row["model"] == results.models[0].name]
        decided = [[v for k, v in row.items() if k.startswith(start)] for row in mine]
        y_pred = results.models[0].y_pred
        if results is few:
            assert decided == [[results.classes[c] if c >= 0 else ""] for c in y_pred]
        elif results.task.needs_inner:
            np.testing.assert_array_equal(np.array(decided) == "1", y_pred)


def test_predictions_survive_any_text():
    nasty = nasty_results()
    nasty = replace(nasty, models=(nasty.models[0], nasty.models[2]))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(nasty))))
    assert [row["clip_id"] for row in rows[::2]] == list(nasty.clip_ids)
    assert rows[0]["label"] == nasty.classes[int(nasty.y_true[0])]


def test_repeats_are_all_in_the_predictions(few):
    first = replace(few, curves={})
    second = replace(first, folds=(first.folds + 1) % first.k)
    repeated = replace(first, repeats=(first, second))
    rows = list(csv.DictReader(io.StringIO(predictions_csv(repeated))))
    assert list(rows[0])[:4] == ["repeat", "clip_id", "group", "fold"]
    assert [row["repeat"] for row in rows] == ["0"] * 72 + ["1"] * 72
    for one, part in zip((first, second), (rows[:72], rows[72:]), strict=True):
        assert [int(row["fold"]) for row in part[::3]] == one.folds.tolist()
    assert "every out-of-fold prediction of every repeat" in report_html(repeated)


def test_equal_results_give_equal_files(tmp_path, few):
    write_report(few, tmp_path)
    assert {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()} == {
        "report.html": report_html(few),
        "metrics.json": (tmp_path / "metrics.json").read_text(encoding="utf-8"),
        "predictions.csv": predictions_csv(few),
    }
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics_dict(few)


def test_file_names_that_are_no_text(tmp_path, quick):
    write_report(replace(quick, failures=(("bad \udcff name", "decode", "empty file"),)), tmp_path)
    assert r"bad \udcff name" in (tmp_path / "report.html").read_text("utf-8")


def test_older_files_stay_until_new_ones_are_whole(tmp_path, quick, monkeypatch):
    (tmp_path / "metrics.json").write_text("older")
    (tmp_path / "notes.txt").write_text("mine")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FuseError, match="No space left") as caught:
        write_report(quick, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "metrics.json").read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "notes.txt"]


def test_a_folder_has_one_run(tmp_path, quick):
    write_report(quick, tmp_path, heads=True)
    assert (tmp_path / "heads.npz").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    write_report(quick, tmp_path)
    # The heads of the older run are not left beside the metrics of the newer one.
    assert not (tmp_path / "heads.npz").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FuseError, match=r"out: cannot be written: File exists"):
        write_report(quick, tmp_path / "out")


def test_a_folder_that_is_read_from_is_not_written_to(tmp_path, monkeypatch):
    source = tmp_path / "out" / "predictions.csv"
    source.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFeatures, match="give another folder with --out") as caught:
        require_other_folder("out", [tmp_path / "other.csv", source])
    assert str(source) in str(caught.value)
    require_other_folder("report", [source])


# --- page

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, visible text and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def html(few):
    return report_html(few)


@pytest.fixture(scope="module")
def nasty():
    made = nasty_results()
    return replace(made, models=(made.models[0], made.models[2]))


@pytest.fixture(scope="module")
def nasty_html(nasty):
    return report_html(nasty)


@pytest.mark.figures
def test_page_is_balanced_and_has_every_part(few, html):
    page = Page(html)
    assert page.stack == []
    # Accuracy, two ROC, reliability, a confusion matrix a model, one net's losses.
    assert page.tags.count("svg") == 4 + 3 + 1
    for heading in (
        "Scores",
        "Accuracy in each fold",
        "ROC curves",
        "Confusion matrices",
        "Classes: ",
        "Clips most often wrong",
        "Loss curves",
        "Missing features and failures",
        "Settings and provenance",
        "How to read this page",
    ):
        assert heading in page.words
    for clip_id, stage, reason in few.failures:
        assert clip_id in page.words
        assert stage in page.words
        assert reason in page.words
    for fact in ("mvemo-cv features.h5 --folds 6 --out out", "0123456789abcdef" * 4, "3.11.7"):
        assert fact in page.words
    assert "published, other data" in page.words
    assert "made by hand" in page.words


@pytest.mark.figures
def test_page_loads_nothing_and_its_links_lead_somewhere(html):
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
            assert value[1:] in ids
        assert not name.startswith("on")
    assert "@import" not in html
    assert "url(http" not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"synthetic": True}, ["SYNTHETIC DATA"]),
        ({"predicted_by": "music-video"}, ["PREDICTED LABELS"]),
        ({"leaky": True}, ["OPTIMISTIC"]),
        ({"protocol": "shared"}, ["OPTIMISTIC"]),
        ({"permuted": True, "synthetic": True}, ["PERMUTED LABELS", "SYNTHETIC DATA"]),
    ],
)
def test_banners(changes, expected):
    made = few_results(**changes)
    # Its single features are no published models: Table 2 is of nets by themselves.
    html = report_html(replace(made, models=made.models[-1:], curves={}))
    titles = ["SYNTHETIC DATA", "OPTIMISTIC", "PERMUTED LABELS", "PREDICTED LABELS"]
    assert [t for t in titles if f"<strong>{t}</strong>" in html] == sorted(
        expected, key=titles.index
    )
    head = html[: html.index("</title>")]
    assert [t for t in titles if t in head] == sorted(expected, key=titles.index)
    assert ("published, other data" in html) is not changes.get("permuted", False)


@pytest.mark.figures
def test_text_from_outside_is_escaped_everywhere(nasty, nasty_html):
    page = Page(nasty_html)
    assert page.stack == []
    # Its own script alone; the names' tags are no elements.
    assert page.tags.count("script") == 1
    assert "alert(1)" not in nasty_html[nasty_html.index("<script>\n") :]
    assert "<script>alert" not in nasty_html
    assert page.tags.count("b") == len(nasty.models)
    assert NASTY in page.words
    for name, _ in page.attributes:
        assert name.isascii()
        assert '"' not in name


def test_many_failures_are_shortened_and_counted():
    many = tuple((f"clip {i}", "decode", "empty file") for i in range(600))
    made = few_results(failures=many)
    words = Page(report_html(replace(made, models=made.models[-1:], curves={}))).words
    assert "600 clips had failures. 100 more failures are not listed here." in words


def test_provenance_as_tables():
    sections = provenance_sections(
        {
            "command": "x",
            "C": 0.5,
            "none": None,
            "versions": {"python": "3.11"},
            "features": {"c3d": [{"fold": 0}, {"fold": 1, "dim": 8}], "i3d": [{"fold": None}]},
            "notes": ["a", {"b": 1}],
            "empty": {},
        }
    )
    assert [s["title"] for s in sections] == ["", "versions", "features", "notes"]
    assert sections[0]["rows"] == [("command", "x"), ("C", "0.5"), ("none", "")]
    assert sections[1]["rows"] == [("python", "3.11")]
    assert sections[2]["header"] == ["name", "fold", "dim"]
    assert sections[2]["rows"] == [("c3d", "0", ""), ("c3d", "1", "8"), ("i3d", "", "")]
    assert sections[3]["rows"] == [("0", "a"), ("1", '{"b": 1}')]


def test_failures_are_summed_up_by_their_reason(few):
    failures = [(f"c{i}", "decode:audio", f"ends at {i}.5 s") for i in range(5)]
    failures.append(("c9", "decode:video", "no frame decodes"))
    made = replace(few, failures=tuple(failures), models=(), curves={})
    text = Page(report_html(made)).words
    assert "6 clips had failures. The most common reasons: 5 x decode:audio: ends at 0.5 s" in text
    assert "(c0, c1, c2, …); 1 x decode:video" in text


@pytest.mark.figures
def test_pages_of_tags_and_of_values(outputs):
    results = replace(outputs, name=NASTY, permuted=True, leaky=True)
    html = report_html(results)
    page = Page(html)
    assert page.stack == []
    assert "<script>alert" not in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    of_tags = outputs.task.name == "multilabel"
    for text in ("PERMUTED LABELS", "OPTIMISTIC", "SYNTHETIC DATA", NASTY, outputs.baseline.name):
        assert text in page.words
    for model in outputs.models:
        assert f"{np.nanmean(primary(model)):.3f}" in page.words
    assert ("Quadrants" in page.words) != of_tags
    assert ("ROC curve of each tag" in html) == of_tags
    assert 'id="groups"' in html
    assert html == report_html(results)


def test_nothing_predicted_is_said(outputs):
    assert "No model made a prediction." in report_html(replace(outputs, models=()))
    assert "No model made a prediction." in report_html(empty_results())

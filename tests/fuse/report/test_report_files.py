import csv
import io
import json
import os
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, make_results, nasty_results
from typed_records import misfits

from mvemo.fuse import read_predictions
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.report import score_tables
from mvemo.fuse.report.report_files import (
    MetricsRecord,
    metrics_dict,
    predictions_csv,
    report_html,
    require_other_folder,
    write_report,
)
from mvemo.fuse.results import recommended_model
from mvemo.manifests.errors import MvemoError


def as_json(results):
    found = json.loads(json.dumps(metrics_dict(results), allow_nan=False))
    assert misfits(found, MetricsRecord) == []
    return found


def rows_of(results):
    return list(csv.DictReader(io.StringIO(predictions_csv(results))))


@pytest.fixture
def quick(few):
    """One model, without curves."""
    return replace(few, models=few.models[:1], curves={})


def test_metrics_of_each_task_are_a_typed_record(results, outputs):
    for one, n in ((results, 96), (outputs, 90)):
        found = as_json(one)
        assert (found["task"], found["clips"]) == (one.task.name, n)
        assert list(found["models"]) == [model.name for model in one.models]
        assert found["baseline"][one.task.primary_metric]["mean"] == one.primary_mean(one.baseline)


def test_no_score_is_null_not_nan(results):
    found = as_json(empty_results())
    entry = found["models"]["c3d"]
    nothing = dict.fromkeys(("min", "mean", "max", "pooled"))
    assert entry["accuracy"] == {**nothing, "per_fold": [None, None]}
    assert (entry["roc_auc_macro_ovr"], entry["predicted"]) == (None, 0)
    # A fold without a score is left out of the mean.
    values = np.array([0.5, np.nan, 0.7, 0.6, np.nan, 0.6])
    model = replace(results.models[0], per_fold={"accuracy": values})
    found = as_json(replace(results, models=(model,)))["models"]["music1d"]["accuracy"]
    assert (found["min"], found["max"]) == (0.5, 0.7)
    assert found["mean"] == pytest.approx(0.6, abs=1e-12)
    assert found["per_fold"] == [0.5, None, 0.7, 0.6, None, 0.6]


def test_predictions_give_back_every_number(outputs, few, tmp_path):
    for results, start in ((few, "predicted"), (outputs, "decided_")):
        (tmp_path / "p.csv").write_text(predictions_csv(results), encoding="utf-8")
        again = read_predictions(tmp_path / "p.csv", task=results.task.name)
        for name in ("classes", "clip_ids", "groups", "k"):
            assert getattr(again, name) == getattr(results, name)
        np.testing.assert_array_equal(again.y_true, results.y_true)
        np.testing.assert_array_equal(again.folds, results.folds)
        assert list(again.outputs) == [model.name for model in results.models]
        for model in results.models:
            np.testing.assert_array_equal(again.outputs[model.name], model.outputs)
        mine = [row for row in rows_of(results) if row["model"] == results.models[0].name]
        decided = [[v for k, v in row.items() if k.startswith(start)] for row in mine]
        y_pred = results.models[0].y_pred
        if results is few:
            assert decided == [[results.classes[c] if c >= 0 else ""] for c in y_pred]
        elif results.task.needs_inner:
            np.testing.assert_array_equal(np.array(decided) == "1", y_pred)


def test_older_files_stay_until_new_ones_are_whole(tmp_path, quick, monkeypatch):
    (tmp_path / "metrics.json").write_text("older")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MvemoError, match="No space left"):
        write_report(quick, tmp_path)
    assert (tmp_path / "metrics.json").read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_folder_has_one_run(tmp_path, quick):
    quick = replace(quick, failures=(("bad \udcff name", "decode", "empty file"),))
    write_report(quick, tmp_path, heads=True)
    assert (tmp_path / "heads.npz").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    write_report(quick, tmp_path)
    # The heads of the older run are not left beside the metrics of the newer one.
    assert not (tmp_path / "heads.npz").exists()
    texts = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert json.loads(texts.pop("metrics.json")) == metrics_dict(quick)
    # A name that is no text is escaped.
    page = report_html(quick).replace("\udcff", r"\udcff")
    expected = {"report.html": page, "predictions.csv": predictions_csv(quick), "notes.txt": "mine"}
    assert texts == expected
    (tmp_path / "out").write_text("a file")
    with pytest.raises(MvemoError, match=r"out: cannot be written: File exists"):
        write_report(quick, tmp_path / "out")


def test_a_folder_that_is_read_from_is_not_written_to(tmp_path, monkeypatch):
    source = tmp_path / "out" / "predictions.csv"
    source.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFeatures, match=f"{source} belongs to: give another folder with --out"):
        require_other_folder("out", [tmp_path / "other.csv", source])
    require_other_folder("report", [source])


# --- page

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements and visible text; fails if tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
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


@pytest.mark.figures
def test_page_has_every_part_and_loads_nothing(few):
    html = report_html(few)
    page = Page(html)
    # Accuracy, two ROC, reliability, a confusion matrix a model, one net's losses.
    assert page.tags.count("svg") == 4 + 3 + 1
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value[0] == "#"
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
        ({"permuted": True, "synthetic": True}, ["SYNTHETIC DATA", "PERMUTED LABELS"]),
    ],
)
def test_banners(few, changes, expected):
    # Its single features are no published models: Table 2 is of nets by themselves.
    html = report_html(replace(few, models=few.models[-1:], curves={}, **changes))
    titles = ["SYNTHETIC DATA", "OPTIMISTIC", "PERMUTED LABELS", "PREDICTED LABELS"]
    assert [t for t in titles if f"<strong>{t}</strong>" in html] == expected
    assert [t for t in titles if t in html[: html.index("</title>")]] == expected
    assert ("published, other data" in html) is not changes.get("permuted", False)


@pytest.mark.figures
def test_text_from_outside_is_escaped_everywhere():
    made = nasty_results()
    nasty = replace(made, models=(made.models[0], made.models[2]))
    rows = rows_of(nasty)
    assert [row["clip_id"] for row in rows[::2]] == list(nasty.clip_ids)
    assert rows[0]["label"] == nasty.classes[nasty.y_true[0]]
    html = report_html(nasty)
    page = Page(html)
    # Its own script and its data alone; the names' tags are no elements.
    assert page.tags.count("script") == 2
    assert "alert(1)" not in html[html.index("<script>\n") :]
    assert "<script>alert" not in html
    assert page.tags.count("b") == len(nasty.models) + html.count("<b>missing</b>")
    assert NASTY in page.words
    for name, _ in page.attributes:
        assert name.isascii()
        assert '"' not in name


def test_failures_are_shortened_counted_and_summed_up_by_their_reason(few):
    failures = [(f"c{i}", "decode:audio", f"ends at {i}.5 s") for i in range(600)]
    failures.append(("c0", "decode:video", "no frame decodes"))
    words = Page(report_html(replace(few, failures=tuple(failures), models=(), curves={}))).words
    assert "600 clips had failures. 101 more failures are not listed here." in words
    assert (
        "The most common reasons: 600 x decode:audio: ends at 0.5 s (c0, c1, c2, …); 1 x" in words
    )


def test_cells_of_the_confusion_matrix_list_their_clips(few):
    best = recommended_model(few)
    first = few.clip_ids[int(np.flatnonzero(best.valid)[0])]
    made = replace(few, media={first: "../a%20b.mp3"})
    cells = score_tables.confused_clips(made, best)
    assert [[cell["count"] for cell in row] for row in cells] == best.confusion.tolist()
    listed = [clip for row in cells for cell in row for clip in cell["clips"]]
    assert [clip for clip in listed if clip[1]] == [[first, "../a%20b.mp3"]]
    assert {clip[0] for clip in listed} == {*np.array(few.clip_ids)[best.valid]}
    sentence = "The media files are not next to this page"
    assert report_html(few).count(sentence) == 1
    html = report_html(made)
    assert sentence not in html
    data = html[html.index('id="clips">') + len('id="clips">') :]
    assert json.loads(data[: data.index("</script>")]) == cells


def test_a_report_of_many_classes_is_small():
    names = tuple(f"class{i:03}" for i in range(240))
    many = make_results(480, 2, missing=0, classes=names)
    many = replace(many, models=many.models[:1], curves={})
    page = report_html(many)
    assert len(page) < 1_000_000
    shown = score_tables.shown_classes(many)
    assert len(shown) == 30
    assert "Of 240 classes, the 30 with the most mistakes are shown" in page
    counts = many.models[0].confusion
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    assert wrong[shown].min() >= np.delete(wrong, shown).max()
    cells = score_tables.confused_clips(many, many.models[0])
    found = [[cell["count"] for cell in row] for row in cells]
    assert found == counts[np.ix_(shown, shown)].tolist()
    found = as_json(many)
    (model,) = found["models"].values()
    assert (model["confusion"], "confusion" in found["left_out"]) == (None, True)
    assert model["per_output"]["class007"].keys() == {"precision", "recall", "f1"}


def test_repeats_are_all_in_the_predictions(few):
    second = replace(few, folds=(few.folds + 1) % few.k, curves={})
    repeated = replace(few, curves={}, repeats=(few, second))
    rows = rows_of(repeated)
    assert list(rows[0])[:4] == ["repeat", "clip_id", "group", "fold"]
    folds = [(row["repeat"], int(row["fold"])) for row in rows[::3]]
    assert folds == [(str(r), f) for r in (0, 1) for f in repeated.repeats[r].folds]
    assert "every out-of-fold prediction of every repeat" in report_html(repeated)

"""The report's three files: complete, escaped, equal for equal results, whole or absent."""

import csv
import dataclasses
import io
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, make_results, nasty_results

from mvemo.fuse.errors import FuseError
from mvemo.fuse.report.metrics_json import metrics_dict
from mvemo.fuse.report.page import predictions_csv, provenance_sections, report_html, write_report

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


def small(**changes):
    """Three models and one net's curves: quick to draw."""
    made = make_results(24, 2, missing=2)
    return dataclasses.replace(
        made,
        **{
            "models": (made.models[0], made.models[2], made.models[-1]),
            "curves": {"c3d@0": made.curves["c3d@0"]},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def results():
    return small()


@pytest.fixture(scope="module")
def html(results):
    return report_html(results)


@pytest.fixture(scope="module")
def nasty():
    made = nasty_results()
    return dataclasses.replace(made, models=(made.models[0], made.models[2]))


@pytest.fixture(scope="module")
def nasty_html(nasty):
    return report_html(nasty)


def test_page_is_balanced_and_has_every_part(results, html):
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
    for clip_id, stage, reason in results.failures:
        assert clip_id in page.words
        assert stage in page.words
        assert reason in page.words
    for fact in ("mvemo-cv features.h5 --folds 6 --out out", "0123456789abcdef" * 4, "3.11.7"):
        assert fact in page.words
    assert "published, other data" in page.words
    assert "made by hand" in page.words


def test_page_loads_nothing(html):
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
        assert not name.startswith("on")
    assert "@import" not in html
    assert "url(http" not in html
    assert "default-src 'none'" in html


def test_sections_that_the_page_links_to_exist(html):
    page = Page(html)
    ids = {value for name, value in page.attributes if name == "id"}
    for name, value in page.attributes:
        if name in ("href", "xlink:href"):
            assert value[1:] in ids
    every = [value for name, value in page.attributes if name == "id"]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"synthetic": True}, ["SYNTHETIC DATA"]),
        ({"leaky": True}, ["OPTIMISTIC"]),
        ({"permuted": True, "synthetic": True}, ["PERMUTED LABELS", "SYNTHETIC DATA"]),
    ],
)
def test_banners(changes, expected):
    made = small(**changes)
    html = report_html(dataclasses.replace(made, models=made.models[:1], curves={}))
    titles = ["SYNTHETIC DATA", "OPTIMISTIC", "PERMUTED LABELS"]
    assert [t for t in titles if f"<strong>{t}</strong>" in html] == sorted(
        expected, key=titles.index
    )
    head = html[: html.index("</title>")]
    assert [t for t in titles if t in head] == sorted(expected, key=titles.index)
    assert ("published, other data" in html) is not changes.get("permuted", False)


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


def test_equal_results_give_equal_files(tmp_path, results, html):
    write_report(results, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html
    assert (tmp_path / "metrics.json").stat().st_size > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.json",
        "predictions.csv",
        "report.html",
    ]
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found == metrics_dict(results)
    text = (tmp_path / "predictions.csv").read_bytes().decode()
    assert text == predictions_csv(results)


def test_predictions_give_back_the_same_numbers(results):
    rows = list(csv.DictReader(io.StringIO(predictions_csv(results))))
    assert len(rows) == 24 * 3
    columns = [f"p_{c}" for c in results.classes]
    for m, model in enumerate(results.models):
        mine = [row for row in rows if row["model"] == model.name]
        assert rows[m]["model"] == model.name
        assert tuple(row["clip_id"] for row in mine) == results.clip_ids
        assert tuple(row["group"] for row in mine) == results.groups
        assert [int(row["fold"]) for row in mine] == results.folds.tolist()
        assert [row["label"] for row in mine] == [results.classes[i] for i in results.y_true]
        values = np.array([[float(row[c] or "nan") for c in columns] for row in mine])
        np.testing.assert_array_equal(values, model.outputs)
        for row, p in zip(mine, model.outputs, strict=True):
            expected = "" if np.isnan(p).any() else results.classes[int(p.argmax())]
            assert row["predicted"] == expected


def test_predictions_survive_any_text(nasty):
    rows = list(csv.DictReader(io.StringIO(predictions_csv(nasty))))
    assert [row["clip_id"] for row in rows[::2]] == list(nasty.clip_ids)
    assert rows[0]["label"] == nasty.classes[int(nasty.y_true[0])]


def test_nothing_predicted(tmp_path):
    write_report(empty_results(), tmp_path)
    assert "No model made a prediction." in (tmp_path / "report.html").read_text("utf-8")
    assert "NaN" not in (tmp_path / "metrics.json").read_text("utf-8")


def test_many_failures_are_cut_and_counted():
    many = tuple((f"clip {i}", "decode", "empty file") for i in range(600))
    made = small(failures=many)
    words = Page(report_html(dataclasses.replace(made, models=made.models[:1], curves={}))).words
    assert "600 clips concerned. 100 more failures are not listed here." in words


def test_file_names_that_are_no_text(tmp_path):
    made = small(failures=(("bad \udcff name", "decode", "empty file"),), curves={})
    made = dataclasses.replace(made, models=made.models[:1])
    write_report(made, tmp_path)
    assert r"bad \udcff name" in (tmp_path / "report.html").read_text("utf-8")


def test_older_files_stay_until_new_ones_are_whole(tmp_path, results, monkeypatch):
    (tmp_path / "metrics.json").write_text("older")
    (tmp_path / "notes.txt").write_text("mine")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    made = dataclasses.replace(results, models=results.models[:1], curves={})
    with pytest.raises(FuseError, match="No space left") as caught:
        write_report(made, tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "metrics.json").read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "notes.txt"]


def test_a_file_in_the_folders_place(tmp_path, results):
    (tmp_path / "out").write_text("a file")
    made = dataclasses.replace(results, models=results.models[:1], curves={})
    with pytest.raises(FuseError, match=r"out: no folder can be made here"):
        write_report(made, tmp_path / "out")


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
    assert sections[2]["rows"] == [["c3d", "0", ""], ["c3d", "1", "8"], ["i3d", "", ""]]
    assert sections[3]["rows"] == [("0", "a"), ("1", '{"b": 1}')]

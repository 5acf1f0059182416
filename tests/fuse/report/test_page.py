"""The report's page: complete, escaped, and loading nothing."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, few_results, nasty_results, primary

from mvemo.fuse.report.page import provenance_sections, report_html

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
    assert "600 clips concerned. 100 more failures are not listed here." in words


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


def test_failures_are_summed_up_by_their_reason(few):
    failures = [(f"c{i}", "decode:audio", f"ends at {i}.5 s") for i in range(5)]
    failures.append(("c9", "decode:video", "no frame decodes"))
    made = replace(few, failures=tuple(failures), models=(), curves={})
    text = Page(report_html(made)).words
    assert "6 clips concerned. The commonest reasons: 5 x decode:audio: ends at 0.5 s" in text
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

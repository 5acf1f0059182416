"""The figures are well-formed, safe in a page, equal for equal results, and show the data."""

import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from fuse_samples import NASTY, empty_results, make_results, nasty_results
from sklearn.metrics import auc, roc_auc_score

from mvemo.fuse.report import figures
from mvemo.fuse.report.drawing import COLOURS, matrix_figure
from mvemo.fuse.results import recommended_model

SVG = "{http://www.w3.org/2000/svg}"
pytestmark = pytest.mark.figures


def all_figures(results):
    model = results.models[-1]
    return [
        figures.fold_figure(results)[0].svg,
        figures.roc_figure(results)[0].svg,
        figures.class_roc_figure(results, model)[0].svg,
        matrix_figure(model.confusion, results.classes, model.name),
        *(picture.svg for picture in figures.loss_figures(results.curves)),
    ]


@pytest.fixture(scope="module")
def results(results):
    return replace(results, curves={"c3d@0": results.curves["c3d@0"]})


@pytest.fixture(scope="module")
def drawn(results):
    return all_figures(results)


def texts(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_each_is_one_element_with_a_title(drawn):
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"] == root.find(f"{SVG}title").text
        assert "viewBox" in root.attrib
        assert "width" not in root.attrib


def test_nothing_is_loaded_and_no_style_leaks_into_the_page(drawn):
    for svg in drawn:
        assert "<style" not in svg
        assert "<image" not in svg
        links = re.findall(r"(?:href|src)=\"([^\"]*)\"", svg)
        assert all(link.startswith("#") for link in links)
        addresses = set(re.findall(r"https?://[^\"]*", svg))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        # Ink is the page's.
        assert "currentColor" in svg
        assert "#010203" not in svg
        assert not re.search(r"(?:fill|stroke): #(?:000000|fff\b)", svg)


def test_ids_are_unique_over_a_page_and_references_hold(drawn):
    ids = [re.findall(r"\bid=\"([^\"]+)\"", svg) for svg in drawn]
    every = [name for names in ids for name in names]
    assert len(every) == len(set(every))
    for svg, names in zip(drawn, ids, strict=True):
        assert set(re.findall(r"(?:href=\"#|url\(#)(\w+)", svg)) <= set(names)


def test_equal_results_give_equal_bytes_whatever_the_users_style(results, drawn):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert all_figures(results) == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_confusion_shows_every_count(results):
    model = results.models[-1]
    (svg,) = [p.svg for p in figures.confusion_figures(results) if p.head == model.name]
    shown = texts(svg)
    counts = [int(t) for t in shown if t.isdigit()]
    assert counts == model.confusion.ravel().tolist()
    # Names of columns, then of rows.
    assert [t for t in shown if t in results.classes] == list(results.classes) * 2


def test_confusion_of_no_clips_and_of_many_classes(results):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = matrix_figure(np.zeros((6, 6), dtype=np.int64), results.classes, "x")
    assert texts(svg).count("0") == 36
    # Many classes leave the counts and then the names out.
    classes = [f"tag {i}" for i in range(40)]
    for n, named in ((15, 15), (20, 20), (40, 0)):
        shown = texts(matrix_figure(np.eye(n, dtype=np.int64), classes[:n], "x"))
        assert len([text for text in shown if text.startswith("tag")]) == 2 * named
        assert shown.count("1") == (15 if n < 16 else 0)


def test_areas_are_of_the_curves_that_are_drawn(results):
    (before,) = figures.roc_figure(results)
    # As of several repeats, of which the first is drawn.
    first, *others = results.models
    first = replace(first, scores={**first.scores, "roc_auc_macro_ovr_pooled": 0.123})
    (after,) = figures.roc_figure(replace(results, models=(first, *others)))
    assert after.svg == before.svg


def test_legends_name_models_and_areas(results):
    (picture,) = figures.roc_figure(results)
    shown = " ".join(" ".join(texts(picture.svg)).split())
    # The recommended model's curve, and its line in the legend, are thick.
    top = recommended_model(results)
    colour = COLOURS[results.models.index(top) % len(COLOURS)]
    assert picture.svg.count("stroke-width: 2.4") == 2
    assert len(re.findall(f'stroke: {colour};[^"]*stroke-width: 2.4', picture.svg)) == 2
    assert picture.caption.endswith(f"The thick curve is {top.name}.")
    for model in results.models:
        assert f"{model.name} {model.scores['roc_auc_macro_ovr_pooled']:.3f}" in shown
    model = results.models[1]
    shown = " ".join(" ".join(texts(figures.class_roc_figure(results, model)[0].svg)).split())
    for c, name in enumerate(results.classes):
        area = roc_auc_score(results.y_true == c, model.outputs[:, c])
        assert f"{name} {area:.3f}" in shown


def test_drawn_roc_curves_enclose_the_area():
    made = make_results(3000, 2, missing=0)
    positive = made.task.indicators(made.y_true, 6)
    curves = figures.curves_of(positive, made.models[0].outputs)
    for c, (curve, area) in enumerate(curves):
        expected = roc_auc_score(made.y_true == c, made.models[0].outputs[:, c])
        assert area == pytest.approx(expected, abs=1e-12)
        assert curve[0] == 0
        assert curve[-1] == 1
        assert (np.diff(curve) >= 0).all()
        # The drawn curve has 201 points: steps between them are cut.
        assert auc(figures._RATES, curve) == pytest.approx(expected, abs=0.004)


def test_results_without_a_score_can_be_drawn():
    made = empty_results()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pictures in figures.draw_figures(made, made.models[0]).values():
            for picture in pictures:
                ElementTree.fromstring(picture.svg)
    assert figures.loss_figures({}) == []


def test_text_from_outside_stays_text():
    made = nasty_results()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = all_figures(made)
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert not [e for e in root.iter() if "script" in e.tag or e.tag == f"{SVG}b"]
    assert "Fear <b>&amp;…" in texts(drawn[3])
    assert [picture.head for picture in figures.loss_figures(made.curves)] == [NASTY]


def test_curves_of_one_net_share_a_figure_and_odd_ones_are_left_out():
    epochs = [1.0, 2.0, 3.0]
    pictures = figures.loss_figures(
        {
            "c3d@0": {"epoch": epochs, "train_loss": [3, 2, 1], "val_loss": [3, 1, 2]},
            "c3d@1": {"epoch": epochs, "train_loss": [3, 2, 1], "val_loss": [3.0, None, 2.0]},
            "i3d@all": {"epoch": epochs, "train_loss": [3.0, 2.0], "val_loss": [np.nan] * 3},
            "music1d@0": {"epoch": [1.0], "train_loss": [1.0]},
            "plain": {},
        }
    )
    found = {picture.head: picture.svg for picture in pictures}
    assert list(found) == ["c3d", "i3d", "music1d", "plain"]
    assert "2 nets" in found["c3d"]
    colours = set(COLOURS)
    assert set(re.findall(r"#[0-9a-f]{6}", found["c3d"])) & colours == set(COLOURS[:2])
    assert not set(re.findall(r"#[0-9a-f]{6}", found["i3d"])) & colours

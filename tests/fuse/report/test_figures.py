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
from mvemo.fuse.report.drawing import COLOURS, matrix_figures
from mvemo.fuse.results import recommended_model

SVG = "{http://www.w3.org/2000/svg}"
pytestmark = pytest.mark.figures


def all_figures(results):
    drawn = figures.draw_figures(results, results.models[-1])
    pictures = [drawn["folds"][0], drawn["roc"][0], drawn["class_roc"][0], drawn["confusion"][-1]]
    return [picture.svg for picture in (*pictures, *figures.loss_figures(results.curves))]


@pytest.fixture(scope="module")
def results(results):
    return replace(results, curves={"c3d@0": results.curves["c3d@0"]})


@pytest.fixture(scope="module")
def drawn(results):
    return all_figures(results)


def texts(svg):
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_each_is_one_element_that_loads_nothing_and_changes_no_page(drawn):
    every = []
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert (root.tag, root.attrib["role"]) == (f"{SVG}svg", "img")
        assert root.attrib["aria-label"] == root.find(f"{SVG}title").text
        assert {*root.attrib} & {"viewBox", "width"} == {"viewBox"}
        assert not {"style", "image"} & {e.tag.removeprefix(SVG) for e in root.iter()}
        addresses = set(re.findall(r"https?://[^\"]*", svg))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        # Ink is the page's.
        assert "currentColor" in svg
        assert not re.search(r"#010203|(?:fill|stroke): #(?:000000|fff\b)", svg)
        names = re.findall(r"\bid=\"([^\"]+)\"", svg)
        assert set(re.findall(r"(?:(?:href|src)=\"#?|url\(#)([^\")]*)", svg)) <= set(names)
        every += names
    assert len(every) == len(set(every))


def test_equal_results_give_equal_bytes_whatever_the_users_style(results, drawn):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert all_figures(results) == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_confusion_shows_every_count(results, drawn):
    shown = texts(drawn[3])
    counts = [int(t) for t in shown if t.isdigit()]
    assert counts == results.models[-1].confusion.ravel().tolist()
    # Names of columns, then of rows.
    assert [t for t in shown if t in results.classes] == list(results.classes) * 2


@pytest.mark.parametrize(("n", "named", "counts"), [(15, 15, 15), (20, 20, 0), (40, 0, 0)])
def test_many_classes_leave_the_counts_and_then_the_names_out(n, named, counts):
    (svg,) = matrix_figures({"x": np.eye(n, dtype=np.int64)}, [f"tag {i}" for i in range(n)])
    shown = texts(svg)
    assert sum(text.startswith("tag") for text in shown) == 2 * named
    assert shown.count("1") == counts


def test_matrices_of_one_figure_are_drawn_like_each_alone():
    rng = np.random.default_rng(0)
    confusions = {name: rng.integers(0, high, (3, 3)) for name, high in (("a", 9), ("b", 5000))}
    alone = [matrix_figures({name: each}, "xyz")[0] for name, each in confusions.items()]
    assert matrix_figures(confusions, "xyz") == alone


def test_legends_name_models_and_areas_of_the_drawn_curves(results):
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
    # As of several repeats, of which the first is drawn.
    scores = {**model.scores, "roc_auc_macro_ovr_pooled": 0.123}
    models = (results.models[0], replace(model, scores=scores), *results.models[2:])
    assert figures.roc_figure(replace(results, models=models)) == [picture]


def test_drawn_roc_curves_enclose_the_area():
    made = make_results(3000, 2, missing=0)
    positive = made.task.indicators(made.y_true, 6)
    curves = figures.curves_of(positive, made.models[0].outputs)
    for c, (curve, area) in enumerate(curves):
        expected = roc_auc_score(made.y_true == c, made.models[0].outputs[:, c])
        assert area == pytest.approx(expected, abs=1e-12)
        assert (curve[0], curve[-1]) == (0, 1)
        assert (np.diff(curve) >= 0).all()
        # The drawn curve has 201 points: steps between them are cut.
        assert auc(figures._RATES, curve) == pytest.approx(expected, abs=0.004)


@pytest.mark.filterwarnings("error")
def test_results_without_a_score_can_be_drawn():
    made = empty_results()
    pictures = figures.draw_figures(made, made.models[0])
    for drawn in pictures.values():
        for picture in drawn:
            ElementTree.fromstring(picture.svg)
    assert texts(pictures["confusion"][0].svg).count("0") == 36
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
    colours = {net: {*re.findall("#[0-9a-f]{6}", svg)} & {*COLOURS} for net, svg in found.items()}
    assert colours["c3d"] == set(COLOURS[:2])
    assert not colours["i3d"]

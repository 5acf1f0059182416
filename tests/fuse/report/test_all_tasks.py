"""What is written of tags and of values: the same figures everywhere, safely."""

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fuse_samples import plain_settings, primary
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import evaluate
from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.report.page import report_html
from mvemo.fuse.report.report_files import metrics_dict, predictions_csv, write_report
from mvemo.fuse.report.score_tables import hard_clips
from mvemo.fuse.report.terminal import format_table
from mvemo.fuse.results import best_model


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def made(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("o") / "f.h5"
    output_cache(path, output_table(request.param), noise=2.0, missing={"c3d": [4]})
    with open_cache(path) as cache:
        return with_uncertainty(evaluate(cache, plain_settings()), n_resamples=50)


def test_metrics_have_the_outer_keys_of_all_tasks(made, tmp_path):
    write_report(made, tmp_path)
    held = json.loads((tmp_path / "metrics.json").read_text())
    outer = {"task", "protocol", "synthetic", "folds", "clips", "classes", "models", "baseline"}
    assert outer | {"provenance"} <= set(held)
    assert (held["task"], held["folds"], held["clips"]) == (made.task.name, 3, 90)
    name = {"multilabel": "roc_auc", "regression": "r2"}[made.task.name]
    for model in made.models:
        one = held["models"][model.name]
        assert one["modalities"] == list(model.modalities)
        score = one[f"{name}_macro"]
        assert score["mean"] == pytest.approx(np.mean(score["per_fold"]))
        assert score["min"] == min(score["per_fold"])
        for i, output in enumerate(made.classes):
            assert one["per_output"][output][name] == model.per_output[name][i]
        low, high = one["intervals"]["primary"]
        assert low < high
    assert held["models"]["c3d"]["predicted"] == 89
    assert ("quadrant_accuracy" in one) == (made.task.name == "regression")
    assert ("quadrants" in held) == (made.task.name == "regression")
    assert ("f1_micro" in one) == (made.task.name == "multilabel")


def test_predictions_give_back_every_number(made):
    rows = list(csv.DictReader(io.StringIO(predictions_csv(made))))
    assert len(rows) == 90 * len(made.models)
    for m, model in enumerate(made.models):
        mine = rows[m :: len(made.models)]
        assert {row["model"] for row in mine} == {model.name}
        for i, name in enumerate(made.classes):
            got = [float(row[f"predicted_{name}"] or "nan") for row in mine]
            np.testing.assert_array_equal(got, model.outputs[:, i])
            true = [float(row[f"true_{name}"]) for row in mine]
            np.testing.assert_array_equal(true, made.y_true[:, i])
            if made.task.needs_inner:
                decided = [row[f"decided_{name}"] == "1" for row in mine]
                np.testing.assert_array_equal(decided, model.y_pred[:, i])


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.figures
def test_the_page_is_whole_safe_and_has_the_scores(made):
    nasty = "<script>alert(1)</script>"
    page = report_html(replace(made, name=nasty, permuted=True, leaky=True))
    assert nasty not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    parser = _Page()
    parser.feed(page)
    assert parser.open == []
    for text in ("PERMUTED LABELS", "OPTIMISTIC", "SYNTHETIC DATA", nasty, made.baseline.name):
        assert text in parser.text
    for model in made.models:
        assert f"{np.nanmean(primary(model)):.3f}" in parser.text
    assert ("Quadrants" in parser.text) == (made.task.name == "regression")
    assert page == report_html(replace(made, name=nasty, permuted=True, leaky=True))


def test_the_terminals_table(made):
    text = format_table(made)
    assert max(map(len, text.splitlines())) <= 79
    assert "SYNTHETIC DATA" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    for model in (*made.models, made.baseline):
        if model.name != "integrated":
            assert f"{np.nanmean(primary(model)):.3f}" in lines[model.name]
    # Of two features it is the pair, which has a row.
    assert "integrated" not in lines
    assert "c3d+music1d has all features: it is integrated, too." in " ".join(text.split())
    assert "89/90" in lines["c3d"]
    assert "Tested clips without a feature: c3d 1 of 90." in text
    assert set(metrics_dict(made)["models"]) - {"integrated"} <= set(lines)


@pytest.mark.figures
def test_nothing_predicted_is_said(made):
    empty = replace(made, models=())
    assert "No model made a prediction." in report_html(empty)
    assert made.baseline.name in format_table(empty)


@pytest.mark.figures
def test_tags_have_roc_curves_and_groups_their_errors(made):
    page = report_html(made)
    assert ("ROC curve of each tag" in page) == (made.task.name == "multilabel")
    assert 'id="groups"' in page
    top = best_model(made)
    errors = made.task.clip_errors(made.y_true, top.outputs)
    clips, groups = hard_clips(made, top)
    worst = clips.table.rows[0]
    assert worst[0].text == made.clip_ids[int(np.nanargmax(errors))]
    assert worst[-1].text == f"{np.nanmax(errors):.2f}"
    name, n, mean = (cell.text for cell in groups.table.rows[0])
    rows = [i for i, g in enumerate(made.groups) if g == name]
    assert (int(n), mean) == (len(rows), f"{np.nanmean(errors[rows]):.2f}")

"""What is written of tags and dimensions: the same figures everywhere, safely."""

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
from mvemo.fuse.report.outputs_metrics import output_metrics_dict, output_predictions_csv
from mvemo.fuse.report.outputs_report import output_report_html, write_output_report
from mvemo.fuse.report.outputs_report import output_table as text_table
from mvemo.fuse.report.outputs_summary import distances, furthest_clips, furthest_groups
from mvemo.fuse.report.summary import best


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def made(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("o") / "f.h5"
    output_cache(path, output_table(request.param), noise=2.0, missing={"c3d": [4]})
    with open_cache(path) as cache:
        return with_uncertainty(evaluate(cache, plain_settings()), n_resamples=50)


def test_metrics_have_the_outer_keys_of_all_tasks(made, tmp_path):
    write_output_report(made, tmp_path)
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
    assert ("quadrants" in one) == (made.task.name == "regression")
    assert ("micro" in one) == (made.task.name == "multilabel")


def test_predictions_give_back_every_number(made):
    rows = list(csv.DictReader(io.StringIO(output_predictions_csv(made))))
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
                said = [row[f"decided_{name}"] == "1" for row in mine]
                np.testing.assert_array_equal(said, model.y_pred[:, i])


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


def test_the_page_is_whole_safe_and_has_the_scores(made):
    nasty = "<script>alert(1)</script>"
    page = output_report_html(replace(made, name=nasty, permuted=True, leaky=True))
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
    assert page == output_report_html(replace(made, name=nasty, permuted=True, leaky=True))


def test_the_terminals_table(made):
    text = text_table(made)
    assert max(map(len, text.splitlines())) <= 90
    assert "SYNTHETIC DATA" in text
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    for model in (*made.models, made.baseline):
        assert f"{np.nanmean(primary(model)):.3f}" in lines[model.name]
    assert "89/90" in lines["c3d"]
    assert "Clips without a feature: c3d 1 of 90." in text
    assert set(output_metrics_dict(made)["models"]) <= set(lines)


def test_nothing_predicted_is_said(made):
    empty = replace(made, models=())
    assert "No model made a prediction." in output_report_html(empty)
    assert made.baseline.name in text_table(empty)


def test_tags_have_roc_curves_and_groups_their_errors(made):
    page = output_report_html(made)
    assert ("ROC curve of each tag" in page) == (made.task.name == "multilabel")
    assert 'id="groups"' in page
    top = best(made)
    off = distances(made, top)
    clips = furthest_clips(made, top)
    assert clips[0].off == pytest.approx(np.nanmax(off))
    name, n, mean = furthest_groups(made, top)[0]
    rows = [i for i, g in enumerate(made.groups) if g == name]
    assert (n, mean) == (len(rows), pytest.approx(np.nanmean(off[rows])))

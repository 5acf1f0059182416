"""The annotators' ceiling is next to the scores: in tables, figure, notes and metrics.json."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import plain_settings
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import evaluate, format_table
from mvemo.fuse.report.figures import fold_figure
from mvemo.fuse.report.report_files import metrics_dict, report_html
from mvemo.fuse.report.score_tables import scores_table
from mvemo.fuse.results import recommended_model

pytestmark = pytest.mark.figures


def evaluated(path, task, n_annotators=4.0, **changes):
    if task == "regression":
        table = output_table(task, n=48)
        facts = np.tile([n_annotators, *[0.1] * len(table.classes)], (48, 1))
        output_cache(path, replace(table, disagreement=facts))
    else:
        table = make_table(48, 3)
        facts = np.column_stack([np.full(48, 5), np.tile([0.0, 0.5], 24)])
        frozen_cache(path, replace(table, disagreement=facts))
    with open_cache(path) as cache:
        settings = plain_settings(models=("music1d", "c3d"), choose_model=False, **changes)
        return evaluate(cache, settings)


def cells(results, name):
    table = scores_table(results, None)
    (row,) = (row for row in table.foot if row[0].text == name)
    return {head.title: cell.text for head, cell in zip(table.columns, row, strict=True)}


def test_ceilings_of_ratings(tmp_path):
    results = evaluated(tmp_path / "f.h5", "regression")
    r2 = 1 - 0.01 / 4 / results.y_true.var(axis=0)
    assert results.ceiling_of() == pytest.approx(r2.mean())
    row = cells(results, "annotators' ceiling")
    assert row["mean"] == f"{r2.mean():.3f}"
    assert row["r, mean"] == f"{np.sqrt(r2).mean():.3f}"
    for name, value in zip(results.classes, r2, strict=True):
        assert row[f"R2 {name}"] == f"{value:.3f}"
    assert {row["min"], row["max"], row["needs"], row["RMSE, mean"]} == {""}
    held = json.loads(json.dumps(metrics_dict(results)))["ceilings"]
    assert [one["r2"] for one in held] == pytest.approx(r2)
    assert [(one["target"], one["annotators"]) for one in held] == [(c, 4) for c in results.classes]
    text = " ".join(format_table(results).split())
    assert f"annotators' ceiling {r2.mean():.3f} {r2[0]:.3f}" in text
    assert f"with 4 annotators R2 cannot exceed {r2[0]:.3f}" in text
    assert "annotators' ceiling" in fold_figure(results)[0].svg
    assert "<dt>Annotators&#39; ceiling</dt>" in report_html(results)


def test_one_annotators_accuracy(tmp_path):
    results = evaluated(tmp_path / "f.h5", "multiclass")
    assert results.ceiling_of() == 0.75
    row = cells(results, "one annotator")
    assert (row["mean"], row["F1"]) == ("75.0", "")
    assert metrics_dict(results)["ceilings"][0]["accuracy"] == 0.75
    text = " ".join(format_table(results).split())
    assert "one annotator: agrees with the majority for 75.0 % of 48" in text
    assert "one annotator" in fold_figure(results)[0].svg
    assert "<dt>One annotator</dt>" in report_html(results)


def test_a_number_that_is_not_known_gives_no_line(tmp_path):
    results = evaluated(tmp_path / "f.h5", "regression", n_annotators=np.nan)
    assert np.isnan(results.ceiling_of())
    assert "the number of annotators is unknown" in " ".join(format_table(results).split())
    assert "annotators" not in fold_figure(results)[0].svg
    assert set(cells(results, "annotators' ceiling").values()) == {"annotators' ceiling", ""}
    # Shuffled labels have no ceiling.
    shuffled = evaluated(tmp_path / "g.h5", "regression", permute_labels=True)
    assert shuffled.ceilings == ()
    assert "ceiling" not in format_table(shuffled)


def test_r_is_in_every_row_of_the_terminals_table(tmp_path):
    names = ("arousal", "valence", "dominance")
    labels = np.clip(np.random.default_rng(0).normal(size=(48, 3)), -3, 3)
    table = output_table("regression", n=48, labels=labels, classes=names)
    table = replace(table, disagreement=np.tile([4.0, 0.1, 0.1, 0.1], (48, 1)))
    output_cache(tmp_path / "f.h5", table, missing={"c3d": [0]})
    with open_cache(tmp_path / "f.h5") as cache:
        results = evaluate(cache, plain_settings(models=("music1d", "c3d", "integrated-stacked")))
    text = format_table(results)
    assert max(map(len, text.splitlines())) <= 79
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    for model in results.models:
        assert f"{model.per_output['pearson_r'].mean():.3f}" in lines[model.name]
    assert f"{recommended_model(results).name} also has R2 arousal 0." in " ".join(text.split())
    # The page has them all, r next to R2.
    row = [head.title for head in scores_table(results, None).columns]
    assert row.index("r arousal") == row.index("R2 arousal") + 3
    assert {"CCC, mean", "r, mean", "quadrants"} <= {*row}

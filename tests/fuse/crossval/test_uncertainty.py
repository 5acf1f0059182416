"""Intervals, tests, repeats and learning curves as an evaluation carries them."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table, spec, write_cache
from fuse_samples import by_name, evaluated, primary
from output_samples import output_features, output_table, task_cache, task_table

from mvemo.fuse import format_table, metrics_dict
from mvemo.fuse.crossval.comparisons import with_uncertainty
from mvemo.fuse.crossval.evaluation import with_repeats
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.report.report_files import report_html


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_repeats_are_on_other_folds_and_tested_together(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task, n=180), names=("music1d", "c3d"))
    first, *again = (evaluated(path, stacked=True, seed=seed) for seed in (None, 1, 2))
    results = with_uncertainty(with_repeats(first, again), n_resamples=100)
    assert (results.repeats[1].folds != first.folds).any()
    tested = [c.model for c in results.comparisons]
    assert tested == [m.name for m in results.models if len(m.features) > 1]
    one = results.comparisons[0]
    assert len(one.differences) == 9
    mine, theirs = by_name(first)[one.model], by_name(first)[one.reference]
    np.testing.assert_allclose(one.differences[:3], primary(mine) - primary(theirs))
    # An interval holds the mean over the repeats.
    assert one.interval[0] < one.mean < one.interval[1]
    score = "r2_macro" if task == "regression" else "f1_macro"
    kept = metrics_dict(results)
    for i, model in enumerate(results.models):
        each = [run.models[i] for run in (first, *again)]
        assert model.scores[score] == pytest.approx(np.mean([m.scores[score] for m in each]))
        low, high = model.intervals[score]
        assert low < model.scores[score] < high
        of_all = kept["models"][model.name][results.task.primary_metric]
        assert len(of_all["per_fold"]) == 9
        assert of_all["mean"] == pytest.approx(np.mean([primary(m) for m in each]))
        if task == "multiclass":
            assert np.mean(model.per_output["f1"]) == pytest.approx(model.scores["f1_macro"])
    assert len(kept["repeats"]) == 3
    text = " ".join(format_table(results).split())
    assert "9 folds (3 times 3)" in text
    assert "corrected t-test over folds" in text
    page = report_html(results)
    assert 'id="tests"' in page
    assert 'id="repeats"' in page


def test_repeats_that_do_not_go_together_are_refused(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", make_table(n=60, k=3))
    first, again = (evaluated(path, models=["c3d"], seed=seed) for seed in (None, 1))
    other = evaluated(path, models=["c3d", "i3d"], seed=2)
    # In another order they are the same folds.
    turned = replace(first, folds=(first.folds + 1) % 3)
    for repeats, message in (
        ([turned], "have the same folds"),
        ([again, again], "have the same folds"),
        ([other], "different clips or models"),
    ):
        with pytest.raises(BadFeatures, match=message):
            with_repeats(first, repeats)


def test_repeats_on_shuffled_labels_are_scored_on_their_own(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", make_table(n=240, k=3), strength=2.0)
    options = {"models": ["music1d"], "permute_labels": True}
    first, *again = (evaluated(path, seed=seed, **options) for seed in range(4))
    assert (first.y_true != again[0].y_true).any()
    results = with_uncertainty(with_repeats(first, again), n_resamples=200)
    accuracy = np.mean([run.models[0].scores["accuracy"] for run in (first, *again)])
    low, high = results.models[0].intervals["accuracy"]
    assert low < accuracy < high


def test_tests_leave_out_folds_where_a_score_is_not_defined(tmp_path):
    table = output_table("multilabel", n=90)
    labels = table.labels.copy()
    labels[table.folds == 2] = 0
    vectors = [(spec(n, 8), output_features(table, n)) for n in ("music1d", "c3d")]
    path = write_cache(tmp_path / "f.h5", replace(table, labels=labels), vectors)
    for comparison in with_uncertainty(evaluated(path), n_resamples=0).comparisons:
        assert len(comparison.differences) == 2
        assert np.isfinite(comparison.p)

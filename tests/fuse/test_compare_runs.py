"""Comparing evaluations: right differences, refused where they do not belong together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import plain_settings, primary
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, FuseError, evaluate
from mvemo.fuse.compare_runs import (
    compare_runs,
    format_run_comparison,
    read_run,
    run_comparison_dict,
)
from mvemo.fuse.report.outputs_metrics import output_metrics_json, output_predictions_csv
from mvemo.fuse.report.page import metrics_json, predictions_csv, write_files
from mvemo.fuse.statistics.model_tests import holm, nadeau_bengio
from mvemo.fuse.statistics.resamples import resample_groups

NAMES = ("music1d", "c3d")


def write_report(results, folder):
    """What a comparison reads, without the page."""
    texts = {"metrics.json": metrics_json(results), "predictions.csv": predictions_csv(results)}
    write_files(folder, texts)


def write(folder, table, *, cache="f.h5", strength=0.3, missing=None, **options):
    folder.mkdir()
    path = frozen_cache(folder / cache, table, strength=strength, names=NAMES, missing=missing)
    with open_cache(path) as opened:
        results = evaluate(opened, plain_settings(**options))
    write_report(results, folder)
    return results


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    table = make_table()
    a = write(base / "a", table)
    b = write(base / "b", table, strength=0.6, missing={"c3d": [0, 7, 8]})
    return base, a, b


def test_a_run_is_read_as_it_was_written(runs):
    base, a, b = runs
    for name, results in (("a", a), ("b", b)):
        run = read_run(base / name)
        assert (run.task, run.classes, run.k) == ("multiclass", a.classes, 6)
        assert (run.clip_ids, run.groups) == (a.clip_ids, a.groups)
        assert (run.labels == a.y_true).all()
        assert (run.folds == a.folds).all()
        assert run.flags == ("synthetic",)
        for model in results.models:
            np.testing.assert_array_equal(run.predictions[model.name], model.outputs)


def test_differences_by_hand(runs):
    base, a, b = runs
    found = compare_runs([base / "a", base / "b"], n_resamples=200, seed=3)
    assert found.score == "accuracy"
    assert [d.model for d in found.differences] == [m.name for m in a.models]
    resamples = resample_groups(a.groups, 200, 3)
    weights = resamples.counts[:, resamples.codes]
    p_values = []
    for d, mine, theirs in zip(found.differences, b.models, a.models, strict=True):
        assert found.scores[d.model, "a"] == pytest.approx(theirs.per_fold["accuracy"].mean())
        assert found.scores[d.model, "b"] == pytest.approx(mine.per_fold["accuracy"].mean())
        there = np.isfinite(mine.outputs).all(axis=1)
        assert d.clips == there.sum() == (120 if d.model == "music1d" else 117)
        right = [(m.outputs.argmax(axis=1) == a.y_true) * 1.0 for m in (mine, theirs)]
        gain = right[0] - right[1]
        rows = [there & (a.folds == f) for f in range(6)]
        per_fold = np.array([gain[r].mean() for r in rows])
        assert d.mean == pytest.approx(per_fold.mean())
        ratio = np.mean([r.sum() / (there.sum() - r.sum()) for r in rows])
        _, t, p = nadeau_bengio(per_fold, 1, ratio)
        assert (d.t, d.p) == (pytest.approx(t), pytest.approx(p))
        p_values.append(p)
        drawn = [np.mean([np.average(gain[r], weights=w[r]) for r in rows]) for w in weights]
        np.testing.assert_allclose(d.interval, np.percentile(drawn, [2.5, 97.5]), atol=1e-9)
    np.testing.assert_allclose([d.p_holm for d in found.differences], holm(p_values))
    integrated = found.differences[-1]
    assert integrated.mean > 0.1
    assert integrated.interval[0] > 0


def test_the_same_run_again_shows_no_difference(runs, tmp_path):
    base, a, _ = runs
    write_report(a, tmp_path / "again")
    found = compare_runs([base / "a", tmp_path / "again", base / "b"], n_resamples=50)
    again = [d for d in found.differences if d.run == "again"]
    assert all(d.mean == 0 and (d.interval == 0).all() and np.isnan(d.p) for d in again)
    # They do not count among the tests.
    alone = compare_runs([base / "a", base / "b"], n_resamples=50)
    assert [d.p_holm for d in found.differences if d.run == "b"] == [
        d.p_holm for d in alone.differences
    ]
    text = format_run_comparison(found)
    assert "same" in text
    assert max(map(len, text.splitlines())) <= 90
    values = run_comparison_dict(found)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values["models"]["c3d"]) == {"a", "again", "b"}


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tags_and_dimensions(task, tmp_path):
    table = output_table(task)
    results = []
    for name, noise in (("good", 1.5), ("bad", 4.0)):
        (tmp_path / name).mkdir()
        path = output_cache(tmp_path / name / "f.h5", table, noise=noise)
        with open_cache(path) as cache:
            results.append(evaluate(cache, plain_settings()))
        texts = {
            "metrics.json": output_metrics_json(results[-1]),
            "predictions.csv": output_predictions_csv(results[-1]),
        }
        write_files(tmp_path / name, texts)
    found = compare_runs([tmp_path / "good", tmp_path / "bad"], n_resamples=100)
    assert found.score == results[0].task.primary_metric
    for d, good, bad in zip(found.differences, *(r.models for r in results), strict=True):
        assert d.mean == pytest.approx((primary(bad) - primary(good)).mean())
        low, high = d.interval
        assert low < d.mean < high
        assert d.mean < 0
    assert "macro ROC-AUC" in format_run_comparison(found) or task == "regression"


def test_clips_in_another_order_are_the_same_clips(runs, tmp_path):
    base, _, _ = runs
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / name).write_bytes((base / "b" / name).read_bytes())
    header, *rows = (base / "b" / "predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    expected = compare_runs([base / "a", base / "b"], n_resamples=50)
    got = compare_runs([base / "a", tmp_path], n_resamples=50)
    for d, e in zip(got.differences, expected.differences, strict=True):
        assert (d.mean, d.p) == (e.mean, e.p)
        np.testing.assert_array_equal(d.interval, e.interval)


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    base, a, _ = runs
    table = make_table()
    labels = a.y_true.copy()
    labels[3] = 1 - labels[3]
    other = {
        "seed": (
            replace(a, folds=(a.folds + 1) % 6),
            "folds of 120 clips differ, such as 'clip 0'",
        ),
        "k": (None, "number of folds is 5, not 6"),
        "few": (None, "10 are lacking and 0 are new, such as 'clip 110'"),
        "label": (replace(a, y_true=labels), "labels of 1 clips differ, such as 'clip 3'"),
        "groups": (replace(a, groups=a.clip_ids), "groups of 120 clips differ"),
        "classes": (replace(a, classes=tuple("abcdef")), r"classes is \['a', 'b'"),
        "permuted": (None, "one of them has permuted labels"),
    }
    write(tmp_path / "k", table, folds=5)
    write(tmp_path / "few", make_table(110))
    write(tmp_path / "permuted", table, permute_labels=True)
    for name, (results, said) in other.items():
        if results is not None:
            write_report(results, tmp_path / name)
        with pytest.raises(BadFeatures, match=f"{name} is not comparable with .*{said}") as error:
            compare_runs([base / "a", tmp_path / name])
        assert "\n" not in str(error.value)


def test_what_is_no_run_is_told(runs, tmp_path):
    base, a, _ = runs
    with pytest.raises(BadFeatures, match=r"1 run\(s\) given: a comparison needs two"):
        compare_runs([base / "a"])
    with pytest.raises(BadFeatures, match="given twice"):
        compare_runs([base / "a", base / "a"])
    with pytest.raises(FuseError, match=r"metrics\.json: no such file"):
        compare_runs([base / "a", tmp_path])
    write_report(a, tmp_path)
    write_report(replace(a, models=a.models[:1]), tmp_path / "one")
    write_report(replace(a, models=a.models[1:]), tmp_path / "two")
    with pytest.raises(BadFeatures, match="none of its models"):
        compare_runs([tmp_path / "one", tmp_path / "two"])
    (tmp_path / "predictions.csv").write_text("clip_id,group,fold\nx,y,0\n")
    with pytest.raises(FuseError, match=r"predictions\.csv: not the predictions of"):
        compare_runs([base / "a", tmp_path])
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(FuseError, match=r"metrics\.json: not the metrics"):
        compare_runs([base / "a", tmp_path])

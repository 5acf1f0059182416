"""Comparing evaluations: right differences, refused where they do not belong together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import evaluated
from output_samples import task_cache, task_table
from scipy import stats
from sklearn.metrics import accuracy_score

import mvemo
from mvemo.fuse import BadFeatures
from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.compare_runs import (
    compare_runs,
    comparison_tables,
    format_run_comparison,
    run_comparison_dict,
)
from mvemo.fuse.crossval.comparisons import holm, nadeau_bengio
from mvemo.fuse.crossval.evaluation import with_repeats
from mvemo.fuse.prediction_files import read_run
from mvemo.fuse.report.report_files import metrics_dict, predictions_csv, write_texts
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import dump_json

NAMES = ("music1d", "c3d")


def write_report(results, folder):
    """What a comparison reads, without the page."""
    metrics = dump_json(metrics_dict(results))
    write_texts(folder, {"metrics.json": metrics, "predictions.csv": predictions_csv(results)})
    return results


def write(folder, table, *, strength=0.3, missing=None, **options):
    folder.mkdir()
    path = frozen_cache(folder / "f.h5", table, strength=strength, names=NAMES, missing=missing)
    return write_report(evaluated(path, **options), folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    a = write(base / "a", make_table())
    b = write(base / "b", make_table(), strength=0.6, missing={"c3d": [0, 7, 8]})
    return base, a, b


def pairs(*chosen):
    found = compare_runs(chosen, n_resamples=20)
    return [(c.model, c.reference) for c in found.comparisons]


def test_differences_by_hand(runs):
    base, a, b = runs
    found = compare_runs([base / "a", base / "b"], n_resamples=200, seed=3)
    assert [run.flags for run in found.runs] == [("synthetic",)] * 2
    resamples = resample_groups(a.groups, 200, 3)
    weights = resamples.counts[:, resamples.codes]
    p_values = []
    for c, mine, theirs in zip(found.comparisons, b.models, a.models, strict=True):
        assert (c.model, c.reference) == (f"b:{mine.name}", f"a:{mine.name}")
        assert found.scores[c.reference] == pytest.approx(theirs.per_fold["accuracy"].mean())
        assert found.scores[c.model] == pytest.approx(mine.per_fold["accuracy"].mean())
        valid = mine.valid
        assert c.n_clips == valid.sum() == (120 if mine.name == "music1d" else 117)
        right = [(m.outputs.argmax(axis=1) == a.y_true) * 1.0 for m in (mine, theirs)]
        gain = right[0] - right[1]
        rows = [valid & (a.folds == f) for f in range(6)]
        per_fold = np.array([gain[r].mean() for r in rows])
        assert c.mean == pytest.approx(per_fold.mean())
        ratio = np.mean([r.sum() / (valid.sum() - r.sum()) for r in rows])
        t, p = nadeau_bengio(per_fold, ratio)
        assert (c.t, c.p) == (pytest.approx(t), pytest.approx(p))
        p_values.append(p)
        drawn = [np.mean([np.average(gain[r], weights=w[r]) for r in rows]) for w in weights]
        sizes = np.bincount(resamples.codes[valid])
        n, freedom = len(sizes), sizes.sum() ** 2 / (sizes**2).sum() - 1
        half = stats.t.ppf(0.975, freedom) * np.std(drawn[1:], ddof=1) * np.sqrt(n / (n - 1))
        np.testing.assert_allclose(c.interval, [drawn[0] - half, drawn[0] + half], atol=1e-9)
    # The fusion of both features and the integrated model are the same: one test.
    corrected = holm(p_values[:3])
    expected = [*corrected, corrected[2]]
    np.testing.assert_allclose([c.p_holm for c in found.comparisons], expected)
    assert all(c.n_tests == 3 for c in found.comparisons)


def test_the_same_run_again_shows_no_difference(runs, tmp_path):
    base, a, _ = runs
    write_report(a, tmp_path / "again")
    found = compare_runs([base / "a", tmp_path / "again", base / "b"], n_resamples=50)
    again = [c for c in found.comparisons if c.model.startswith("again:")]
    assert len(again) == len(a.models)
    assert all(c.mean == 0 and c.interval == (0, 0) and np.isnan(c.p) and c.same for c in again)
    # Every pair of runs is tested; against `b`, the two equal ones are one test.
    others = [c.p_holm for c in found.comparisons if c.model.startswith("b:")]
    alone = compare_runs([base / "a", base / "b"], n_resamples=50)
    assert others == 2 * [c.p_holm for c in alone.comparisons]
    text = format_run_comparison(found)
    assert "same" in text
    assert max(map(len, text.splitlines())) <= 100
    values = run_comparison_dict(found)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert set(values["models"]["c3d"]) == {"a", "again", "b"}
    assert values["differences"][0]["reference_run"] == "a"


def test_models_of_other_names_are_compared_with_each_other(runs, tmp_path):
    base, a, _ = runs
    run, other = base / "a", tmp_path / "rf"
    forest, boosting = replace(a.models[0], name="forest"), replace(a.models[1], name="boosting")
    write_report(replace(a, models=(forest, boosting)), other)
    # Without names in common every model is tested against every other.
    assert len(pairs(run, other)) == 2 * len(a.models)
    # One model of each, and several of one run.
    assert pairs(f"{run}:c3d", f"{other}:boosting") == [("rf:boosting", "a:c3d")]
    assert pairs(f"{run}:c3d", f"{run}:music1d", f"{run}:integrated") == [
        ("a:music1d", "a:c3d"),
        ("a:integrated", "a:c3d"),
        ("a:integrated", "a:music1d"),
    ]
    with pytest.raises(MvemoError, match="unknown model 'oak'; expected one of music1d, c3d"):
        compare_runs([f"{run}:oak", f"{run}:c3d"])


def test_repeats_are_compared_on_all_their_folds(tmp_path):
    for name, strength in (("a", 0.3), ("b", 0.6)):
        path = frozen_cache(tmp_path / f"{name}.h5", strength=strength, names=NAMES)
        first, second = (evaluated(path, models=NAMES, seed=seed) for seed in (0, 1))
        write_report(with_repeats(first, [second]), tmp_path / name)
        run = read_run(tmp_path / name)
        for one, results in zip(run.repeats, (first, second), strict=True):
            assert (one.folds == results.folds).all()
            np.testing.assert_array_equal(one.outputs["c3d"], results.models[1].outputs)
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=20)
    assert all(len(c.differences) == 12 for c in found.comparisons)
    assert run_comparison_dict(found)["repeats"] == 2


def test_clips_in_another_order_are_the_same_clips(runs, tmp_path):
    base, _, _ = runs
    (tmp_path / "metrics.json").write_bytes((base / "b" / "metrics.json").read_bytes())
    header, *rows = (base / "b" / "predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join([header, *rows[::-1]]) + "\n")
    expected, got = (
        compare_runs([base / "a", other], n_resamples=50).comparisons
        for other in (base / "b", tmp_path)
    )
    for d, e in zip(got, expected, strict=True):
        assert (d.mean, d.p, d.interval) == (e.mean, e.p, e.interval)


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    base, a, _ = runs
    labels = a.y_true.copy()
    labels[3] = 1 - labels[3]
    write(tmp_path / "k", make_table(), folds=5)
    write(tmp_path / "few", make_table(110))
    write(tmp_path / "permuted", make_table(), permute_labels=True)
    moved = "folds of 120 clips differ, for example 'clip 0'"
    for name, changes, text in (
        ("seed", {"folds": (a.folds + 1) % 6}, moved),
        ("k", None, "number of folds is 5, not 6"),
        ("twice", {"repeats": (a, a)}, "number of repeats is 2, not 1"),
        ("few", None, "10 are missing and 0 are new, for example 'clip 110'"),
        ("label", {"y_true": labels}, "labels of 1 clips differ, for example 'clip 3'$"),
        ("groups", {"groups": a.clip_ids}, "the groups of 120 clips differ"),
        ("classes", {"classes": tuple("abcdef")}, r"classes is \['a', 'b'"),
        ("permuted", None, "one of the runs has permuted labels"),
    ):
        if changes:
            write_report(replace(a, **changes), tmp_path / name)
        with pytest.raises(BadFeatures, match=f"{name} is not comparable with .*{text}"):
            compare_runs([base / "a", tmp_path / name])


def test_what_is_no_run_is_refused(runs, tmp_path):
    base, a, _ = runs
    with pytest.raises(BadFeatures, match="expected at least two runs to compare, got 1"):
        compare_runs([base / "a"])
    with pytest.raises(BadFeatures, match="given twice"):
        compare_runs([base / "a", base / "a"])
    with pytest.raises(MvemoError, match=r"metrics\.json: does not exist"):
        compare_runs([base / "a", tmp_path])
    write_report(a, tmp_path)
    (tmp_path / "predictions.csv").write_text("clip_id,group,fold\nx,y,0\n")
    with pytest.raises(MvemoError, match=r"predictions\.csv: does not match"):
        compare_runs([base / "a", tmp_path])
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(MvemoError, match=r"metrics\.json: not JSON"):
        compare_runs([base / "a", tmp_path])


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_mcc_and_r_are_those_of_the_runs(tmp_path, task):
    both = []
    for name, noise in (("a", 1.5), ("b", 4.0)):
        path = task_cache(tmp_path / f"{name}.h5", task_table(task), names=NAMES, noise=noise)
        both.append(write_report(evaluated(path), tmp_path / name))
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=20)
    results, model = both[1], both[1].models[0]
    key = {"multiclass": "MCC", "multilabel": "MCC", "regression": "r valence"}[task]
    if task == "regression":
        expected = model.per_output["pearson_r"][results.classes.index("valence")]
    else:
        expected = model.scores["mcc" if task == "multiclass" else "mcc_macro"]
    got = run_comparison_dict(found)["others"][model.name]["b"][key]
    assert got == pytest.approx(expected)
    table, *_ = comparison_tables(found)
    assert f"{expected:.3f}" in table.rows[0][2].text
    titles = {"multiclass": {"accuracy", "MCC"}, "regression": {"R2", "mean r"}}
    assert {row[6].text for row in table.rows} == titles.get(task, {"macro ROC-AUC"})
    # A run of an earlier version does not state it.
    facts = json.loads((tmp_path / "b" / "metrics.json").read_text())
    for of in facts["models"].values():
        for name in [name for name in of if name.startswith("mcc")]:
            del of[name]
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(facts))
    found = compare_runs([tmp_path / "a", tmp_path / "b"], n_resamples=20)
    assert ("n/a" in format_run_comparison(found).split("against")[0]) == (task != "regression")
    facts["models"] = dict.fromkeys(facts["models"], 5)
    (tmp_path / "b" / "metrics.json").write_text(json.dumps(facts))
    with pytest.raises(MvemoError, match="is not the metrics of an evaluation"):
        read_run(tmp_path / "b")


# --- two results


IDS = [f"clip{i:02}" for i in range(60)]
Y = np.tile(["calm", "tense"], 30)


def result_of(noise, rows=slice(None), **options):
    import pandas

    X = (Y == "tense")[:, None] + np.random.default_rng(noise).normal(size=(60, 3))
    frame = pandas.DataFrame(X, index=IDS).iloc[rows]
    y = pandas.Series(Y, index=IDS).iloc[rows]
    options = {"folds": 4, "n_resamples": 0, "audit": False, "kernel": False, **options}
    return mvemo.evaluate(frame, y, **options)


def test_the_difference_is_that_of_the_common_clips():
    a, b = result_of(0), result_of(1, slice(59, 9, -1), folds=3, seed=5)
    found = mvemo.compare(a, b)
    rows = [a.clip_ids.index(clip) for clip in b.clip_ids]
    expected = [
        accuracy_score(a.y_true[rows], a.models[0].y_pred[rows]),
        accuracy_score(b.y_true, b.models[0].y_pred),
    ]
    assert found.scores == pytest.approx(expected, abs=1e-12)
    assert found.difference == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert (found.n_clips, found.n_groups, found.metric) == (50, 50, "accuracy")
    assert found.low < found.difference < found.high
    back = mvemo.compare(b, a)
    assert back.difference == pytest.approx(-found.difference, abs=1e-12)


def test_a_result_does_not_differ_from_itself():
    a = result_of(0)
    found = mvemo.compare(a, a, models=("features", "features"))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_results_that_do_not_fit_are_refused():
    a = result_of(0)
    other = replace(a, y_true=1 - a.y_true)
    with pytest.raises(BadFeatures, match="the labels differ, for example of 'clip00'"):
        mvemo.compare(a, other)
    with pytest.raises(BadFeatures, match="unknown model 'x'; expected one of features"):
        mvemo.compare(a, a, models=("features", "x"))
    with pytest.raises(BadFeatures, match="expected the same task and outputs"):
        mvemo.compare(a, replace(a, classes=("calm", "sad")))
    with pytest.raises(BadFeatures, match="no clip was predicted in both"):
        mvemo.compare(a, replace(a, clip_ids=tuple(f"x{i}" for i in range(60))))
    with pytest.raises(mvemo.MvemoError, match=r"b: expected what mvemo.evaluate returns"):
        mvemo.compare(a, "out")

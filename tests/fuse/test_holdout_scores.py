"""One split instead of folds: who is trained on, who is scored, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import features, make_table, spec, write_cache
from fuse_samples import evaluated, plain_settings
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, LeakError, evaluate, format_table
from mvemo.fuse.crossval.comparisons import with_uncertainty
from mvemo.fuse.crossval.evaluation import with_learning_curve
from mvemo.fuse.numeric import decision_inputs
from mvemo.fuse.report.report_files import report_html
from mvemo.manifests import holdout_split


def split_table(n=240):
    table = make_table(n, 0)
    splits = holdout_split(table.labels, table.groups, (6, 2, 2), 0, "multiclass")
    return replace(table, splits=splits)


def holdout_cache(path, table, *, names=("music1d", "c3d"), seen=(0, 1), made=None, missing=None):
    """Features of nets that saw the clips of some parts; `made` has the classes behind them."""
    ids = np.array(table.clip_ids)[np.isin(table.splits, seen)].tolist()
    vectors = [(spec(n, 12, "holdout", None, ids), features(made or table, n, 12)) for n in names]
    return write_cache(path, table, vectors, missing=missing)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    table = split_table()
    return table, holdout_cache(tmp_path_factory.mktemp("holdout") / "f.h5", table)


def test_heads_train_on_training_and_validation_clips_and_score_the_test_clips(cached):
    table, path = cached
    results = evaluated(path, C=0.05)
    test = table.splits == 2
    assert (results.protocol, results.k, results.leaky) == ("holdout", 1, False)
    np.testing.assert_array_equal(results.folds, np.where(test, 0, -1))
    for model in results.models:
        values = np.concatenate([features(table, n) for n in model.features], axis=1)
        head = LogisticRegression(C=0.05, tol=1e-8, max_iter=2000)
        reference = make_pipeline(StandardScaler(), head).fit(values[~test], table.labels[~test])
        expected = reference.predict_proba(values[test])
        np.testing.assert_allclose(model.outputs[test], expected, atol=5e-3)
        assert np.isnan(model.outputs[~test]).all()
        assert model.confusion.sum() == test.sum()
    common = np.mean(table.labels[test] == np.bincount(table.labels[~test]).argmax())
    assert results.primary_per_fold(results.baseline).tolist() == [common]


def test_the_record_of_training_clips_counts_not_the_name(tmp_path):
    table = split_table()
    path = holdout_cache(tmp_path / "f.h5", table, seen=(0, 1, 2))
    n = int((table.splits == 2).sum())
    with pytest.raises(LeakError, match=rf"{n} of the {n} clips of the test split.*holdout"):
        evaluated(path)
    assert evaluated(path, allow_leak=True).leaky


def test_folds_and_one_split_do_not_mix(cached, tmp_path):
    table, path = cached
    with pytest.raises(BadFeatures, match=r"trained for one split.*leave out --folds"):
        evaluated(path, folds=5)
    vectors = [(spec("c3d", 12, "holdout", None, table.clip_ids[:9]), features(table, "c3d"))]
    write_cache(tmp_path / "n.h5", replace(table, splits=None), vectors)
    with pytest.raises(BadFeatures, match="extract again"):
        evaluated(tmp_path / "n.h5")


def test_frozen_features_are_scored_on_the_split_unless_folds_are_asked_for(tmp_path):
    table = split_table()
    frozen = spec("c3d", 12), features(table, "c3d")
    path = write_cache(tmp_path / "f.h5", table, [frozen])
    results = evaluated(path)
    assert (results.protocol, results.k) == ("frozen", 1)
    np.testing.assert_array_equal(results.folds, np.where(table.splits == 2, 0, -1))
    assert evaluated(path, folds=4).k == 4
    net = spec("music1d", 12, "holdout", None, table.clip_ids[:1])
    both = write_cache(tmp_path / "b.h5", table, [frozen, (net, features(table, "music1d"))])
    assert evaluated(both, allow_leak=True).protocol == "holdout"


def test_intervals_and_a_learning_curve(cached):
    with open_cache(cached[1]) as cache:
        settings = plain_settings()
        results = with_uncertainty(evaluate(cache, settings), n_resamples=200)
        results = with_learning_curve(cache, results, settings, (0.3,))
    trained = int((results.folds < 0).sum())
    for model in results.models:
        low, high = model.intervals["accuracy"]
        assert low <= model.per_fold["accuracy"][0] <= high
        assert low < high
        (share, clips, _, _), full = results.learning_curve[model.name]
        assert (share, clips) == (0.3, pytest.approx(0.3 * trained, rel=0.1))
        assert full == pytest.approx((1.0, trained, model.per_fold["accuracy"][0], 0.0))


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_heads_for_new_clips_are_fitted_on_all_clips_of_a_split(tmp_path, task):
    plain = split_table()
    # The test clips are of one class: by themselves they would make no head.
    test = (plain.labels == 0) & (np.arange(240) < 80)
    tags = np.eye(6, dtype=np.int64)[plain.labels]
    labels = {"multiclass": plain.labels, "multilabel": tags}
    labels["regression"] = tags + 0.1 * features(plain, "c3d", 6)
    splits = np.where(test, 2, plain.splits % 2)
    table = replace(plain, splits=splits, task=task, labels=labels[task])
    results = evaluated(
        holdout_cache(tmp_path / "f.h5", table, made=plain), stacked=True, refit=True
    )
    final = {h.model: h for h in results.heads if h.fold is None}
    tested = {h.model: h for h in results.heads if h.fold == 0}
    # The pair of all features shares the head of `integrated`.
    names = {m.name for m in results.models} - {"c3d+music1d"}
    assert set(final) == set(tested) == names
    if task == "multilabel":
        # Thresholds rest on the training clips, too: of tags that no test clip has.
        assert all((head.thresholds != 0.5).all() for head in final.values())
    stack = final["integrated-stacked"]
    inputs = [tested[name].predict(features(plain, name)) for name in stack.features]
    said = stack.predict(np.concatenate([decision_inputs(p, stack.link) for p in inputs], axis=1))
    # It knows the classes that only training clips have.
    assert len(np.unique(said.argmax(axis=1))) == 6


def test_only_tested_clips_count_as_predicted_or_not(cached, tmp_path):
    table, path = cached
    page, n = report_html(evaluated(path)), (table.splits == 2).sum()
    for words in (f"test on {n} held-out clips", f"for each of {n} clips held out"):
        assert words in page
    assert "could not predict every clip" not in page
    test = np.flatnonzero(table.splits == 2)
    missing = {"c3d": test[:3].tolist()}
    results = evaluated(holdout_cache(tmp_path / "g.h5", table, missing=missing))
    for n in (len(test), len(test) - 3):
        assert f"{n}/{len(test)}" in format_table(results)
    assert f"could predict, of {len(test)}." in report_html(results)

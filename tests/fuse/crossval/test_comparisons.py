"""Models compared on the clips of both: tests by hand, and by independent implementations."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from fuse_samples import make_results
from scipy import stats

from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.crossval.comparisons import (
    FoldedOutputs,
    compare_models,
    compare_results,
    exchange_test,
    holm,
    nadeau_bengio,
)
from mvemo.fuse.tasks import task_of


def test_each_fusion_is_paired_with_its_best_single_on_common_clips():
    results = make_results(missing=6)
    rows = compare_results([results])
    assert {len(row.differences) for row in compare_results([results, results])} == {12}
    fusions = [m for m in results.models if len(m.features) > 1]
    assert [row.model for row in rows] == [m.name for m in fusions]
    by_name = {m.name: m for m in results.models}
    for row, model in zip(rows, fusions, strict=True):
        valid = model.valid
        right = {
            name: by_name[name].outputs.argmax(1) == results.y_true
            for name in (*model.features, model.name)
        }
        folds = [valid & (results.folds == f) for f in range(results.k)]
        single = {n: [right[n][rows].mean() for rows in folds] for n in model.features}
        best = max(single, key=lambda n: np.mean(single[n]))
        assert row.reference == best
        expected = [right[model.name][rows].mean() for rows in folds] - np.array(single[best])
        np.testing.assert_allclose(row.differences, expected, atol=1e-12)


def test_models_of_which_nothing_is_known_are_compared_pair_by_pair():
    results = make_results(24, 2)
    nameless = tuple(dataclasses.replace(m, features=()) for m in results.models[:3])
    rows = compare_results([dataclasses.replace(results, models=nameless)])
    names = [m.name for m in nameless]
    assert [(r.model, r.reference) for r in rows] == list(combinations(names, 2))
    assert all(r.n_tests == 3 for r in rows)
    other_way = dataclasses.replace(rows[0], interval=(-0.1, 0.3)).reversed()
    assert (other_way.mean, other_way.p) == (-rows[0].mean, rows[0].p)
    assert other_way.interval == (-0.3, 0.1)


def test_the_same_predictions_are_no_test():
    results = make_results(24, 2)
    one, other = (dataclasses.replace(m, features=()) for m in results.models[:2])
    # One model written with fewer digits.
    models = (one, dataclasses.replace(one, name="again", outputs=one.outputs.round(5)), other)
    rows = compare_results([dataclasses.replace(results, models=models)])
    assert [row.same for row in rows] == [True, False, False]
    assert np.isnan(rows[0].p)
    # Against the third, the two are one test.
    assert [row.n_tests for row in rows] == [1, 1, 1]
    assert rows[1].p_holm == rows[1].p == rows[2].p_holm


def test_statistic_by_hand():
    # Mean 0.02, variance 0.00025 over 5; (1/5 + 1/4) 0.00025 = 0.0001125.
    t, p = nadeau_bengio(np.array([0.0, 0.01, 0.02, 0.03, 0.04]), 1 / 4)
    assert t == pytest.approx(0.02 / np.sqrt(0.0001125), abs=1e-10)
    # Student's t with 4 degrees of freedom has a closed form.
    x = t / np.sqrt(4 + t * t)
    assert p == pytest.approx(1 - x * (3 - x * x) / 2, abs=1e-10)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).shape == (0,)


def classified(correct, groups=None, folds=None, noise=0.0):
    """Outputs of two models for clips of class 0; `correct` is bool (2, clips)."""
    correct = np.asarray(correct)
    n = correct.shape[1]
    proba = np.where(correct[..., None], [0.8, 0.2], [0.3, 0.7])
    proba = proba + noise * np.random.default_rng(0).uniform(-1, 1, (2, n, 1)) * [1, -1]
    folds = np.zeros(n, int) if folds is None else np.asarray(folds)
    groups = [str(i) for i in range(n)] if groups is None else groups
    outputs = {"a": proba[0], "b": proba[1]}
    y_true = np.zeros(n, int)
    return FoldedOutputs(
        task_of("multiclass"), y_true, groups, folds, int(folds.max()) + 1, outputs
    )


@pytest.mark.parametrize(("b", "c"), [(3, 0), (5, 1), (8, 2), (12, 0), (0, 0)])
def test_with_independent_clips_the_exchange_is_the_exact_mcnemar_test(b, c):
    correct = np.ones((2, 30), bool)
    correct[1, :b], correct[0, b : b + c] = False, False
    p = exchange_test([classified(correct, noise=0.1)], "a", "b")
    assert p == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0)


@pytest.mark.parametrize("n_groups", [7, 40])
def test_exchange_of_ratings_in_groups_is_scipys_permutation_test(n_groups):
    rng = np.random.default_rng(n_groups)
    groups = np.repeat(np.arange(n_groups), 3)
    y = rng.normal(size=(len(groups), 1))
    outputs = {name: y + rng.normal(0, sd, y.shape) for name, sd in (("a", 0.9), ("b", 1.2))}
    folds = np.zeros(len(y), int)
    one = FoldedOutputs(task_of("regression"), y, groups.tolist(), folds, 1, outputs)
    losses = [np.bincount(groups, np.square(y - outputs[name])[:, 0]) for name in "ab"]
    test = stats.permutation_test(
        (losses[0] - losses[1],),
        np.mean,
        permutation_type="samples",
        n_resamples=20000,
        random_state=1,
    )
    assert exchange_test([one], "a", "b") == pytest.approx(test.pvalue, abs=0.02)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_folds_with_equal_differences_are_not_significant(k):
    correct = np.ones((2, 12 * k), bool)
    correct[1, ::12] = False
    one = classified(correct, folds=np.repeat(np.arange(k), 12))
    assert exchange_test([one], "a", "b") == pytest.approx(2 * 0.5**k)


def test_equal_differences_in_many_folds_have_no_infinite_t():
    correct = np.ones((2, 96), bool)
    correct[1, ::16] = False
    (row,) = compare_models([classified(correct, folds=np.arange(96) // 16)], [("a", "b")])
    assert np.ptp(row.differences) < 1e-12
    assert np.isnan(row.t)
    assert 0 < row.p <= 1


def test_verdicts_by_mcc_and_by_r_have_the_scores_of_the_models():
    results = make_results(96, 6, missing=0)
    (row, *_) = compare_results([results])
    of = {m.name: m.per_fold["mcc"] for m in results.models}
    differences = of[row.model] - of[row.reference]
    np.testing.assert_allclose(row.by_field.differences, differences, atol=1e-12)
    ratio = np.mean([n / (96 - n) for n in np.bincount(results.folds)])
    t, p = nadeau_bengio(differences, ratio)
    assert (row.by_field.t, row.by_field.p) == (pytest.approx(t), pytest.approx(p))
    assert row.reversed().by_field.mean == -row.by_field.mean
    assert row.by_field.p_holm >= row.by_field.p
    y = np.random.default_rng(0).normal(size=(60, 2))
    noise = np.random.default_rng(1).normal(size=(2, 60, 2))
    outputs = {"a": y + 0.5 * noise[0], "b": y + 2 * noise[1]}
    groups, folds = [str(i) for i in range(60)], np.arange(60) % 5
    one = FoldedOutputs(task_of("regression"), y, groups, folds, 5, outputs)
    (row,) = compare_models([one], [("a", "b")], resample_groups(groups, 50))
    r = [
        [np.mean([stats.pearsonr(y[f, j], outputs[n][f, j])[0] for j in range(2)]) for n in "ab"]
        for f in (folds == fold for fold in range(5))
    ]
    np.testing.assert_allclose(row.by_field.differences, np.subtract(*np.transpose(r)))
    pooled = [[stats.pearsonr(y[:, j], outputs[n][:, j])[0] for j in range(2)] for n in "ab"]
    low, high = row.by_field.interval
    assert (low + high) / 2 == pytest.approx(np.subtract(*np.mean(pooled, axis=1)))
    tags = {name: 1 / (1 + np.exp(-values)) for name, values in outputs.items()}
    one = FoldedOutputs(task_of("multilabel"), (y > 0) * 1, groups, folds, 5, tags)
    assert compare_models([one], [("a", "b")])[0].by_field is None


@pytest.mark.parametrize("k", [1, 6])
def test_mcc_tells_apart_what_accuracy_cannot(k):
    """One model always predicts the most common class, the other one finds both."""
    n = 120
    y_true = (np.arange(n) % 10 < 3) * 1
    found = y_true.copy()
    found[np.arange(n) % 10 == 0] = 0
    found[np.isin(np.arange(n) % 10, (4, 5))] = 1
    outputs = {"common": np.eye(2)[0 * y_true], "both": np.eye(2)[found]}
    folds, groups = np.arange(n) // 10 * k // 12, [str(i) for i in range(n)]
    # One clip differs, so that the differences of the folds are not all equal.
    outputs["both"][5] = [1, 0]
    one = FoldedOutputs(task_of("multiclass"), y_true, groups, folds, k, outputs)
    (row,) = compare_models([one], [("both", "common")])
    assert row.p > 0.05
    assert row.by_field.p < 0.05
    assert row.by_field.significant

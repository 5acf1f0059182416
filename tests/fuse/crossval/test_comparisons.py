"""Models compared on the clips of both."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from fuse_samples import make_results

from mvemo.fuse.crossval.comparisons import compare_results
from mvemo.fuse.crossval.paired_tests import holm, nadeau_bengio


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
        ratio = np.mean([rows.sum() / (valid.sum() - rows.sum()) for rows in folds])
        assert (row.t, row.p) == pytest.approx(nadeau_bengio(expected, ratio))
        assert row.mean == pytest.approx(expected.mean())
    np.testing.assert_allclose([row.p_holm for row in rows], holm([row.p for row in rows]))


def test_a_fusion_whose_singles_were_not_evaluated_has_no_row():
    results = make_results()
    assert compare_results([dataclasses.replace(results, models=results.models[-2:])]) == []


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

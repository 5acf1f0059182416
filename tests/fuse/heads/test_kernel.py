"""Kernel heads agree with scikit-learn, and inner predictions with fits without the clips."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as Reference

from mvemo.fuse.heads.kernel import RIDGES, fit_kernel, kernel
from mvemo.fuse.scaling import unit_rows


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(0)
    unit = unit_rows(rng.normal(size=(300, 3)).astype(np.float32))
    classes = (unit[:, 0] * unit[:, 1] > 0).astype(int) + 2 * (unit[:, 2] > 0.4)
    return unit, np.eye(4)[classes], np.arange(300) % 3


def test_fits_and_inner_predictions_are_those_of_scikit_learn(sample):
    unit, target, inner = sample
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.2, 5.0, len(unit)).astype(np.float32)
    head, scores = fit_kernel(unit, target, inner, weights)
    assert head.ridge in RIDGES
    new = unit_rows(rng.normal(size=(20, 3)).astype(np.float32))
    every = np.ones(len(unit), bool)
    checks = [(every, new, head.scores(new))]
    checks += [(inner != f, unit[inner == f], scores[inner == f]) for f in range(3)]
    for train, x, found in checks:
        reference = Reference(alpha=head.ridge, kernel="precomputed")
        gram = kernel(unit[train], unit[train]).astype(np.float64)
        reference.fit(gram, target[train], weights[train])
        expected = reference.predict(kernel(x, unit[train]).astype(np.float64))
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_rows_of_zeros_have_no_direction():
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32)).tolist() == [
        [0.0, 0.0],
        [pytest.approx(0.6), pytest.approx(0.8)],
    ]

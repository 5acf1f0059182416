"""Features that are read again by blocks: the same heads and scores as of those in memory."""

from __future__ import annotations

import numpy as np
import pytest
from feature_samples import crossfit_cache, frozen_cache, make_table
from fuse_samples import plain_settings

from mvemo.cache import open_cache
from mvemo.cache.untrusted import PlainArray
from mvemo.fuse import BadFeatures, EvaluationSettings, evaluate
from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.heads.solver import solve
from mvemo.fuse.matrices.rows import ArrayRows, StoredRows
from mvemo.fuse.matrices.scaling import fit_scaling

# How far predicted probabilities may lie apart: both fits stop within 1e-6 nats of one minimum.
TOLERANCE = 2e-3


def in_blocks(values, step=7):
    """The values as if they were read from a file, without rows of zeros."""

    def read():
        for start in range(0, len(values), step):
            rows = np.arange(start, min(start + step, len(values)))
            rows = rows[values[rows].any(axis=1)]
            yield rows, values[rows]

    return StoredRows(read, *values.shape)


def test_products_and_parts():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(50, 4)).astype(np.float32)
    values[[3, 20]] = 0.0
    coef, residual = draw.normal(size=(3, 4)).astype("f4"), draw.normal(size=(3, 50)).astype("f4")
    taken = draw.random(50) < 0.4
    for ours, exact in (
        (in_blocks(values), ArrayRows(values)),
        (in_blocks(values).take(taken), ArrayRows(values[taken])),
    ):
        assert ours.shape == exact.shape
        np.testing.assert_allclose(ours.scores(coef), exact.scores(coef), atol=1e-6)
        r = residual[:, : ours.shape[0]]
        np.testing.assert_allclose(ours.gradient(r), exact.gradient(r), atol=1e-5)


def test_scaling_with_outliers_and_a_large_mean():
    draw = np.random.default_rng(1)
    values = draw.normal(size=(200, 5)).astype(np.float32)
    values[:, 1] = 1e3 + 0.1 * values[:, 1]
    values[:, 2] = 7.0
    values[[0, 60]] = 1e8
    rows = draw.random(200) < 0.8
    rows[[0, 60]] = True
    (one, far), (other, other_far) = fit_scaling(values, rows), fit_scaling(in_blocks(values), rows)
    assert np.flatnonzero(far).tolist() == np.flatnonzero(other_far).tolist() == [0, 60]
    np.testing.assert_allclose(other.shift, one.shift, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(other.scale, one.scale, rtol=1e-4)


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_an_evaluation_within_little_memory(tmp_path, make):
    missing = {"missing": {"c3d": [0, 1, 2]}} if make is frozen_cache else {}
    path = make(tmp_path / "f.h5", names=("music1d", "c3d"), **missing)
    with open_cache(path) as cache:
        in_memory, streamed = (
            evaluate(cache, plain_settings(missing_modality=True, refit=True, memory=memory))
            for memory in (4.0, 0.0)
        )
    for one, other in zip(in_memory.models, streamed.models, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(other.outputs, one.outputs, atol=TOLERANCE)
        assert one.n_fallback == other.n_fallback
    assert len(in_memory.heads) == len(streamed.heads)


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_the_same_optimum_for_every_loss(link):
    draw = np.random.default_rng(2)
    x = draw.normal(size=(300, 8)).astype(np.float32)
    target = (x[:, :3] @ draw.normal(size=(3, 3)) + draw.normal(size=(300, 3))).T
    if link != "identity":
        target = (target == target.max(axis=0)).astype(np.float32)
    weights, C = np.ones((2, 300), np.float32), np.array([0.01, 1.0])
    weights[1, ::3] = 0.0
    one, other = (
        solve([Block(values, np.arange(2))], target, weights, C, link=link, tol=1e-10)
        for values in (x, in_blocks(x))
    )
    assert other.converged.all()
    np.testing.assert_allclose(other.scores, one.scores, atol=TOLERANCE)
    if link == "identity":
        # The normal equations, with a column for the intercept.
        wide = np.hstack([x, np.ones((300, 1))]).astype(np.float64)
        for row, c in zip(range(2), C, strict=True):
            w = weights[row][:, None]
            penalty = np.diag([1.0 / c] * 8 + [0.0])
            exact = np.linalg.solve(wide.T @ (w * wide) + penalty, (w * wide).T @ target.T)
            np.testing.assert_allclose(other.scores[row].T, wide @ exact, atol=TOLERANCE)


def test_groups_need_memory(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", names=("music1d", "c3d"))
    with open_cache(path) as cache, pytest.raises(BadFeatures, match=r"GiB: set fuse\.memory to"):
        evaluate(cache, EvaluationSettings(memory=0.0, within_groups=True))
    with pytest.raises(BadFeatures, match="memory is -1: it must be 0 GiB or more"):
        EvaluationSettings(memory=-1)


def test_nothing_is_read_that_no_model_needs(tmp_path, monkeypatch):
    path = frozen_cache(tmp_path / "f.h5", make_table())
    read: dict[str, int] = {}
    plain = PlainArray.read_into

    def count(self, values, start=0):
        read[self.name] = read.get(self.name, 0) + values.nbytes
        plain(self, values, start)

    monkeypatch.setattr(PlainArray, "read_into", count)
    with open_cache(path) as cache:
        size = 4 * len(cache.table) * cache.spec("i3d").dim
        evaluate(cache, plain_settings(models=("i3d",)))
    # The values of one feature of four, once.
    assert read["values"] == size

"""The batched solver against scikit-learn and SciPy, one problem at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.heads.solver import solve


def problem(n=240, dims=(7, 19), classes=4, seed=0, mixing=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    blocks = []
    for d in dims:
        x = rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[labels]
        blocks.append((x @ (np.eye(d) + mixing * rng.normal(size=(d, d)))).astype(np.float32))
    return blocks, labels, np.eye(classes)[labels].T


def softmax(scores):
    e = np.exp(scores - scores.max(axis=0))
    return (e / e.sum(axis=0)).T


@pytest.mark.parametrize("C", [0.001, 0.03, 1.0])
def test_every_problem_is_scikit_learns_scaler_and_logistic_regression(C):
    blocks, labels, target = problem()
    fold = np.arange(len(labels)) % 3
    problems = [(used, f) for used in ((0,), (1,), (0, 1)) for f in range(3)]
    made = [
        Block(x, np.array([i for i, (used, _) in enumerate(problems) if b in used]))
        for b, x in enumerate(blocks)
    ]
    weights = np.array([fold != f for _, f in problems], float)
    found = solve(made, target, weights, np.full(len(problems), C), tol=1e-6)
    assert found.converged.all()
    for i, (used, f) in enumerate(problems):
        x, train = np.concatenate([blocks[b] for b in used], axis=1), fold != f
        scaler = StandardScaler().fit(x[train].astype(float))
        model = LogisticRegression(C=C, tol=1e-9, max_iter=5000)
        model.fit(scaler.transform(x[train]), labels[train])
        expected = model.predict_proba(scaler.transform(x))
        # Single precision, stopped at a gradient of 1e-6.
        np.testing.assert_allclose(softmax(found.scores[i]), expected, atol=1e-3)


def test_parameters_reproduce_the_scores():
    blocks, _, target = problem()
    made = [Block(blocks[0], np.array([0, 1])), Block(blocks[1], np.array([1]))]
    weights = np.ones((2, target.shape[1]))
    weights[0, ::2] = 0.0
    found = solve(made, target, weights, np.array([0.1, 0.1]))
    by_hand = found.intercept[1][:, None].copy()
    for b, row in ((0, 1), (1, 0)):
        x = (blocks[b] - found.mean[b][row]) / found.scale[b][row]
        by_hand = by_hand + found.coef[b][row] @ x.T
    np.testing.assert_allclose(found.scores[1], by_hand, atol=2e-4)


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
def test_other_links_minimise_their_objective(link):
    blocks, _, target = problem(n=90, dims=(5,), classes=3)
    x = blocks[0].astype(float)
    target = target if link == "sigmoid" else target * np.array([[3.0], [-1.0], [10.0]]) + 2.0
    found = solve(
        [Block(blocks[0], np.array([0]))], target, np.ones((1, 90)), np.array([0.2]), link=link
    )
    z = (x - x.mean(0)) / x.std(0)

    def objective(flat):
        w, b = flat[:15].reshape(3, 5), flat[15:, None]
        s = w @ z.T + b
        each = np.logaddexp(0, s) - target * s if link == "sigmoid" else 0.5 * (s - target) ** 2
        return each.sum(0).mean() + (w**2).sum() / (2 * 0.2 * 90)

    best = minimize(objective, np.zeros(18), method="BFGS", options={"gtol": 1e-8})
    ours = np.concatenate([found.coef[0][0].ravel(), found.intercept[0]])
    assert objective(ours) == pytest.approx(best.fun, rel=1e-5)


def test_a_clip_of_weight_zero_changes_nothing():
    blocks, _, target = problem()
    weights = np.ones((1, target.shape[1]))
    weights[0, :20] = 0.0
    one = solve([Block(blocks[0], np.array([0]))], target, weights, np.array([0.1]))
    spoilt, other = blocks[0].copy(), target.copy()
    spoilt[:20] = 50.0
    other[:, :20] = np.roll(other[:, :20], 1, axis=0)
    two = solve([Block(spoilt, np.array([0]))], other, weights, np.array([0.1]))
    np.testing.assert_allclose(one.coef[0], two.coef[0], atol=1e-5)


def test_constant_columns_and_separable_classes_are_finite():
    blocks, _, target = problem(mixing=0.0)
    x = np.concatenate([np.full((240, 2), 3.0), 40.0 * blocks[0]], axis=1).astype(np.float32)
    found = solve([Block(x, np.array([0]))], target, np.ones((1, 240)), np.array([100.0]))
    assert np.isfinite(found.scores).all()
    assert np.abs(found.coef[0][0][:, :2]).max() < 1e-4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-4, 10.0), st.integers(1, 30))
def test_the_gradient_is_small_at_the_end(seed, C, dim):
    blocks, _, target = problem(n=60, dims=(dim,), classes=3, seed=seed)
    found = solve([Block(blocks[0], np.array([0]))], target, np.ones((1, 60)), np.array([C]))
    assert found.converged.all()
    x = (blocks[0] - found.mean[0][0]) / found.scale[0][0]
    residual = softmax(found.scores[0]).T - target
    gradient = residual @ x / 60 + found.coef[0][0] / (C * 60)
    assert np.abs(gradient).max() < 2e-4
    assert np.abs(residual.sum(axis=1) / 60).max() < 2e-4

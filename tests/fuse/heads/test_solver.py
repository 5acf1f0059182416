"""The batched solver against scikit-learn and SciPy, one problem at a time."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from mvemo.fuse.heads.blocks import Block, spectrum_of
from mvemo.fuse.heads.solver import Start, solve


def problem(n=240, dims=(7, 19), classes=4, seed=0, mixing=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    blocks = []
    for d in dims:
        x = rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[labels]
        blocks.append((x @ (np.eye(d) + mixing * rng.normal(size=(d, d)))).astype(np.float32))
    return blocks, labels, np.eye(classes)[labels].T


def block(x, problems):
    """A block of standardised columns."""
    values = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    return Block(values, np.array(problems), spectrum=spectrum_of(values))


def softmax(scores):
    e = np.exp(scores - scores.max(axis=0))
    return (e / e.sum(axis=0)).T


@pytest.mark.parametrize("C", [0.001, 0.03, 1.0])
def test_every_problem_is_scikit_learns_logistic_regression(C):
    blocks, labels, target = problem()
    fold = np.arange(len(labels)) % 3
    problems = [(used, f) for used in ((0,), (1,), (0, 1)) for f in range(3)]
    made = [
        block(x, [i for i, (used, _) in enumerate(problems) if b in used])
        for b, x in enumerate(blocks)
    ]
    weights = np.array([fold != f for _, f in problems], float)
    found = solve(made, target, weights, np.full(len(problems), C), tol=1e-10)
    assert found.converged.all()
    for i, (used, f) in enumerate(problems):
        x, train = np.concatenate([made[b].values for b in used], axis=1), fold != f
        model = LogisticRegression(C=C, tol=1e-9, max_iter=5000)
        model.fit(x[train].astype(float), labels[train])
        # Single precision.
        expected = model.predict_proba(x.astype(float))
        np.testing.assert_allclose(softmax(found.scores[i]), expected, atol=1e-3)


def test_the_spectrum_and_the_start_change_no_minimum():
    blocks, _, target = problem(dims=(30,))
    made, ones, C = block(blocks[0], [0]), np.ones((1, 240)), np.array([0.1])
    plain = solve([Block(made.values, made.problems)], target, ones, C, tol=1e-10)
    near = Start(tuple(plain.coef), plain.intercept)
    again = solve([made], target, ones, C, tol=1e-10, start=near)
    np.testing.assert_allclose(
        solve([made], target, ones, C, tol=1e-10).scores, plain.scores, atol=1e-3
    )
    np.testing.assert_allclose(again.scores, plain.scores, atol=1e-3)
    assert again.iterations[0] <= 1


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
def test_other_links_minimise_their_objective(link):
    blocks, _, target = problem(n=90, dims=(5,), classes=3)
    x = blocks[0].astype(float)
    target = target if link == "sigmoid" else target * np.array([[3.0], [-1.0], [10.0]]) + 2.0
    found = solve(
        [block(blocks[0], [0])], target, np.ones((1, 90)), np.array([0.2]), link=link, tol=1e-9
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


def test_weak_penalties_of_separable_classes_are_solved_to_the_end():
    blocks, labels, target = problem(mixing=0.0, dims=(60,))
    made = block(blocks[0], [0])
    found = solve([made], target, np.ones((1, 240)), np.array([100.0]), tol=1e-8)
    assert found.converged.all()
    model = LogisticRegression(C=100.0, tol=1e-9, max_iter=5000).fit(made.values, labels)
    np.testing.assert_allclose(
        softmax(found.scores[0]), model.predict_proba(made.values), atol=5e-3
    )

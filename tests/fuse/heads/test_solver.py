"""The batched solver against scikit-learn and SciPy, one problem at a time."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from mvemo.fuse import BadFeatures, Clips, Fit, HeadSettings, fit_heads, models_of, task_of
from mvemo.fuse.features import Matrix, matrix_of
from mvemo.fuse.heads import solver
from mvemo.fuse.heads.blocks import Block, Spectrum, spectrum_of
from mvemo.fuse.scaling import ArrayRows, Rows


def problem(n=240, dims=(7, 19), classes=4, mixing=0.5):
    """Standardised blocks, labels, and targets (classes, clips)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    blocks = []
    for d in dims:
        x = rng.normal(size=(n, d)) + 0.7 * rng.normal(size=(classes, d))[labels]
        x = x @ (np.eye(d) + mixing * rng.normal(size=(d, d)))
        blocks.append(((x - x.mean(0)) / x.std(0)).astype(np.float32))
    return blocks, labels, np.eye(classes, dtype=np.float32)[labels].T


def solved(used, target, weights, C, *, link="softmax", spectrum=spectrum_of, start=None):
    """Scores (problems, outputs, clips) and what `solve` returns; `used`: (values, problems)."""
    blocks = [
        Block(
            [(ArrayRows(x), spectrum(ArrayRows(x)))],
            np.zeros(len(p), int),
            np.array(p),
            np.ones(len(p)),
        )
        for x, p in used
    ]
    if start is None:
        shapes = [(len(p), len(target), x.shape[1]) for x, p in used]
        start = [np.zeros(s, np.float32) for s in (*shapes, (len(C), len(target)))]
    found = solver.solve(
        blocks, start, target[None], weights, np.array(C), np.full(len(C), 1e-10), link
    )
    scores = np.repeat(found[-1][:, :, None], target.shape[1], axis=2)
    for (x, problems), coef in zip(used, found[:-1], strict=True):
        scores[problems] += coef @ x.T
    return scores, found


@pytest.mark.parametrize(
    ("C", "options"), [(0.001, {}), (0.03, {}), (1.0, {}), (100.0, {"dims": (60,), "mixing": 0.0})]
)
def test_every_problem_is_scikit_learns_logistic_regression(C, options):
    blocks, labels, target = problem(**options)
    fold = np.arange(len(labels)) % 3
    models = [(0,), (1,), (0, 1)] if len(blocks) > 1 else [(0,)]
    problems = [(model, f) for model in models for f in range(3)]
    used = [
        (x, [i for i, (model, _) in enumerate(problems) if b in model])
        for b, x in enumerate(blocks)
    ]
    weights = np.array([fold != f for _, f in problems], np.float32)
    scores, _ = solved(used, target, weights, [C] * len(problems))
    for (model, f), of_problem in zip(problems, scores, strict=True):
        x, train = np.concatenate([blocks[b] for b in model], axis=1), fold != f
        reference = LogisticRegression(C=C, tol=1e-9, max_iter=5000)
        expected = reference.fit(x[train].astype(float), labels[train]).predict_proba(x)
        e = np.exp(of_problem - of_problem.max(axis=0))
        # Single precision.
        np.testing.assert_allclose((e / e.sum(axis=0)).T, expected, atol=5e-3 if C > 1 else 1e-3)


def test_the_spectrum_and_the_start_change_no_minimum(monkeypatch):
    (x,), _, target = problem(dims=(30,))
    steps = []
    step = solver._Problems.step
    monkeypatch.setattr(solver._Problems, "step", lambda self: (steps.append(1), step(self)))
    given = [(x, [0])], target, np.ones((1, 240), np.float32), [0.1]
    plain, found = solved(*given, spectrum=lambda rows: Spectrum(np.ones(rows.shape[1])))
    without = len(steps)
    np.testing.assert_allclose(solved(*given)[0], plain, atol=1e-3)
    with_spectrum = len(steps) - without
    np.testing.assert_allclose(solved(*given, start=found)[0], plain, atol=1e-3)
    assert len(steps) - without - with_spectrum <= 1 < with_spectrum < without


@pytest.mark.parametrize("link", ["sigmoid", "identity"])
def test_other_links_minimise_their_objective(link):
    (x,), _, target = problem(n=90, dims=(5,), classes=3)
    target = target if link == "sigmoid" else target * np.float32([[3], [-1], [10]]) + 2
    _, (coef, intercept) = solved(
        [(x, [0])], target, np.ones((1, 90), np.float32), [0.2], link=link
    )

    def objective(flat):
        w, b = flat[:15].reshape(3, 5), flat[15:, None]
        s = w @ x.T.astype(float) + b
        each = np.logaddexp(0, s) - target * s if link == "sigmoid" else 0.5 * (s - target) ** 2
        return each.sum(0).mean() + (w**2).sum() / (2 * 0.2 * 90)

    best = minimize(objective, np.zeros(18), method="BFGS", options={"gtol": 1e-8})
    ours = np.concatenate([coef.ravel(), intercept.ravel()])
    assert objective(ours) == pytest.approx(best.fun, rel=1e-5)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_heads_of_streamed_features_and_clips_that_no_head_is_trained_on(task):
    draw = np.random.default_rng(2)
    x = draw.normal(size=(90, 8)).astype(np.float32)
    values = x[:, :3] @ draw.normal(size=(3, 3)) + draw.normal(size=(90, 3))
    labels = {"multiclass": values.argmax(1), "multilabel": values > 0, "regression": values}
    y_true = task_of(task).read_labels(labels[task])
    groups, folds = tuple(map(str, range(90))), np.arange(90) % 3
    clips = Clips(task_of(task), y_true, groups, folds, 3)
    (model,) = models_of({"a": "audio"})
    # No head is trained on fold 2.
    known = folds < 2
    fits = [
        Fit(model, 0, folds == 1, 0.1, 1e-10, folds == 0, scaled_on=known),
        Fit(model, 1, known, 1.0, 1e-10, folds > 0, scaled_on=known),
    ]

    def read():
        for start in range(0, 90, 7):
            rows = np.arange(start, min(start + 7, 90))
            yield rows, x[rows]

    spoilt = np.where(known[:, None], x, 1e6).astype(np.float32)
    present = np.ones(90, bool)
    plain, streamed, of_spoilt = (
        fit_heads(fits, {"a": matrix}, clips, HeadSettings(choose_C=False))
        for matrix in (matrix_of(x), Matrix(Rows((90, 8), read), present), matrix_of(spoilt))
    )
    for i, fit in enumerate(fits):
        np.testing.assert_allclose(streamed[0][i].coef, plain[0][i].coef, atol=2e-3)
        np.testing.assert_allclose(of_spoilt[0][i].coef, plain[0][i].coef, atol=2e-3)
        np.testing.assert_allclose(streamed[1][i], plain[1][i], atol=5e-3)
        np.testing.assert_allclose(plain[0][i].predict(x[fit.predict]), plain[1][i], atol=1e-4)


@pytest.mark.parametrize(("fold", "name"), [(None, "all clips"), (1, "fold 1")])
def test_training_clips_of_one_class_are_refused(fold, name):
    clips = Clips(task_of("multiclass"), np.array([0, 0, 1]), tuple("abc"), np.array([0, 0, 1]), 2)
    (model,) = models_of({"pitch": "audio"})
    fit, matrices = Fit(model, fold, clips.folds == 0, 0.1), {"pitch": matrix_of(np.eye(3))}
    with pytest.raises(BadFeatures, match=f"^pitch, {name}: expected at least 2 .*, got 1$"):
        fit_heads([fit], matrices, clips)

"""Heads with a hidden layer: gradients, scikit-learn, masks, losses, and independence."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.losses import CENTRED, LOSSES, centre_loss, move_centres
from mvemo.fuse.heads.mlp import solve_mlp
from mvemo.fuse.heads.mlp_training import Run, Settings
from mvemo.fuse.heads.solver import Block

CLASS_LOSSES = LOSSES[:4]


def rings(n=400, dims=(6, 9), classes=3, seed=0):
    """Classes are distances from the middle: no linear head can tell them apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    plane = np.stack([np.cos(angle), np.sin(angle)], 1) * (1.0 + labels)[:, None]
    plane += 0.15 * rng.normal(size=plane.shape)
    blocks = []
    for d in dims:
        noise = 0.3 * rng.normal(size=(n, d))
        blocks.append((plane @ rng.normal(size=(2, d)) + noise).astype(np.float32))
    return blocks, labels, np.eye(classes)[labels].T


def one_block(x, problems=1):
    return [Block(x, np.arange(problems))]


def accuracy(scores, labels, rows):
    return np.mean(scores.argmax(axis=0)[rows] == labels[rows])


# --- gradients


def small_run(loss, seed=0, decay=0.05):
    rng = np.random.default_rng(seed)
    x = [rng.normal(1.0, 2.0, size=(17, d)) for d in (3, 4)]
    target = np.eye(3)[rng.integers(0, 3, 17)].T
    if loss == "identity":
        target = rng.normal(5.0, 3.0, size=(2, 17))
    weights = rng.uniform(0.2, 2.0, size=(2, 17))
    weights[0, :3] = 0.0
    settings = Settings(hidden=5, loss=loss, tau=0.7, seed=seed)
    zero = np.zeros_like(weights)
    run = Run(x, target, weights, zero, np.array([decay, 0.0]), settings, np.float64)
    run.centres = rng.normal(size=run.centres.shape)
    for array in run.parameters:
        array += 0.1 * rng.normal(size=array.shape)
    run._constrain(run.parameters)
    return run


def value_of(run):
    """The objective of each problem, with L2's weights put on their sphere."""
    before = [x.copy() for x in run.parameters]
    run._constrain(run.parameters)
    value = run.objective(*run.forward())[0].copy()
    for x, y in zip(run.parameters, before, strict=True):
        x[:] = y
    return value


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    run = small_run(loss)
    x, scores = run.forward()
    _, _, slope, by_features = run.objective(x, scores)
    run.backward(x, slope, by_features, None)
    found = [g.copy() for g in run.gradient]
    step = 1e-6
    for array, gradient in zip(run.parameters, found, strict=True):
        for at in np.ndindex(array.shape):
            old = array[at]
            array[at] = old + step
            above = value_of(run)[at[0]]
            array[at] = old - step
            below = value_of(run)[at[0]]
            array[at] = old
            assert gradient[at] == pytest.approx((above - below) / (2 * step), abs=2e-8)


def test_dropout_keeps_the_gradient_of_what_is_left():
    run = small_run("improved-centre")
    kept = np.random.default_rng(1).integers(0, 2, size=(5, 17)) * 2.0

    def dropped():
        x = run.forward()[0] * kept
        return run.objective(x, run._scores(x)), x

    (_, _, slope, by_features), x = dropped()
    run.backward(x, slope, by_features, kept)
    array, gradient = run.parameters[0], run.gradient[0].copy()
    for at in [(0, 1, 2), (1, 4, 0), (1, 0, 1)]:
        old = array[at]
        array[at] = old + 1e-6
        above = dropped()[0][0][at[0]]
        array[at] = old - 1e-6
        below = dropped()[0][0][at[0]]
        array[at] = old
        assert gradient[at] == pytest.approx((above - below) / 2e-6, abs=2e-8)


# --- the centres' terms, by hand


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 6))
def test_centre_terms_are_the_equations(seed, classes, dim):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 9)
    x, q = rng.normal(size=(2, dim, 9)), rng.normal(size=(2, classes, dim))
    target = np.eye(classes)[labels].T
    plain = centre_loss("centre", x, q, target).each
    improved = centre_loss("improved-centre", x, q, target).each
    for p in range(2):
        for i, label in enumerate(labels):
            own = sum((x[p, :, i] - q[p, label]) ** 2)
            others = sum(sum((x[p, :, i] - q[p, j]) ** 2) for j in range(classes) if j != label)
            assert plain[p, i] == pytest.approx(own / 2)
            assert improved[p, i] == pytest.approx(own / (others + 1) / 2)


def test_centres_move_towards_their_classes_alone():
    x = np.array([[[1.0, 3.0, 10.0, 50.0]]])
    target = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    weights = np.array([[1.0, 1.0, 1.0, 0.0]])
    moved = move_centres(np.array([[[2.0], [0.0], [7.0]]]), x, target, weights)
    # Class 0 has its mean already; class 1 has one clip: half of 10, halved by 1 + n.
    np.testing.assert_allclose(moved[0, :, 0], [2.0, 2.5, 7.0])


@pytest.mark.parametrize("loss", CENTRED)
def test_the_centres_terms_draw_a_class_together(loss):
    blocks, labels, target = rings()
    common = {"max_epochs": 150, "lr": 0.01, "tol": 0.0, "patience": 150}

    def spread(**more):
        found = solve_mlp(one_block(blocks[0]), target, np.ones((1, 400)), **common, **more)
        x = found.layers(0, [(0, 0)]).embed(blocks[0])
        means = np.stack([x[labels == c].mean(axis=0) for c in range(3)])
        within = np.square(x - means[labels]).sum(axis=1).mean()
        return within / np.square(means - means.mean(axis=0)).sum(axis=1).mean()

    assert spread(loss=loss, tau=2.0) < 0.9 * spread(loss="softmax")


def test_without_tau_the_centres_change_nothing():
    blocks, _, target = rings(n=80)
    a, b = (
        solve_mlp(one_block(blocks[0]), target, np.ones((1, 80)), max_epochs=20, loss=x, tau=0.0)
        for x in ("softmax", "centre")
    )
    np.testing.assert_array_equal(a.scores, b.scores)


def test_angular_softmax_has_unit_weights_and_no_intercept():
    blocks, labels, target = rings()
    found = solve_mlp(
        one_block(blocks[0]), target, np.ones((1, 400)), loss="angular", lr=0.02, weight_decay=1e-3,
        max_epochs=150,
    )  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(found.coef[0], axis=1), 1.0, rtol=1e-6)
    assert (found.intercept == 0).all()
    assert accuracy(found.scores[0], labels, slice(None)) > 0.85


# --- against scikit-learn


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_accuracy_is_scikit_learns(loss):
    blocks, labels, target = rings(n=600)
    fold = np.arange(600) % 3
    both = [Block(x, np.arange(3)) for x in blocks]
    weights = np.array([fold != f for f in range(3)], float)
    found = solve_mlp(
        both, target, weights, hidden=32, weight_decay=0.0, lr=0.02, loss=loss, max_epochs=300
    )
    x = np.concatenate(blocks, axis=1)
    ours, theirs = [], []
    for f in range(3):
        scaler = StandardScaler().fit(x[fold != f])
        model = MLPClassifier(32, alpha=0.0, random_state=0, max_iter=60, learning_rate_init=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaler.transform(x[fold != f]), labels[fold != f])
        theirs.append(model.score(scaler.transform(x[fold == f]), labels[fold == f]))
        ours.append(accuracy(found.scores[f], labels, fold == f))
    assert np.mean(theirs) > 0.9
    assert np.mean(ours) > np.mean(theirs) - 0.03


def test_one_step_path_is_scikit_learns():
    """Adam on full batches from the same first weights: the same parameters."""
    blocks, labels, target = rings(n=120)
    x, alpha = blocks[0], 0.3
    found = solve_mlp(
        one_block(x), target, np.ones((1, 120)), hidden=8, lr=0.01, max_epochs=30,
        weight_decay=alpha / 120, tol=0.0,
    )  # fmt: skip
    start = Run(
        [x], target, np.ones((1, 120)), np.zeros((1, 120)), np.zeros(1), Settings(hidden=8)
    ).parameters
    z = StandardScaler().fit_transform(x.astype(float))
    model = MLPClassifier(8, alpha=alpha, batch_size=120, learning_rate_init=0.01, shuffle=False)
    model.partial_fit(z, labels, classes=[0, 1, 2])
    model.coefs_[:] = [start[0][0].T.astype(float), start[2][0].T.astype(float)]
    model.intercepts_[:] = [start[1][0].astype(float), start[3][0].astype(float)]
    # Its first call drew weights and made the optimizer; forget that step.
    model._optimizer.t = 0
    for moments in (model._optimizer.ms, model._optimizer.vs):
        for array in moments:
            array[:] = 0.0
    for _ in range(30):
        model.partial_fit(z, labels)
    assert found.epochs[0] == 30
    np.testing.assert_allclose(found.hidden_coef[0][0], model.coefs_[0].T, atol=2e-3)
    np.testing.assert_allclose(found.coef[0], model.coefs_[1].T, atol=2e-3)
    np.testing.assert_allclose(found.intercept[0], model.intercepts_[1], atol=2e-3)


# --- masks, seeds, independence


@pytest.mark.parametrize("loss", ["improved-centre", "identity"])
def test_a_clip_of_weight_zero_changes_nothing(loss):
    blocks, _, target = rings(n=120)
    weights = np.ones((2, 120))
    weights[:, :20] = 0.0
    watch = np.zeros((2, 120), bool)
    # Of weight 0 too in part: those must not be watched.
    watch[1, 10:40] = True
    common = {"loss": loss, "tau": 0.5, "max_epochs": 40, "lr": 0.01, "dropout": 0.3}
    one = solve_mlp(one_block(blocks[0], 2), target, weights, watch, **common)
    spoilt, other = blocks[0].copy(), target.copy()
    spoilt[:20] = 50.0
    other[:, :20] = np.roll(other[:, :20], 1, axis=0)
    two = solve_mlp(one_block(spoilt, 2), other, weights, watch, **common)
    np.testing.assert_array_equal(one.hidden_coef[0], two.hidden_coef[0])
    np.testing.assert_array_equal(one.coef, two.coef)
    np.testing.assert_array_equal(one.scores[:, :, 20:], two.scores[:, :, 20:])
    np.testing.assert_array_equal(one.watched, two.watched)


def test_watched_clips_are_not_fitted_on():
    """Only the end depends on them: up to there the objective is the same."""
    blocks, _, target = rings(n=120)
    watch = np.zeros((1, 120), bool)
    watch[0, :40] = True
    other = target.copy()
    other[:, :40] = np.roll(other[:, :40], 1, axis=0)
    one, two = (
        solve_mlp(one_block(blocks[0]), t, np.ones((1, 120)), watch, lr=0.01, patience=5)
        for t in (target, other)
    )
    assert two.stopped[0]
    length = np.isfinite(two.loss[0]).sum()
    np.testing.assert_array_equal(one.loss[0, :length], two.loss[0, :length])
    assert one.watched[0, 0] != two.watched[0, 0]


def test_early_stopping_keeps_the_best_epoch():
    blocks, labels, _ = rings(n=90, dims=(40,))
    target = np.eye(3)[np.random.default_rng(3).permutation(labels)].T
    watch = np.zeros((1, 90), bool)
    watch[0, ::3] = True
    found = solve_mlp(one_block(blocks[0]), target, np.ones((1, 90)), watch, lr=0.02, tol=0.0)
    best = found.epochs[0]
    assert found.stopped[0]
    assert best == np.nanargmin(found.watched[0])
    assert np.isfinite(found.watched[0]).sum() == best + 11
    each = -np.log((np.exp(found.scores[0]) / np.exp(found.scores[0]).sum(0) * target).sum(0))
    assert each[watch[0]].mean() == pytest.approx(found.watched[0, best], rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "improved-centre"])
def test_a_problem_alone_is_the_problem_among_others(loss):
    blocks, labels, _ = rings(n=150)
    rng = np.random.default_rng(0)
    # A third of the labels are wrong, so that watched clips end it early.
    target = np.eye(3)[np.where(rng.random(150) < 0.3, rng.permutation(labels), labels)].T
    weights = rng.uniform(0.5, 1.5, size=(5, 150))
    watch = rng.random((5, 150)) < 0.3
    watch[0] = False
    used = [(0,), (0, 1), (1,), (0, 1), (0,)]
    made = [
        Block(x, np.array([i for i, parts in enumerate(used) if b in parts]))
        for b, x in enumerate(blocks)
    ]
    common = {"loss": loss, "max_epochs": 80, "lr": 0.02, "hidden": 16, "dropout": 0.2}
    together = solve_mlp(made, target, weights, watch, **common)
    assert len(set(together.epochs)) > 1
    for i, parts in enumerate(used):
        alone = solve_mlp(
            [Block(blocks[b], np.array([0])) for b in parts],
            target, weights[[i]], watch[[i]], **common,
        )  # fmt: skip
        np.testing.assert_allclose(together.scores[i], alone.scores[0], atol=5e-3)
        assert together.epochs[i] == alone.epochs[0]


def test_runs_repeat_by_seed_and_differ_between_seeds():
    blocks, _, target = rings(n=100)
    a, b, c = (
        solve_mlp(
            one_block(blocks[0]), target, np.ones((1, 100)), max_epochs=10, dropout=0.5, seed=s
        ).scores
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_permuted_labels_are_at_chance():
    blocks, labels, _ = rings(n=900)
    labels = np.random.default_rng(7).permutation(labels)
    fold = np.arange(900) % 3
    weights = np.array([fold != f for f in range(3)], float)
    watch = (np.arange(900) % 7 == 0) & (weights > 0)
    found = solve_mlp(
        [Block(x, np.arange(3)) for x in blocks], np.eye(3)[labels].T, weights, watch, lr=0.01
    )
    right = np.mean([accuracy(found.scores[f], labels, fold == f) for f in range(3)])
    # Four standard errors about one in three
    assert abs(right - 1 / 3) < 4 * np.sqrt(2 / 9 / 900)


# --- what comes out


@pytest.mark.parametrize("loss", ["centre", "sigmoid", "identity"])
def test_layers_reproduce_the_scores(loss):
    blocks, _, target = rings(n=100)
    if loss == "identity":
        target = 100.0 + 7.0 * target
    made = [Block(blocks[0], np.array([0, 1])), Block(blocks[1], np.array([1]))]
    weights = np.ones((2, 100))
    weights[1, ::3] = 0.0
    found = solve_mlp(made, target, weights, loss=loss, max_epochs=40, lr=0.01)
    head = found.layers(1, [(1, 0), (0, 1)])
    x = np.concatenate([blocks[1], blocks[0]], axis=1)
    np.testing.assert_allclose(head.scores(x).T, found.scores[1], rtol=1e-5, atol=1e-3)


def test_values_are_met_in_their_own_units():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(500, 2)).astype(np.float32)
    values = np.stack([500 + 90 * x[:, 0] ** 2, 0.01 * x[:, 0] * x[:, 1]])
    weights = np.ones((1, 500))
    weights[0, ::4] = 0.0
    found = solve_mlp(one_block(x), values, weights, loss="identity", lr=0.02, max_epochs=400)
    test = np.s_[::4]
    left = np.square(found.scores[0] - values)[:, test].mean(axis=1)
    assert (left < 0.05 * values[:, test].var(axis=1)).all()


def test_decay_is_a_number_a_problem():
    blocks, _, target = rings(n=100)
    found = solve_mlp(
        one_block(blocks[0], 2), target, np.ones((2, 100)), weight_decay=np.array([0.0, 0.1]),
        max_epochs=300, lr=0.01,
    )  # fmt: skip
    small, large = (np.square(found.hidden_coef[0][i]).sum() for i in (1, 0))
    assert small < 0.5 * large


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"loss": "centre softmax"}, "one of softmax, angular"),
        ({"tau": -1.0}, "tau is -1.0"),
        ({"hidden": 0}, "1 or more"),
        ({"lr": 0.0}, "above 0"),
        ({"dropout": 1.0}, "below 1"),
        ({"weight_decay": -0.1}, "0 or more"),
        ({"validation": np.ones((1, 60), bool)}, "no clip to be fitted on"),
    ],
)
def test_settings_out_of_range_are_said(setting, said):
    blocks, _, target = rings(n=60)
    with pytest.raises(BadFeatures, match=said):
        solve_mlp(one_block(blocks[0]), target, np.ones((1, 60)), **setting)

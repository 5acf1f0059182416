"""Heads of several folds fitted together."""

import numpy as np
import pytest

from mvemo.fuse import Clips, Fit, HeadSettings, fit_heads, models_of, task_of
from mvemo.fuse.features import matrix_of
from mvemo.fuse.heads import blocks, fitting


def drawn(name, n=60):
    """Clips of a task, and features: wider than the clips are many, narrower, and constant."""
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(n, 3))
    y_true = {
        "multiclass": hidden.argmax(axis=1),
        "multilabel": (hidden > 0.3).astype(int),
        "regression": hidden,
    }[name]
    clips = Clips(
        task=task_of(name),
        y_true=y_true,
        groups=tuple(map(str, range(n))),
        folds=np.arange(n) % 3,
        n_outputs=3,
    )
    matrices = {}
    for feature, dim in (("wide", 150), ("narrow", 9), ("constant", 70)):
        x = hidden @ rng.normal(size=(3, dim)) + rng.normal(size=(n, dim))
        x = np.ones_like(x) if feature == "constant" else x
        x[rng.integers(n, size=5)] = np.nan
        matrices[feature] = matrix_of(x.astype(np.float32))
    return clips, matrices


@pytest.mark.parametrize(("share", "at_once"), [(1, 3), (2, 3), (1, 2)])
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_folds_solved_together_are_those_solved_one_by_one(task, share, at_once, monkeypatch):
    clips, matrices = drawn(task)
    models = models_of({"wide": "audio", "narrow": "video", "constant": "text"})
    rng = np.random.default_rng(2)
    fits = []
    for fold in rng.permutation(3).tolist():
        others, half = clips.folds != fold, rng.random(60) < 0.5
        for model in models:
            # An inner fit on half of the clips, scaled on all others, and one scaled on its own.
            fits.append(Fit(model, fold, others & half, 0.1, 1e-9, others & ~half, others))
            fits.append(Fit(model, fold, others, 1.0, 1e-9, predict=~others))
    settings = HeadSettings(class_weight="balanced" if task == "multiclass" else "none")
    monkeypatch.setattr(fitting, "BATCH_SCORES", 60 * 3 * len(fits) // share)
    solve, n_matrices = fitting.solve, []

    def counting(blocks, *others):
        n_matrices.append(max(len(block.values) for block in blocks))
        return solve(blocks, *others)

    monkeypatch.setattr(fitting, "solve", counting)
    scale, n_scalings = blocks.fit_scaling, []
    monkeypatch.setattr(blocks, "fit_scaling", lambda *a: n_scalings.append(1) or scale(*a))
    size = sum(matrix.values.size for matrix in matrices.values())
    monkeypatch.setattr(fitting, "MOST_VALUES", size * at_once)
    fitter = fitting.HeadFitter(matrices, clips, settings)
    fitter.fit(fits)
    # Each feature is standardised once on each set of clips, and no more sets are kept than stated.
    assert len(n_scalings) == 3 * 3
    assert len(fitter._scaled) == at_once
    n_matrices.clear()
    together = fit_heads(fits, matrices, clips, settings)
    assert n_matrices == {(1, 3): [3], (2, 3): [2, 2], (1, 2): [2, 1]}[share, at_once]
    monkeypatch.setattr(fitting, "MOST_VALUES", 0)
    one_by_one = fit_heads(fits, matrices, clips, settings)
    assert {*n_matrices[-3:]} == {1}
    for a, b in zip(together[1], one_by_one[1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    for a, b in zip(together[0], one_by_one[0], strict=True):
        assert (a.model, a.fold, a.features, a.C) == (b.model, b.fold, b.features, b.C)
        np.testing.assert_array_equal(a.mean, b.mean)
        np.testing.assert_allclose(a.coef, b.coef, atol=2e-4)
        np.testing.assert_allclose(a.intercept, b.intercept, atol=2e-4)


def test_targets_of_other_clips_do_not_reach_a_regression():
    clips, matrices = drawn("regression")
    clips.y_true[clips.folds == 0] = 1e39
    (model, *_) = models_of({"narrow": "audio"})
    fits = [Fit(model, fold, clips.folds != fold, 1.0) for fold in range(3)]
    heads, outputs = fit_heads(fits, matrices, clips)
    alone_heads, alone = fit_heads(fits[:1], matrices, clips)
    assert np.isfinite(alone[0][matrices["narrow"].present]).all()
    np.testing.assert_allclose(outputs[0], alone[0], atol=1e-3)
    np.testing.assert_allclose(heads[0].coef, alone_heads[0].coef, atol=1e-3)

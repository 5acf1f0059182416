"""Penalties are chosen on inner folds: by few trials, and near the best of a fine grid."""

import numpy as np
import pytest
from feature_samples import frozen_cache
from fuse_samples import evaluated
from output_samples import output_cache, task_table

from mvemo.fuse import Clips, HeadSettings, models_of, task_of
from mvemo.fuse.crossval.prediction import GRID, _Trials, choose_strengths
from mvemo.fuse.features import leave_each_out, matrix_of
from mvemo.fuse.heads.fitting import Fit, HeadFitter
from mvemo.manifests import make_folds


def trials(losses, margin=0.0):
    """All steps that a loss over the grid leads to."""
    tried = _Trials(margin=margin)
    while (step := tried.next()) is not None:
        tried.losses[step] = losses[step]
        tried.positions[step] = {}
    return tried


@pytest.mark.parametrize("lowest", [-2.9, -1.5, 0.3])
def test_the_minimum_of_a_parabola_is_found_between_the_grid(lowest):
    tried = trials([(np.log10(C) - lowest) ** 2 for C in GRID])
    assert np.log10(tried.chosen().C) == pytest.approx(lowest, abs=0.01)
    assert len(tried.losses) < len(GRID)


def test_without_a_gain_the_penalty_stays_strong():
    assert GRID[0] == trials([1.0] * len(GRID)).chosen().C
    falling = [1.0 - 0.001 * i for i in range(len(GRID))]
    assert GRID[0] == trials(falling, margin=0.005).chosen().C
    assert GRID[-1] == trials(falling).chosen().C


def test_the_choice_is_near_the_best_of_a_fine_grid():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 150)
    x = (rng.normal(size=(150, 40)) + 0.5 * rng.normal(size=(3, 40))[labels]).astype(np.float32)
    groups = tuple(f"g{i // 2}" for i in range(150))
    folds = make_folds(labels, groups, 3, 0, "multiclass")
    clips = Clips(task_of("multiclass"), labels, groups, folds, 3)
    (model,) = models_of({"a": "audio"})
    fitter = HeadFitter({"a": matrix_of(x)}, clips, HeadSettings())
    inner = clips.folds_of(folds != 0, 3)
    chosen = choose_strengths(fitter, [model], {0: inner})[0, ("a",)]

    def loss(C):
        proba = np.full((150, 3), np.nan)
        for train, rows in leave_each_out(inner):
            fit = Fit(model, 0, train, C, predict=rows, scaled_on=folds != 0)
            proba[rows] = fitter.fit([fit])[0].outputs
        return clips.task.choice_loss(labels, proba)

    assert loss(chosen.C) <= min(map(loss, np.logspace(-4, 1, 16))) + 0.005


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_without_signal_stronger_penalties_are_chosen(task, tmp_path):
    chosen = {}
    for strength in (0.0, 3.0):
        path = tmp_path / f"{strength}.h5"
        if task == "multiclass":
            frozen_cache(path, task_table(task), strength=strength)
        else:
            noise = 0.3 if strength else 1.0
            output_cache(path, task_table(task), strength=strength, noise=noise)
        results = evaluated(path, head=HeadSettings(choose_C=True), models=["integrated"])
        chosen[strength] = [head.C for head in results.heads]
    assert np.mean(chosen[0.0]) < np.mean(chosen[3.0])
    if task == "multiclass":
        assert max(chosen[0.0]) == 1e-4

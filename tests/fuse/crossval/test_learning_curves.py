"""Training subsets are nested, made of whole groups, and of the size asked for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.fuse.crossval.learning_curves import learning_curve_masks

FRACTIONS = (0.1, 0.25, 0.5, 1.0)


def made(seed, n_groups=60, k=5, n_classes=4):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    folds = (rng.permutation(np.arange(n_groups) % k))[groups]
    labels = rng.choice(n_classes, n_groups, p=(0.55, 0.25, 0.15, 0.05))[groups]
    order = rng.permutation(len(groups))
    return folds[order], tuple(f"g{g}" for g in groups[order]), labels[order]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_subsets_are_nested_whole_and_of_the_size_asked_for(seed, stratified):
    folds, groups, labels = made(seed)
    names = np.array(groups)
    masks = learning_curve_masks(
        folds, groups, FRACTIONS, seed, labels=labels if stratified else None
    )
    assert masks.shape == (5, 4, len(folds))
    largest = max(np.unique(names, return_counts=True)[1])
    for fold in range(5):
        train = folds != fold
        np.testing.assert_array_equal(masks[fold, -1], train)
        for i, fraction in enumerate(FRACTIONS):
            chosen = masks[fold, i]
            assert not (chosen & ~train).any()
            if i:
                assert not (masks[fold, i - 1] & ~chosen).any()
            assert not set(names[chosen]) & set(names[train & ~chosen])
            # Reached, and not by more than one group.
            wanted = fraction * train.sum()
            assert wanted - 1e-6 <= chosen.sum() < wanted + largest


def test_seed_decides_and_the_order_of_fractions_does_not():
    folds, groups, _ = made(0)
    one = learning_curve_masks(folds, groups, (0.2, 0.7), 1)
    np.testing.assert_array_equal(one, learning_curve_masks(folds, groups, (0.7, 0.2), 1)[:, ::-1])
    assert (one != learning_curve_masks(folds, groups, (0.2, 0.7), 2)).any()


def test_exact_fractions_take_no_group_too_many():
    folds = np.array([0] * 10 + [1] * 10)
    masks = learning_curve_masks(folds, range(20), (0.3, 0.7))
    np.testing.assert_array_equal(masks.sum(axis=2), [[3, 7], [3, 7]])


def test_small_stratified_sets_keep_the_classes_shares():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    groups, folds = np.arange(1000) // 2, np.arange(1000) // 2 % 4
    masks = learning_curve_masks(folds, groups, (0.1,), labels=labels)
    for fold in range(4):
        shares = np.bincount(labels[masks[fold, 0]], minlength=3) / masks[fold, 0].sum()
        # Within a group of 38 of each class's share.
        np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.035)


def test_clips_without_a_fold_are_never_trained_on():
    masks = learning_curve_masks(np.array([0, 1, -1, 0, 1]), list("abcde"), (1.0,))
    assert not masks[..., 2].any()
    assert masks[0, 0].tolist() == [False, True, False, False, True]

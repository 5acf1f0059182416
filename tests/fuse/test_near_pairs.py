"""Near pairs are found without comparing all pairs, and chance finds none."""

import numpy as np
import pytest

from mvemo.fuse.near_pairs import near_pairs


def unit(values):
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    return (z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float32)


def sample(seed, n=600, dim=32):
    return np.random.default_rng(seed).normal(size=(n, dim))


@pytest.mark.parametrize("n", [600, 5000])
def test_equal_and_near_vectors_of_other_groups_are_found(n):
    values = sample(0, n)
    values[[7, 8]] = values[[300, 9]]
    values[[n - 1, 11]] = values[[20, 40]] + 1e-3
    group = np.arange(n)
    group[[8, 11]] = group[[9, 40]]
    near = near_pairs(unit(values), group)
    assert near.pairs.tolist() == [[7, 300], [20, n - 1]]
    assert near.equal.tolist() == [True, False]
    assert near.rows(equal=True).tolist() == [7, 300]


def test_zeros_of_either_sign_are_equal():
    vectors = unit(sample(0))
    vectors[[5, 70], 3] = 0.0, -0.0
    vectors[70] = np.where(np.arange(32) == 3, vectors[70], vectors[5])
    near = near_pairs(vectors, np.arange(600))
    assert (near.pairs.tolist(), near.equal.tolist()) == ([[5, 70]], [True])


@pytest.mark.parametrize("dim", [12, 200])  # more columns than directions to project on
def test_all_pairs_are_those_of_a_full_comparison(dim):
    values = sample(1, 4500, 6) @ sample(2, 6, dim)
    rng = np.random.default_rng(3)
    copies = rng.choice(4500, (2, 60), replace=False)
    values[copies[0]] = values[copies[1]] + rng.normal(scale=1e-4, size=(60, dim))
    vectors = unit(values)
    near = near_pairs(vectors, np.arange(4500))
    cosine = np.triu(vectors @ vectors.T, 1)
    expected = np.argwhere(cosine > near.threshold)
    assert {*map(tuple, near.pairs)} == {*map(tuple, expected)}
    assert {*map(tuple, np.sort(copies.T, axis=1))} <= {*map(tuple, near.pairs)}


@pytest.mark.parametrize("dim", [2, 8, 256])
def test_independent_vectors_have_no_near_pairs(dim):
    found = [
        len(near_pairs(unit(sample(seed, 500, dim)), np.arange(500)).pairs) for seed in range(20)
    ]
    assert sum(n > 0 for n in found) <= 1
    # Whole numbers are often equal without being copies.
    values = np.random.default_rng(0).integers(0, 4, (400, 2)).astype(float)
    assert len(near_pairs(unit(values), np.arange(400)).pairs) == 0


def test_small_sets_that_are_nearly_the_same():
    x = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = near_pairs(np.concatenate([x, x[:55]]), np.repeat([0, 1], (60, 55)))
    assert sorted(found.pairs[found.equal].tolist()) == [[i, 60 + i] for i in range(55)]

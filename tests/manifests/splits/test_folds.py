"""Folds: whole groups, even shares, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import BadManifest, fold_notes, holdout_split, inner_split, make_folds
from mvemo.manifests.splits.folds import _move


def random_case(seed, task, n=120, n_groups=30):
    rng = np.random.default_rng(seed)
    groups = np.char.add("g", rng.integers(0, n_groups, n).astype(str))
    if task == "multiclass":
        shares = rng.dirichlet(np.full(4, 3.0))
        return rng.choice(4, n, p=shares), groups
    if task == "multilabel":
        return (rng.random((n, 5)) < rng.uniform(0.05, 0.6, 5)).astype(np.int64), groups
    return rng.normal(size=(n, 2)), groups


cases = st.builds(
    random_case,
    st.integers(0, 10**6),
    st.sampled_from(["multiclass", "multilabel", "regression"]),
    n=st.integers(20, 60),
    n_groups=st.integers(6, 40),
)


def task_of(labels):
    if labels.ndim == 1:
        return "multiclass"
    return "multilabel" if labels.dtype.kind == "i" else "regression"


SPLITTERS = {
    "folds": lambda *clips: make_folds(clips[0], clips[1], 3, *clips[2:]),
    "holdout": lambda *clips: holdout_split(clips[0], clips[1], (7, 2, 1), *clips[2:]),
    "inner": lambda *clips: inner_split(clips[0], clips[1], 0.3, *clips[2:]).astype(np.int64),
}


@pytest.mark.parametrize("name", SPLITTERS)
@settings(max_examples=40)
@given(cases, st.integers(0, 100))
def test_groups_stay_whole_and_no_part_is_empty(name, case, seed):
    labels, groups = case
    task, split = task_of(labels), SPLITTERS[name]
    if len(set(groups.tolist())) < 3:
        return
    parts = split(labels, groups, seed, task)
    assert (parts.dtype, parts.shape) == (np.int64, (len(labels),))
    assert set(parts.tolist()) == set(range(2 if name == "inner" else 3))
    for group in set(groups.tolist()):
        assert len(set(parts[groups == group].tolist())) == 1
    # The order of the clips does not matter.
    order = np.random.default_rng(seed).permutation(len(labels))
    assert np.array_equal(parts[order], split(labels[order], groups[order], seed, task))
    if task == "multiclass":  # labels may be names
        assert np.array_equal(parts, split(labels.astype(str), groups, seed, task))


def test_shares_are_even():
    # The standard deviation over folds of each class's share; 0.029 with scikit-learn's
    # StratifiedGroupKFold, 0.021 without swaps.
    deviations = []
    for seed in range(25):
        labels, groups = random_case(seed, "multiclass")
        folds = make_folds(labels, groups, 5, seed, "multiclass")
        for label in set(labels):
            counts = np.bincount(folds[labels == label], minlength=5)
            deviations.append(np.std(counts / counts.sum()))
    assert np.mean(deviations) < 0.018


def test_tags_and_numbers_are_stratified_too():
    rng = np.random.default_rng(5)
    tags = np.zeros((200, 3), dtype=np.int64)
    tags[:10, 0] = 1
    tags[50:150, 1] = 1
    tags[100:180, 2] = 1
    groups = np.arange(200).astype(str)
    folds = make_folds(tags, groups, 5, 0, "multilabel")
    for tag in range(3):
        assert np.ptp(np.bincount(folds[tags[:, tag] > 0], minlength=5)) <= 1
    numbers = rng.normal(size=(200, 1)) ** 3
    folds = make_folds(numbers, groups, 5, 0, "regression")
    fifths = np.searchsorted(np.quantile(numbers, [0.2, 0.4, 0.6, 0.8]), numbers[:, 0])
    for fifth in range(5):
        assert np.ptp(np.bincount(folds[fifths == fifth], minlength=5)) <= 1


def test_seeds_mix_clips_at_random():
    # With one label, each pair of clips must share a fold as often as chance has it.
    labels = np.repeat([0, 1], 20)
    groups = np.arange(40).astype(str)
    together = np.zeros((40, 40))
    for seed in range(150):
        folds = make_folds(labels, groups, 4, seed, "multiclass")
        together += folds[:, None] == folds[None, :]
    within = together[:20, :20][~np.eye(20, dtype=bool)] / 150
    # 4 of the 19 others; standard error over 150 seeds 0.033.
    assert within.mean() == pytest.approx(4 / 19, abs=1e-3)
    assert np.abs(within - 4 / 19).max() < 0.14


@pytest.mark.parametrize(
    ("labels", "groups", "k", "task", "message"),
    [
        ([0, 1, 0], "aba", 3, "multiclass", r"2 group\(s\) cannot fill 3 folds"),
        ([0, 1], "ab", 1, "multiclass", "k is 1"),
        ([0, 1], "a", 2, "multiclass", "shape"),
        ([0, 1], "ab", 2, "multilabel", "shape"),
        ([0.0, np.nan], "ab", 2, "regression", "finite"),
        ([0, 1], "ab", 2, "sorting", "unknown task"),
        ([], "", 2, "multiclass", "no clips"),
    ],
)
def test_bad_requests(labels, groups, k, task, message):
    with pytest.raises(BadManifest, match=message):
        make_folds(labels, list(groups), k, 0, task)


def test_bad_requests_of_inner_splits_and_earlier_folds():
    for groups, fraction, message in (("aa", 0.2, "only one group"), ("ab", 1.0, "between 0 and")):
        with pytest.raises(BadManifest, match=message):
            inner_split([0, 1], list(groups), fraction, 0, "multiclass")
    with pytest.raises(BadManifest, match="include fold 2, but folds must be 0 to 1"):
        make_folds([0, 1], ["a", "b"], 2, 0, "multiclass", earlier={"a": 2})


def test_notes_on_classes_with_few_groups():
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    groups = ["a", "b", "c", "d", "e", "f", "f"]
    notes = fold_notes(labels, groups, 3, "multiclass", ("A", "B", "C", "D"))
    assert notes == (
        "class 'B' has only 2 groups: some of the 3 folds lack it",
        "class 'C' has only one group: it is never in training and test together",
        "class 'D' has no clips",
    )
    assert fold_notes(np.zeros((3, 1)), ["a", "b", "c"], 3, "regression", ("v",)) == ()


def test_inner_split_keeps_every_class_in_training():
    for seed in range(20):
        held_out = inner_split([0, 0, 0, 1], [*"abcd"], 0.5, seed, "multiclass")
        assert (held_out[3], held_out.any()) == (False, True)


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(2, 5), st.data())
def test_earlier_groups_keep_their_folds(case, k, data):
    labels, groups = case
    task = task_of(labels)
    names = sorted(set(groups.tolist()))
    known = data.draw(st.lists(st.sampled_from(names), unique=True, max_size=len(names) - 1))
    earlier = {name: data.draw(st.integers(0, k - 1)) for name in known}
    if len(names) - len(known) < k:
        return  # too few free groups to fill the folds that the known ones leave empty
    folds = make_folds(labels, groups, k, 3, task, earlier=earlier)
    assert set(folds.tolist()) == set(range(k))
    for name in names:
        folds_of_group = set(folds[groups == name].tolist())
        assert len(folds_of_group) == 1
        if name in earlier:
            assert folds_of_group == {earlier[name]}


def test_an_empty_fold_is_filled_though_all_groups_had_another():
    labels, earlier = [0, 1, 0, 1], dict.fromkeys("abcd", 0)
    folds = make_folds(labels, list("abcd"), 2, 0, "multiclass", earlier=earlier)
    assert sorted(folds.tolist()) == [0, 0, 0, 1]


def test_new_groups_even_out_the_folds():
    labels, groups = np.repeat([0, 1], 30), np.arange(60).astype(str)
    earlier = {str(i): 0 for i in (*range(10), *range(30, 40))}
    folds = make_folds(labels, groups, 3, 0, "multiclass", earlier=earlier)
    assert [np.bincount(folds[labels == c]).tolist() for c in (0, 1)] == [[10] * 3, [10] * 3]


@pytest.mark.parametrize("seed", [13, 34, 59, 95])
def test_groups_tried_at_once_move_like_groups_tried_one_by_one(seed):
    """Rounding decides between equally good folds, so it must be that of single groups."""
    rng, n, shares = np.random.default_rng(seed), 60, np.full(6, 1 / 6)
    stratum, size = rng.integers(0, 3, n), rng.integers(1, 3, n)
    counts = np.column_stack([(stratum[:, None] == range(3)) * size[:, None], size])
    group_shares = counts / counts.sum(axis=0)
    weight, part = np.square(group_shares).sum(axis=1), rng.integers(0, 6, n)
    excess = np.array([group_shares[part == p].sum(axis=0) for p in range(6)]) - 1 / 6
    order, expected, left = rng.permutation(n), part.copy(), excess.copy()
    for g in order:
        old = expected[g]
        leave = (weight[g] - 2.0 * left[old] @ group_shares[g]) / shares[old]
        change = (2.0 * left @ group_shares[g] + weight[g]) / shares + leave
        change[old] = 0.0
        new = change.argmin()
        if change[new] < -1e-12 and (expected == old).sum() > 1:
            left[old] -= group_shares[g]
            left[new] += group_shares[g]
            expected[g] = new
    assert _move(group_shares, weight, shares, part, excess, order)
    assert part.tolist() == expected.tolist()
    assert np.array_equal(excess, left)

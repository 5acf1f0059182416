"""Clips to label next: known answers, and the command."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import make_table, memory

from mvemo.fuse import BadFeatures
from mvemo.fuse.next_labels import next_labels


@pytest.fixture
def stores():
    """Two labelled clusters; new clips near one of them, between them, and far from both."""
    rng = np.random.default_rng(0)
    table = make_table(n=80, classes=("calm", "tense"))
    kinds = np.asarray(table.labels)
    centres = np.array([[4.0, 0, 0, 0], [-4.0, 0, 0, 0]])
    known = memory(table, timbre=centres[kinds] + rng.normal(size=(80, 4)))
    places = np.repeat([[4.0, 0, 0, 0], [0, 0, 0, 0], [0, 40.0, 0, 0]], (20, 3, 3), axis=0)
    ids, empty = tuple(f"n{i}" for i in range(26)), np.zeros((26, 0), np.int64)
    facts = {"clip_ids": ids, "groups": ids, "labels": empty, "folds": np.full(26, -1), "k": 0}
    new = replace(table, name="new", task="unlabelled", classes=(), **facts)
    return known, memory(new, timbre=places + 0.1 * rng.normal(size=(26, 4)))


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_uncertain_and_unlike_clips_come_first(stores, task):
    known, new = stores
    one_hot = np.eye(2, dtype=np.int64)[known.table.labels]
    labels = {"multiclass": known.table.labels, "multilabel": one_hot, "regression": 1.0 * one_hot}
    known.table = replace(known.table, task=task, labels=labels[task])
    found = next_labels(known, new)
    assert next_labels(known, new, 4) == found[:4]
    order = [int(one.clip_id[1:]) for one in found]
    assert sorted(order) == list(range(26))
    assert all(0 <= one.uncertainty <= 1 for one in found)
    if task == "regression":
        assert {(one.label, one.uncertainty) for one in found} == {("", 1.0)}
        return
    # One of the far clips, and one between the clusters; then the clusters' own.
    assert {(i - 20) // 3 for i in order[:2]} == {0, 1}
    assert {found[order.index(i)].label for i in range(20)} == {"calm"}


def test_features_that_are_not_shared(stores):
    known, new = stores
    other = memory(new.table, mood=new.vectors("timbre")[0])
    with pytest.raises(BadFeatures, match=r"made \(timbre\) and new \(mood\) share no feature"):
        next_labels(known, other)
    empty = memory(new.table, timbre=np.full((26, 4), np.nan))
    with pytest.raises(BadFeatures, match="new: no clip has all of the features timbre"):
        next_labels(known, empty)

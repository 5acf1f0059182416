"""Wrong labels are ranked first, and the stated precision is what planted ones show."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import emomv, make_table, memory

from mvemo.cache import ClipTable
from mvemo.fuse import BadFeatures
from mvemo.fuse.labelling import find_label_errors, label_doubt, next_labels


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_planted_errors_are_found(task):
    rng, n = np.random.default_rng(0), 300
    hidden = rng.normal(size=(n, 3))
    labels = {
        "multiclass": hidden.argmax(axis=1),
        "multilabel": (hidden > 0).astype(int),
        "regression": hidden,
    }[task].copy()
    wrong = rng.choice(n, 15, replace=False)
    if task == "multiclass":
        labels[wrong] = (labels[wrong] + 1) % 3
    else:
        labels[wrong, 0] = 1 - labels[wrong, 0] if task == "multilabel" else 4 - labels[wrong, 0]
    table = ClipTable(
        "made", task, ("a", "b", "c"), tuple(f"c{i}" for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), labels, np.full(n, -1), 0,
    )  # fmt: skip
    values = hidden @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(n, 12))
    found = find_label_errors(memory(table, timbre=values))
    assert found.model == "timbre"
    assert np.isin(found.ranking()[:15], wrong).mean() >= 0.6
    assert found.auroc > (0.85 if task == "regression" else 0.93)
    assert 0.5 <= found.precision <= 1
    assert found.suspects == 0.1 * n * (1 if task == "multiclass" else 3)
    assert found.at_most >= 0.04 / (1 if task == "multiclass" else 3)


def test_the_doubt_is_the_loss_of_the_label():
    outputs = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [np.nan] * 3])
    doubt = label_doubt(np.array([0, 1, 2]), outputs, "softmax")
    np.testing.assert_allclose(doubt[:, 0], -np.log([0.7, 0.1, np.nan]))
    tags = label_doubt(np.array([[1, 0], [0, 1]]), np.array([[0.9, 0.2], [0.4, 0.5]]), "sigmoid")
    np.testing.assert_allclose(tags, -np.log([[0.9, 0.8], [0.6, 0.5]]))


def test_permuted_labels_are_found_by_chance_only():
    rng, n = np.random.default_rng(1), 300
    table = ClipTable(
        "made", "multiclass", ("a", "b"), tuple(f"c{i}" for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), rng.integers(0, 2, n), np.full(n, -1), 0,
    )  # fmt: skip
    values = rng.normal(size=(n, 6)).astype("f4")
    found = find_label_errors(memory(table, timbre=values), share=0.2)
    assert found.auroc == pytest.approx(0.5, abs=0.12)
    assert found.precision == pytest.approx(0.2, abs=0.12)


def test_a_constant_rating_is_not_doubted():
    y = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert label_doubt(y, y + 1, "identity").tolist() == [[2, 0], [2, 0]]


@pytest.mark.parametrize("share", [0.03, 0.25])
def test_known_answers_on_emomv(shared_data, share):
    table, values = emomv(shared_data)
    rng, given = np.random.default_rng(0), table.labels.copy()
    wrong = rng.random(len(given)) < share
    given[wrong] = (given[wrong] + rng.integers(1, 5, wrong.sum())) % 5
    found = find_label_errors(memory(replace(table, labels=given), vggish=values), share=share)
    true = wrong[found.ranking()[: found.suspects]].mean()
    assert found.precision == pytest.approx(true, abs=0.08)
    assert share < found.at_most < share + 0.1


# --- clips to label next


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

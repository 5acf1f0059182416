"""Heads are trained on one data set and tested on another, without recordings of both."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import memory

from mvemo.cache import ClipTable
from mvemo.cache.table import subset
from mvemo.fuse import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.transfer import transfer_all
from mvemo.manifests.schemes import SCHEMES, Scheme

CLASSES = ("calm", "happy", "sad", "tense")
PLANE = {"task": "regression", "classes": ("valence", "arousal")}
LINEAR = EvaluationSettings(kernel=False)


def made(name, n, classes=CLASSES, task="multiclass", seed=0, feature="timbre", **facts):
    """Return the table of a set, and its only feature."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(n, 2))
    quadrant = np.where(plane[:, 1] >= 0, np.where(plane[:, 0] >= 0, 1, 3), 2)
    quadrant[(plane[:, 1] < 0) & (plane[:, 0] >= 0)] = 0
    labels = quadrant if task == "multiclass" else np.clip(5 + 1.5 * plane, 1, 9)
    table = ClipTable(
        name, task, classes, tuple(f"{name}{i}" for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), labels, np.full(n, -1), 0, **facts,
    )  # fmt: skip
    basis = np.random.default_rng(7).normal(size=(2, 16))
    return table, {feature: plane @ basis + rng.normal(size=(n, 16))}


def transferred(*sets, settings=LINEAR, **options):
    stores = [memory(table, **values) for table, values in sets]
    found = transfer_all(stores, settings=settings, **options)
    return {(t.source, t.target): t for t in found}


def test_heads_of_a_set_like_the_other_lose_little():
    # With all models, among which each fold chooses.
    found = transferred(made("a", 240), made("b", 200, seed=1), settings=EvaluationSettings())
    one = found["a", "b"]
    assert (one.n_train, one.n_test, one.n_shared, one.metric) == (240, 200, 0, "accuracy")
    assert one.score > 0.6 > one.baseline
    assert one.interval[0] < 0.05
    assert one.loss == pytest.approx(one.own - one.score)
    assert set(one.others) == {"MCC"}
    assert all(0.4 < score < 1 for score in one.others["MCC"])


def test_recordings_of_both_sets_are_left_out():
    _, values = made("a", 200)
    table, others = made("b", 200, seed=1)
    others["timbre"][:30] = values["timbre"][50:80]
    one = transferred(made("a", 200), (table, others))["a", "b"]
    assert (one.n_shared, one.n_train) == (30, 170)


@pytest.mark.parametrize("scale", ["1..9", ""])
def test_ratings_by_their_scales_or_deviations(scale):
    a, b = made("a", 240, **PLANE, scale="1..9"), made("b", 200, seed=1, **PLANE, scale=scale)
    one = transferred(a, b)["a", "b"]
    assert (one.metric, one.classes) == ("r2_macro", ("valence", "arousal"))
    assert one.score > 0.4
    assert set(one.others) == {"r valence", "r arousal"}


def test_classes_by_a_scheme(monkeypatch):
    words = {"mellow": "calm", "furious": "tense", "calm": "calm", "tense": "tense"}
    monkeypatch.setitem(SCHEMES, "mine", Scheme("mine", ("calm", "tense"), words))
    a, b = made("a", 200), made("b", 200, ("mellow", "joy", "gloom", "furious"), seed=1)
    one = transferred(a, b, scheme="mine")["a", "b"]
    assert one.classes == ("calm", "tense")
    with pytest.raises(BadFeatures, match=r"0 classes in common .*: give a --scheme"):
        transferred(a, b)


def test_sets_without_a_common_feature():
    with pytest.raises(BadFeatures, match="no frozen or imported feature in common"):
        transferred(made("a", 60), made("b", 60, feature="rhythm"))


def test_permuted_labels_teach_nothing():
    table, values = made("p", 240)
    table = replace(table, labels=np.random.default_rng(3).permutation(table.labels))
    one = transferred((table, values), made("b", 200, seed=1))["p", "b"]
    assert one.score == pytest.approx(0.25, abs=0.12)
    assert one.interval[0] > 0.1


def test_a_part_of_another_set():
    table, values = whole = made("a", 600)
    part = replace(subset(table, range(250)), name="part"), {"timbre": values["timbre"][:250]}
    found = transferred(whole, part)
    for pair, n_train, n_test in ((("a", "part"), 350, 250), (("part", "a"), 250, 350)):
        one = found[pair]
        assert (one.n_train, one.n_test, one.n_shared) == (n_train, n_test, 250)
    with pytest.raises(BadFeatures, match=r"has the same recordings as .*: leave out one"):
        transferred(whole, (replace(table, name="b"), values))

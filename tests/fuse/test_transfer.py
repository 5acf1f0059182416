"""Heads are trained on one data set and tested on another, without recordings of both."""

from dataclasses import replace

import numpy as np
import pytest

from mvemo.cache import ClipTable, import_feature, open_cache
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.transfer import transfer_all

CLASSES = ("calm", "happy", "sad", "tense")


def write(
    path, n, classes=CLASSES, task="multiclass", seed=0, shift=0.0, names=("timbre",), **facts
):
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(n, 2))
    quadrant = np.where(plane[:, 1] >= 0, np.where(plane[:, 0] >= 0, 1, 3), 2)
    quadrant[(plane[:, 1] < 0) & (plane[:, 0] >= 0)] = 0
    labels = quadrant if task == "multiclass" else np.clip(5 + 1.5 * plane, 1, 9)
    table = ClipTable(
        path.stem, task, classes, tuple(f"{path.stem}{i}" for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), labels, np.full(n, -1), 0, **facts,
    )  # fmt: skip
    basis = np.random.default_rng(7).normal(size=(2, 16))
    values = plane @ basis + shift + rng.normal(size=(n, 16))
    for name in names:
        import_feature(path, name, "audio", values.astype(np.float32), table=table)
    return path, values


def transferred(*paths, **options):
    caches = [open_cache(path) for path in paths]
    return {(t.source, t.target): t for t in transfer_all(caches, **options)}


def test_heads_of_a_set_like_the_other_lose_little(tmp_path):
    found = transferred(write(tmp_path / "a.h5", 240)[0], write(tmp_path / "b.h5", 200, seed=1)[0])
    assert set(found) == {("a", "b"), ("b", "a")}
    one = found["a", "b"]
    assert (one.n_train, one.n_test, one.n_shared, one.metric) == (240, 200, 0, "accuracy")
    assert one.score > 0.6 > one.baseline
    assert one.interval[0] < 0.05
    assert one.loss == pytest.approx(one.own - one.score)


def test_recordings_of_both_sets_are_left_out(tmp_path):
    _, values = write(tmp_path / "a.h5", 200)
    path, others = write(tmp_path / "b.h5", 200, seed=1)
    with open_cache(path) as cache:
        table = cache.table
    others[:30] = values[50:80]
    path = tmp_path / "c.h5"
    import_feature(path, "timbre", "audio", others.astype(np.float32), table=table)
    one = transferred(tmp_path / "a.h5", path)["a", "b"]
    assert (one.n_shared, one.n_train) == (30, 170)


def test_ratings_by_their_scales_and_as_quadrants(tmp_path):
    plane = {"task": "regression", "classes": ("valence", "arousal"), "scale": "1..9"}
    a, b = (
        write(tmp_path / "a.h5", 240, **plane)[0],
        write(tmp_path / "b.h5", 200, seed=1, **plane)[0],
    )
    one = transferred(a, b)["a", "b"]
    assert (one.metric, one.classes) == ("r2_macro", ("valence", "arousal"))
    assert one.score > 0.4
    named = write(tmp_path / "c.h5", 200, ("Q4", "Q1", "Q3", "Q2"), seed=2)[0]
    one = transferred(a, named, scheme="quadrants")["a", "c"]
    assert one.classes == ("calm", "excited", "sad", "tense")
    assert one.score > 0.6


def test_classes_by_a_scheme(tmp_path):
    words = {"mellow": "calm", "furious": "tense"}
    a = write(tmp_path / "a.h5", 200)[0]
    b = write(tmp_path / "b.h5", 200, ("mellow", "joy", "gloom", "furious"), seed=1)[0]
    one = transferred(a, b, scheme=lambda name: words.get(name, name))["a", "b"]
    assert one.classes == ("calm", "tense")
    with pytest.raises(BadFeatures, match=r"0 classes in common .*: give a --scheme"):
        transferred(a, b)


def test_sets_without_a_common_feature(tmp_path):
    a = write(tmp_path / "a.h5", 60)[0]
    b = write(tmp_path / "b.h5", 60, names=("rhythm",))[0]
    with pytest.raises(BadFeatures, match="no frozen or imported feature in common"):
        transferred(a, b)


def test_permuted_labels_teach_nothing(tmp_path):
    a, values = write(tmp_path / "a.h5", 240)
    with open_cache(a) as cache:
        labels = np.random.default_rng(3).permutation(cache.table.labels)
        table = replace(cache.table, labels=labels, name="p")
    p = tmp_path / "p.h5"
    import_feature(p, "timbre", "audio", values.astype(np.float32), table=table)
    one = transferred(p, write(tmp_path / "b.h5", 200, seed=1)[0])["p", "b"]
    assert one.score == pytest.approx(0.25, abs=0.12)
    assert one.interval[0] > 0.1


def test_ratings_of_which_one_set_states_the_scale(tmp_path):
    plane = {"task": "regression", "classes": ("valence", "arousal")}
    a = write(tmp_path / "a.h5", 240, scale="1..9", **plane)[0]
    assert transferred(a, write(tmp_path / "b.h5", 200, seed=1, **plane)[0])["a", "b"].score > 0.4


def test_a_part_of_another_set(tmp_path):
    whole, values = write(tmp_path / "a.h5", 600)
    with open_cache(whole) as cache:
        table = replace(
            cache.table, name="part", labels=cache.table.labels[:250], folds=np.full(250, -1),
            clip_ids=cache.table.clip_ids[:250], groups=cache.table.groups[:250],
        )  # fmt: skip
    part = tmp_path / "part.h5"
    import_feature(part, "timbre", "audio", values[:250].astype(np.float32), table=table)
    found = transferred(whole, part)
    for pair, n_train, n_test in ((("a", "part"), 350, 250), (("part", "a"), 250, 350)):
        one = found[pair]
        assert (one.n_train, one.n_test, one.n_shared) == (n_train, n_test, 250)
    with pytest.raises(BadFeatures, match=r"has the same recordings as .*: leave out one"):
        transferred(whole, write(tmp_path / "b.h5", 600)[0])


@pytest.mark.parametrize(
    ("facts", "titles"),
    [
        ({}, {"MCC"}),
        (
            {"task": "regression", "classes": ("valence", "arousal"), "scale": "1..9"},
            {"r valence", "r arousal"},
        ),
    ],
)
def test_mcc_and_r_stand_next_to_the_score(tmp_path, facts, titles):
    paths = [write(tmp_path / f"{n}.h5", 80, seed=s, **facts)[0] for s, n in enumerate("ab")]
    others = transferred(*paths)["a", "b"].others
    assert set(others) == titles
    assert all(0.4 < score < 1 for pair in others.values() for score in pair)

"""Songs decided from their segments, against sums by hand."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import frozen_cache, make_table
from fuse_samples import evaluated, make_results

from mvemo.fuse import BadFeatures
from mvemo.fuse.songs import RULES, decide_songs, song_level


def segments(n_songs=24, each=3, *, spread=1.0, seed=0, permuted=False):
    """Results of segments ``song i@start``; songs in groups of two."""
    made = make_results(n_songs * each, 3, missing=0, seed=seed)
    rng = np.random.default_rng(seed)
    song = np.repeat(np.arange(n_songs), each)
    labels = (np.arange(n_songs) // 2 % 6)[song]
    scores = 0.7 * np.eye(6)[labels] + spread * rng.normal(size=(len(song), 6))
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return replace(
        made,
        clip_ids=tuple(f"song {s}@{10 * (i % each)}" for i, s in enumerate(song)),
        groups=tuple(f"artist {s // 2}" for s in song),
        y_true=rng.permutation(labels) if permuted else labels,
        folds=song // 2 % 3,
        models=(replace(made.models[0], outputs=probabilities),),
        permuted=permuted,
    )


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_by_hand(rule):
    results = segments()
    songs = song_level(results, rule=rule)
    assert songs.clip_ids == tuple(f"song {i}" for i in range(24))
    assert songs.groups[3] == "artist 1"
    got = songs.models[0].outputs
    own = results.models[0].outputs.reshape(24, 3, 6)
    if rule == "mean":
        expected = own.mean(axis=1)
    elif rule == "log-mean":
        root = own.prod(axis=1) ** (1 / 3)
        expected = root / root.sum(axis=1, keepdims=True)
    else:
        expected = (own == own.max(axis=2, keepdims=True)).mean(axis=1)
        best = expected == expected.max(axis=1, keepdims=True)
        ties = np.where(best, own.mean(axis=1), 0).argmax(axis=1)
        np.testing.assert_array_equal(got.argmax(axis=1), ties)
    np.testing.assert_allclose(got, expected, atol=1e-5 if rule == "vote" else 1e-9)
    right = got.argmax(axis=1) == np.arange(24) // 2 % 6
    folds = np.arange(24) // 2 % 3
    expected = [right[folds == f].mean() for f in range(3)]
    np.testing.assert_allclose(songs.models[0].per_fold["accuracy"], expected)
    expected = {"segments": 72, "songs": 24, "by": "clip", "rule": rule}
    assert (songs.name, songs.provenance["songs"]) == ("made by hand, by song", expected)


def test_by_group():
    results = segments()
    songs = song_level(results, by="group")
    assert songs.clip_ids == songs.groups == tuple(f"artist {i}" for i in range(12))
    expected = results.models[0].outputs[:6].mean(axis=0)
    np.testing.assert_allclose(songs.models[0].outputs[0], expected)


def test_missing_segments_are_left_out_and_missing_songs_are_missing():
    results = segments()
    (model,) = results.models
    p = model.outputs.copy()
    p[[1, 3, 4, 5]] = np.nan
    (feature,) = model.features
    present = {feature: np.isfinite(p[:, 0]), "other": np.arange(len(p)) > 0}
    results = replace(results, models=(replace(model, outputs=p),), present=present)
    for rule in RULES:
        songs = song_level(results, rule=rule)
        got = songs.models[0].outputs
        assert np.isnan(got[1]).all()
        assert np.isfinite(np.delete(got, 1, axis=0)).all()
        assert songs.models[0].confusion.sum() == 23
        assert songs.missing == {feature: 1, "other": 0}
    np.testing.assert_allclose(song_level(results).models[0].outputs[0], p[[0, 2]].mean(0))


def test_a_sure_no_of_one_segment_rules_nothing_out():
    p = np.array([[0.0, 1.0], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    for rule, winner in zip(RULES, (0, 1, 0), strict=True):
        got = decide_songs(p, np.zeros(5, np.int64), 1, rule)
        assert np.isfinite(got).all()
        assert got[0].argmax() == winner
    assert decide_songs(p, np.zeros(5, np.int64), 1, "log-mean")[0, 0] > 0.01


@pytest.mark.parametrize(
    ("what", "name"), [("label", "y_true"), ("group", "groups"), ("fold", "folds")]
)
def test_segments_that_do_not_belong_together_are_refused(what, name):
    results = segments()
    values = np.array(getattr(results, name))
    values[1] = values[-1]
    with pytest.raises(BadFeatures, match=f"song 0@10' differs in its {what} from"):
        song_level(replace(results, **{name: values}))
    with pytest.raises(BadFeatures, match="one of mean, log-mean, vote"):
        song_level(results, rule="median")


def test_of_permuted_labels_that_of_the_first_segment_counts():
    results = segments(permuted=True)
    assert (song_level(results).y_true == results.y_true[::3]).all()


def test_songs_of_an_evaluation(tmp_path):
    table = make_table(240, group_size=4)
    ids = tuple(f"{table.groups[i]}@{i % 4}" for i in range(240))
    results = evaluated(frozen_cache(tmp_path / "f.h5", replace(table, clip_ids=ids)))
    songs = song_level(results)
    assert len(songs.clip_ids) == 60
    assert songs.heads == results.heads
    for a, b in zip(songs.models, results.models, strict=True):
        assert a.name == b.name
        assert a.confusion.sum() == 60
        assert np.mean(a.per_fold["accuracy"]) > np.mean(b.per_fold["accuracy"]) - 0.02

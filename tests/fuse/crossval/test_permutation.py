"""Labels that are drawn at random: chance is chance, and leaks between groups show."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import features, frozen_cache, make_table, spec, write_cache
from fuse_samples import evaluated, primary
from hypothesis import given
from hypothesis import strategies as st
from output_samples import task_cache, task_table

from mvemo.fuse import format_table, metrics_dict
from mvemo.fuse.audit import Finding
from mvemo.fuse.crossval.permutation import chance_p, label_blocks, random_labels


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=40),
    st.integers(0, 5),
    st.sampled_from([(), (3,)]),
)
def test_blocks_keep_together_and_have_labels_of_one_block(blocks, seed, shape):
    blocks = np.unique(blocks, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    # Every block has one label, which no other block has.
    y_true = blocks.reshape(-1, *(1 for _ in shape)) * np.ones(shape, int)
    drawn = random_labels(y_true, blocks, seed)
    assert drawn.shape == y_true.shape
    assert {*drawn.ravel()} <= {*y_true.ravel()}
    for block in np.unique(blocks):
        assert len(np.unique(drawn[blocks == block])) == 1
    if len(np.unique(blocks)) > 1:
        assert len(np.unique(drawn)) > 1
    # Labels within a block are mixed.
    y_true = rng.normal(size=len(blocks))
    assert {*random_labels(y_true, blocks, seed)} <= {*y_true}


def test_groups_with_equal_clips_are_one_block():
    table = make_table(n=12, k=0, group_size=2)
    near = Finding(
        "duplicate-across-groups", "x", (), "", "", (("clip 0", "clip 2"), ("clip 3", "clip 11"))
    )
    blocks = label_blocks(
        table, [near, replace(near, kind="outlier", pairs=(("clip 4", "clip 6"),))]
    )
    assert len(np.unique(blocks)) == 4
    assert len(np.unique(blocks[[0, 1, 2, 3, 10, 11]])) == 1


def test_scores_on_random_labels_are_at_chance_on_average(tmp_path):
    """With labels shuffled over stratified folds the mean was .04 in place of .167."""
    path = frozen_cache(tmp_path / "f.h5", make_table(n=96, k=6), names=("music1d", "c3d"))
    options = {"late": True, "choose_model": True, "permute_labels": True, "C": 0.01}
    runs = [evaluated(path, seed=seed, **options) for seed in range(30)]
    for name in ("music1d", "integrated-late", "majority class", "nested"):
        scores = []
        for run in runs:
            models = [*run.models, run.baseline, replace(run.choice.nested, name="nested")]
            scores.append(primary(next(m for m in models if m.name == name)).mean())
        error = np.std(scores) / len(scores) ** 0.5
        assert abs(np.mean(scores) - 1 / 6) < 0.02 + 2 * error, name


def pieces_as_groups(n_songs=20, each=6, dim=16, noise=0.1):
    """Pieces of songs whose labels no feature knows, each in a group of its own."""
    table = make_table(n=n_songs * each, k=0, group_size=1)
    song = np.arange(n_songs).repeat(each)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_songs, dim))[song] + noise * rng.normal(size=(len(song), dim))
    return replace(table, labels=(song % 6).astype(np.int64)), values.astype(np.float32)


def test_a_leak_between_groups_is_far_above_chance(tmp_path):
    table, values = pieces_as_groups()
    path = write_cache(tmp_path / "f.h5", table, [(spec("music1d", 16), values)])
    assert primary(evaluated(path, C=1.0).models[0]).mean() > 0.95
    for seed in range(3):
        drawn = evaluated(path, C=1.0, permute_labels=True, seed=seed)
        assert primary(drawn.models[0]).mean() > 0.9
    # With the songs as groups the labels cannot be known.
    whole = replace(table, groups=tuple(f"song {i // 6}" for i in range(len(table))))
    path = write_cache(tmp_path / "g.h5", whole, [(spec("music1d", 16), values)])
    drawn = [evaluated(path, C=1.0, permute_labels=True, seed=seed) for seed in range(5)]
    assert np.mean([primary(one.models[0]).mean() for one in drawn]) < 0.4


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_scores_are_compared_with_those_of_random_labels(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task, n=120), names=("music1d", "c3d"))
    results = evaluated(path, choose_model=True, permute_labels=20)
    assert not results.permuted
    assert {len(drawn) for drawn in results.chance.values()} == {20}
    facts = metrics_dict(results)["chance"]
    assert {*facts} == {"choice", *(m.name for m in results.models)}
    assert facts["choice"]["p"] == pytest.approx(1 / 21)
    text = " ".join(format_table(results).split())
    assert "On 20 random draws of the labels the same procedure has" in text
    assert "permutation p 0.048" in text
    # Features that know nothing of the labels.
    table = task_table(task, n=60)
    made = [(spec("c3d", 6), features(make_table(n=60), "c3d", 6, 0.0))]
    chance = evaluated(write_cache(tmp_path / "g.h5", table, made), permute_labels=20).chance
    assert np.ptp(chance["c3d"]) > 0


def test_p_counts_the_score_itself():
    assert chance_p(0.5, np.array([0.1, 0.5, 0.7])) == 0.75
    assert chance_p(0.9, np.zeros(19)) == 0.05

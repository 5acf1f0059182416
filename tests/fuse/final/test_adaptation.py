"""Adaptation of heads: what stays, what is mended, and that an adapted head is exact."""

import numpy as np
import pytest
from feature_samples import features, frozen_cache, make_table
from fuse_samples import built
from output_samples import output_cache, output_features, output_table
from scipy.special import logsumexp

from mvemo.fuse import Clips, task_of
from mvemo.fuse.final.adaptation import STRENGTHS, Adaptation, first_of, predictor_outputs

TABLE = make_table()
NAMES = ("music1d", "i3d")
N = 60  # labelled clips; the others are anchors
EVERY = np.ones(N, bool)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = frozen_cache(tmp_path_factory.mktemp("adapt") / "f.h5", TABLE, names=NAMES)
    return built(path, late=True)[0]


@pytest.fixture
def vectors():
    return {(name, None): features(TABLE, name).astype(float) for name in NAMES}


def adaptation(model, vectors, labels=TABLE.labels[:N]):
    return Adaptation(model, vectors, labelled(labels))


def labelled(labels, groups=TABLE.groups):
    n = len(labels)
    return Clips(task_of("multiclass"), labels, groups[:n], np.full(n, -1), 6)


def accuracy(model, vectors, labels, rows):
    chosen = first_of(predictor_outputs(model, vectors)).argmax(axis=1)
    return (chosen == labels)[rows].mean()


def test_without_strength_the_model_stays(model, vectors):
    assert adaptation(model, vectors).adapted(EVERY, 0.0).heads.heads == model.heads.heads


def test_a_clip_without_a_feature_is_predicted_by_the_others(model, vectors):
    vectors["i3d", None][5] = np.nan
    outputs = predictor_outputs(model, vectors)
    for predictor, of_clips in zip(model.predictors, outputs, strict=True):
        assert np.isnan(of_clips[5]).all() == ("i3d" in predictor.features)
    assert np.isfinite(first_of(outputs)).all()
    adapted = adaptation(model, vectors).adapted(EVERY, 1.0)
    assert np.isfinite(first_of(predictor_outputs(adapted, vectors))).all()


@pytest.mark.parametrize("n_labelled", [8, 118])
def test_an_adapted_head_minimises_the_stated_objective(model, vectors, n_labelled):
    """The loss of the head that is returned is below that of heads around it."""
    alone = {key: values[:n_labelled] for key, values in vectors.items()}  # without anchors
    y_true = (TABLE.labels[:n_labelled] + 1) % 6
    rows = np.ones(n_labelled, bool)
    (i, head) = next((i, h) for i, h in enumerate(model.heads.heads) if h.features == ("i3d",))
    made = Adaptation(model, alone, labelled(y_true))
    new = made.adapted(rows, 0.3).heads.heads[i]
    z = (alone["i3d", None] - head.mean) / head.scale
    z = z.clip(-head.limit, head.limit)

    def loss(coef, intercept):
        scores = z @ coef.T + intercept
        return (logsumexp(scores, axis=1) - scores[np.arange(n_labelled), y_true]).sum()

    best = loss(new.coef, new.intercept)
    assert best < loss(head.coef, head.intercept)
    # Further along the same line the loss falls, but not by what the penalty grows.
    stronger = made.adapted(rows, 3.0).heads.heads[i]
    assert loss(stronger.coef, stronger.intercept) < best


def test_swapped_classes_are_mended_in_fusions_as_well(model, vectors):
    swapped = np.array([1, 0, 2, 3, 4, 5])[TABLE.labels]
    made = adaptation(model, vectors, swapped[:N])
    strength = made.choose(EVERY)
    assert strength in STRENGTHS[1:]
    rest = np.arange(N, len(TABLE))
    before = accuracy(model, vectors, swapped, rest)
    after = accuracy(made.adapted(EVERY, strength), vectors, swapped, rest)
    assert after > before + 0.2
    of_folds = first_of(made.out_of_fold())
    assert (of_folds.argmax(axis=1) == swapped[:N]).mean() > 0.8


def test_anchors_keep_the_answers_on_other_clips(model, vectors):
    """Labels of one corner of the data contradict the model; the rest is left as it was."""
    shuffled = TABLE.labels[:N].copy()
    shuffled[:12] = 0
    rest = np.arange(N, len(TABLE))
    kept = adaptation(model, vectors, shuffled).adapted(EVERY, 3.0)
    alone = {key: values[:N] for key, values in vectors.items()}
    free = Adaptation(model, alone, labelled(shuffled)).adapted(EVERY, 3.0)
    old = first_of(predictor_outputs(model, vectors))[rest]
    moved = [
        np.abs(first_of(predictor_outputs(one, vectors))[rest] - old).sum() for one in (kept, free)
    ]
    assert moved[0] < 0.8 * moved[1]


def test_ratings_of_clips_that_are_left_out_change_nothing(tmp_path):
    table = output_table("regression")
    model, _ = built(output_cache(tmp_path / "f.h5", table))
    vectors = {(s.name, None): output_features(table, s.name).astype(float) for s in model.specs}
    rows, heads = np.arange(N) < 40, []
    for extreme in (0.0, 5.0):
        labels = table.labels[:N] + extreme * ~rows[:, None]
        clips = Clips(task_of("regression"), labels, table.groups[:N], np.full(N, -1), 2)
        heads.append(Adaptation(model, vectors, clips).adapted(rows, 1.0).heads.heads)
    for one, other in zip(*heads, strict=True):
        np.testing.assert_array_equal(one.coef, other.coef)
        np.testing.assert_array_equal(one.ends, other.ends)


def test_one_group_is_not_cross_validated(model, vectors):
    made = Adaptation(model, vectors, labelled(TABLE.labels[:2], ("g", "g")))
    assert made.choose(np.ones(2, bool)) == 0.0
    assert np.isnan(made.out_of_fold()).all()

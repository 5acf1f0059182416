"""Arrays and data frames: what is read as clips, labels, groups and folds."""

import numpy as np
import pandas
import pytest

from mvemo.fuse import BadFeatures
from mvemo.fuse.arrays import folds_of_clips, store_of

N = 12
IDS = [f"c{i}" for i in range(N)]
X = pandas.DataFrame(np.random.default_rng(0).normal(size=(N, 3)), index=IDS)
Y = pandas.Series(["calm", "tense"] * 6, index=IDS)


def test_an_index_has_the_clip_ids_and_any_order():
    shuffled = np.random.default_rng(1).permutation(N)
    groups = pandas.Series(np.arange(N) // 2, index=IDS)
    blocks = {"audio:mfcc": X.iloc[shuffled], "lyrics": X.iloc[2:]}
    store = store_of(blocks, Y, groups.iloc[shuffled[::-1]])
    assert store.table.clip_ids == tuple(IDS)
    assert store.table.groups == tuple(str(i // 2) for i in range(N))
    assert [(s.name, s.modality) for s in store.specs] == [("lyrics", "lyrics"), ("mfcc", "audio")]
    np.testing.assert_array_equal(store.vectors("mfcc")[0], X.to_numpy("f4"))
    assert store.present("lyrics").tolist() == [False] * 2 + [True] * 10
    folds = folds_of_clips(groups.iloc[shuffled] % 3, store.table)
    assert folds.assignment.tolist() == [i // 2 % 3 for i in range(N)]


def test_without_an_index_rows_have_the_order_of_the_clips():
    store = store_of(X.to_numpy().tolist(), Y.tolist())
    assert store.table.clip_ids == store.table.groups == tuple(map(str, range(N)))
    assert store_of(X, Y.tolist()).table.clip_ids == tuple(IDS)


@pytest.mark.parametrize(
    ("y", "options", "task", "classes"),
    [
        (Y, {}, "multiclass", ("calm", "tense")),
        (Y.astype("category"), {}, "multiclass", ("calm", "tense")),
        (np.arange(N) % 2 == 0, {}, "multiclass", ("False", "True")),
        (np.arange(N) % 3 + 9, {}, "multiclass", ("9", "10", "11")),
        (np.arange(N)[:, None] % 2.0, {}, "multiclass", ("0", "1")),
        (np.arange(N) % 5, {"task": "regression"}, "regression", ("target 0",)),
        (X[0].rename("valence"), {}, "regression", ("valence",)),
        (X.rename(columns=str), {}, "regression", ("0", "1", "2")),
        (X > 0, {}, "multilabel", ("0", "1", "2")),
        ((X > 0).to_numpy().astype(float), {}, "multilabel", ("tag 0", "tag 1", "tag 2")),
    ],
)
def test_labels_of_each_kind(y, options, task, classes):
    table = store_of(X, y, **options).table
    assert (table.task, table.classes) == (task, classes)
    values = np.asarray(y)
    if task == "multiclass":
        assert [classes[i] for i in table.labels] == [
            str(int(v) if isinstance(v, float) else v) for v in values.ravel().tolist()
        ]
    else:
        np.testing.assert_array_equal(table.labels, values.reshape(N, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y.iloc[:9]), "3 of 12 clips have no label, such as 'c9': give X and y the same index"),
        ((X, Y.tolist()[:9]), "y: expected 12 rows, one for each clip, got 9"),
        ((X.to_numpy()[:9], Y), r"X\['features'\]: expected 12 rows, one for each clip, got 9"),
        ((X, Y, Y.iloc[:9]), "groups: 3 of 12 clips are not in its index, such as 'c9'"),
        ((X, Y.where(Y == "calm")), "y: has missing labels"),
        ((X, X[0].where(X[0] > 0)), "y: has missing labels"),
        ((X, ["calm"] * N), r"expected at least two classes, got \['calm'\]"),
        ((X.assign(title="a"), Y), "column 'title': expected numbers, got 'a': leave it out"),
        ((pandas.concat([X, X]), Y), "the index has 'c0' twice"),
        ((X.to_numpy()[:, :, None], Y), r"got \(12, 3, 1\): give one vector per clip"),
        (([[1], [1, 2]], ["a", "b"]), "the rows have different lengths"),
        (({"Lyrics": X}, Y), "modality 'Lyrics': .*: name it MODALITY or MODALITY:FEATURE"),
        ((X, X, None, "multilabel"), "of tags of 0 and 1, got shape"),
        ((X, Y, None, "regression"), "y: column '0': expected numbers, got 'calm'"),
        ((X, Y, None, "mood"), "unknown task 'mood'"),
        ((5, Y), "expected one row for each clip, got 5"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message):
    with pytest.raises(BadFeatures, match=message):
        store_of(*arguments)


def test_a_group_in_two_folds_is_refused():
    table = store_of(X, Y, np.arange(N) // 2).table
    with pytest.raises(BadFeatures, match=r"group '0' is in folds 0 and 1 \(5 more"):
        folds_of_clips(np.arange(N) % 2, table)
    with pytest.raises(BadFeatures, match=r"at least two different folds, got \[0\]"):
        folds_of_clips([0] * N, table)

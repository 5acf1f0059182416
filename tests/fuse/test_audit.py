"""Each planted fault of the data is found, with its clips; sound data have no finding."""

import csv

import numpy as np
import pytest
from feature_samples import emomv, memory
from typed_records import misfits

from mvemo.cache import ClipTable
from mvemo.fuse.audit import FindingRecord, audit_cache

N = 240
CLASSES = ("calm", "happy", "sad", "tense")


def table(task="multiclass", **changes):
    rng = np.random.default_rng(0)
    labels = {
        "multiclass": rng.integers(0, 4, N),
        "multilabel": rng.integers(0, 2, (N, 3)),
        "regression": rng.normal(size=(N, 2)),
    }.get(task)
    classes = {"multiclass": CLASSES, "regression": ("valence", "arousal")}.get(task, CLASSES[:3])
    values = {
        "name": "made", "task": task, "classes": classes, "labels": labels, "k": 0,
        "clip_ids": tuple(f"c{i}" for i in range(N)), "folds": np.full(N, -1),
        "groups": tuple(f"g{i // 3}" for i in range(N)),
    }  # fmt: skip
    return ClipTable(**{**values, **changes})


def vectors(seed, dim=24):
    return np.random.default_rng(seed).normal(size=(N, dim)).astype(np.float32)


def findings(clips, splits=None, **features):
    return audit_cache(memory(clips, **features), splits)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_independent_features_have_no_finding(task):
    # The columns of the last one are more than training clips, but fewer than clips.
    wide = vectors(2, 300), vectors(3, 220)
    assert findings(table(task), a=vectors(1), b=wide[0], c=wide[1]) == ()


def test_copies_in_other_groups_splits_and_classes():
    clips, values = table(), vectors(1)
    values[[100, 200]] = values[[0, 10]]
    clips.labels[[0, 100]], clips.labels[[10, 200]] = 1, (2, 3)
    splits = {f"c{i}": "val" if i == 100 else "train" for i in range(N)}
    found = {f.kind: f for f in findings(clips, splits, timbre=values)}
    assert found["duplicate-across-groups"].clips == ("c0", "c10", "c100", "c200")
    assert "4 of 240 clips" in found["duplicate-across-groups"].message
    assert found["duplicate-across-splits"].clips == ("c0", "c100")
    assert found["label-conflict"].clips == ("c10", "c200")
    assert len(found) == 3
    assert all(f.feature == "timbre" and f.cure for f in found.values())


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("how", ["columns", "mixed", "codes"])
def test_features_made_from_the_labels(task, how):
    clips, rng = table(task), np.random.default_rng(5)
    y = clips.labels if task != "multiclass" else np.eye(4)[clips.labels]
    leak = {
        "columns": y,
        "mixed": y @ rng.normal(size=(y.shape[1], 16)),
        "codes": clips.labels.reshape(N, -1),
    }[how] + rng.normal(scale=0.05, size=(N, 1))
    leak = np.concatenate([np.ones((N, 1)), leak], axis=1).astype(np.float32)
    found = findings(clips, honest=vectors(1), leak=leak)
    assert ("label-leakage", "leak") in [(f.kind, f.feature) for f in found]
    assert {f.kind for f in found} == {"label-leakage", "constant"}
    if how == "codes":
        (message,) = (f.message for f in found if f.kind == "label-leakage")
        n = leak.shape[1]
        assert f"of {n - 1} of {n} columns ({', '.join(map(str, range(1, n)))})" in message


def test_a_good_feature_is_not_a_leak():
    clips = table()
    values = vectors(1) + 1.5 * np.eye(24, dtype=np.float32)[clips.labels]
    assert findings(clips, good=values) == ()


def test_faulty_columns_and_clips():
    values = vectors(1)
    values[:, 3], values[:, 5], values[:, 7] = 2.0, values[:, 4], values[:, 7] * 1e8
    values[17, 8:] = 1e4
    found = {f.kind: f for f in findings(table(), timbre=values)}
    assert {"constant", "duplicate-columns", "units", "outlier"} <= set(found)
    assert found["duplicate-columns"].message.endswith(": 5")
    assert found["units"].message.endswith(": 7")
    assert found["outlier"].clips == ("c17",)


def test_multiples_and_rounded_copies_of_columns():
    values = vectors(1).astype(np.float64)
    values[:, 3], values[:, 5] = 2 * values[:, 2], 7 - values[:, 4] / 3
    values[:, 9] = values[:, 8] + 1e-6 * vectors(2)[:, 0]
    # Nearly all values of a column may be equal.
    values[:, 10] *= np.arange(N) % 40 == 0
    values[:, 11] = 3 * values[:, 10]
    # Rounding is no copy.
    values[:, 20:24] = 1 + 6e-8 * (np.arange(N)[:, None] % 7 == 0) * np.arange(1, 9, 2)
    # An outlier makes columns nearly proportional, and so do tails.
    values[17, 12:20] = 1e5
    found = {f.kind: f for f in findings(table(), timbre=values.astype(np.float32))}
    assert found["duplicate-columns"].message.endswith(": 3, 5, 9, 11")


def test_pieces_in_several_groups_and_splits():
    ids = tuple(f"a/Vol. {i // 3}-{i % 3 + 1}-of-3@{i % 3}" for i in range(N))
    clips = table(clip_ids=ids, groups=tuple(f"g{i // 2}" for i in range(N)))
    splits = dict.fromkeys(ids, "train") | {ids[1]: "test"}
    found = {f.kind: f for f in findings(clips, splits, timbre=vectors(1))}
    assert found["source-across-splits"].clips == ids[:3]
    assert len(found["source-across-groups"].clips) == N
    whole = table(clip_ids=ids)
    assert findings(whole, dict.fromkeys(ids, "train"), timbre=vectors(1)) == ()


def test_tags_without_names():
    clips = table("multilabel", classes=(), labels=np.zeros((N, 0), np.int64))
    assert findings(clips, timbre=vectors(1)) == ()


def test_singers_that_are_told_apart_better_than_moods():
    clips = table(groups=tuple(f"singer{i % 12}" for i in range(N)))
    singer = np.random.default_rng(2).normal(size=(12, 24))[np.arange(N) % 12]
    found = findings(clips, voice=vectors(1) + singer.astype(np.float32))
    assert [f.kind for f in found] == ["batch-effect"]


def test_a_class_in_fewer_groups_than_folds():
    labels = np.arange(N) // 3 % 3
    labels[:12] = 3
    (found,) = findings(table(labels=labels), timbre=vectors(1))
    assert (found.kind, len(found.clips)) == ("few-groups", 12)
    assert found.record()["clips"][:2] == ["c0", "c1"]
    assert misfits(found.record(), FindingRecord) == []


def test_clips_without_labels_are_compared_with_each_other():
    clips = table(task="unlabelled", classes=(), labels=np.zeros((N, 0), np.int64))
    values = vectors(1)
    values[100] = values[0]
    (found,) = findings(clips, timbre=values)
    assert found.kind == "duplicate-across-groups"


def test_known_answers_on_emomv(shared_data):
    clips, values = emomv(shared_data)
    splits = {clip: clip.partition("/")[0] for clip in clips.clip_ids}
    found = findings(clips, splits, vggish=values)
    assert "label-leakage" not in {f.kind for f in found}
    by_kind = {f.kind: f for f in found}
    across = by_kind["duplicate-across-groups"]
    assert "124 of 2518 clips" in across.message
    assert across.message.endswith("72 of them equal ones")
    assert by_kind["duplicate-across-splits"].message.endswith("7 of them equal ones")
    assert len(by_kind["source-across-splits"].clips) == 109


def test_published_features_of_emomusic_are_honest(shared_data):
    folder = shared_data / "choi2017"
    rows = list(csv.DictReader((folder / "emoMusic.csv").open()))
    y = np.array([[float(row["label_valence"]), float(row["label_arousal"])] for row in rows])
    n = len(y)
    clips = table(
        "regression", labels=y, clip_ids=tuple(f"c{i}" for i in range(n)),
        groups=tuple(f"g{i}" for i in range(n)), folds=np.full(n, -1),
    )  # fmt: skip
    features = {f"layer{i}": np.load(folder / f"emoMusic_layer_{i}.npy") for i in range(5)}
    features["all"] = np.concatenate([*features.values()], axis=1)
    found = findings(clips, mfcc=np.load(folder / "emoMusic_mfcc.npy"), **features)
    assert {f.kind for f in found} == {"outlier"}

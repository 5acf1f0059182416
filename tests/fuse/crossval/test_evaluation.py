"""Cross-validation: equal to scikit-learn's, honest, and at chance on permuted labels."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import (
    crossfit_cache,
    features,
    frozen_cache,
    make_table,
    spec,
    write_cache,
)
from fuse_samples import plain_settings
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mvemo.cache import merge_caches, open_cache, select_features
from mvemo.fuse import BadFeatures, LeakError, evaluate, format_table


def run(path, **options):
    with open_cache(path) as cache:
        return evaluate(cache, plain_settings(**options))


def test_out_of_fold_probabilities_are_scikit_learns(tmp_path):
    table = make_table()
    results = run(frozen_cache(tmp_path / "f.h5", table), C=0.05)
    assert [m.name for m in results.models][-1] == "integrated"
    assert len(results.models) == 9
    x = {n: features(table, n) for n in ("music1d", "music2d", "c3d", "i3d")}
    for model in (results.models[0], results.models[5], results.models[8]):
        values = np.concatenate([x[n] for n in model.features], axis=1)
        for fold in range(6):
            test = table.folds == fold
            reference = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.05, tol=1e-8, max_iter=2000)
            ).fit(values[~test], table.labels[~test])
            expected = reference.predict_proba(values[test])
            # Stopped at a gradient of 1e-4.
            np.testing.assert_allclose(model.outputs[test], expected, atol=5e-3)
            said = model.outputs[test].argmax(1)
            assert model.per_fold["accuracy"][fold] == np.mean(said == table.labels[test])


def test_crossfit_uses_each_folds_own_nets(tmp_path):
    results = run(crossfit_cache(tmp_path / "f.h5", strength=1.5))
    assert results.protocol == "crossfit"
    assert not results.leaky
    # Each net has a basis of its own: features of another fold's net would be noise.
    assert np.mean(results.models[-1].per_fold["accuracy"]) > 0.7
    assert {h.net_fold for h in results.heads} == set(range(6))


def test_a_folder_of_shards_is_evaluated_as_the_file_that_they_merge_to(tmp_path):
    table = make_table()
    whole = crossfit_cache(tmp_path / "f.h5", table)
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        ids = [clip for i, clip in enumerate(table.clip_ids) if i % 3 != shard]
        select_features(whole, ["music1d", "c3d"], tmp_path / f"shards/{shard}.h5", clips=ids)
    merge_caches([tmp_path / "shards"], tmp_path / "merged.h5")
    of_file, of_folder = run(tmp_path / "merged.h5"), run(tmp_path / "shards")
    assert of_file.provenance["features_digest"] == of_folder.provenance["features_digest"]
    for one, other in zip(of_file.models, of_folder.models, strict=True):
        np.testing.assert_array_equal(one.outputs, other.outputs)
        np.testing.assert_equal(one.per_fold, other.per_fold)


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_permuted_labels_come_out_at_chance(tmp_path, make):
    table = make_table(n=360)
    path = make(tmp_path / "f.h5", table, strength=2.0)
    assert np.mean(run(path).models[-1].per_fold["accuracy"]) > 0.8
    permuted = run(path, permute_labels=True)
    assert permuted.permuted
    for model in permuted.models:
        # Six even classes of 360 clips: 1/6, standard error 0.02.
        assert abs(np.mean(model.per_fold["accuracy"]) - 1 / 6) < 0.08
        assert abs(model.scores["roc_auc_macro_ovr_pooled"] - 0.5) < 0.08


def test_permuted_labels_stay_at_chance_with_far_more_numbers_than_clips(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", make_table(n=240), dim=400, strength=0.0)
    for model in run(path).models:
        assert abs(np.mean(model.per_fold["accuracy"]) - 1 / 6) < 0.1


def test_a_net_that_saw_its_test_clips_is_refused(tmp_path):
    table = make_table()
    vectors = [(spec("c3d", 12, "shared", None, table.clip_ids), features(table, "c3d"))]
    path = write_cache(tmp_path / "f.h5", table, vectors)
    with pytest.raises(LeakError, match=r"c3d was trained on 20 of the 20 clips of fold 0"):
        run(path)
    results = run(path, allow_leak=True)
    assert results.leaky
    assert results.protocol == "shared"


def test_a_net_that_saw_the_group_of_a_test_clip_is_refused(tmp_path):
    table = make_table()
    one = table.clip_ids[int(np.flatnonzero(table.folds == 2)[0])]
    # Called frozen, but its record says that it saw one clip: the record counts.
    vectors = [(spec("c3d", 12, "frozen", None, (one,)), features(table, "c3d"))]
    path = write_cache(tmp_path / "f.h5", table, vectors)
    with pytest.raises(LeakError, match="trained on 2 of the 20 clips of fold 2"):
        run(path)


def test_a_missing_feature_leaves_that_clip_out_of_the_models_that_need_it(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", missing={"c3d": [4, 5, 6]})
    results = run(path)
    by_name = {m.name: m for m in results.models}
    assert results.missing["c3d"] == 3
    assert np.isnan(by_name["c3d+music1d"].outputs[4:7]).all()
    assert np.isfinite(by_name["music1d"].outputs).all()
    assert by_name["integrated"].confusion.sum() == 117


def test_folds_follow_the_features(tmp_path):
    path = crossfit_cache(tmp_path / "c.h5")
    with pytest.raises(BadFeatures, match=r"trained for 6 folds, not 5: give --folds 6"):
        run(path, folds=5)
    frozen = frozen_cache(tmp_path / "f.h5")
    table = make_table()
    assert (run(frozen).folds == table.folds).all()
    other = run(frozen, seed=7)
    assert (other.folds != table.folds).any()
    five = run(frozen, folds=5)
    assert set(five.folds.tolist()) == set(range(5))
    for results in (other, five):
        for group in set(results.groups):
            rows = [i for i, g in enumerate(results.groups) if g == group]
            assert len(set(results.folds[rows].tolist())) == 1


def test_a_cache_that_cannot_be_evaluated_says_why(tmp_path):
    table = make_table()
    lacking = [
        (spec("c3d", 12, "crossfit", fold, ()), features(table, "c3d")) for fold in (0, 1, 3, 4)
    ]
    with pytest.raises(BadFeatures, match="c3d lacks the nets of folds 2, 5"):
        run(write_cache(tmp_path / "a.h5", table, lacking))
    with pytest.raises(BadFeatures, match="no feature vectors"):
        run(write_cache(tmp_path / "b.h5", table, []))
    with pytest.raises(BadFeatures, match="nothing' is not among"):
        run(frozen_cache(tmp_path / "c.h5"), models=["nothing"])


def test_the_majority_baseline_is_the_training_folds_commonest_class(tmp_path):
    results = run(frozen_cache(tmp_path / "f.h5"))
    by_hand = []
    for fold in range(6):
        test = results.folds == fold
        common = np.bincount(results.y_true[~test]).argmax()
        by_hand.append(np.mean(results.y_true[test] == common))
    np.testing.assert_allclose(results.primary_per_fold(results.baseline), by_hand)


@pytest.mark.parametrize("songs", [None, "mean"])
def test_clips_that_no_head_could_be_trained_for_lack_no_feature(tmp_path, songs):
    # All but the clips of fold 0 are of one class: no head can leave fold 0 out.
    table = make_table(n=40, k=2)
    folds = (np.arange(40) >= 8).astype(np.int64)
    table = replace(
        table,
        clip_ids=tuple(f"song {i // 2}@{i % 2}" for i in range(40)),
        labels=np.where(folds == 0, np.arange(40) // 2 % 6, 5),
        folds=folds,
        fold_seed=-1,
    )
    path = frozen_cache(tmp_path / "f.h5", table, names=("music1d", "c3d"), missing={"c3d": [0, 1]})
    results = run(path, songs=songs)
    by_name = {model.name: model for model in results.models}
    of_song = 1 if songs is None else 2
    assert results.missing == {"music1d": 0, "c3d": 2 // of_song}
    assert by_name["music1d"].n_untrained == 8 // of_song
    # Clips without pictures are missing a feature; the others are not.
    assert by_name["c3d"].n_untrained == 6 // of_song
    assert (~by_name["music1d"].valid).sum() == 8 // of_song
    text = " ".join(format_table(results).split())
    assert f"have too few clips of two classes: music1d {8 // of_song}, " in text

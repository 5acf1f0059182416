"""Standardisation within groups: what is of a group goes, labels have no part in it."""

from dataclasses import replace

import numpy as np
from feature_samples import frozen_cache, make_table
from fuse_samples import plain_settings, primary

from mvemo.cache import open_cache
from mvemo.fuse import evaluate
from mvemo.fuse.features import Features
from mvemo.fuse.matrices.scaling import fit_scaling
from mvemo.fuse.matrices.within_groups import MIN_CLIPS, groups_within, standardise_within

RNG = np.random.default_rng(0)


def test_groups_of_several_clips_have_mean_0_and_deviation_1():
    groups = ["a"] * 8 + ["b"] * 6 + ["c"] * (MIN_CLIPS - 1)
    x = (RNG.normal(size=(18, 3)) * 4 + np.repeat([50.0, -9, 2], [8, 6, 4])[:, None]).astype("f4")
    present = np.ones(18, bool)
    present[0] = False
    found, rows = standardise_within(x, present, groups)
    assert rows.tolist() == [False] + [True] * 13 + [False] * 4
    for part in (slice(1, 8), slice(8, 14)):
        np.testing.assert_allclose(found[part].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(found[part].std(0), 1, atol=1e-4)
    # A small group is standardised as all clips are.
    np.testing.assert_array_equal(found[14:], fit_scaling(x, present)[0].apply(x[14:]))
    assert (found[0] == 0).all()


def test_a_feature_drowned_by_its_singer_is_found(tmp_path, monkeypatch):
    table = make_table(n=120, k=0)
    singers = tuple(f"s{i % 12}" for i in RNG.permutation(120))
    assert groups_within(np.ones(120, bool), singers).all()
    offset = {s: 30 * RNG.normal(size=(1, 1)) for s in singers}
    raw = Features.raw_matrix

    def sung(self, name, fold):
        matrix = raw(self, name, fold)
        matrix.values[:] += np.concatenate([offset[s] for s in self._cache.table.groups])
        return matrix

    path = frozen_cache(tmp_path / "f.h5", replace(table, groups=singers), strength=2.0)
    monkeypatch.setattr(Features, "raw_matrix", sung)
    with open_cache(path) as cache:
        plain, within = (
            evaluate(cache, plain_settings(models=["c3d"], within_groups=w, folds=4, seed=1))
            for w in (False, True)
        )
        shuffled = evaluate(
            cache,
            plain_settings(
                models=["c3d"], within_groups=True, folds=4, seed=1, permute_labels=True
            ),
        )
    assert primary(within.models[0]).mean() > primary(plain.models[0]).mean()
    assert primary(shuffled.models[0]).mean() < 0.4
    assert within.provenance["within_groups"]["clips"] == 120

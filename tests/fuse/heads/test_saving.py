import numpy as np
import pytest
from feature_samples import crossfit_cache, features, frozen_cache, make_table

from mvemo.cache import open_cache
from mvemo.fuse import FuseError, evaluate, load_heads, save_heads


def test_saved_heads_predict_what_was_reported(tmp_path):
    table = make_table()
    with open_cache(frozen_cache(tmp_path / "f.h5", table)) as cache:
        results = evaluate(cache, refit=True)
    save_heads(tmp_path / "heads.npz", results)
    saved = load_heads(tmp_path / "heads.npz")
    assert saved.classes == table.classes
    assert saved.facts["provenance"]["features_digest"]
    model = results.models[4]
    x = np.concatenate([features(table, n) for n in model.features], axis=1)
    for fold in range(6):
        (head,) = saved.of(model.name, fold)
        test = table.folds == fold
        np.testing.assert_allclose(head.probabilities(x[test]), model.outputs[test], atol=1e-4)
    (final,) = saved.of("integrated")
    assert final.fold is None
    assert final.coef.shape == (6, 48)


def test_crossfitted_heads_on_all_clips_come_one_for_each_folds_nets(tmp_path):
    with open_cache(crossfit_cache(tmp_path / "f.h5")) as cache:
        save_heads(tmp_path / "heads.npz", evaluate(cache, refit=True))
    assert [h.net_fold for h in load_heads(tmp_path / "heads.npz").of("c3d")] == list(range(6))


def test_what_is_no_file_of_heads_is_told(tmp_path):
    with pytest.raises(FuseError, match="no such file of heads"):
        load_heads(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(FuseError, match=r"text\.npz: not a file of heads"):
        load_heads(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(FuseError, match="not a file of heads"):
        load_heads(tmp_path / "other.npz")
    with open_cache(frozen_cache(tmp_path / "f.h5")) as cache:
        save_heads(tmp_path / "heads.npz", evaluate(cache, models=["c3d"]))
    saved = load_heads(tmp_path / "heads.npz")
    with pytest.raises(FuseError, match=r"no head of model 'i3d'.*c3d"):
        saved.of("i3d", 0)
    with pytest.raises(FuseError, match=r"takes 12 numbers a clip, not \(5,\)"):
        saved.of("c3d", 0)[0].probabilities(np.zeros((2, 5)))

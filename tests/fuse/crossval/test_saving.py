import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, features, frozen_cache, make_table
from fuse_samples import plain_settings

from mvemo.cache import open_cache
from mvemo.fuse import FuseError, evaluate, load_heads, save_heads


def test_saved_heads_predict_what_was_reported(tmp_path):
    table = make_table()
    with open_cache(frozen_cache(tmp_path / "f.h5", table)) as cache:
        results = evaluate(cache, plain_settings(refit=True))
    save_heads(tmp_path / "heads.npz", results)
    saved = load_heads(tmp_path / "heads.npz")
    assert saved.classes == table.classes
    assert saved.facts["provenance"]["features_digest"]
    model = results.models[4]
    x = np.concatenate([features(table, n) for n in model.features], axis=1)
    for fold in range(6):
        (head,) = saved.select(model.name, fold)
        test = table.folds == fold
        np.testing.assert_allclose(head.predict(x[test]), model.outputs[test], atol=1e-4)
    (final,) = saved.select("integrated")
    assert final.fold is None
    assert final.coef.shape == (6, 48)


def test_crossfitted_heads_on_all_clips_come_one_for_each_folds_nets(tmp_path):
    with open_cache(crossfit_cache(tmp_path / "f.h5")) as cache:
        save_heads(tmp_path / "heads.npz", evaluate(cache, plain_settings(refit=True)))
    assert [h.net_fold for h in load_heads(tmp_path / "heads.npz").select("c3d")] == list(range(6))


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
        save_heads(tmp_path / "heads.npz", evaluate(cache, plain_settings(models=["c3d"])))
    saved = load_heads(tmp_path / "heads.npz")
    with pytest.raises(FuseError, match=r"no head of model 'i3d'.*c3d"):
        saved.select("i3d", 0)
    with pytest.raises(FuseError, match=r"takes 12 numbers a clip, not \(5,\)"):
        saved.select("c3d", 0)[0].predict(np.zeros((2, 5)))


def test_every_field_of_a_head_comes_back_as_it_was(tmp_path):
    with open_cache(frozen_cache(tmp_path / "f.h5")) as cache:
        results = evaluate(cache, plain_settings(models=["c3d"], refit=True))
    heads = [
        replace(results.heads[0], thresholds=np.linspace(0.1, 0.6, 6), link="sigmoid"),
        replace(results.heads[-1], net_fold=2, inputs="log-odds"),
    ]
    save_heads(tmp_path / "heads.npz", replace(results, heads=tuple(heads)))
    loaded = load_heads(tmp_path / "heads.npz").heads
    assert len(loaded) == 2
    for old, new in zip(heads, loaded, strict=True):
        for name, value in vars(old).items():
            if isinstance(value, np.ndarray):
                assert getattr(new, name).dtype == value.dtype
                np.testing.assert_array_equal(getattr(new, name), value)
            else:
                assert getattr(new, name) == value


class Trap:
    def __reduce__(self):
        return (print, ("code of the file ran",))


@pytest.mark.parametrize("name", ["header", "0/coef"])
def test_a_file_with_pickled_objects_is_refused_and_runs_nothing(name, tmp_path, capsys):
    with open_cache(frozen_cache(tmp_path / "f.h5")) as cache:
        save_heads(tmp_path / "heads.npz", evaluate(cache, plain_settings(models=["c3d"])))
    with np.load(tmp_path / "heads.npz") as file:
        arrays = dict(file)
    arrays[name] = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "trap.npz", **arrays)
    with pytest.raises(FuseError, match=r"trap\.npz: not a file of heads"):
        load_heads(tmp_path / "trap.npz")
    assert capsys.readouterr().out == ""


def test_damaged_files_of_heads_are_refused(tmp_path):
    with open_cache(frozen_cache(tmp_path / "f.h5")) as cache:
        save_heads(tmp_path / "heads.npz", evaluate(cache, plain_settings(models=["c3d"])))
    with np.load(tmp_path / "heads.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "shape.npz", **{**arrays, "0/coef": arrays["0/coef"][:, 1:]})
    with pytest.raises(FuseError, match=r"shape\.npz: .* coef of head 0 is float32 \(6, 11\)"):
        load_heads(tmp_path / "shape.npz")
    whole = (tmp_path / "heads.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("half.npz", "array.npy"):
        with pytest.raises(FuseError, match=f"{name}: not a file of heads"):
            load_heads(tmp_path / name)
    header = json.loads(str(arrays["header"]))
    for version, said in ((99, "this reads"), (3, "make them again")):
        text = np.array(json.dumps({**header, "mvemo_heads": version}))
        np.savez(tmp_path / "version.npz", **{**arrays, "header": text})
        with pytest.raises(FuseError, match=f"heads of version {version}; {said}"):
            load_heads(tmp_path / "version.npz")

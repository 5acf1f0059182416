"""Files of heads: they predict what was reported, and damaged ones are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import features, frozen_cache, make_table
from fuse_samples import by_name, evaluated
from output_samples import output_features, task_cache, task_table

from mvemo.fuse import load_heads, save_heads
from mvemo.fuse.metrics.scores import best_thresholds
from mvemo.fuse.models import LATE, STACKED
from mvemo.fuse.numeric import decision_inputs
from mvemo.manifests.errors import MvemoError


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_saved_heads_predict_what_was_reported(task, tmp_path):
    table, names = task_table(task, n=90), ("music1d", "c3d")
    path = task_cache(tmp_path / "f.h5", table, names=names, noise=1.0)
    results = evaluated(path, stacked=True, late=True, refit=True)
    save_heads(tmp_path / "heads.npz", results)
    saved, found = load_heads(tmp_path / "heads.npz"), by_name(results)
    assert (saved.classes, saved.facts["task"]) == (table.classes, task)
    assert saved.facts["provenance"]["features_digest"]
    assert saved.select(LATE, 1)[0].features == names
    made = features if task == "multiclass" else output_features
    links = {"multiclass": "softmax", "multilabel": "sigmoid", "regression": "identity"}
    inputs = {"multiclass": "log-probabilities", "multilabel": "log-odds", "regression": "values"}
    for name in ("integrated", LATE, STACKED):
        model = found[name]
        for fold in range(3):
            (head,) = saved.select(name, fold)
            of_bases = head.inputs != "features"
            assert (head.link, of_bases) == (links[task], name != "integrated")
            parts = [made(table, feature) for feature in model.features]
            if of_bases:
                assert head.inputs == inputs[task]
                parts = [decision_inputs(found[b].outputs, head.link) for b in head.features]
            test = table.folds == fold
            outputs = head.predict(np.concatenate(parts, axis=1)[test])
            np.testing.assert_allclose(outputs, model.outputs[test], atol=1e-3)
            expected = None if model.thresholds is None else model.thresholds[fold]
            np.testing.assert_array_equal(head.thresholds, expected)
        (final,) = saved.select(name)
        assert final.fold is None
        if task == "multilabel":
            expected = best_thresholds(model.outputs, table.labels)
            np.testing.assert_array_equal(final.thresholds, expected)


def test_values_stay_in_the_range_of_the_training_clips(tmp_path):
    table = task_table("regression", n=90)
    table.labels[:] = np.clip(table.labels, -0.3, None)
    names = ("music1d", "c3d")
    path = task_cache(tmp_path / "f.h5", table, names=names, noise=1.0)
    results = evaluated(path, kernel=True, stacked=True, refit=True)
    save_heads(tmp_path / "heads.npz", results)
    saved = load_heads(tmp_path / "heads.npz")
    for model in results.models:
        for fold in range(3):
            train, test = table.folds != fold, table.folds == fold
            least, largest = (end(table.labels[train], axis=0) for end in (np.min, np.max))
            outputs = model.outputs[test]
            assert ((outputs >= least - 1e-9) & (outputs <= largest + 1e-9)).all()
    ends = np.stack([table.labels.min(axis=0), table.labels.max(axis=0)])
    for name in ("integrated", "kernel"):
        (head,) = (head for head in saved.heads if head.model == name and head.fold is None)
        x = 100 * np.concatenate([output_features(table, n) for n in head.features], axis=1)
        unlimited = replace(head, ends=None).predict(x)
        np.testing.assert_array_equal(head.predict(x), np.clip(unlimited, *ends))


def test_saved_heads_say_what_stands_in(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", missing={"c3d": [3], "i3d": [3]})
    chosen = ["c3d+music1d", "i3d+music1d"]
    results = evaluated(path, models=chosen, missing_modality=True, refit=True, temperature=True)
    save_heads(tmp_path / "h.npz", results)
    saved = load_heads(tmp_path / "h.npz")
    assert [m.name for m in saved.models] == list(saved.facts["temperatures"]) == chosen
    assert saved.models[0].modalities == ("audio", "video")
    assert saved.facts["provenance"]["features"]["c3d"][0]["modality"] == "video"
    # The head of the sound, whatever fusion it is a part of.
    (head,) = saved.select_features(("music1d",), fold=int(results.folds[3]))
    said = head.predict(features(make_table(), "music1d")[[3]])
    np.testing.assert_allclose(said[0], results.models[0].outputs[3], atol=1e-4)
    assert saved.select_features(("music2d",)) == ()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of one model, and the file of its heads."""
    folder = tmp_path_factory.mktemp("heads")
    results = evaluated(frozen_cache(folder / "f.h5"), models=["c3d"], refit=True)
    save_heads(folder / "heads.npz", results)
    return results, folder / "heads.npz"


def test_every_field_of_a_head_comes_back_as_it_was(made, tmp_path):
    results, _ = made
    heads = [
        replace(results.heads[0], thresholds=np.linspace(0.1, 0.6, 6), link="sigmoid"),
        replace(results.heads[-1], net_fold=2, inputs="log-odds"),
    ]
    save_heads(tmp_path / "heads.npz", replace(results, heads=tuple(heads)))
    loaded = load_heads(tmp_path / "heads.npz").heads
    for old, new in zip(heads, loaded, strict=True):
        np.testing.assert_equal(vars(new), vars(old))
        dtypes = [{getattr(x, "dtype", None) for x in vars(head).values()} for head in (old, new)]
        assert dtypes[0] == dtypes[1]


class Trap:
    def __reduce__(self):
        return (print, ("code of the file ran",))


def test_other_and_damaged_files_are_refused(made, tmp_path, capsys):
    with pytest.raises(MvemoError, match="does not exist"):
        load_heads(tmp_path / "none.npz")
    path = tmp_path / "heads.npz"
    with np.load(made[1]) as file:
        arrays = dict(file)
    header, coef = json.loads(str(arrays["header"])), arrays["0/coef"]
    other = np.array(json.dumps({**header, "mvemo_heads": 7}))
    # Reading a pickled object would run its code.
    trap = np.array([Trap()], dtype=object)
    for changed, message in (
        ({"header": trap}, "is damaged, or is not a file of heads"),
        ({"0/coef": trap}, "is damaged, or is not a file of heads"),
        ({"0/coef": coef[:, 1:]}, "coef of head 0 has type float32"),
        ({"0/coef": coef.astype(int)}, "coef of head 0 has type int64"),
        ({"header": other}, "expected heads of version 8, got 7: write them again"),
    ):
        np.savez(path, **{**arrays, **changed})
        with pytest.raises(MvemoError, match=rf"heads\.npz: .*{message}"):
            load_heads(path)
    assert capsys.readouterr().out == ""
    whole = made[1].read_bytes()
    for content in (b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(MvemoError, match="is damaged, or is not a file of heads"):
            load_heads(path)


def test_what_the_heads_do_not_know_is_refused(made):
    saved = load_heads(made[1])
    with pytest.raises(MvemoError, match=r"model 'i3d' has no head.*c3d"):
        saved.select("i3d", 0)
    with pytest.raises(MvemoError, match=r"expected shape \(clips, 12\), got \(\d+, 5\)"):
        saved.select("c3d", 0)[0].predict(np.zeros((2, 5)))

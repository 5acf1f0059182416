"""`mvemo labels`, `mvemo manifest relabel` and `mvemo study transfer`, as a user runs them."""

import json

import numpy as np
import pytest

from mvemo.manifests import Clip, Manifest, write_manifest

N = 120
WRONG = (3, 40, 77, 90)


def write(folder, name, task="multiclass", seed=0, **columns):
    """Write the manifest of a set and the array of its only feature."""
    rng = np.random.default_rng(seed)
    plane = rng.normal(size=(N, 2))
    kinds = np.where(plane[:, 1] >= 0, 1, 0)
    kinds[list(WRONG)] = 1 - kinds[list(WRONG)]
    names = ("valence", "arousal") if task == "regression" else ("calm", "tense")
    labels = (
        [tuple(p) for p in plane.tolist()] if len(names[0]) > 4 else [(names[k],) for k in kinds]
    )
    clips = tuple(
        Clip(f"{name}{i}", "", label, f"g{i // 2}", extra=(*columns.items(),))
        for i, label in enumerate(labels)
    )
    write_manifest(Manifest(name, task, names, clips, folder), folder / f"{name}.csv")
    values = 3 * plane @ np.random.default_rng(7).normal(size=(2, 8)) + rng.normal(size=(N, 8))
    np.save(folder / f"{name}.npy", values.astype("f4"))


@pytest.fixture
def cache(tmp_path, program):
    def make(name, *arguments, **columns):
        write(tmp_path, name, *arguments, **columns)
        path = tmp_path / f"{name}.h5"
        words = ["--manifest", tmp_path / f"{name}.csv", "--feature", "timbre"]
        words += ["--modality", "audio", tmp_path / f"{name}.npy"]
        program("mvemo", "cache", "import", path, *words)
        return path

    return make


@pytest.mark.parametrize("is_given", [True, False])
def test_ceilings_are_those_of_the_features_or_of_a_manifest(is_given, cache, tmp_path, program):
    path = cache("b", "regression", **{"valence deviation": "0.5", "annotators": "4"})
    words = [path, "--share", "0.2", *["--manifest", tmp_path / "b.csv"] * is_given]
    found = json.loads(program("mvemo", "labels", *words, "--json", "--most", "3").out)
    assert (len(found["labels"]), found["share"], found["model"]) == (3, 0.2, "timbre")
    (ceiling,) = found["ceilings"]
    assert (ceiling["target"], ceiling["annotators"]) == ("valence", 4)
    assert 0.9 < ceiling["r2"] < 0.97
    assert "valence: one annotator deviates by 0.5" in program("mvemo", "labels", *words).out
    assert json.loads(program("mvemo", "labels", cache("d"), "--json").out)["ceilings"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "transfer", "{a}"], "expected two or more different files of features"),
        (["study", "transfer", "{a}", "{a}"], "expected two or more different files of features"),
        (["study", "transfer", "{a}", "{b}", "--scheme", "x"], "unknown scheme 'x'; expected one"),
        (["study", "transfer", "{a}", "{b}"], "b: expected classes, or valence and arousal with"),
        (["labels", "{a}", "--manifest", "{m}"], "b.csv: has none of the clips of a"),
        (["labels", "{a}", "--out", "{m}"], "b.csv: already exists"),
    ],
)
def test_bad_input_is_one_line(cache, tmp_path, program, words, message):
    paths = {"a": cache("a"), "b": cache("b", "regression"), "m": tmp_path / "b.csv"}
    shown = program("mvemo", *(word.format(**paths) for word in words), ends=2).err
    assert message in shown
    assert shown.count("\n") == 1

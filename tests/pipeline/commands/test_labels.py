"""`mvemo labels`, `mvemo manifest relabel` and `mvemo study transfer`, as a user runs them."""

import csv
import json

import numpy as np
import pytest

from mvemo.manifests import Clip, Manifest, read_manifest, write_manifest

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


def test_labels_out_and_back_in(cache, tmp_path, program):
    path, table, new = cache("a"), tmp_path / "labels.csv", tmp_path / "new.csv"
    shown = program("mvemo", "labels", path, "--out", table).out
    assert len(shown.split("\n\n")[0].splitlines()) == 21
    assert "if 10% of the labels were wrong, " in shown
    rows = list(csv.DictReader(table.open()))
    header = ["clip_id", "label", "suggested", "probability", "doubt", "corrected"]
    assert [*rows[0]] == header
    assert len(rows) == N
    assert {row["clip_id"] for row in rows[:8]} > {f"a{i}" for i in WRONG}
    for row in rows:
        row["corrected"] = row["suggested"] if row["clip_id"] in {f"a{i}" for i in WRONG} else ""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
    done = program("mvemo", "manifest", "relabel", tmp_path / "a.csv", table, "--out", new)
    assert "4 of 120 labels changed" in done.out
    old = read_manifest(tmp_path / "a.csv", media=False).labels
    assert np.flatnonzero(old != read_manifest(new, media=False).labels).tolist() == [*WRONG]


def test_labels_as_json_with_ceilings(cache, tmp_path, program):
    columns = {"valence deviation": "0.5", "annotators": "4"}
    path = cache("b", "regression", **columns)
    words = [path, "--manifest", tmp_path / "b.csv", "--share", "0.2"]
    held = json.loads(program("mvemo", "labels", *words, "--json", "--most", "3").out)
    assert (len(held["labels"]), held["share"], held["model"]) == (3, 0.2, "timbre")
    (ceiling,) = held["ceilings"]
    assert (ceiling["target"], ceiling["annotators"]) == ("valence", 4)
    assert 0.9 < ceiling["r2"] < 0.97
    assert "valence: one annotator deviates by 0.5" in program("mvemo", "labels", *words).out


def test_transfer_between_files(cache, program):
    a, b, c = cache("a"), cache("b", "multiclass", 1), cache("c", "regression", 2)
    held = json.loads(program("mvemo", "study", "transfer", a, b, "--json").out)["transfers"]
    assert [(one["source"], one["target"]) for one in held] == [("a", "b"), ("b", "a")]
    assert all(one["score"] > 0.8 > one["baseline"] for one in held)
    assert all(one["interval"][0] <= one["loss"] <= one["interval"][1] for one in held)
    table = program("mvemo", "study", "transfer", a, c, "--scheme", "quadrants").out.splitlines()
    assert len(table) == 3
    assert table[1].endswith("calm, tense")


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


def test_the_ceiling_goes_with_the_features(cache, program):
    path = cache("c", "regression", **{"valence deviation": "0.5", "annotators": "4"})
    held = json.loads(program("mvemo", "labels", path, "--json", "--most", "1").out)
    (ceiling,) = held["ceilings"]
    assert 0.9 < ceiling["r2"] < 0.97
    assert json.loads(program("mvemo", "labels", cache("d"), "--json").out)["ceilings"] == []

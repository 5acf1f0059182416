"""Importing arrays that others made."""

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_samples import VECTOR, contents, table, unfinished

from mvemo.cache import CacheWriter, import_feature, open_cache, verify_cache
from mvemo.cache.errors import BadCache
from mvemo.cache.import_arrays import FileRows, TableColumns, read_array, read_ids
from mvemo.cache.import_feature import ImportSettings, join_arrays
from mvemo.cache.spec import FeatureSpec, content_digest
from mvemo.manifests.errors import BadFile, MissingFile
from mvemo.manifests.tables import match_ids

CLIPS = replace(table(["c0", "c1", "c2", "c3"]), clip_ids=tuple("abcd"), groups=tuple("gghh"))
CLIPS = replace(CLIPS, labels=np.array([0, 1, 0, 1]), k=2)
VALUES = np.arange(12.0).reshape(4, 3) / 7
PARTS = (("train", slice(3)), ("val", slice(3, 4)))
NET = FeatureSpec("c3d", "video", "vector", 2, "net:c3d", 1, {}, "w", "crossfit", 0, ("c", "d"))
MEL = FeatureSpec("mel", "audio", "sequence", 2, "mel", 3, {"n_mels": 2})


def add(path, name="x", values=VALUES, ids=None, **options):
    """Import a feature of sounds; options are those of `import_feature` and its settings."""
    table = options.pop("table", None)
    settings = ImportSettings(**options)
    return import_feature(path, name, "audio", values, ids, table=table, settings=settings)


@pytest.fixture
def extracted(path):
    """A cache as stage one leaves it: nets of two folds, a sequence, a failure, curves."""
    with CacheWriter(path, CLIPS, provenance={"command": "mvemo extract"}) as writer:
        for spec in (NET, replace(NET, fold=1, weights="v", trained_on=("a", "b"))):
            for clip in "abc":
                writer.put(spec, clip, spec.key(clip), np.full(2, ord(clip), np.float32))
        writer.put(MEL, "a", MEL.key("a"), np.ones((5, 2), np.float32))
        writer.fail("d", "decode:video", "no video stream")
        writer.curve("c3d@fold0", {"epoch": [1.0], "train_loss": [0.5]})
    return path


def test_by_order_of_the_table_into_a_new_cache(path, tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, VALUES)
    imported = add(path, "vggish", VALUES, table=CLIPS, sources=[file])
    assert (imported.clips, imported.present, imported.incomplete, imported.skipped) == (4, 4, 0, 0)
    with open_cache(path) as cache:
        (spec,) = cache.variants("vggish")
        assert (spec.protocol, spec.extractor, spec.version) == ("imported", "import", 1)
        assert (spec.modality, spec.kind, spec.dim, spec.fold) == ("audio", "vector", 3, None)
        assert spec.params["files"] == [{"name": "x.npy", "sha256": content_digest(file)}]
        np.testing.assert_array_equal(cache.vectors("vggish")[0], VALUES.astype(np.float32))
        assert cache.table.clip_ids == CLIPS.clip_ids
        np.testing.assert_array_equal(cache.table.folds, CLIPS.folds)
    assert verify_cache(path) == []


def test_by_clip_id_missing_rows_are_missing(path):
    values = VALUES[:3].copy()
    values[1, 2] = np.nan  # of clip "a": incomplete
    values[2] = np.nan  # of clip "b": absent
    imported = add(path, "x", values, ["d", "a", "b"], table=CLIPS)
    assert (imported.present, imported.incomplete) == (1, 1)
    got, present = open_cache(path).vectors("x")
    assert present.tolist() == [False, False, False, True]
    assert np.isnan(got[:3]).all()
    np.testing.assert_array_equal(got[3], VALUES[0].astype(np.float32))


def test_an_array_is_written_once_and_stays_as_it_is(extracted, tmp_path):
    np.save(tmp_path / "x.npy", VALUES.astype(np.float32))
    values = read_array(tmp_path / "x.npy").values
    assert values.dtype == np.float32
    values[1, 2] = np.nan
    before = values.copy()
    with open_cache(extracted) as cache:
        merged = cache._files[0].merged
    add(extracted, values=values)
    np.testing.assert_array_equal(values, before)
    with open_cache(extracted) as cache:
        assert cache._files[0].merged == merged == ()
        got, present = cache.vectors("x")
    assert present.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(got[present], before[present])


def test_all_else_in_the_cache_stays(extracted):
    with open_cache(extracted) as cache:
        rows, specs, table = contents(cache), cache.specs, cache.table
        failures, curves, facts = cache.failures, cache.curves, cache.provenance
    order = {"clip_ids": tuple("dcba"), "groups": tuple("hhgg"), "labels": CLIPS.labels[::-1]}
    shuffled = replace(CLIPS, **order, folds=np.full(4, -1), k=0, digest="e" * 64)
    # Rows in the order of the manifest that is given, whatever that of the cache.
    add(extracted, table=shuffled, provenance={"command": "i"})
    with open_cache(extracted) as cache:
        assert [s for s in cache.specs if s.name != "x"] == list(specs)
        assert cache.variants("c3d")[0].trained_on == ("c", "d")
        assert {at: row for at, row in contents(cache).items() if at[0] != "x"} == rows
        assert (cache.failures, cache.curves) == (failures, curves)
        assert cache.provenance == {"command": "i", "history": [facts]}
        for field in ("clip_ids", "k", "digest"):
            assert getattr(cache.table, field) == getattr(table, field)
        np.testing.assert_array_equal(cache.vectors("x")[0], VALUES[::-1].astype(np.float32))
    assert verify_cache(extracted) == []


def test_a_name_is_taken_once(extracted):
    with pytest.raises(BadCache, match="already exists"):
        add(extracted, "c3d")
    add(extracted)
    np.testing.assert_array_equal(open_cache(extracted).vectors("x")[0], VALUES.astype(np.float32))
    add(extracted)  # the same again
    with pytest.raises(BadCache, match="already exists"):
        add(extracted, values=VALUES + 1)
    # Of what is replaced nothing stays, also not of clips that lack it now.
    add(extracted, "x", VALUES[:2], ["a", "b"], replace=True)
    add(extracted, "c3d", replace=True)
    with open_cache(extracted) as cache:
        assert cache.vectors("x")[1].tolist() == [True, True, False, False]
        assert [s.protocol for s in cache.variants("c3d")] == ["imported"]


@pytest.mark.parametrize(
    ("values", "ids", "message"),
    [
        (VALUES[:3], None, "3 rows for 4 clips"),
        (VALUES, [*"abc", "zz"], "1 of 4 rows belong to clips .* such as 'zz'.*--skip-unknown"),
        (VALUES, [*"abca"], "1 clips have more than one row, such as 'a'"),
        (VALUES, [*"ab"], "2 clip ids for 4 rows"),
        (np.where(VALUES > 0, VALUES, np.inf), None, "infinite .* clip 'a'"),
        (VALUES * 1e300, None, "infinite"),
        (VALUES * np.nan, None, "no clip of the table"),
        (VALUES.astype(str), None, "expected numbers, got"),
        (VALUES[:, 0], None, "expected shape .rows, numbers."),
        (VALUES[:, :0], None, "expected shape .rows, numbers."),
    ],
)
def test_refused(path, values, ids, message):
    with pytest.raises(BadCache, match=message) as caught:
        add(path, "x", values, ids, table=CLIPS)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_unknown_clips_may_be_skipped(path):
    # Of clips that are not in the table, also repeated ids do not matter.
    imported = add(path, "x", VALUES, ["b", "zz", "zz", "a"], table=CLIPS, skip_unknown=True)
    assert (imported.present, imported.skipped) == (2, 2)
    with pytest.raises(BadCache, match="4 of 4 rows belong to clips"):
        add(path, "y", VALUES, ["p", "q", "r", "s"], skip_unknown=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_ids": ("a", "b", "e"), "groups": ("g", "g", "h"), "labels": CLIPS.labels[:3]},
         "only in the cache: clips 'c', 'd'; only in the manifest: clips 'e'"),
        ({"labels": np.array([0, 1, 1, 1])}, "labels differ for clips 'c'"),
        ({"groups": ("g", "g", "h", "i")}, "groups differ for clips 'd'"),
        ({"classes": ("p", "q")}, r"different classes: \('calm', 'tense'\) and \('p', 'q'\)"),
    ],
)  # fmt: skip
def test_other_clips_than_the_caches(extracted, change, message):
    with pytest.raises(BadCache, match=message):
        add(extracted, table=replace(CLIPS, **change))


def test_without_cache_or_table_or_with_an_unfinished_run(path):
    with pytest.raises(MissingFile, match="give a manifest"):
        add(path)
    unfinished(path, VECTOR, "c0")
    with pytest.raises(BadCache, match="mvemo cache repair"):
        add(path, table=CLIPS)


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    ids = list("abcd")
    np.save(tmp_path / "x.npy", VALUES)
    np.savez(tmp_path / "x.npz", clip_ids=np.array(ids), values=VALUES, spare=VALUES[:1])
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["deep/data"], file["names"], file["other"] = VALUES, ids, VALUES[:2]
    rows = [[c, *v] for c, v in zip(ids, VALUES, strict=True)]
    write_csv(tmp_path / "x.csv", [["clip_id", "p", "q", "r"], *rows])
    write_csv(tmp_path / "plain.csv", [r[1:] for r in rows])
    for source, named, has_ids, options in [
        ("x.npy", None, False, {}),
        ("x.npz", "values", True, {}),
        ("x.h5:deep/data", "deep/data", False, {"guess": False}),
        ("x.h5", "deep/data", True, {"dataset": "/deep/data", "id_column": "names"}),
        ("x.csv", None, True, {}),
        ("plain.csv", None, False, {}),
    ]:
        got = read_array(f"{tmp_path}/{source}", **options)
        assert (got.dataset, got.clip_ids) == (named, tuple(ids) if has_ids else None), source
        np.testing.assert_array_equal(got.values, VALUES)


def test_ids_beside_the_numbers_are_never_passed_over(tmp_path):
    ids = list("dcba")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["g/values"], file["g/clip_id"] = VALUES, ids
        file["clip_ids"] = list("abcd")
        file["other/values"], file["other/Clip_Names"] = VALUES, ids
    # Those of the numbers' own group come first.
    assert read_array(f"{tmp_path}/x.h5:g/values").clip_ids == tuple(ids)
    assert read_array(f"{tmp_path}/x.h5:other/values").clip_ids == tuple("abcd")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        del file["clip_ids"]
    with pytest.raises(BadCache, match=r"'other/Clip_Names' may hold the clip ids.*--id-column"):
        read_array(f"{tmp_path}/x.h5:other/values")
    named = read_array(f"{tmp_path}/x.h5:other/values", id_column="other/Clip_Names")
    assert named.clip_ids == tuple(ids)
    np.savez(tmp_path / "x.npz", values=VALUES, song=np.array(ids), labels=np.array(list("aabb")))
    with pytest.raises(BadCache, match="'song' may hold the clip ids"):
        read_array(tmp_path / "x.npz")
    # Classes, which repeat, are no ids.
    np.savez(tmp_path / "y.npz", values=VALUES, song=np.array(list("aabb")))
    assert read_array(tmp_path / "y.npz").clip_ids is None


def test_files_of_one_feature_are_joined(tmp_path):
    one, other = (FileRows(Path(f"{n}.npy"), None, VALUES[rows], None) for n, rows in PARTS)
    values, ids = join_arrays([one, other])
    assert ids is None
    np.testing.assert_array_equal(values, VALUES)
    first = write_csv(tmp_path / "t.csv", [["n", "clip_id"], [1, "c"], [2, "b"], [3, "a"]])
    second = write_csv(tmp_path / "v.csv", [["n", "clip_id"], [4, "d"]])
    assert join_arrays([one, other], [first, second])[1] == ("c", "b", "a", "d")
    wide, named = replace(other, values=VALUES[:, :2]), replace(other, clip_ids=("d",))
    for arrays, rows, message in (
        ([other, one], [first, second], r"t\.csv: has 3 clip ids, but .* 1 rows"),
        ([one, other], [second], "1 clip ids for 4 rows"),
        ([one, wide], [], r"val\.npy: has 2 numbers per row, .* has 3"),
        ([one, named], [], r"train\.npy: has no clip ids"),
        ([], [], "no file to import"),
    ):
        with pytest.raises(BadCache, match=message):
            join_arrays(arrays, rows)


def test_ids_of_a_file_without_header(tmp_path):
    file = write_csv(tmp_path / "x.csv", [["folder/", "a", 1], ["folder/", "b", 0]])
    assert read_ids(file, id_column="2") == ("a", "b")
    with pytest.raises(BadCache, match=r"no column 'clip_id'.*number"):
        read_ids(file)
    with pytest.raises(BadCache, match=r"x\.csv:1: column 4 has no clip id"):
        read_ids(file, id_column="4")
    assert read_ids(write_csv(tmp_path / "y.csv", [["a"], ["b"]])) == ("a", "b")


JUNK = b"no array at all"


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("none.npy", None, "no such file"),
        ("x.txt", b"1", "unknown suffix '.txt'"),
        *((f"junk.{ending}", JUNK, "cannot be read") for ending in ("npy", "npz", "h5")),
        ("deep.npy", np.ones((2, 3, 4)), "one vector per clip"),
        ("text.npy", np.array(["a", "b"]), "expected numbers, got <U1"),
        ("pickled.npy", np.array([{}, None], dtype=object), "cannot be read"),
        ("two.npz", {"p": VALUES, "q": VALUES}, "name one of p, q"),
        ("two.npz:r", {"p": VALUES, "q": VALUES}, "no data set 'r'; there are p, q"),
        ("many.npz", {f"array{i:03}": VALUES for i in range(744)}, "and 738 more"),
        ("s.npz", {"values": VALUES, "clip_ids": np.array(["a"])}, r"shape \(4,\) .*\(1,\)"),
        ("bad.csv", b"clip_id,p\na,1\nb,soft\n", "bad.csv:3: 'soft' is not a number"),
        ("bad.csv", b"clip_id,p\n,1\n", "bad.csv:2: column clip_id has no clip id"),
        ("ragged.csv", b"clip_id,p\na,1,2\n", "ragged.csv:2: the row has 3 cells"),
        ("song.csv", b"clip_id,p\na,1\n", "no column 'song'; the columns are clip_id, p"),
    ],
)
def test_files_that_are_refused(tmp_path, source, content, message):
    path = tmp_path / source.partition(":")[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises((BadCache, MissingFile), match=message) as caught:
        read_array(tmp_path / source, id_column="song" if path.stem == "song" else None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_columns_of_a_csv_are_recognised_by_what_they_hold(tmp_path):
    names = {f"Train/Sad/{i}": f"Train/Sad/{i}" for i in (14, 7, 9)}
    columns = TableColumns(names)
    rows = [["artist", "file", "f1", "f2"]]
    rows += [["x", f"old/{i}.avi", 0.5, i] for i in (9, 14, 7)]
    wide = write_csv(tmp_path / "wide.csv", rows)
    for chosen, message in (
        (columns, r"column 'artist' holds text, such as 'x': .*--skip-columns"),
        (replace(columns, take=("g*",)), r"no column matches 'g\*'; the columns are artist, file"),
    ):
        with pytest.raises(BadCache, match=message):
            read_array(wide, columns=chosen)
    for chosen in (replace(columns, take=("f?",)), replace(columns, skip=("artist",))):
        got = read_array(wide, columns=chosen)
        assert (got.id_name, got.columns) == ("file", ("f1", "f2"))
        ids, how = match_ids(got.clip_ids or (), names)
        assert ids == ("Train/Sad/9", "Train/Sad/14", "Train/Sad/7")
        assert how == "without folder and ending"
    # One number that fits a clip by chance is no match.
    assert match_ids(["3", "7", "5"], names) == (("3", "7", "5"), "")
    names = {"Caf\u00e9/1": "Caf\u00e9/1"}
    assert match_ids(["Cafe\u0301\\1.mp4"], names) == (("Caf\u00e9/1",), "without ending")


def test_columns_of_a_table_may_have_other_names(tmp_path):
    song = write_csv(tmp_path / "x.csv", [["song", "f"], ["a", ""], ["b", 2.5]])
    for options in ({"id_column": "song"}, {"columns": TableColumns(renamed={"clip_id": "song"})}):
        got = read_array(song, **options)
        assert (got.clip_ids, got.columns) == (("a", "b"), ("f",))
        # An empty cell is a missing number.
        np.testing.assert_array_equal(got.values, [[np.nan], [2.5]])
    with pytest.raises(BadFile, match=r"x\.csv:1: no column 'track' for clip_id"):
        read_array(song, columns=TableColumns(renamed={"clip_id": "track"}))


def test_clips_without_labels_get_them_later(path):
    unlabelled = replace(CLIPS, task="unlabelled", classes=(), labels=np.zeros((4, 0), np.int64))
    add(path, table=unlabelled)
    assert verify_cache(path) == []
    add(path, "y", table=replace(CLIPS, predicted_by="a model"))
    with open_cache(path) as cache:
        assert cache.table.classes == CLIPS.classes
        assert (cache.names(), cache.table.predicted_by) == (("x", "y"), "a model")
    assert verify_cache(path) == []

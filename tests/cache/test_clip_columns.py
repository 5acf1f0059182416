"""Columns, arrays and indices of other programs, compared with the clips."""

from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from cache_samples import table

from mvemo.cache import import_feature, open_cache
from mvemo.cache.clip_columns import is_label, names_clips
from mvemo.cache.errors import BadCache
from mvemo.cache.import_arrays import TableColumns, read_array

N = 24
ORDER = np.random.default_rng(5).permutation(N)
NUMBERS = np.random.default_rng(6).normal(size=(N, 2)).round(4)
# Ids of the clips, and how another program writes them: the same text, or a value of another type.
FORMS = {
    "text": ([f"c{i}" for i in range(N)], [f"c{i}" for i in range(N)]),
    "underscore": ([f"{100 + i}_1" for i in range(N)], [f"{100 + i}_1" for i in range(N)]),
    "exponent": ([f"{i}e1" for i in range(N)], [f"{i}e1" for i in range(N)]),
    "decimal": ([f"{i}.1" for i in range(N)], [f"{i}.1" for i in range(N)]),
    "padded": ([f"{i:03}" for i in range(N)], [f"{i:03}" for i in range(N)]),
    "integer": ([str(i) for i in range(N)], list(range(N))),
    "integer of padded": ([f"{i:03}" for i in range(N)], list(range(N))),
    "float": ([str(i) for i in range(N)], [float(i) for i in range(N)]),
    "padded of integer": ([str(i) for i in range(N)], [f"{i:03}" for i in range(N)]),
    "file name": ([f"song/{i:03}" for i in range(N)], [f"{i:03}.mp3" for i in range(N)]),
    "number of a file": ([f"song/{i:03}" for i in range(N)], list(range(N))),
}
IN_TABLES = pytest.mark.parametrize(("ids", "written"), [*FORMS.values()], ids=[*FORMS])
FORMS["bytes"] = (FORMS["text"][0], [f"c{i}".encode() for i in range(N)])
FORM = pytest.mark.parametrize(("ids", "written"), FORMS.values(), ids=FORMS)


def clips(ids):
    """A table of clips without labels that repeat a feature."""
    known = table([f"c{i}" for i in range(N)])
    return replace(known, clip_ids=tuple(ids), groups=tuple(ids), folds=np.full(N, -1), k=0)


def frame(written, at=2, name="song_id"):
    """A data frame with shuffled rows, whose column `at` has the ids."""
    columns = {"f0": NUMBERS[ORDER, 0], "f1": NUMBERS[ORDER, 1]}
    names = [*[*columns][:at], name, *[*columns][at:]]
    columns[name] = [written[i] for i in ORDER]
    return pd.DataFrame(columns)[names]


def columns_of(known, **options):
    names = {clip: clip for clip in known.clip_ids}
    return TableColumns(names, table=known, **options)


def imported(path, ids, values, clip_ids=None):
    """Import into a cache of clips `ids`, and return all values, in the clips' order."""
    import_feature(path, "x", "audio", values, clip_ids, table=clips(ids))
    with open_cache(path) as cache:
        return cache.vectors("x")[0]


@IN_TABLES
@pytest.mark.parametrize(
    ("at", "ending"), [(0, "csv"), (2, "csv"), (1, "tsv"), (2, "parquet"), (1, "xlsx")]
)
def test_ids_in_any_column_of_a_table(path, tmp_path, ids, written, at, ending):
    file = tmp_path / f"x.{ending}"
    rows = frame(written, at)
    if ending == "parquet":
        rows.to_parquet(file)
    elif ending == "xlsx":
        rows.to_excel(file, index=False)
    else:
        rows.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
    got = read_array(file, columns=columns_of(clips(ids)))
    assert (got.id_name, got.columns) == ("song_id", ("f0", "f1"))
    np.testing.assert_allclose(imported(path, ids, got.values, got.clip_ids), NUMBERS, rtol=1e-6)


@FORM
@pytest.mark.parametrize("name", ["song_id", "g/track"])
def test_ids_in_any_array(path, tmp_path, ids, written, name):
    shuffled = np.array([written[i] for i in ORDER])
    labels = np.arange(N) % 2
    np.savez(tmp_path / "x.npz", **{"X": NUMBERS[ORDER], name: shuffled, "label": labels})
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"], file["label"] = NUMBERS[ORDER], labels
        # A process of its own reads texts of variable width, which one form is enough for.
        stored = np.char.encode(shuffled) if shuffled.dtype.kind == "U" else shuffled[:, None]
        file[name] = shuffled.tolist() if written[0] == "c0" else stored
    for file in ("x.npz", "x.h5"):
        got = read_array(tmp_path / file, columns=columns_of(clips(ids)))
        assert (got.dataset, got.id_name) == ("X", name)
        values = imported(path, ids, got.values, got.clip_ids)
        np.testing.assert_allclose(values, NUMBERS, rtol=1e-6)


@FORM
@pytest.mark.parametrize("place", ["column", "index", "unnamed", "level", "categories", "clip_ids"])
def test_ids_of_a_data_frame(path, ids, written, place):
    rows, clip_ids = frame(written), None
    if place == "categories":
        rows["song_id"] = rows["song_id"].astype("category")
    if place in ("index", "unnamed", "categories"):
        rows = rows.set_index("song_id")
    if place == "unnamed":
        rows.index.name = None
    if place == "level":
        rows = rows.assign(part=0).set_index(["part", "song_id"])
    if place == "clip_ids":
        clip_ids = rows.pop("song_id")
    np.testing.assert_allclose(imported(path, ids, rows, clip_ids), NUMBERS, rtol=1e-6)


def test_a_series_and_a_default_index(path):
    ids = FORMS["text"][0]
    series = frame(ids).set_index("song_id")["f0"]
    np.testing.assert_allclose(imported(path, ids, series)[:, 0], NUMBERS[:, 0], rtol=1e-6)
    by_order = pd.DataFrame(NUMBERS)
    np.testing.assert_allclose(imported(path.with_name("y.h5"), ids, by_order), NUMBERS, rtol=1e-6)


@pytest.mark.parametrize(
    ("ids", "index"),
    [
        (FORMS["text"][0], [f"other{i}" for i in range(N)]),
        (FORMS["text"][0], ORDER),
        (FORMS["integer"][0][::-1], None),
    ],
)
def test_an_index_that_may_name_clips_is_asked_for(path, ids, index):
    with pytest.raises(BadCache, match="unclear if its index names the clips: pass clip_ids"):
        imported(path, ids, pd.DataFrame(NUMBERS, index=index))


@IN_TABLES
def test_a_table_without_header(path, tmp_path, ids, written):
    rows = frame(written, 0)
    rows.to_csv(tmp_path / "x.csv", index=False, header=False)
    columns = columns_of(clips(ids))
    if all(str(cell).removesuffix(".0") == str(i) for i, cell in enumerate(written)):
        with pytest.raises(BadCache, match="'1' holds whole numbers that are also clip ids"):
            read_array(tmp_path / "x.csv", columns=columns)
    id_column = "1" if isinstance(written[0], int | float) else None
    got = read_array(tmp_path / "x.csv", id_column=id_column, columns=columns)
    np.testing.assert_allclose(imported(path, ids, got.values, got.clip_ids), NUMBERS, rtol=1e-6)
    # The same with the header that pandas writes above an index.
    rows.set_index("song_id").set_axis([0, 1], axis=1).rename_axis(None).to_csv(tmp_path / "y.csv")
    got = read_array(tmp_path / "y.csv", columns=columns)
    assert (got.id_name, got.columns) == ("", ("0", "1"))
    np.testing.assert_allclose(imported(path, ids, got.values, got.clip_ids), NUMBERS, rtol=1e-6)


def test_the_first_row_is_no_header_although_its_clip_is_unknown(tmp_path):
    (tmp_path / "x.csv").write_text("other,0.5,0.25\nc1,1.5,0.5\nc2,2.5,0.75\n")
    known = columns_of(clips(FORMS["text"][0]))
    assert read_array(tmp_path / "x.csv", columns=known).clip_ids == ("other", "c1", "c2")
    (tmp_path / "y.csv").write_text("c3,1,0\nc1,2,5\nc2,2,7\n")
    assert read_array(tmp_path / "y.csv", columns=known).clip_ids == ("c3", "c1", "c2")


def test_numbers_that_may_be_ids_are_asked_for(tmp_path):
    ids = FORMS["integer"][0]
    known = columns_of(clips(ids))
    file = tmp_path / "x.csv"
    frame(range(N), name="rank").to_csv(file, index=False)
    with pytest.raises(BadCache, match=r"'rank' holds whole numbers that are also clip ids.*--id-"):
        read_array(file, columns=known)
    by_id = read_array(file, columns=known, id_column="rank")
    assert by_id.clip_ids == tuple(str(i) for i in ORDER)
    assert read_array(file, columns=replace(known, take=("f0", "rank"))).values.shape == (N, 2)
    assert read_array(file, columns=replace(known, skip=("rank",))).columns == ("f0", "f1")
    # With a column of ids, or with few different numbers, it is a feature.
    frame(range(N), name="rank").assign(song_id=ids).to_csv(file, index=False)
    assert read_array(file, columns=known).columns == ("f0", "f1", "rank")
    frame([i % 5 for i in range(N)], name="count").to_csv(file, index=False)
    assert read_array(file, columns=known).clip_ids is None


def test_several_columns_of_ids(path, tmp_path):
    ids = FORMS["text"][0]
    rows = frame(ids).assign(path=[f"{ids[i]}.wav" for i in ORDER])
    for index in (False, True):  # row numbers of pandas are no feature
        rows.to_csv(tmp_path / "x.csv", index=index)
        got = read_array(tmp_path / "x.csv", columns=columns_of(clips(ids)))
        assert (got.id_name, got.columns) == ("song_id", ("f0", "f1"))
    rows.assign(path=ids).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(BadCache, match="'song_id' and 'path' both name clips, but not the same"):
        read_array(tmp_path / "y.csv", columns=columns_of(clips(ids)))
    rows.assign(clip_id=ids).to_csv(tmp_path / "z.csv", index=False)
    got = read_array(tmp_path / "z.csv", columns=columns_of(clips(ids), take=("f*",)))
    assert got.id_name == "clip_id"


def test_rows_of_some_clips_and_of_others(path, tmp_path):
    ids = FORMS["text"][0]
    rows = frame(ids)
    done = import_feature(path, "x", "audio", rows[:9], table=clips(ids))
    assert done.present == 9
    assert done.absent == tuple(ids[i] for i in sorted(ORDER[9:]))
    # A few ids are enough to refuse the order.
    rows["song_id"] = [cell if i < 3 else f"other{i}" for i, cell in enumerate(rows["song_id"])]
    rows.to_csv(tmp_path / "x.csv", index=False)
    got = read_array(tmp_path / "x.csv", columns=columns_of(clips(ids)))
    with pytest.raises(BadCache, match="21 of 24 rows belong to clips that the manifest lacks"):
        imported(path, ids, got.values, got.clip_ids)
    twice = pd.concat([frame(ids), frame(ids)[:2]])
    with pytest.raises(BadCache, match="2 clips have more than one row"):
        imported(path, ids, twice)


@pytest.mark.parametrize("name", ["label", "Label", "MOOD", "fold", "cv_fold", "split", "group"])
def test_labels_are_no_features(path, tmp_path, name):
    ids = FORMS["text"][0]
    for values in (np.arange(N) % 2, ["calm", "tense"] * (N // 2)):
        rows = frame(ids).assign(**{name: values})
        rows.to_csv(tmp_path / "x.csv", index=False)
        got = read_array(tmp_path / "x.csv", columns=columns_of(clips(ids)))
        assert (got.columns, got.left_out) == (("f0", "f1"), (name,))
        done = import_feature(path, "x", "audio", rows, table=clips(ids))
        assert (done.spec.dim, done.left_out) == (2, (name,))
    frame(ids).assign(**{name: np.arange(N) % 2}).to_csv(tmp_path / "x.csv", index=False)
    named = columns_of(clips(ids), take=("f*", name))
    assert read_array(tmp_path / "x.csv", columns=named).columns == ("f0", "f1", name)


def test_names_of_columns():
    known = replace(clips(FORMS["text"][0]), task="regression", classes=("Energy level", "valence"))
    assert all(is_label(name, known) for name in ("energy_level", "label_valence"))
    assert not is_label("valence_slope", known)
    assert not is_label("calm", clips(FORMS["text"][0]))
    assert all(map(names_clips, ["song_id", "trackID", "", "Unnamed: 0", "x/file", "song_index"]))
    assert not any(map(names_clips, ["rank", "tempo", "f0", "0", "music_key", "song_tempo"]))
    assert not names_clips("Unnamed: 0", ["0", "1", "2"])


@pytest.mark.parametrize("first", [1000.0, 1e17, np.nan])
def test_different_whole_numbers_are_no_feature_unless_named(tmp_path, first):
    file = tmp_path / "x.parquet"
    key = np.arange(first, first + 64 * N, 64) if first == first else [np.nan, *range(500, 499 + N)]
    pd.DataFrame({"f0": NUMBERS[:, 0], "key": key}).to_parquet(file)
    with pytest.raises(BadCache, match="column 'key' holds different whole numbers"):
        read_array(file, columns=columns_of(clips(FORMS["text"][0])))

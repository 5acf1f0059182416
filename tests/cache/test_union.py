"""A folder of shards is read as the file that merging them gives, or refused in one line."""

from dataclasses import replace

import numpy as np
import pytest
from cache_samples import (
    CLIPS,
    SEQUENCE,
    VECTOR,
    contents,
    crossfit,
    fill,
    flip,
    put,
    row,
    table,
    unfinished,
)

from mvemo.cache import BadCache, CacheWriter, cache_file, open_cache, verify_cache
from mvemo.cache.maintenance import merge_caches, remove_features, repair_cache
from mvemo.manifests.errors import MissingFile

FIRST, LAST = table(["c0", "c1", "c2", "c3"]), table(["c2", "c3", "c4", "c5"])
SPECS = (SEQUENCE, VECTOR, *(replace(crossfit(f, CLIPS), name="i3d") for f in range(3)))


@pytest.fixture
def folder(tmp_path):
    """Two shards that share two clips, which they hold alike."""
    folder = tmp_path / "shards"
    folder.mkdir()
    fill(folder / "shard-0.h5", FIRST, *SPECS, leave_out="c1")
    fill(folder / "shard-1.h5", LAST, *SPECS)
    return folder


def test_blocks_of_rows_and_columns(folder, path):
    merge_caches([folder], path)
    with open_cache(path) as merged, open_cache(folder) as shards:
        whole, present = merged.vectors("music1d")
        assert present.tolist() == [True, False, True, True, True, True]
        for cache in (merged, shards):
            # Two rows at a time, and each once though two shards have it.
            blocks = list(cache.blocks("music1d", n_bytes=2 * 4 * VECTOR.dim))
            assert max(len(values) for _, values in blocks) <= 2
            rows, values = map(np.concatenate, zip(*blocks, strict=True))
            assert sorted(rows.tolist()) == np.flatnonzero(present).tolist()
            np.testing.assert_array_equal(values, whole[rows])
            columns, known = cache.vectors("music1d", columns=slice(1, 3))
            np.testing.assert_array_equal(columns, whole[:, 1:3])
            np.testing.assert_array_equal(known, present)
            some, known = cache.vectors("music1d", clips=["c5", "c1", "c2"])
            np.testing.assert_array_equal(some, whole[[5, 1, 2]])
            np.testing.assert_array_equal(known, present[[5, 1, 2]])
        assert (merged.curves, merged.provenance) == (shards.curves, shards.provenance)


def test_more_shards_than_files_may_be_open(folder, monkeypatch):
    expected = contents(open_cache(folder))
    monkeypatch.setattr(cache_file, "MOST_OPEN", 1)
    with open_cache(folder) as cache:
        assert contents(cache) == expected
        with CacheWriter(folder / "shard-0.h5", FIRST) as writer:
            put(writer, VECTOR, "c0", salt=1)
        with pytest.raises(BadCache, match=r"shard-0\.h5: was replaced while it was being read"):
            contents(cache)


@pytest.mark.parametrize("change", [repair_cache, lambda path: remove_features(path, ["mel"])])
def test_a_folder_is_not_written(folder, change):
    with pytest.raises(BadCache, match=r"shards: is a folder; .*change each shard, or run "):
        change(folder)


OTHER = replace(VECTOR, params={"sr": 22050})
I3D = replace(crossfit(0, CLIPS, weights="v"), name="i3d")
KINDS = r"{} differs: \w+ in .*shard-0\.h5, \w+ in .*shard-2\.h5"


@pytest.mark.parametrize(
    ("change", "specs", "message"),
    [
        ({"labels": 1 - LAST.labels}, [VECTOR], "labels differ for clips 'c2'"),
        ({"groups": tuple("abcd")}, [VECTOR], "groups differ for clips 'c2', 'c3'"),
        ({"digest": "e" * 64}, [VECTOR], r"shard-2\.h5: does not .*different digest: 'ddd.*'eee"),
        ({"classes": ("x", "y")}, [VECTOR], r"and \('x', 'y'\)"),
        ({"k": 4}, [VECTOR], "different k: 3 and 4"),
        ({}, [OTHER], KINDS.format("music1d")),
        ({}, [I3D], KINDS.format("i3d@fold0")),
        ({}, [], r"clip 'c3' has other values in .*shard-2\.h5 than in .*shard-1\.h5"),
    ],
)
def test_shards_that_do_not_go_together(folder, path, change, specs, message):
    with CacheWriter(folder / "shard-2.h5", replace(LAST, **change)) as writer:
        if not specs:
            writer.put(VECTOR, "c3", VECTOR.key("c3-0"), np.zeros(4, np.float32))
        for spec in specs:
            put(writer, spec, "c3")
    with pytest.raises(BadCache, match=message) as refused:
        open_cache(folder)
    assert "\n" not in str(refused.value)
    assert verify_cache(folder) == [str(refused.value)]
    with pytest.raises(BadCache, match=message):
        merge_caches([folder], path)
    assert not path.exists()


def test_a_net_that_saw_its_fold_in_another_shard(tmp_path):
    fill(tmp_path / "0.h5", FIRST, crossfit(0, CLIPS))
    fill(tmp_path / "1.h5", LAST, replace(crossfit(0, CLIPS), trained_on=("c0",)))
    problems = verify_cache(tmp_path)
    assert problems[0] == "music1d@fold0: the net was trained on 1 clips of its fold, such as 'c0'"


def test_damage_names_the_shard(folder):
    flip(folder / "shard-1.h5", row(VECTOR, "c4").tobytes())
    expected = ["shard-1.h5: music1d of clip 'c4': the values do not match their checksum"]
    assert verify_cache(folder) == expected
    with open_cache(folder) as cache, pytest.raises(BadCache, match=r"shard-1\.h5: the values"):
        cache.vectors("music1d")


def test_a_shard_that_is_not_finished(folder):
    unfinished(folder / "shard-2.h5", VECTOR, "c0")
    with pytest.raises(MissingFile, match=r"shard shard-2\.h5 is not finished \(rows of it"):
        open_cache(folder)
    fill(folder / "shard-2.h5", CLIPS)
    assert len(open_cache(folder).table) == 6

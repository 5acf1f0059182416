"""What a reader answers, and how it refuses."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, contents, crossfit, fill, flip, put, row

from mvemo.cache import BadCache, Cache, CacheWriter, open_cache
from mvemo.manifests.errors import MvemoError


@pytest.fixture(autouse=True)
def filled(path):
    fill(path, CLIPS, VECTOR, SEQUENCE, leave_out="c3")


def test_curves_failures_and_specs(path):
    with CacheWriter(path, CLIPS) as writer:
        writer.curve("music1d@fold0", {"train_loss": [1.0, float("nan"), 0.25]})
        writer.fail("c3", "decode:audio", "leer — „nichts“")
    with open_cache(str(path)) as cache:
        losses = cache.curves["music1d@fold0"]["train_loss"]
        np.testing.assert_array_equal(losses, [1.0, np.nan, 0.25])
        (failure,) = cache.failures
        assert (failure.clip_id, failure.reason) == ("c3", "leer — „nichts“")
        assert cache.names() == ("mel", "music1d")
        assert cache.variants("mel") == (SEQUENCE,)
        assert (cache.schema, cache.path) == (2, path)


def test_a_feature_of_one_variant_serves_every_fold(path):
    with open_cache(path) as cache:
        np.testing.assert_array_equal(cache.vectors("music1d", 2)[0], cache.vectors("music1d")[0])
        np.testing.assert_array_equal(cache.sequence("mel", "c2", 1), row(SEQUENCE, "c2"))
        assert cache.sequence("mel", "c3") is None


@pytest.mark.parametrize(
    "options", [{}, {"locking": False}, {"locking": True}, {"mode": "r+"}, None], ids=str
)
def test_h5py_may_have_the_file_open(path, options):
    with ExitStack() as stack:
        # None: h5py opens it after the cache.
        cache = stack.enter_context(open_cache(path)) if options is None else None
        file = stack.enter_context(h5py.File(path, **(options or {})))
        cache = cache or stack.enter_context(open_cache(path))
        values = file["features/music1d/values"][()]
        np.testing.assert_array_equal(values, cache.vectors("music1d")[0])


def test_folds_are_distinguished(tmp_path):
    folds = [crossfit(f, CLIPS) for f in range(3)]
    fill(tmp_path / "x.h5", CLIPS, *reversed(folds))
    with open_cache(tmp_path / "x.h5") as cache:
        assert cache.variants("music1d") == tuple(folds)
        for spec in folds:
            values, _ = cache.vectors("music1d", spec.fold)
            np.testing.assert_array_equal(values[1], row(spec, "c1"))
        for fold, word in ((None, "none was given"), (3, "got 3")):
            with pytest.raises(BadCache, match=f"music1d needs a fold, one of 0, 1, 2; {word}"):
                cache.vectors("music1d", fold)


def test_questions_without_an_answer(path):
    with open_cache(path) as cache:
        for read, arguments, message in (
            (cache.vectors, ("i3d",), "no feature 'i3d'; the features are mel, music1d"),
            (cache.vectors, ("mel",), "mel is a sequence"),
            (cache.sequence, ("music1d", "c0"), "music1d is a vector"),
            (cache.sequence, ("mel", "c9"), "no clip 'c9'"),
        ):
            with pytest.raises(BadCache, match=message):
                read(*arguments)
    with pytest.raises(BadCache, match="this cache is closed"):
        cache.vectors("music1d")


def test_the_digest_is_of_the_contents(path, tmp_path):
    fill(tmp_path / "other.h5", CLIPS, SEQUENCE, VECTOR, leave_out="c3")
    before = open_cache(path).digest()
    assert open_cache(tmp_path / "other.h5").digest() == before
    with CacheWriter(path, CLIPS, provenance={"x": 1}) as writer:
        writer.fail("c3", "x", "y")
    assert open_cache(path).digest() == before
    with CacheWriter(path, CLIPS) as writer:
        put(writer, VECTOR, "c1", salt=1)
    assert open_cache(path).digest() != before


def test_threads_share_a_cache(path):
    with open_cache(path) as cache, ThreadPoolExecutor(8) as pool:
        expected = contents(cache)
        assert all(stored == expected for stored in pool.map(contents, [cache] * 24))


@pytest.mark.parametrize("value", [np.nan, 0.25])
def test_a_value_that_was_changed_is_not_read(path, value):
    start = row(VECTOR, "c2").tobytes()
    changed = np.float32(value).tobytes() + start[4:]
    path.write_bytes(path.read_bytes().replace(start, changed))
    with open_cache(path) as cache:
        for read in (cache.vectors, lambda name: list(cache.blocks(name))):
            with pytest.raises(BadCache, match=r"damaged: list them with 'mvemo cache ver.* rep"):
                read("music1d")


def test_vectors_of_some_clips(path):
    ids = ["c5", "c3", "c0", "c5"]
    with open_cache(path) as cache:
        everything = cache.vectors("music1d")[0]
        values, present = cache.vectors("music1d", clips=ids)
        np.testing.assert_array_equal(values, everything[[5, 3, 0, 5]])
        assert present.tolist() == [True, False, True, True]
        columns, _ = cache.vectors("music1d", clips=ids, columns=slice(1, 3))
        np.testing.assert_array_equal(columns, values[:, 1:3])
        assert cache.vectors("music1d", clips=[])[0].shape == (0, VECTOR.dim)
        with pytest.raises(BadCache, match="no clip 'c9'"):
            cache.vectors("music1d", clips=["c0", "c9"])


def test_some_clips_are_read_without_the_damaged_ones(path):
    flip(path, row(VECTOR, "c2").tobytes())
    with open_cache(path) as cache:
        some = cache.vectors("music1d", clips=["c1", "c4"])[0]
        np.testing.assert_array_equal(some, [row(VECTOR, "c1"), row(VECTOR, "c4")])
        with pytest.raises(BadCache, match=r"the values of music1d are damaged"):
            cache.vectors("music1d", clips=["c1", "c2"])


def test_a_file_that_may_not_be_read(path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MvemoError, match=r"features.h5: Permission denied$"):
        Cache(path)

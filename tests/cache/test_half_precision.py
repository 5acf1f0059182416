"""Sequences as float16: how far off they are, and that none is taken for float32."""

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, flip

from mvemo.cache import BadCache, CacheWriter, merge_caches, open_cache, verify_cache
from mvemo.cache.spec import in_half_precision


def test_sequences_in_half_precision(path, tmp_path):
    half = in_half_precision(SEQUENCE)
    draw = np.random.default_rng(0)
    # From the smallest numbers that float16 has to the largest.
    scale = 10.0 ** draw.uniform(-9, 4.8, size=(40, SEQUENCE.dim))
    values = (draw.choice([-1, 1], scale.shape) * scale).astype(np.float32)
    with CacheWriter(path, CLIPS) as writer:
        writer.put(half, "c0", half.key("a"), values)
        with pytest.raises(BadCache, match=r"mel of clip 'c1': 70000 is beyond float16's 65504"):
            writer.put(half, "c1", half.key("b"), np.full((1, 3), 7e4, np.float32))
        writer.commit()
        writer.put(half, "c1", half.key("b"), values[:2])
    assert verify_cache(path) == []
    with open_cache(path) as cache, h5py.File(path) as file:
        group = file["features/mel"]
        found = cache.sequence("mel", "c0")
        assert (group["values"].dtype, found.dtype) == (np.float16, np.float32)
        relative = float(group.attrs["largest_relative_error"])
        error = np.abs(found.astype(float) - values)
        bound = np.maximum(relative * np.abs(values), group.attrs["largest_absolute_error"])
        assert (error <= bound).all()
        # The bounds are no wider than they must be.
        assert error.max() > 0.5 * relative * np.abs(values[error == error.max()]).min()
    merged = tmp_path / "y.h5"
    merge_caches([path], merged)
    np.testing.assert_array_equal(open_cache(merged).sequence("mel", "c0"), found)
    flip(path, found[5].astype("<f2").tobytes())
    assert verify_cache(path) == ["mel of clip 'c0': the values do not fit their checksum"]
    # Rows of one precision are none of the other, on a second run and in a folder of shards.
    with CacheWriter(merged, CLIPS) as writer:
        assert not writer.current(SEQUENCE, {"c0": SEQUENCE.key("a")})
        writer.put(SEQUENCE, "c0", SEQUENCE.key("a"), values)
    with open_cache(merged) as cache:
        assert cache.specs == (SEQUENCE,)
        np.testing.assert_array_equal(cache.sequence("mel", "c0"), values)
        assert cache.sequence("mel", "c1") is None

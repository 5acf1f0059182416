"""Sequences as float16: how far off they are, and that none is taken for float32."""

import h5py
import numpy as np
import pytest
from cache_samples import SEQUENCE, table

from mvemo.cache.errors import BadCache
from mvemo.cache.maintenance import merge_caches
from mvemo.cache.reader import open_cache
from mvemo.cache.spec import in_half_precision
from mvemo.cache.verify import verify_cache
from mvemo.cache.writer import CacheWriter


def test_sequences_in_half_precision(tmp_path):
    clips = table()
    half = in_half_precision(SEQUENCE)
    draw = np.random.default_rng(0)
    # From the smallest numbers that float16 has to the largest.
    scale = 10.0 ** draw.uniform(-9, 4.8, size=(40, SEQUENCE.dim))
    values = (draw.choice([-1, 1], scale.shape) * scale).astype(np.float32)
    path = tmp_path / "x.h5"
    with CacheWriter(path, clips) as writer:
        writer.put(half, "c0", half.key("a"), values)
        with pytest.raises(BadCache, match=r"mel of clip 'c1': 70000 is beyond float16's 65504"):
            writer.put(half, "c1", half.key("b"), np.full((1, 3), 7e4, np.float32))
        writer.commit()
        writer.put(half, "c1", half.key("b"), values[:2])
    assert verify_cache(path) == []
    with open_cache(path) as cache, h5py.File(path) as file:
        group = file["features/mel"]
        assert group["values"].dtype == np.float16
        found = cache.sequence("mel", "c0")
        assert found is not None
        assert found.dtype == np.float32
        relative = float(group.attrs["largest_relative_error"])
        absolute = float(group.attrs["largest_absolute_error"])
        error = np.abs(found.astype(float) - values)
        assert (error <= np.maximum(relative * np.abs(values), absolute)).all()
        # The bounds are no wider than they must be.
        assert error.max() > 0.5 * relative * np.abs(values[error == error.max()]).min()
    merge_caches([path], tmp_path / "y.h5")
    with open_cache(tmp_path / "y.h5") as cache:
        again = cache.sequence("mel", "c0")
        assert again is not None
        np.testing.assert_array_equal(again, found)
    data = bytearray(path.read_bytes())
    data[data.index(found[5].astype("<f2").tobytes())] ^= 1
    path.write_bytes(data)
    assert verify_cache(path) == ["mel of clip 'c0': the values do not fit their checksum"]
    # Rows of one precision are none of the other, on a second run and in a folder of shards.
    with CacheWriter(tmp_path / "y.h5", clips) as writer:
        assert not writer.current(SEQUENCE, {"c0": SEQUENCE.key("a")})
        writer.put(SEQUENCE, "c0", SEQUENCE.key("a"), values)
    with open_cache(tmp_path / "y.h5") as cache:
        assert cache.specs == (SEQUENCE,)
        np.testing.assert_array_equal(cache.sequence("mel", "c0"), values)
        assert cache.sequence("mel", "c1") is None

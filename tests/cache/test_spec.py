"""Keys of features, where every parameter counts, and sequences as float16."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
from cache_samples import CLIPS, SEQUENCE, VECTOR, flip
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.cache import BadCache, CacheWriter, merge_caches, open_cache, verify_cache
from mvemo.cache.spec import content_digest, digest_of, in_half_precision

scalars = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5)
scalars |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
params = st.dictionaries(st.text(max_size=4), values, max_size=3)


def canonical(value):
    """What JSON tells apart: Python says 1 == 1.0 == True."""
    if isinstance(value, dict):
        return ("dict", tuple(sorted((k, canonical(v)) for k, v in value.items())))
    if isinstance(value, list):
        return ("list", tuple(canonical(v) for v in value))
    return (type(value).__name__, repr(value))


@settings(max_examples=15)
@given(params, params)
def test_other_parameters_give_another_key_and_equal_ones_the_same(a, b):
    one, two = replace(VECTOR, params=a), replace(VECTOR, params=b)
    assert (one.digest == two.digest) == (canonical(a) == canonical(b))
    assert (one.key("x") == two.key("x")) == (canonical(a) == canonical(b))
    # Their order does not count.
    assert replace(VECTOR, params=dict(reversed(a.items()))).digest == one.digest


OTHERS = {"name": "music2d", "modality": "video", "kind": "sequence", "dim": 5}
OTHERS |= {"extractor": "net:other", "version": 2, "weights": "b" * 64, "protocol": "shared"}
OTHERS |= {"fold": 0, "params": {"sr": 12000}}


def test_every_field_medium_and_stretch_count(tmp_path):
    for field, value in OTHERS.items():
        assert replace(VECTOR, **{field: value}).digest != VECTOR.digest
    stretches = [{}, {"start": 1.0}, {"duration": 1.0}, {"start": 1.0, "duration": 1.0}]
    assert len({VECTOR.key("y"), *(VECTOR.key("x", **stretch) for stretch in stretches)}) == 5
    # Whole seconds and training clips give the same key in any form.
    assert VECTOR.key("x", start=0) == VECTOR.key("x", start=0.0)
    assert VECTOR.key("x", duration=30) == VECTOR.key("x", duration=30.0)
    assert replace(VECTOR, trained_on=("c1",)).digest == VECTOR.digest
    with pytest.raises(ValueError, match="Out of range float"):
        digest_of({"x": float("nan")})
    (tmp_path / "abc").write_bytes(b"abc")
    assert content_digest(tmp_path / "abc") == hashlib.sha256(b"abc").hexdigest()


def test_sequences_in_half_precision(path, tmp_path):
    half = in_half_precision(SEQUENCE)
    draw = np.random.default_rng(0)
    # From the smallest numbers that float16 has to the largest.
    scale = 10.0 ** draw.uniform(-9, 4.8, size=(40, SEQUENCE.dim))
    values = (draw.choice([-1, 1], scale.shape) * scale).astype(np.float32)
    with CacheWriter(path, CLIPS) as writer:
        writer.put(half, "c0", half.key("a"), values)
        with pytest.raises(BadCache, match=r"mel of clip 'c1': 70000 is above float16's 65504"):
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
    assert verify_cache(path) == ["mel of clip 'c0': the values do not match their checksum"]
    # Rows of one precision are none of the other, on a second run and in a folder of shards.
    with CacheWriter(merged, CLIPS) as writer:
        assert not writer.current(SEQUENCE, {"c0": SEQUENCE.key("a")})
        writer.put(SEQUENCE, "c0", SEQUENCE.key("a"), values)
    with open_cache(merged) as cache:
        assert cache.specs == (SEQUENCE,)
        np.testing.assert_array_equal(cache.sequence("mel", "c0"), values)
        assert cache.sequence("mel", "c1") is None

"""Keys: every parameter counts, their order does not."""

import hashlib
from dataclasses import replace

import pytest
from cache_samples import VECTOR
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.cache.spec import content_digest, digest_of

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


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_counts(field):
    assert replace(VECTOR, **{field: OTHERS[field]}).digest != VECTOR.digest


def test_medium_and_stretch_count():
    stretches = [{}, {"start": 1.0}, {"duration": 1.0}, {"start": 1.0, "duration": 1.0}]
    assert len({VECTOR.key("y"), *(VECTOR.key("x", **stretch) for stretch in stretches)}) == 5
    # Whole seconds and training clips give the same key in any form.
    assert VECTOR.key("x", start=0) == VECTOR.key("x", start=0.0)
    assert VECTOR.key("x", duration=30) == VECTOR.key("x", duration=30.0)
    assert replace(VECTOR, trained_on=("c1",)).digest == VECTOR.digest


def test_content_digest_is_sha256_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert content_digest(tmp_path / "abc") == hashlib.sha256(b"abc").hexdigest()


def test_no_nan_in_a_key():
    with pytest.raises(ValueError, match="Out of range float"):
        digest_of({"x": float("nan")})

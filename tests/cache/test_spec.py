"""Keys: every parameter counts, their order does not."""

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


@settings(max_examples=30)
@given(params, params)
def test_other_parameters_give_another_key_and_equal_ones_the_same(a, b):
    one, two = replace(VECTOR, params=a), replace(VECTOR, params=b)
    assert (one.digest == two.digest) == (canonical(a) == canonical(b))
    assert (one.key("x") == two.key("x")) == (canonical(a) == canonical(b))


@settings(max_examples=15)
@given(params, st.randoms(use_true_random=False))
def test_order_of_parameters_does_not_count(a, random):
    items = list(a.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert replace(VECTOR, params=dict(items)).digest == replace(VECTOR, params=a).digest


@pytest.mark.parametrize(
    "change",
    [
        {"name": "music2d"},
        {"modality": "video"},
        {"kind": "sequence"},
        {"dim": 5},
        {"extractor": "net:other"},
        {"version": 2},
        {"weights": "b" * 64},
        {"protocol": "shared"},
        {"fold": 0},
        {"params": {"sr": 12000}},
    ],
)
def test_every_field_counts(change):
    assert replace(VECTOR, **change).digest != VECTOR.digest


def test_training_clips_do_not_count():
    assert replace(VECTOR, trained_on=("c1",)).digest == VECTOR.digest


def test_medium_and_stretch_count():
    keys = {
        VECTOR.key("x"),
        VECTOR.key("y"),
        VECTOR.key("x", start=1.0),
        VECTOR.key("x", duration=1.0),
        VECTOR.key("x", start=1.0, duration=1.0),
    }
    assert len(keys) == 5
    assert VECTOR.key("x", start=0) == VECTOR.key("x", start=0.0)


def test_whole_seconds_key_the_same_as_integers():
    assert VECTOR.key("x", duration=30) == VECTOR.key("x", duration=30.0)


def test_content_digest_is_sha256_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content_digest(tmp_path / "abc") == known


def test_no_nan_in_a_key():
    with pytest.raises(ValueError, match="Out of range float"):
        digest_of({"x": float("nan")})

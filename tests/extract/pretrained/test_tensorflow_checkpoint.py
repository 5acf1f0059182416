"""TensorFlow checkpoints: what is read, and that nothing but one line comes of others."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_samples import block_of, checkpoint_of, entry_of, number, part, table_of

from mvemo.extract.errors import BadWeights
from mvemo.extract.pretrained.converting import read_checkpoint, read_index

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv2d/kernel": RNG.normal(size=(3, 2, 1, 5)).astype(np.float32),
    "conv2d/bias": RNG.normal(size=5).astype(np.float32),
    "conv2d_1/bias": RNG.normal(size=300),
    "global_step": np.array(7, dtype=np.int64),
    "names/\u00e9": np.arange(4, dtype=np.int32),
}
INDEX, DATA = checkpoint_of(ARRAYS)


def test_every_tensor_comes_back_as_it_was():
    arrays = read_checkpoint(INDEX, DATA)
    assert list(arrays) == sorted(ARRAYS)
    for name, expected in ARRAYS.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


def test_the_index_says_where_the_numbers_are():
    entry = next(e for e in read_index(INDEX) if e.name == "conv2d/kernel")
    assert (entry.shape, entry.size, entry.dtype) == ((3, 2, 1, 5), 120, 1)


@pytest.mark.parametrize("n", range(0, len(INDEX), 7))
def test_a_cut_off_index_is_one_line(n):
    with pytest.raises(BadWeights) as caught:
        read_checkpoint(INDEX[:n], DATA)
    assert "\n" not in str(caught.value)


def test_cut_off_numbers_are_told():
    with pytest.raises(BadWeights, match="larger than their file of"):
        read_checkpoint(INDEX, DATA[:-1])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(INDEX) - 1), st.integers(0, 255), st.integers(0, len(DATA)))
def test_no_changed_byte_causes_any_other_error(at, value, length):
    changed = bytearray(INDEX)
    changed[at] = value
    with suppress(BadWeights):
        arrays = read_checkpoint(bytes(changed), DATA[:length])
        assert sum(array.nbytes for array in arrays.values()) <= length


def one(entry: bytes, header: bytes = b"") -> bytes:
    return table_of([(b"", header), (b"w", entry)])


WHOLE = entry_of(np.zeros((2, 3), dtype=np.float32), 0)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"", "not the index of a TensorFlow checkpoint"),
        (table_of([(b"", b"")]), "holds no tensors"),
        (one(WHOLE, number(1, 2)), "in 2 files"),
        (one(WHOLE, number(2, 1)), "big-endian"),
        (one(WHOLE + number(3, 1)), "is in file 1"),
        (one(WHOLE + part(7, b"")), "slices"),
        (one(WHOLE + number(1, 7)), "type number 7"),
        (one(WHOLE + number(5, 20)), r"of shape \(2, 3\) has 20 bytes, not 24"),
        (one(WHOLE + number(4, 1)), "ends at byte 25, its file has 24"),
        (one(WHOLE + part(2, part(2, number(1, 0)))), "is empty"),
        (one(WHOLE + part(2, 9 * part(2, number(1, 1)))), "11 axes, 8 at most"),
        (one(WHOLE + b"\x0b"), "unknown kind 3"),
        (one(number(1, 1) + b"\x12\x7f"), "127 bytes are announced"),
        (one(b"\x08" + 10 * b"\xff"), "more than 64 bits"),
        (table_of([(b"w", WHOLE), (b"w", WHOLE)]), "appears twice"),
        (table_of([(b"\xff", WHOLE)]), "not UTF-8"),
        (table_of([(b"a\nb", WHOLE)]), "control characters"),
    ],
)
def test_what_is_wrong_is_said(index, message):
    with pytest.raises(BadWeights, match=message):
        read_checkpoint(index, bytes(24))


def test_many_tensors_on_the_same_numbers_are_refused():
    """A small file must not grow to gigabytes of arrays."""
    index = table_of([(b"w%03d" % i, WHOLE) for i in range(50)])
    with pytest.raises(BadWeights, match="larger than their file"):
        read_checkpoint(index, bytes(24))


def test_a_compressed_block_is_told():
    rows = [(b"", b""), (b"w", WHOLE)]
    index = bytearray(table_of(rows))
    assert index[len(block_of(rows))] == 0
    index[len(block_of(rows))] = 1
    with pytest.raises(BadWeights, match="compressed"):
        read_index(bytes(index))

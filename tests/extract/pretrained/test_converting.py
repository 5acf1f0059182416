"""Pickled arrays, read without calling anything that they name, and TensorFlow checkpoints."""

import os
import pickle
import pickletools
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_samples import block_of, checkpoint_of, entry_of, number, part, table_of

from mvemo.extract.errors import BadWeights
from mvemo.extract.pretrained.converting import read_array_pickle, read_checkpoint, read_index

TREE = {
    "params": {
        "layer": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    },
    "count": np.array([3], dtype=np.int64),
    "big": np.array([1.5, 2.5], dtype=">f4"),
}


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_under_joined_names(protocol):
    arrays = read_array_pickle(pickle.dumps(TREE, protocol=protocol))
    assert list(arrays) == ["params/layer/kernel", "params/fortran", "count", "big"]
    np.testing.assert_array_equal(arrays["params/layer/kernel"], TREE["params"]["layer"]["kernel"])
    np.testing.assert_array_equal(arrays["params/fortran"], TREE["params"]["fortran"])
    assert arrays["count"].tolist() == [3]
    assert arrays["big"].dtype.isnative
    assert arrays["big"].tolist() == [1.5, 2.5]


class Trap:
    sprung = False

    def __reduce__(self):
        return (_spring, ())


def _spring():
    Trap.sprung = True


class Shell:
    def __reduce__(self):
        return (os.system, ("false",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"w": Trap()}, "refers to .*_spring, but only NumPy arrays"),
        ({"w": Shell()}, "refers to (posix|nt).system"),
        ({"w": np.array([Trap()], dtype=object)}, "refers to .*_spring|not numeric"),
        ({"w": np.array(["text"])}, "not numeric"),
        ({"w": np.zeros(2, dtype=complex)}, "not numeric"),
        ({"w": 1.0}, "w: expected a dictionary of arrays, got float"),
        ({"w": [np.zeros(2)]}, "w: expected a dictionary of arrays, got list"),
        ({1: np.zeros(2)}, "the key 1"),
        ({}, "holds no arrays"),
        (np.zeros(2), "expected a dictionary of arrays"),
        ({"w": np.float32}, "refers to numpy.float32"),
    ],
)
def test_anything_else_is_refused(value, message):
    with pytest.raises(BadWeights, match=message) as caught:
        read_array_pickle(pickle.dumps(value, protocol=4))
    assert "\n" not in str(caught.value)
    assert not Trap.sprung


@pytest.mark.parametrize(("protocol", "name"), [(2, "_codecs.encode"), (5, "_frombuffer")])
def test_other_protocols_are_refused_by_what_they_call(protocol, name):
    with pytest.raises(BadWeights, match=name):
        read_array_pickle(pickle.dumps({"w": np.zeros(3)}, protocol=protocol))


def test_a_dictionary_that_holds_itself_ends():
    tree: dict = {}
    tree["again"] = tree
    with pytest.raises(BadWeights, match="nested more than"):
        read_array_pickle(pickle.dumps(tree, protocol=4))


WHOLE = pickle.dumps({"a": {"b": np.arange(9, dtype=np.float32)}}, protocol=4)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(1, len(WHOLE)))
def test_no_changed_byte_causes_any_other_error(at, value, length):
    changed = bytearray(WHOLE)
    changed[at] = value
    # A memo's place of four gigabytes asks for as much memory, in any unpickler.
    changed = changed[:length]
    if any(name in _opcodes(bytes(changed)) for name in ("LONG_BINPUT", "BINBYTES8")):
        return
    with suppress(BadWeights):
        read_array_pickle(bytes(changed))


def _opcodes(data):
    names = set()
    try:
        for code, _, _ in pickletools.genops(data):
            names.add(code.name)
    except ValueError:
        pass
    return names


# --- TensorFlow checkpoints

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
def test_no_changed_byte_of_an_index_causes_any_other_error(at, value, length):
    changed = bytearray(INDEX)
    changed[at] = value
    with suppress(BadWeights):
        arrays = read_checkpoint(bytes(changed), DATA[:length])
        assert sum(array.nbytes for array in arrays.values()) <= length


def one(entry, header=b""):
    return table_of([(b"", header), (b"w", entry)])


ENTRY = entry_of(np.zeros((2, 3), dtype=np.float32), 0)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"", "not the index of a TensorFlow checkpoint"),
        (table_of([(b"", b"")]), "holds no tensors"),
        (one(ENTRY, number(1, 2)), "in 2 files"),
        (one(ENTRY, number(2, 1)), "big-endian"),
        (one(ENTRY + number(3, 1)), "is in file 1"),
        (one(ENTRY + part(7, b"")), "slices"),
        (one(ENTRY + number(1, 7)), "type number 7"),
        (one(ENTRY + number(5, 20)), r"of shape \(2, 3\): expected 24 bytes, got 20"),
        (one(ENTRY + number(4, 1)), "ends at byte 25, but its file has only 24"),
        (one(ENTRY + part(2, part(2, number(1, 0)))), "is empty"),
        (one(ENTRY + part(2, 9 * part(2, number(1, 1)))), "11 axes, above 8"),
        (one(ENTRY + b"\x0b"), "unknown type 3"),
        (one(number(1, 1) + b"\x12\x7f"), "127 bytes are declared"),
        (one(b"\x08" + 10 * b"\xff"), "more than 64 bits"),
        (table_of([(b"w", ENTRY), (b"w", ENTRY)]), "appears twice"),
        (table_of([(b"\xff", ENTRY)]), "not UTF-8"),
        (table_of([(b"a\nb", ENTRY)]), "control characters"),
    ],
)
def test_what_is_wrong_is_said(index, message):
    with pytest.raises(BadWeights, match=message):
        read_checkpoint(index, bytes(24))


def test_many_tensors_on_the_same_numbers_are_refused():
    index = table_of([(b"w%03d" % i, ENTRY) for i in range(50)])
    with pytest.raises(BadWeights, match="larger than their file"):
        read_checkpoint(index, bytes(24))


def test_a_compressed_block_is_told():
    rows = [(b"", b""), (b"w", ENTRY)]
    index = bytearray(table_of(rows))
    assert index[len(block_of(rows))] == 0
    index[len(block_of(rows))] = 1
    with pytest.raises(BadWeights, match="compressed"):
        read_index(bytes(index))

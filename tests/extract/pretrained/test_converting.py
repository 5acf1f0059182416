"""Pickled arrays: read without calling anything that the pickle names."""

import os
import pickle
import pickletools
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.extract.errors import BadWeights
from mvemo.extract.pretrained.converting import read_array_pickle

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
        ({"w": Trap()}, "names .*_spring, which is not an array"),
        ({"w": Shell()}, "names (posix|nt).system"),
        ({"w": np.array([Trap()], dtype=object)}, "names .*_spring|not of numbers"),
        ({"w": np.array(["text"])}, "not of numbers"),
        ({"w": np.zeros(2, dtype=complex)}, "not of numbers"),
        ({"w": 1.0}, "w is a float, not arrays by name"),
        ({"w": [np.zeros(2)]}, "w is a list"),
        ({1: np.zeros(2)}, "the key 1"),
        ({}, "holds no arrays"),
        (np.zeros(2), "not arrays by name"),
        ({"w": np.float32}, "names numpy.float32"),
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


def _opcodes(data: bytes) -> set[str]:
    names = set()
    try:
        for code, _, _ in pickletools.genops(data):
            names.add(code.name)
    except ValueError:
        pass
    return names

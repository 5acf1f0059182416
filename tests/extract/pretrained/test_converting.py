"""Pickled arrays, read without calling anything else that they name, and TensorFlow checkpoints."""

import os
import pickle

import numpy as np
import pytest
from package_samples import checkpoint_of, package_of

from mvemo.extract.errors import BadWeights
from mvemo.extract.pretrained.converting import convert, read_checkpoint

TREE = {
    "params": {
        "layer": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    },
    "big": np.array([1.5, 2.5], dtype=">f4"),
}


def read_pickle(value, protocol=4):
    return convert(package_of(b"", layout="pickle"), [pickle.dumps(value, protocol=protocol)])


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_under_joined_names(protocol):
    arrays = read_pickle(TREE, protocol)
    assert list(arrays) == ["params/layer/kernel", "params/fortran", "big"]
    np.testing.assert_array_equal(arrays["params/layer/kernel"], TREE["params"]["layer"]["kernel"])
    np.testing.assert_array_equal(arrays["params/fortran"], TREE["params"]["fortran"])
    assert arrays["big"].tolist() == [1.5, 2.5]


class Trap:
    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize("value", [Trap(), np.array([Trap()], dtype=object), np.float32])
def test_anything_else_is_refused(value):
    with pytest.raises(BadWeights, match=r"refers to .*, but only NumPy arrays are allowed"):
        read_pickle({"w": value})


def test_every_tensor_of_a_checkpoint_comes_back_as_it_was():
    rng = np.random.default_rng(0)
    saved = {
        "conv2d/kernel": rng.normal(size=(3, 2, 1, 5)).astype(np.float32),
        "conv2d/bias": rng.normal(size=5).astype(np.float32),
        "conv2d_1/bias": rng.normal(size=300),
        "global_step": np.array(7, dtype=np.int64),
        "names/\u00e9": np.arange(4, dtype=np.int32),
    }
    arrays = read_checkpoint(*checkpoint_of(saved))
    assert list(arrays) == sorted(saved)
    for name, expected in saved.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)

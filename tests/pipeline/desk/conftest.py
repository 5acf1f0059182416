"""A model that all tests of the desk share."""

import pytest
from stage_samples import tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return the folder of a model with a tiny net."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder)
    return folder / "out" / "model"

"""Path of a cache that does not exist yet."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"

"""A small set that all tests of studies share; nothing is written into its folder."""

import pytest
from study_samples import make_set


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """Manifest of 16 clips in four groups."""
    return make_set(tmp_path_factory.mktemp("small"), clips_per_class=4)

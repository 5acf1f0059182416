"""Media and finished runs that the tests of stage one share."""

import pytest
from spread_samples import extract, make_sounds
from stage_samples import run, tiny_demo, tiny_settings


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Short sounds, and the options of runs over them."""
    return make_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="session")
def whole(sounds, tmp_path_factory):
    """Folders of runs in one process; decoded media serve all tests."""
    folders = {}
    for kind in ("frozen", "trained"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        assert extract(sounds, kind, folders[kind]) == 0
    return folders


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Folder of a demo set of twelve clips."""
    folder = tmp_path_factory.mktemp("media")
    tiny_demo(folder)
    return folder


@pytest.fixture(scope="session")
def made(demo, tmp_path_factory):
    """Folder of a finished crossfit run over the demo set: features.h5 and all else."""
    work = tmp_path_factory.mktemp("work")
    assert run("mvemo", "extract", demo / "manifest.csv", "--work", work, *tiny_settings()) == 0
    return work

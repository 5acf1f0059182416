"""A model for servers."""

import pytest
from server_samples import Server, write_songs
from stage_samples import tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return the folder of a model with a tiny net."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder)
    return folder / "out" / "model"


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """Start a server of made songs, which have been predicted."""
    started = Server(model, write_songs(tmp_path_factory.mktemp("served") / "songs"))
    started.clips()
    yield started
    assert started.end() == 143

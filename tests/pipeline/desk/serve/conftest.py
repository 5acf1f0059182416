"""A server of made songs, and a library and a worker in this process."""

import pytest
from server_samples import Server, library_of, write_songs
from starlette.testclient import TestClient

from mvemo.fuse.final.model_files import load_model
from mvemo.pipeline.desk.serve.app import Api, make_app
from mvemo.pipeline.desk.serve.jobs import JobWorker
from mvemo.pipeline.prediction.new_clips import PredictSettings


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """Start a server of made songs, which have been predicted."""
    started = Server(model, write_songs(tmp_path_factory.mktemp("served") / "songs"))
    started.clips()
    yield started
    assert started.end() == 143


@pytest.fixture
def library(tmp_path):
    """A library of two songs and a broken file, which nobody predicted."""
    songs = write_songs(tmp_path / "songs", 2)
    listed = library_of(songs)
    listed.add_folder(songs)
    return listed


@pytest.fixture
def worker(library, model):
    return JobWorker(library, model, PredictSettings(), load_model(model))


@pytest.fixture
def client(library, worker):
    """A client of the API in this process, without the check of access."""
    with TestClient(make_app(Api(library, worker, "", 10**9), lambda app: app)) as opened:
        yield opened

"""A model for servers."""

import pytest
from stage_samples import run, tiny_demo, tiny_settings


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return the folder of a model with a tiny net."""
    folder = tmp_path_factory.mktemp("model")
    tiny_demo(folder / "demo", clips_per_class=2)
    more = tiny_settings('extract.descriptors=["mfcc"]', 'extract.nets=["music1d"]')
    extract = [folder / "demo" / "manifest.csv", "--work", folder / "work"]
    assert run("mvemo", "extract", *extract, *more) == 0
    features = folder / "work" / "features.h5"
    fuse = ["--final", "--out", folder / "out", "--set", "fuse.n_resamples=0"]
    assert run("mvemo", "fuse", features, *fuse) == 0
    return folder / "out" / "model"

"""Results that the tests of the report share."""

import pytest
from fuse_samples import few_results, make_results, plain_settings
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import evaluate
from mvemo.fuse.crossval.comparisons import with_uncertainty


@pytest.fixture(scope="package")
def results():
    """Nine models; six clips without C3D."""
    return make_results()


@pytest.fixture(scope="package")
def uncertain(results):
    """The same with intervals and tests."""
    return with_uncertainty(results, n_resamples=200)


@pytest.fixture(scope="package")
def few():
    return few_results()


@pytest.fixture(scope="package", params=["multilabel", "regression"])
def outputs(request, tmp_path_factory):
    """Results of tags and of values; one of 90 clips has no C3D."""
    path = tmp_path_factory.mktemp("o") / "f.h5"
    output_cache(path, output_table(request.param), noise=2.0, missing={"c3d": [4]})
    with open_cache(path) as cache:
        return with_uncertainty(evaluate(cache, plain_settings()), n_resamples=50)

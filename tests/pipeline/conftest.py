"""Fixtures of the tests that run commands."""

import pytest
import stage_samples

from mvemo.pipeline.console.messages import Verbosity, running


@pytest.fixture(autouse=True)
def printed_messages(request):
    """Print messages as in a program, in tests that look at what is printed."""
    if "capsys" not in request.fixturenames:
        yield
        return
    with running(Verbosity()):
        yield


@pytest.fixture
def program(capsys):
    """Run a command to the exit code `ends`, and return what it printed."""

    def call(*words, ends=0):
        capsys.readouterr()
        assert stage_samples.run(*words) == ends
        return capsys.readouterr()

    return call

"""Fixtures of the tests that run commands."""

import pytest
import stage_samples


@pytest.fixture
def program(capsys):
    """Run a command to the exit code `ends`, and return what it printed."""

    def call(*words, ends=0):
        capsys.readouterr()
        assert stage_samples.run(*words) == ends
        return capsys.readouterr()

    return call

"""Threads that wait sleep soon, unless the environment says how they wait."""

import pytest

from mvemo.pipeline.start import SPINS, let_threads_sleep

GIVEN = [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]


@pytest.mark.parametrize(("given", "spins"), GIVEN)
def test_threads_wait_as_the_environment_says_or_not_long(given, spins, monkeypatch):
    environment = dict(given)
    monkeypatch.setattr("os.environ", environment)
    let_threads_sleep()
    assert environment.get("GOMP_SPINCOUNT") == spins

"""Shared fixtures, and the rule for tests that need the shared data.

Tests run in parallel workers on few cores, so every numeric library gets one
thread: more would only fight. None depends on how fast the machine is, so
hypothesis sets no example a time limit.
"""

# ruff: noqa: E402

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips, weights and cached features; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    try:
        import torch

        there = torch.cuda.is_available()
    except ImportError:
        there = False
    if not there:
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that skipped a test for want of shared data that is there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not SHARED.is_dir():
        return
    skipped = reporter.stats.get("skipped", [])
    wrongly = [r.nodeid for r in skipped if "shared data" in str(r.longrepr)]
    if wrongly:
        reporter.write_line(f"skipped though the shared data is there: {wrongly}", red=True)
        session.exitstatus = 1

"""Shared fixtures, and the rule for tests that need the shared data.

Tests run in parallel workers on few cores, so every numeric library gets one
thread: more would only fight. Files are not forced to the disk: no test cuts the
power, and on a busy disk the cache's tests would mostly wait. None depends on how
fast the machine is, so hypothesis sets no example a time limit. What is imported to
collect the tests lives as long as the worker, so it is never searched for garbage.
"""

# ruff: noqa: E402

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import os
import pkgutil
import sys
import tempfile

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
gc.disable()
# Libraries that count what they leave behind must see what was frozen go.
atexit.register(gc.unfreeze)

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

settings.register_profile("tests", deadline=None, max_examples=60)
settings.load_profile("tests")

# What the developer fetched with `mvemo weights get` must change no test's result: the tests'
# own home is empty, and `fetched_weights` alone looks into the real one.
_REAL_HOME = os.environ.get("MVEMO_HOME")
os.environ["MVEMO_HOME"] = str(Path(tempfile.gettempdir()) / "mvemo-tests-have-no-weights")


def _checked_only(descriptor: int) -> None:
    """`os.fsync` without the wait; a descriptor that is not open is an error all the same."""
    os.fstat(descriptor)


os.fsync = _checked_only


@pytest.fixture(scope="module", autouse=True)
def compiled_librosa(request: pytest.FixtureRequest) -> None:
    """Let one worker after the other compile what librosa compiles when a module is imported.

    Two that write the compiler's cache at once in a new environment end in a segmentation
    fault now and then (numba/numba#10128). librosa and its packages import their modules only
    when something of them is used, so these are imported by name.
    """
    librosa = getattr(request.module, "librosa", None)
    if librosa is None:
        return
    with FileLock(Path(tempfile.gettempdir()) / "mvemo-tests-compile-librosa.lock"):
        for package in (librosa.core, librosa.util, librosa.feature):
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                importlib.import_module(module.name)


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real clips, weights and cached features; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


@pytest.fixture
def fetched_weights(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Path of a net's real fetched weights; skips where the user has not fetched them."""
    from mvemo.extract.pretrained import find_weights, pretrained_path

    if _REAL_HOME is None:
        monkeypatch.delenv("MVEMO_HOME")
    else:
        monkeypatch.setenv("MVEMO_HOME", _REAL_HOME)

    def path_of(net: str) -> Path:
        if find_weights(net) is None:
            pytest.skip(f"not fetched on this machine: mvemo weights get {net}")
        return pretrained_path(net)

    return path_of


def _empty_svg(figure: Figure) -> str:
    """In place of `mvemo.fuse.report.drawing.render_svg`: an SVG of the right size, empty."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    return f'<svg width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}"></svg>'


def _empty_png(figure: Figure) -> bytes:
    """In place of `mvemo.fuse.report.drawing.render_png`: the first bytes of any PNG."""
    return b"\x89PNG\r\n\x1a\n"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before a test, and before what its module shares is made, which fixtures are too late for."""
    _seed_torch()
    _choose_renderers(item)


def _seed_torch() -> None:
    """Have torch draw the same in a test, whichever tests a worker ran before it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


def _choose_renderers(item: pytest.Item) -> None:
    """Leave it to tests marked `figures` to let Matplotlib render: a third of a page's time.

    All figures are made in all tests.
    """
    if {"cache", "extract", "manifests"} & set(item.path.parts[-4:-1]):
        return
    from mvemo.fuse.report import drawing

    rendered = _renderers(drawing)
    marked = item.get_closest_marker("figures") is not None
    drawing.render_svg, drawing.render_png = rendered if marked else (_empty_svg, _empty_png)


@functools.cache
def _renderers(drawing: ModuleType) -> tuple[Callable[[Figure], str], Callable[[Figure], bytes]]:
    """The functions themselves, also once they were replaced."""
    return drawing.render_svg, drawing.render_png


# Those of most processor time, most first: with one of them at the end, a worker waits.
LONG_FILES = (
    "test_study_commands.py",
    "test_run.py",
    "test_pretrained.py",
    "test_out_of_fold.py",
    "test_stage_two.py",
    "test_make.py",
    "test_pool.py",
    "test_leak.py",
    "test_late.py",
    "test_spread.py",
    "test_gpu_path.py",
    "test_cluster.py",
    "test_torchvision_video.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: i for i, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    try:
        import torch

        has_gpu = torch.cuda.is_available()
    except ImportError:
        has_gpu = False
    if not has_gpu:
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def pytest_collection_finish() -> None:
    """Search for garbage from here on, among what tests make, and seldom: most of it is freed."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


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

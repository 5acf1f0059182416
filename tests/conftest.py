"""Shared fixtures and settings of all tests.

Tests run in parallel workers on few cores, so every numeric library gets one thread. Files are not
forced to the disk: no test cuts the power. No test depends on the speed of the machine, so
hypothesis has no time limit. Imported modules live as long as a worker, so the garbage collector
skips them.
"""

# ruff: noqa: E402

import atexit
import functools
import gc
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
gc.disable()
# Libraries that count what they leave behind must see what was frozen go.
atexit.register(gc.unfreeze)

from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

settings.register_profile("tests", deadline=None, max_examples=60)
settings.load_profile("tests")

# What the developer fetched with `mvemo weights get` must change no test's result: the tests'
# own home is empty, and `fetched_weights` alone looks into the real one.
_REAL_HOME = os.environ.get("MVEMO_HOME")
_OWN_HOME = tempfile.mkdtemp(prefix="mvemo-tests-")
atexit.register(shutil.rmtree, _OWN_HOME, ignore_errors=True)
os.environ["MVEMO_HOME"] = _OWN_HOME
# Nothing is downloaded: a test that needs weights makes them, or takes `fetched_weights`.
os.environ["PIP_NO_INDEX"] = "1"


def _checked_only(descriptor):
    """`os.fsync` without the wait; a descriptor that is not open is an error all the same."""
    os.fstat(descriptor)


os.fsync = _checked_only


@pytest.fixture(scope="module", autouse=True)
def compiled_librosa(request):
    """Let one worker after the other import librosa, which compiles some of its functions.

    Two workers that write the compiler's cache at once may crash (numba/numba#10128). librosa
    imports its modules only when they are used, so they are imported by name.
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
def shared_data():
    """Folder of real clips, weights and cached features; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Folder of a finished run, with features of 12 clips and a model; no test writes into it."""
    from stage_samples import tiny_model

    folder = tmp_path_factory.mktemp("tiny")
    tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def model(tiny_run):
    """Folder of a model of classes with a tiny net."""
    return tiny_run / "out" / "model"


@pytest.fixture
def fetched_weights(monkeypatch):
    """Path of a net's real fetched weights; skips where the user has not fetched them."""
    from mvemo.extract.pretrained import find_weights, pretrained_path

    if _REAL_HOME is None:
        monkeypatch.delenv("MVEMO_HOME")
    else:
        monkeypatch.setenv("MVEMO_HOME", _REAL_HOME)

    def path_of(net):
        if find_weights(net) is None:
            pytest.skip(f"not fetched on this machine: mvemo weights get {net}")
        return pretrained_path(net)

    return path_of


def _empty(figure, kind, dpi=72):
    """Return an empty SVG of the right size, or the first bytes of a PNG."""
    if kind != "svg":
        return b"\x89PNG\r\n\x1a\n"
    width, height = (72 * inches for inches in figure.get_size_inches())
    view = f'viewBox="0 0 {width} {height}"'
    return f'<svg width="{width}pt" height="{height}pt" {view}></svg>'.encode()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed torch, and choose the renderer, before the fixtures of a module are made.

    Rendering takes a third of a page's time, so only tests marked `figures` let Matplotlib render;
    all tests make all figures.
    """
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    if {"cache", "extract", "manifests"} & set(item.path.parts[-4:-1]):
        return
    from mvemo.fuse.report import drawing

    rendered = _renderer(drawing)
    drawing.render = rendered if _marked(item, "figures") else _empty


@functools.cache
def _renderer(drawing):
    """Return the renderer as it was before it was replaced."""
    return drawing.render


def _marked(item, name):
    return item.get_closest_marker(name) is not None


# Those of most processor time, most first: with one of them at the end, a worker waits.
LONG_FILES = """
page plugins evaluation bench server degradations layer_models beets soak spread notebook
study_commands backends experts pool run estimate calibration examples clip_columns tasks pictures
encoders initial_loss doctor leak predict uncertainty output_docs robustness explain cli i3d
"""


def pytest_collection_modifyitems(items):
    rank = {f"test_{name}.py": i for i, name in enumerate(LONG_FILES.split())}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    gpu = [item for item in items if _marked(item, "gpu")]
    if gpu and not (find_spec("torch") and importlib.import_module("torch").cuda.is_available()):
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


def pytest_collection_finish():
    """Search for garbage from here on, among what tests make, and seldom: most of it is freed."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_sessionfinish(session):
    """Fail a run that skipped a test of shared data although the data exists."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not SHARED.is_dir():
        return
    skipped = reporter.stats.get("skipped", [])
    wrongly = [r.nodeid for r in skipped if "shared data" in str(r.longrepr)]
    if wrongly:
        reporter.write_line(f"skipped though the shared data is there: {wrongly}", red=True)
        session.exitstatus = 1

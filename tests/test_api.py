"""What notebooks import: four packages, each with a list of names that are there."""

import importlib
import subprocess
import sys

import pytest

PLACES = ("mvemo.manifests", "mvemo.cache", "mvemo.extract", "mvemo.fuse")
# Seconds to import, or not installed with stage two alone.
HEAVY = ("torch", "torchvision", "librosa", "av", "cv2", "soundfile", "soxr")


@pytest.mark.parametrize("place", PLACES)
def test_every_public_name_is_there_and_says_what_it_is(place):
    module = importlib.import_module(place)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and getattr(value, "__module__", "").startswith("mvemo"):
            assert value.__doc__, f"{place}.{name} has no docstring"


def test_importing_the_packages_imports_nothing_heavy():
    code = (
        f"import sys, {', '.join(PLACES)}\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    extract = importlib.import_module("mvemo.extract")
    assert not hasattr(extract, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from mvemo.extract import no_such_name", {})

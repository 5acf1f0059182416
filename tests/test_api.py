"""What notebooks import: four packages, each with a list of names that are there."""

import configparser
import importlib
import re
from importlib import metadata
from pathlib import Path

import pytest

import mvemo

ROOT = Path(__file__).parents[1]
PLACES = ("mvemo.manifests", "mvemo.cache", "mvemo.extract", "mvemo.fuse")


@pytest.mark.parametrize("place", PLACES)
def test_every_public_name_is_there_and_says_what_it_is(place):
    module = importlib.import_module(place)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) and getattr(value, "__module__", "").startswith("mvemo"):
            assert value.__doc__, f"{place}.{name} has no docstring"


def test_a_name_that_is_not_there_is_an_attribute_error():
    extract = importlib.import_module("mvemo.extract")
    assert not hasattr(extract, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from mvemo.extract import no_such_name", {})


def test_the_version_is_stated_once_in_code_and_in_the_citation():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    version = config["metadata"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.M) == [version]
    assert mvemo.__version__ == metadata.version("mvemo")

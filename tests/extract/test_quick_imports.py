"""Garbage is looked for again after the imports, also where one fails."""

import gc
import sys

import pytest

from mvemo.extract.workers.process import imports_uncollected


@pytest.fixture
def freezes(monkeypatch):
    """Whether garbage was looked for each time that what is there was left out of it."""
    calls = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    return calls


def test_garbage_is_not_looked_for_within_alone(monkeypatch, freezes):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    enabled = []

    def fail():
        with imports_uncollected():
            enabled.append(gc.isenabled())
            raise ModuleNotFoundError

    with pytest.raises(ModuleNotFoundError):
        fail()
    assert enabled == [False]
    assert gc.isenabled()
    assert freezes == [False]


def test_nothing_is_done_where_torch_is_there(monkeypatch, freezes):
    monkeypatch.setitem(sys.modules, "torch", sys)
    with imports_uncollected():
        assert gc.isenabled()
    assert freezes == []

"""What is said of tasks that failed in other processes."""

from __future__ import annotations

import pytest

from mvemo.cache import CacheError
from mvemo.extract.errors import ExtractError
from mvemo.pipeline.errors import TaskFailed
from mvemo.pipeline.stage_one.spread import _reason


@pytest.mark.parametrize("kind", [CacheError, ExtractError, TaskFailed])
def test_errors_of_ours_say_all_themselves(kind: type[Exception]) -> None:
    assert _reason(kind("f.h5: no room:\n make some")) == "f.h5: no room: make some"


def test_of_others_the_kind_is_told() -> None:
    assert _reason(KeyError("x")) == "KeyError: 'x'"

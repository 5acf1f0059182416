"""Settings that are declared once: their fields, limits and words."""

from dataclasses import dataclass
from math import inf, nan

import pytest

from mvemo.manifests.declared import Allowed, check_settings, profile_fields, setting


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.5, "Rate.", gt=0, le=1)


@dataclass(frozen=True)
class Outer:
    name: str = "any"
    inner: Inner = setting(Inner, "Nested.")
    kind: str = setting("a", "Kind.", names=("a", "b"))
    seed: int | None = setting(None, ge=0, profile=False)

    def __post_init__(self):
        check_settings(self, ValueError)


def test_nested_settings_are_in_the_same_table():
    found = [(each.name, value) for each, value in profile_fields(Outer())]
    assert found == [("rate", 0.5), ("kind", "a")]


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="kind: expected one of a, b, got 'c'"):
        Outer(kind="c")
    with pytest.raises(ValueError, match="seed is -1: it must be 0 or more"):
        Outer(seed=-1)


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "words"),
    [
        ({"ge": 2}, [2, 9.5], [1, nan, inf], "2 or more"),
        ({"gt": 0, "le": 1}, [0.1, 1], [0, 1.1, -1], "above 0 and at most 1"),
        ({"ge": 0, "lt": 1}, [0, 0.9], [-0.1, 1], "at least 0 and below 1"),
        ({"ge": 0, "le": 2**32 - 1}, [0, 2**32 - 1], [-1, 2**32], "from 0 to 4294967295"),
        ({"gt": 0, "lt": 1}, [0.5], [0, 1], "above 0 and below 1"),
    ],
)
def test_limits(limits, inside, outside, words):
    allowed = Allowed(**limits)
    assert str(allowed) == words
    assert all(value in allowed for value in [*inside, None, "text"])
    assert not any(value in allowed for value in outside)

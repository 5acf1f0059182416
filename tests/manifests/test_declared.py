"""Settings that are declared once: their fields, limits and words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nan
from typing import Literal

import pytest

from mvemo.manifests.declared import Allowed, check_settings, from_table, profile_fields, setting


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
        check_settings(self)


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


@dataclass(frozen=True)
class Part:
    column: str
    share: float | None = None


@dataclass(frozen=True)
class File:
    title: str
    kind: Literal["a", "b"] = "a"
    parts: tuple[Part, ...] = ()
    named: Mapping[str, Part] = field(default_factory=dict)
    other: Part | None = None
    limit: float | str = 0.0
    path: str = field(default="", metadata={"key": False})


def test_a_toml_table_fills_nested_dataclasses():
    stated = {
        "title": "x",
        "parts": [{"column": "a", "share": 1}, "b"],
        "named": {"v": "c", "w": {"column": "d"}},
        "other": {"column": "e"},
        "limit": 2,
    }
    parts, named = (Part("a", 1), Part("b")), {"v": Part("c"), "w": Part("d")}
    assert from_table(File, stated) == File("x", "a", parts, named, Part("e"), 2)
    assert from_table(File, {"title": "x", "parts": "a"}).parts == (Part("a"),)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, "the key title is missing"),
        ({"titel": "x"}, "unknown key titel; expected one of title, kind, parts, named, other, li"),
        ({"title": "x", "path": "y"}, "unknown key path; expected one of title"),
        ({"title": 3}, "title: expected a string, got 3"),
        ({"title": "x", "limit": True}, "limit: expected a number or a string, got True"),
        ({"title": "x", "parts": [{"share": 1}]}, r"parts\[0\]: the key column is missing"),
        ({"title": "x", "named": {"v": 3}}, "named.v: expected a table, got 3"),
        ({"title": "x", "other": {"column": "a", "share": "b"}}, "other.share: expected a number"),
    ],
)
def test_a_wrong_key_or_value_of_a_toml_table_is_named(stated, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        from_table(File, stated)

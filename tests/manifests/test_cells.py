"""Numbers in the cells of a table."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests.cells import are_numbers, parse_number, to_number, to_numbers, to_whole

NOT_NUMBERS = ["", " ", "1 2", *["100_1", "1_000", "_1", "1_", "٣", "１", "1,5", "0x1F", "--1"]]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_no_number(text):
    with pytest.raises(ValueError, match="is not a number"):
        to_number(text)
    with pytest.raises(ValueError, match="is not a number"):
        to_numbers(["1", text])
    with pytest.raises(ValueError, match="is not a whole number"):
        to_whole(text)
    assert not text or not are_numbers(["1", text])
    problems = []
    assert math.isnan(parse_number(text, "valence", problems.append))
    assert problems == [f"valence {text!r} is not a number"]


@given(st.floats())
def test_numbers_that_python_writes(value):
    for text in (repr(value), f" {value!r} "):
        assert repr(to_number(text)) == repr(to_numbers([text])[0]) == repr(value)


@given(st.text(max_size=5))
def test_many_are_read_as_one(text):
    try:
        one = to_number(text)
    except ValueError:
        one = None
    try:
        many = to_numbers(["1", text])[1]
    except ValueError:
        many = None
    assert repr(one) == repr(many)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("3.0", 3), ("3.", 3), ("-1.0", -1), ("007", 7), (" 2 ", 2)]
)
def test_whole_numbers(text, value):
    assert to_whole(text) == value


@pytest.mark.parametrize("text", ["3.5", "1e3", "nan", "inf", "9" * 19, "9" * 5000])
def test_not_whole(text):
    with pytest.raises(ValueError, match="is not a whole number"):
        to_whole(text)


def test_a_column_of_only_missing_numbers_is_none():
    assert are_numbers(["", "nan", "3.1"])
    assert not are_numbers(["", "nan"])

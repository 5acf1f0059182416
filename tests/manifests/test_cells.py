"""Numbers in the cells of a table."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests.cells import are_numbers, parse_number, to_number, to_numbers, to_whole

NOT_NUMBERS = ["", " ", "1 2", "100_1", "1_000", "_1", "1_", "٣", "１", "1,5", "0x1F", "--1"]
WHOLE = {"3": 3, "3.0": 3, "3.": 3, "-1.0": -1, "007": 7, " 2 ": 2}
NOT_WHOLE = ["3.5", "1e3", "nan", "inf", "9" * 19, "9" * 5000]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_no_number(text):
    for read in (to_number, lambda cell: to_numbers(["1", cell])):
        with pytest.raises(ValueError, match="is not a number"):
            read(text)
    assert not text or not are_numbers(["1", text])
    problems = []
    assert math.isnan(parse_number(text, "valence", problems.append))
    assert problems == [f"valence {text!r} is not a number"]


@given(st.floats())
def test_numbers_that_python_writes(value):
    for text in (repr(value), f" {value!r} "):
        assert repr(to_number(text)) == repr(to_numbers([text])[0]) == repr(value)


def test_whole_numbers():
    assert {text: to_whole(text) for text in WHOLE} == WHOLE
    for text in (*NOT_NUMBERS, *NOT_WHOLE):
        with pytest.raises(ValueError, match="is not a whole number"):
            to_whole(text)


def test_a_column_of_only_missing_numbers_is_none():
    assert are_numbers(["", "nan", "3.1"])
    assert not are_numbers(["", "nan"])

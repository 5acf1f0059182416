"""Comment lines and list cells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests.cells import format_names, parse_names

names = st.lists(st.text(min_size=1).filter(lambda t: t == t.strip()), max_size=4)


@given(names, st.sampled_from([",", ";"]))
def test_lists_of_names_are_read_back(listed: list[str], separator: str) -> None:
    assert parse_names(format_names(listed, separator), separator) == listed


def test_bad_lists_are_named() -> None:
    with pytest.raises(ValueError, match="not a JSON list"):
        parse_names('["a"', ",")
    with pytest.raises(ValueError, match="not text"):
        parse_names("[1]", ",")


def test_plain_lists_forgive_blanks() -> None:
    assert parse_names(" a ,b,, c", ",") == ["a", "b", "c"]

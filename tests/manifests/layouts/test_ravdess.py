"""Data sets told by the names of their files: RAVDESS."""

import pytest

from mvemo.manifests.layouts.file_names import NAMED_FILES


def test_a_name_taken_apart() -> None:
    facts = NAMED_FILES["ravdess"].parse("03-02-05-02-01-02-12")
    assert facts is not None
    assert list(facts.values()) == ["audio", "song", "angry", "strong", "01", "02", "12"]


@pytest.mark.parametrize(
    "stem",
    [
        "song",
        "03-02-05-02-01-02",
        "03-02-09-02-01-02-12",
        "04-02-05-02-01-02-12",
        "03-02-00-02-01-02-12",
        "03-02-05-02-01-02-25",
        "03-02-05-02-01-03-12",
        "03-02-05-02-01-02-12-01",
        "3-02-05-02-01-02-12",
    ],
)
def test_other_names(stem: str) -> None:
    assert NAMED_FILES["ravdess"].parse(stem) is None

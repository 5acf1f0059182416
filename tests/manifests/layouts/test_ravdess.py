"""RAVDESS file names."""

import pytest

from mvemo.manifests.layouts.ravdess import RavdessName, parse_ravdess


def test_a_name_taken_apart() -> None:
    assert parse_ravdess("03-02-05-02-01-02-12") == RavdessName(
        "audio", "song", "angry", "strong", 1, 2, 12
    )
    name = parse_ravdess("01-01-08-01-02-01-07")
    assert name is not None
    assert (name.modality, name.channel, name.emotion) == ("audio-video", "speech", "surprised")
    assert name.group == "actor-07"


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
    ],
)
def test_other_names(stem: str) -> None:
    assert parse_ravdess(stem) is None

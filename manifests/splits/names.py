"""Names that data sets use for training, validation and test clips."""

from __future__ import annotations

TRAIN, VALIDATION, TEST = 0, 1, 2
# Names in messages, in the order of the numbers.
PARTS = ("train", "validation", "test")

_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}


def part_of(word: str) -> int | None:
    """Return the part that a word names, in any case; None for any other word.

    Examples
    --------
    >>> part_of("Training"), part_of("dev"), part_of("TEST"), part_of("fold1")
    (0, 1, 2, None)
    """
    return _WORDS.get(word.strip().lower())

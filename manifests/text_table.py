"""Tables as text for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def align_columns(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """A line for each row, with cells of one width a column and two blanks between.

    Parameters
    ----------
    rows
        Of equal length, the header among them.
    left
        Numbers of the columns that are aligned to the left; all others to the right.

    Examples
    --------
    >>> print("\\n".join(align_columns([("net", "clips"), ("c3d", "98"), ("music1d", "100")])))
    net      clips
    c3d         98
    music1d    100
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

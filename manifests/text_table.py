"""Tables as text for the terminal, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape


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


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as a notebook shows it; every text is escaped.

    Examples
    --------
    >>> html_table("nets", ("net",), [("a<b",)])
    '<table><caption>nets</caption><tr><th>net</th></tr><tr><td>a&lt;b</td></tr></table>'
    """
    body = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    body += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><caption>{escape(caption)}</caption>{''.join(body)}</table>"


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first of some names, and how many more there are.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2), listed(["a"])
    ('a, b and 1 more', 'a')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Tables and lists as text for the terminal, and as HTML for notebooks."""

import unicodedata
from collections.abc import Collection, Sequence
from html import escape


def align_columns(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Return one aligned line per row; columns with an index in `left` are left-aligned."""
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(map(_places, column))
        blanks = ((cell, " " * (width - _places(cell))) for cell in column)
        columns.append([c + blank if i in left else blank + c for c, blank in blanks])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _places(text: str) -> int:
    """Return the width of a text in terminal columns."""
    if text.isascii():
        return len(text)
    drawn = (c for c in text if not unicodedata.combining(c))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in drawn)


def shown_name(name: str, most: int = 72) -> str:
    r"""Return a file name on one line: control characters escaped, only the end of a long name."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return plain if len(plain) <= most else f"…{plain[1 - most :]}"


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML for notebooks, with all text escaped."""
    body = f"<table><caption>{escape(caption)}</caption>"
    for tag, row in (("th", head), *(("td", row) for row in rows)):
        body += f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
    return f"{body}</table>"


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the first `most` names as text, and the number of further names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

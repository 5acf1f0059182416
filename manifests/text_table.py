"""Tables and lists as text for the terminal, and as HTML or data frames for notebooks."""

import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any

_UNSTORABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


def escaped(name: str) -> str:
    r"""Return a name with escapes for what no table can hold, such as ``\\n``.

    These are control characters, line breaks, and bytes that are not UTF-8.
    """
    return _UNSTORABLE.sub(lambda found: repr(found[0])[1:-1], name)


def shown_name(name: str) -> str:
    """Return a file name on one line: escaped, only the end of a long name."""
    plain = escaped(name)
    return plain if len(plain) <= 72 else f"…{plain[-71:]}"


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as HTML for notebooks, with all text escaped."""
    body = f"<table><caption>{escape(caption)}</caption>"
    for tag, row in (("th", head), *(("td", row) for row in rows)):
        body += f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
    return f"{body}</table>"


class Tabular:
    """Mixin of results that are a table in notebooks; subclasses have `caption` and `records`."""

    def caption(self) -> str:
        """Return the title of the table."""
        raise NotImplementedError

    def records(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows as JSON values."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        records = self.records()
        head = list(dict.fromkeys(name for record in records for name in record))
        rows = [[_cell(record.get(name)) for name in head] for record in records]
        return html_table(self.caption(), head, rows)

    def to_pandas(self) -> Any:
        """Return the rows as a `pandas.DataFrame`; ``a.b`` is the column of entry b of a dict."""
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from None
        return pandas.json_normalize(self.records())


def _cell(value: Any) -> str:
    """Return a JSON value as the text of a cell."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return listed([_cell(entry) for entry in value])
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else ""
    return "" if value is None else str(value)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return the first `most` names as text, and the number of further names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

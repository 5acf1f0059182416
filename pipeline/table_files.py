"""Tables that commands write: CSV, or Parquet if the file's name ends so."""

import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mvemo.manifests.files import replacing, write_text
from mvemo.manifests.tables import PARQUET, CsvWriter


def write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a header and rows atomically; None stands for an empty cell."""
    if path.suffix.lower() not in PARQUET:
        text = io.StringIO(newline="")
        CsvWriter(text).writerows(rows)
        write_text(path, text.getvalue())
        return
    # pyarrow has no types, and is only installed with pandas.
    arrow: Any = import_module("pyarrow")
    parquet: Any = import_module("pyarrow.parquet")
    header, *body = rows
    columns = []
    for i in range(len(header)):
        cells = [row[i] for row in body]
        numeric = all(isinstance(cell, (int, float)) for cell in cells if cell is not None)
        kind = arrow.float64() if numeric and any(c is not None for c in cells) else arrow.string()
        texts = [None if cell is None else str(cell) for cell in cells]
        columns.append(arrow.array(cells if kind == arrow.float64() else texts, kind))
    with replacing(path) as temp:
        parquet.write_table(arrow.Table.from_arrays(columns, [*map(str, header)]), temp)

"""Simulations of every figure that mvemo states: ``python bench/calibration [NAME ...]``.

Each module of this folder with a function ``rows`` measures some figures; the table goes to
docs/calibration.md. With --data, sets of real features in this folder are used as well.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import warnings
from pathlib import Path

from rows import Row

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parents[1] / "docs" / "calibration.md"
NAMES = tuple(
    path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem not in ("__main__", "rows")
)
MARK = "<!-- The table below is written by `make calibration`. -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", type=Path, help="folder with the sets emomv and choi2017")
    parser.add_argument("--print", action="store_true", help="print only, and keep the page")
    chosen = parser.parse_args()
    tables = []
    for name in chosen.names or NAMES:
        started = time.perf_counter()
        module = importlib.import_module(name)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: list[Row] = list(module.rows(Path(folder), chosen.data))
        title = (module.__doc__ or name).splitlines()[0]
        lines = [f"## {name.capitalize()}", "", title, ""]
        lines += ["|what|stated|measured|runs|", "|---" * 4 + "|"]
        lines += [f"|{'|'.join(row.cells())}|" for row in found]
        tables.append("\n".join(lines))
        print(tables[-1], f"\n{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if not chosen.print and not chosen.names:
        head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
        PAGE.write_text(f"{head}{MARK}\n\n" + "\n\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

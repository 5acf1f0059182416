"""Checking a large manifest, beside reading the same file with csv.DictReader alone.

    python bench/bench_manifest.py [--rows 1000000] [--media]

With ``--media`` the files are made (empty) and looked for, too: 20,000 of them at most.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import Row, bench_parser, finish

from mvemo.manifests import check_manifest


def timed(label: str, work: Callable[[], object]) -> float:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    seconds = time.process_time() - cpu
    print(f"{label:40s} {time.perf_counter() - start:7.2f} s, {seconds:7.2f} s of CPU")
    return seconds


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--media", action="store_true")
    options = parser.parse_args()
    rows = options.rows or (50_000 if options.quick else 1_000_000)
    rows = min(rows, 20_000) if options.media else rows
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "clips.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("path,label,group,start,duration,fold\n")
            for i in range(rows):
                clip = f"folder{i % 100}/clip{i // 2:07d}.mp3"
                file.write(f"{clip},{'abcdef'[i % 6]},g{i // 4},{i % 2 * 30},30,{i // 4 % 6}\n")
                if options.media:
                    (path.parent / clip).parent.mkdir(exist_ok=True)
                    (path.parent / clip).touch()

        def check() -> None:
            problems = check_manifest(path, media=options.media)
            assert problems == [], problems[0]

        def plain() -> None:
            with path.open(encoding="utf-8", newline="") as file:
                assert sum(1 for _ in csv.DictReader(file)) == rows

        ours = timed(f"check_manifest, {rows:,} rows", check)
        theirs = timed("csv.DictReader, which checks nothing", plain)
    what = f"check a manifest of {rows:,} rows"
    million = ours * 1e6 / rows
    finish(
        options,
        [
            Row(what, ours, "s", "csv.DictReader alone", theirs, ours / theirs),
            Row("the same, of a million rows", million, "s", "goal", 15.0, million / 15.0, "<= 1"),
        ],
    )


if __name__ == "__main__":
    main()

"""Record what mvemo answers, or compare it with an earlier record.

    python tests/goldens record FOLDER [--step STEP] [--program mvemo]
    python tests/goldens compare FOLDER [--step STEP] [--portable]

Records of one machine are compared with the digests of features and tightly: a change that
must change nothing shows as nothing. `tests/goldens/expected` holds the steps that agree
between machines; CI compares it with --portable, which leaves digests out and allows numbers
to differ by two thousandths. A change that is meant is recorded again, by
`make goldens`, and reviewed as the diff of that folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).parents[1] / "pipeline/desk/serve"))

import golden_data
import golden_songs
import golden_steps
from golden_texts import differences

STEPS = {
    "help": golden_steps.record_help,
    "made": golden_steps.record_made,
    "sounds": golden_steps.record_sounds,
    "tables": golden_data.record_tables,
    "judged": golden_data.record_judged,
    "songs": golden_songs.record_songs,
    "studies": golden_steps.record_studies,
    "demo": golden_steps.record_demo,
    "boxed": golden_steps.record_boxed,
}
PORTABLE = ("help", "made", "sounds", "tables", "judged", "songs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", choices=STEPS, action="append", help="all by default")
    parser.add_argument("--program", default=str(Path(sys.executable).with_name("mvemo")))
    parser.add_argument("--portable", action="store_true", help=f"steps {', '.join(PORTABLE)}")
    options = parser.parse_args()
    steps = options.step or (PORTABLE if options.portable else tuple(STEPS))
    with TemporaryDirectory(prefix="goldens-") as folder:
        actual = Path(folder) / "golden"

        def record(step: str) -> None:
            work = Path(folder) / step
            work.mkdir()
            digests = not options.portable
            STEPS[step](golden_steps.Recorder(options.program, work, actual, digests=digests))
            print(f"{step}: done", flush=True)

        # A step waits for one command after the other, and each command has one thread.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(record, steps))
        for step in steps:
            if options.action == "record":
                shutil.rmtree(options.folder / step, ignore_errors=True)
                shutil.copytree(actual / step, options.folder / step)
        if options.action == "compare":
            sys.exit(compare(options.folder, actual, steps, portable=options.portable))


def compare(expected: Path, actual: Path, steps: tuple[str, ...], *, portable: bool) -> int:
    """Print the differences of all files of the steps; return 1 if there are any."""
    tolerance = {"rtol": 2e-3, "atol": 2e-3} if portable else {"rtol": 1e-6, "atol": 1e-9}
    names = {
        path.relative_to(base)
        for base in (expected, actual)
        for step in steps
        for path in (base / step).rglob("*")
        if path.is_file()
    }
    changed = 0
    for name in sorted(names):
        before, after = (
            (base / name).read_text() if (base / name).is_file() else ""
            for base in (expected, actual)
        )
        if lines := differences(before, after, **tolerance):
            changed += 1
            print(f"=== {name}", *lines[2:], sep="\n")
    print(f"{len(names)} files compared, {changed} differ")
    return int(changed > 0)


if __name__ == "__main__":
    main()

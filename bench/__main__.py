"""All benches, one table: ``python bench [NAME ...] [--full] [--json FILE]``.

Each bench runs in a process of its own, at small sizes unless ``--full`` is given; what they print
on the way is kept out of the table and shown with ``--verbose``. Goals are of full sizes on an
idle machine: at small ones what is started counts for most, and nothing is judged. If the file of
an earlier run on such a machine and at these sizes exists, the table shows its values, marks what
became slower by more than a fifth, and the file keeps the benches that were not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Row, machine, table_lines

FOLDER = Path(__file__).resolve().parent
NAMES = tuple(sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")))


def run(name: str, chosen: argparse.Namespace) -> tuple[list[Row], float, str]:
    """A bench's rows, its seconds, and why it has none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--json", str(out)]
        command += [] if chosen.full else ["--quick"]
        started = time.perf_counter()
        done = subprocess.run(
            command, check=False, text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
        )
        seconds = time.perf_counter() - started
        if chosen.verbose or done.returncode:
            print(done.stdout, file=sys.stderr)
        if done.returncode:
            return [], seconds, f"failed with exit code {done.returncode}"
        rows = [Row(**row) for row in json.loads(out.read_text())] if out.exists() else []
    last = done.stdout.strip().splitlines() or ["without a word"]
    return rows, seconds, "" if rows else last[-1]


def earlier_run(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the benches of an earlier run of the same kind of machine and the same sizes."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    alike = all(earlier.get(key) == facts[key] for key in ("processor", "cores", "sizes"))
    return earlier["benches"] if alike else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="full sizes: an hour")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(NAMES))
    if unknown:
        parser.error(f"no bench {unknown[0]!r}: some of {', '.join(NAMES)}")
    facts = {**machine(), "sizes": "full" if chosen.full else "quick"}
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    kept = earlier_run(chosen.json, facts)
    before = {row["what"]: row["value"] for bench in kept.values() for row in bench["rows"]}
    rows, notes = [], []
    for name in chosen.names or NAMES:
        print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
        found, seconds, note = run(name, chosen)
        print(f"{seconds:.0f} s", file=sys.stderr)
        if found:
            kept[name] = {"seconds": round(seconds, 1), "rows": [vars(row) for row in found]}
        rows += found
        notes += [f"{name}: {note}"] if note else []
    print("\n".join([*table_lines(rows, judged=chosen.full, before=before), *notes]))
    chosen.json.write_text(json.dumps({**facts, "benches": kept}, indent=1), encoding="utf-8")
    print(f"kept in {chosen.json}")
    if any("exit code" in note for note in notes):
        sys.exit(1)


if __name__ == "__main__":
    main()

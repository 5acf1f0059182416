"""Measure the line coverage of the tests, and the share of planted faults that they catch.

    python tests/mutation cover                    # run all tests, remember which lines each runs
    python tests/mutation mutate --n 300 --seed 0  # plant faults, run the tests of their lines

Both keep what they find in .mutation/. A fault is caught when one of the tests that run its
line fails; at most `--tests` of them are run, drawn with the seed. Faults in lines that no
test runs, or that only other processes run, are tried against all tests of the mirrored folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from mutants import PACKAGES, Mutant, draw_mutants

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".mutation"
SECONDS = 300


def cover(jobs: int) -> None:
    """Run all tests under coverage and print the share of lines that they run."""
    KEPT.mkdir(exist_ok=True)
    config = KEPT / "coveragerc"
    packages = ",".join(str(ROOT / package) for package in PACKAGES)
    config.write_text(
        f"[run]\ndata_file = {KEPT / 'coverage'}\nsource = {packages}\n"
        "patch = subprocess\nparallel = true\n"
    )
    sources = [f"--cov={package}" for package in PACKAGES]
    options = (f"--cov-config={config}", "--cov-context=test", "--cov-report=")
    parallel = ("-n", str(jobs), "--dist", "loadfile", "-p", "no:cacheprovider", "-q")
    subprocess.run([sys.executable, "-m", "pytest", *parallel, *sources, *options], cwd=ROOT)
    coverage = (sys.executable, "-m", "coverage")
    subprocess.run([*coverage, "combine", f"--rcfile={config}", "--quiet"], cwd=ROOT)
    subprocess.run([*coverage, "report", f"--rcfile={config}", "--skip-covered"], cwd=ROOT)


def mutate(n: int, seed: int, jobs: int, n_tests: int) -> None:
    """Plant n faults, print those that no test catches and the share that is caught."""
    mutants = draw_mutants(ROOT, n, seed)
    tests = [tests_of(mutant, n_tests, seed) for mutant in mutants]
    with TemporaryDirectory(prefix="mutation-") as folder:
        trees = [copy_tree(Path(folder) / str(i)) for i in range(jobs)]
        free = list(trees)

        def run(pair: tuple[Mutant, list[str]]) -> bool:
            tree = free.pop()
            try:
                return is_caught(pair[0], pair[1], tree)
            finally:
                free.append(tree)

        with ThreadPoolExecutor(jobs) as pool:
            caught = []
            for mutant, result in zip(
                mutants, pool.map(run, zip(mutants, tests, strict=True)), strict=True
            ):
                caught.append(result)
                print(
                    f"{len(caught)}/{n} {'caught  ' if result else 'SURVIVED'} {mutant}", flush=True
                )
    packages = Counter(m.path.split("/")[0] for m, c in zip(mutants, caught, strict=True) if c)
    totals = Counter(m.path.split("/")[0] for m in mutants)
    print(", ".join(f"{package} {packages[package]} of {totals[package]}" for package in PACKAGES))
    print(f"{sum(caught)} of {len(mutants)} caught: {100 * sum(caught) / len(mutants):.1f} %")
    found = [{"mutant": str(m), "caught": c} for m, c in zip(mutants, caught, strict=True)]
    (KEPT / f"mutants-{seed}.json").write_text(json.dumps(found, indent=1))


def tests_of(mutant: Mutant, n_tests: int, seed: int) -> list[str]:
    """Return the tests that run a mutant's lines, or the mirrored folder of tests."""
    import coverage.numbits

    database = sqlite3.connect(KEPT / "coverage")
    query = (
        "select context.context, line_bits.numbits from line_bits join file on file.id = file_id "
        "join context on context.id = context_id where file.path like ?"
    )
    lines = set(range(mutant.line, mutant.last_line + 1))
    found = sorted(
        {
            context.partition("|")[0]
            for context, bits in database.execute(query, (f"%/{mutant.path}",))
            if context and lines & set(coverage.numbits.numbits_to_nums(bits))
        }
    )
    if not found:
        folder = Path("tests") / Path(mutant.path).parent
        while not (ROOT / folder).is_dir():
            folder = folder.parent
        return [folder.as_posix()]
    return random.Random(seed).sample(found, min(n_tests, len(found)))


def is_caught(mutant: Mutant, tests: list[str], tree: Path) -> bool:
    """Run tests in a tree with the mutant; a test that hangs catches it."""
    path = tree / mutant.path
    original = path.read_text()
    path.write_text(mutant.source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree / "types"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, timeout=SECONDS, capture_output=True
        )
        return done.returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(original)


def copy_tree(folder: Path) -> Path:
    """Copy the files that git knows, with links by which `mvemo.*` is found in the copy."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT.parent / "shared").is_dir() and not (folder.parent / "shared").exists():
        (folder.parent / "shared").symlink_to(ROOT.parent / "shared")
    (folder / "types/mvemo").mkdir(parents=True)
    for name in (*PACKAGES, "__init__.py", "py.typed"):
        (folder / "types/mvemo" / name).symlink_to(folder / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("cover", "mutate"))
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", type=int, default=12, help="at most so many for each fault")
    options = parser.parse_args()
    if options.action == "cover":
        cover(options.jobs)
    else:
        mutate(options.n, options.seed, options.jobs, options.tests)


if __name__ == "__main__":
    main()

"""Planted faults: each is Python, changes the file in one place, and is drawn by the seed."""

from __future__ import annotations

import ast
from pathlib import Path

from mutants import PACKAGES, draw_mutants, mutants_of

SOURCE = '''\
LIMIT = 3


def f(x: int = 1) -> int:
    """The docstring is no line to drop."""
    total = x * 2
    if total < LIMIT and x is not None:
        raise ValueError("é")
    return total + 1
'''


def test_every_comparison_constant_and_line_of_a_function_is_a_mutant():
    found = [(m.kind, m.before, m.after) for m in mutants_of(SOURCE, "f.py")]
    assert sorted(found) == [
        ("compare", "total < LIMIT", "total <= LIMIT"),
        ("compare", "x is not None", "x is None"),
        ("constant", "1", "2"),
        ("constant", "2", "3"),
        ("drop", 'raise ValueError("é")', "pass"),
        ("drop", "return total + 1", "pass"),
        ("drop", "total = x * 2", "pass"),
    ]
    for mutant in mutants_of(SOURCE, "f.py"):
        ast.parse(mutant.source)
        changed = zip(SOURCE.splitlines(), mutant.source.splitlines(), strict=True)
        assert [i for i, (a, b) in enumerate(changed, 1) if a != b] == [mutant.line]


def test_draws_are_spread_over_the_packages_and_repeated_by_their_seed(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "f.py").write_text(SOURCE)
    drawn = draw_mutants(tmp_path, 15, seed=3)
    assert [m.path.split("/")[0] for m in drawn] == [
        package for package in PACKAGES for _ in range(3)
    ]
    assert {m.kind for m in drawn} == {"compare", "constant", "drop"}
    assert drawn == draw_mutants(tmp_path, 15, seed=3)
    assert drawn != draw_mutants(tmp_path, 15, seed=4)

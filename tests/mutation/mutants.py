"""Small faults that are planted into the product, one at a time."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("cache", "extract", "fuse", "manifests", "pipeline")
FLIPPED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
DROPPED = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Return, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutant:
    """One changed stretch of a file: its place, the text that was, and the text that is."""

    path: str
    line: int
    last_line: int
    kind: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        """Return the place and the change, in one line."""
        return f"{self.path}:{self.line} {self.kind}: {self.before!r} -> {self.after!r}"


def draw_mutants(root: Path, n: int, seed: int) -> list[Mutant]:
    """Draw n mutants, equally many of each package and, in a package, of each kind of change."""
    rng = random.Random(seed)
    drawn = []
    for package in PACKAGES:
        kinds: dict[str, list[Mutant]] = {}
        for path in sorted((root / package).rglob("*.py")):
            for mutant in mutants_of(path.read_text(), path.relative_to(root).as_posix()):
                kinds.setdefault(mutant.kind, []).append(mutant)
        per_package = n // len(PACKAGES)
        for i, kind in enumerate(sorted(kinds)):
            share = per_package // len(kinds) + (i < per_package % len(kinds))
            drawn += rng.sample(kinds[kind], min(share, len(kinds[kind])))
    return drawn


def mutants_of(source: str, path: str) -> Iterator[Mutant]:
    """Yield every mutant of the function bodies of a file."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # Annotations and defaults are not of the body.
            for statement in function.body:
                yield from _of_statement(statement, source, path)


def _of_statement(statement: ast.stmt, source: str, path: str) -> Iterator[Mutant]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return  # Visited as a function of its own.
    for node in ast.walk(statement):
        if isinstance(node, DROPPED) and not _is_docstring(node):
            yield _mutant(node, "drop", "pass", source, path)
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in FLIPPED:
            flipped = ast.Compare(
                node.left, [FLIPPED[type(node.ops[0])](), *node.ops[1:]], node.comparators
            )
            yield _mutant(node, "compare", ast.unparse(flipped), source, path)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            changed = not node.value if isinstance(node.value, bool) else node.value + 1
            yield _mutant(node, "constant", repr(changed), source, path)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _mutant(node: ast.expr | ast.stmt, kind: str, after: str, source: str, path: str) -> Mutant:
    lines = source.splitlines(keepends=True)
    start = sum(len(line.encode()) for line in lines[: node.lineno - 1]) + node.col_offset
    last = node.end_lineno or node.lineno
    stop = sum(len(line.encode()) for line in lines[: last - 1]) + (node.end_col_offset or 0)
    text = source.encode()
    before = text[start:stop].decode()
    # Brackets keep a changed comparison whole where it stood in a longer expression.
    new = f"({after})" if kind == "compare" else after
    whole = (text[:start] + new.encode() + text[stop:]).decode()
    return Mutant(path, node.lineno, last, kind, " ".join(before.split())[:60], after[:60], whole)

"""What is wrong in a file: all of it collected, so that all of it is told at once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvemo.manifests.errors import BadManifest

# Problems of one kind that are told one by one; of more, the first and their number.
MOST_ALIKE = 10
# The same of problems with equal messages.
MOST_EQUAL = 3
# Numbers and quoted values: what problems of one kind differ in.
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file.

    Parameters
    ----------
    path
        The file.
    line
        Counted from 1; 0 where the problem is the file's as a whole.
    message
        What is wrong, with the bad value and what would be right.
    count
        How many lines have a problem of this kind; `line`, where it is not 0, is the first.

    Examples
    --------
    >>> str(Problem(Path("clips.csv"), 3, "empty label", count=12))
    'clips.csv:3: empty label (and 11 more lines like it)'
    """

    path: Path
    line: int
    message: str
    count: int = 1

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        more = f" (and {self.count - 1} more lines like it)" if self.line and self.count > 1 else ""
        return f"{where}: {self.message}{more}"

    @property
    def kind(self) -> str:
        """The message without the values in it."""
        return _VALUES.sub("…", self.message)


@dataclass
class Problems:
    """Collects the problems of one file, in the order in which they are found."""

    path: Path
    found: list[Problem] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many lines have a problem, or several."""
        return sum(problem.count for problem in self.found)

    def add(self, line: int, message: str, count: int = 1) -> None:
        """Note a problem, or one of so many lines; line 0 for the file as a whole."""
        self.found.append(Problem(self.path, line, message, count))

    def in_order(self) -> list[Problem]:
        """By line, those of the whole file first; many of one kind as one."""
        by_kind: dict[str, list[Problem]] = {}
        for problem in sorted(self.found, key=lambda problem: problem.line):
            by_kind.setdefault(problem.kind, []).append(problem)
        listed: list[Problem] = []
        for alike in by_kind.values():
            equal = len({problem.message for problem in alike}) == 1
            many = len(alike) > (MOST_EQUAL if equal else MOST_ALIKE)
            listed += [replace(alike[0], count=len(alike))] if many else alike
        return sorted(listed, key=lambda problem: problem.line)

    def raise_any(self) -> None:
        """Raise BadManifest with all problems, where there is one."""
        if len(self.found) == 1:
            raise BadManifest(str(self.found[0]))
        if self.found:
            lines = "\n".join(f"  {problem}" for problem in self.in_order())
            raise BadManifest(f"{self.path}: {self.count} problems\n{lines}")

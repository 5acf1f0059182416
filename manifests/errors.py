"""Errors of all packages, and problems of a file, which are collected and reported together."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

# Function that adds a problem of a certain line; see `Problems.at`.
Report = Callable[[str], None]
# If there are more problems of one kind, only the first and their number are reported.
MOST_ALIKE = 10
# The corresponding limit for problems with equal messages.
MOST_EQUAL = 3
# Numbers and quoted values; problems that differ only in these are of one kind.
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?")


class MvemoError(Exception):
    """Base class of all errors that a user can fix; the message states the problem and the fix."""


class BadFile(MvemoError, ValueError):
    """Error in the content of a file; the message names the file, the value and the fix."""


class BadManifest(BadFile):
    """Error in the clips, labels, groups or folds of a manifest."""


class MissingFile(MvemoError, FileNotFoundError):
    """Error for a file or folder that does not exist or cannot be opened."""


class DiskFailed(MvemoError, OSError):
    """Failure to read or write a file, such as on a full disk."""


class BadOption(MvemoError, ValueError):
    """Wrong option or setting; the message gives its value and the allowed values."""


class BadText(ValueError):
    """Error for a file that is not a table in text form: line (0 for the whole file), message."""


@dataclass(frozen=True)
class Problem:
    """One problem of a file.

    Examples
    --------
    >>> str(Problem(Path("clips.csv"), 3, "empty label", count=12))
    'clips.csv:3: empty label (and 11 more lines like it)'
    """

    path: Path
    line: int  # from 1; 0 for the file as a whole
    message: str  # with the bad value and the expected one
    count: int = 1  # number of lines with a problem of this kind; `line` is the first of them

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.line else f"{self.path}"
        more = f" (and {self.count - 1} more lines like it)" if self.line and self.count > 1 else ""
        return f"{where}: {self.message}{more}"


@dataclass
class Problems:
    """Collector of the problems of one file, in the order in which they are found."""

    path: Path
    found: list[Problem] = field(default_factory=list)

    def add(self, line: int, message: str, count: int = 1) -> None:
        """Add a problem of `count` lines; line 0 stands for the file as a whole."""
        self.found.append(Problem(self.path, line, message, count))

    def at(self, line: int) -> Report:
        """Return a function that adds a problem of this line."""
        return partial(self.add, line)

    def in_order(self) -> list[Problem]:
        """Return the problems sorted by line; many problems of one kind are joined into one."""
        by_line = attrgetter("line")
        by_kind: dict[str, list[Problem]] = {}
        for problem in sorted(self.found, key=by_line):
            by_kind.setdefault(_VALUES.sub("…", problem.message), []).append(problem)
        listed = []
        for alike in by_kind.values():
            most = MOST_EQUAL if len({one.message for one in alike}) == 1 else MOST_ALIKE
            listed += [replace(alike[0], count=len(alike))] if len(alike) > most else alike
        return sorted(listed, key=by_line)

    def raise_any(self) -> None:
        """Raise BadManifest with all problems, if there are any."""
        if len(self.found) == 1:
            raise BadManifest(str(self.found[0]))
        if self.found:
            lines = "\n".join(f"  {problem}" for problem in self.in_order())
            n_problems = sum(problem.count for problem in self.found)
            raise BadManifest(f"{self.path}: {n_problems} problems\n{lines}")

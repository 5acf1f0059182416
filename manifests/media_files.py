"""Check that the media files of a manifest exist below its root."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mvemo.manifests.problems import Problems
from mvemo.manifests.rows import Row, inside_root

_MISSING, _FOLDER = "no such file", "is a folder"


def check_media(
    root: Path, rows: Sequence[Row], problems: Problems, *, links: bool, empty: bool = False
) -> None:
    """Add a problem for each row whose media file is missing or not a file.

    Rows without a path and paths outside of the root are already reported. With `links`, links may
    lead out of the root; with `empty`, an empty file is a problem.
    """
    if not root.is_dir():
        return  # already reported, once for all files
    if len(rows) > 1 and all(inside_root(row.path, root) is None for row in rows):
        return  # already reported, too
    named = [row for row in rows if row.path]
    checker = _PathChecker(root, links, empty)
    faults = {path: checker.fault(path) for path in dict.fromkeys(row.path for row in named)}
    if len(faults) > 1 and all(fault in (_MISSING, _FOLDER) for fault in faults.values()):
        problems.add(
            0,
            f"none of the {len(faults)} media files is below {str(root)!r}, as {named[0].path!r} "
            f"in line {named[0].line}; wrong root? Give the folder with --root",
        )
        return
    for row in named:
        fault = faults[row.path]
        if fault:
            problems.add(row.line, f"{fault}: {str(root / row.path)!r}")


class _PathChecker:
    """Checker of paths below a root; it resolves each folder only once."""

    def __init__(self, root: Path, links: bool, empty: bool) -> None:
        self._root = os.path.join(root, "")
        self._real = os.path.join(os.path.realpath(root), "")
        self._links, self._empty = links, empty
        self._inside: dict[str, bool] = {}

    def fault(self, path: str) -> str:
        """Return the problem with a path, or an empty text if it is a file."""
        place = self._root + path
        try:
            facts = os.lstat(place)
            linked = stat.S_ISLNK(facts.st_mode)
            if linked:
                facts = os.stat(place)
            mode = facts.st_mode
        except (FileNotFoundError, NotADirectoryError):
            return _MISSING
        except (OSError, ValueError) as error:
            return f"cannot be looked at ({getattr(error, 'strerror', None) or error})"
        if stat.S_ISDIR(mode):
            return _FOLDER
        if not stat.S_ISREG(mode):
            return "a pipe, socket or device, no file"
        if self._empty and not facts.st_size:
            return "the file is empty"
        if not self._links and not self._is_inside(path, linked):
            return "a link out of the media root (give --root if it is meant)"
        return ""

    def _is_inside(self, path: str, linked: bool) -> bool:
        if linked:
            return os.path.realpath(self._root + path).startswith(self._real)
        folder = path.rpartition("/")[0]
        inside = self._inside.get(folder)
        if inside is None:
            real = os.path.join(os.path.realpath(self._root + folder), "")
            inside = self._inside[folder] = real.startswith(self._real)
        return inside

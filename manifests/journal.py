"""Append-only journals: files with one JSON object per line, which survive a kill at any moment."""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mvemo.manifests.errors import DiskFailed
from mvemo.manifests.files import cause, sync_folder, to_json_values, write_text
from mvemo.manifests.text_files import parse_json

T = TypeVar("T")


class Journal:
    """One append-only file of entries, which need not exist; a kill costs at most the last entry.

    If `durable`, each entry is on the disk before `append` returns. Failures to read or write
    raise `DiskFailed`.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = path
        self._durable = durable

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append entries; if this fails, none of them is in the file."""
        text = _lines(entries)
        try:
            is_new = not self.path.exists()
            with self.path.open("ab+", buffering=0) as file:
                with suppress(OSError):  # some file systems have no locks
                    fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                # An incomplete last line gets a line end, so that only this line is lost.
                rest = memoryview(b"\n" * (file.read(1) not in (b"", b"\n")) + text)
                try:
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
                    if self._durable:
                        os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        file.truncate(size)
                    raise
            if is_new and self._durable:
                sync_folder(self.path.parent)
        except OSError as problem:
            raise DiskFailed(f"{self.path}: cannot be written: {cause(problem)}") from None

    def replace(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole content in one step."""
        write_text(self.path, _lines(entries).decode(), durable=self._durable)

    def read(self, parse: Callable[[Any], T]) -> tuple[list[T], int]:
        """Return `parse` of each entry, oldest first, and the number of unreadable lines.

        A line is unreadable if it is not JSON, or if `parse` raises ValueError, TypeError or
        KeyError. Without a file there are no entries.
        """
        found, n_bad = [], 0
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as problem:
            raise DiskFailed(f"{self.path}: cannot be read: {cause(problem)}") from None
        for line in filter(None, content.split(b"\n")):
            try:
                found.append(parse(parse_json(line)))
            except (ValueError, TypeError, KeyError):
                n_bad += 1
        return found, n_bad


def _lines(entries: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(to_json_values(entry)) + "\n" for entry in entries).encode()

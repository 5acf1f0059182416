"""Identity of media files: the digest of their content, read again only if a file changed.

A file is identified by its content, not by its path. Digests are kept in the user's data
folder by place, inode, size and time of modification.
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from mvemo.cache.spec import content_digest
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.isolated import read_each
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import Stamp, cause, stamp_of

_DIGEST = "mvemo.extract.media.content:file_digest"
# Change the name of the table when a file would get another digest.
_TABLE = "packets_1"
# Number of files that one query looks up, and that one transaction keeps.
AT_ONCE = 500


def data_folder() -> Path:
    """Return mvemo's data folder: ``MVEMO_HOME``, or the system's folder for user data."""
    home = os.environ.get("MVEMO_HOME", "").strip()
    return Path(home or platformdirs.user_data_dir("mvemo", appauthor=False)).expanduser()


def place_of(path: Path) -> Path:
    """Return the absolute path of a file, equal for all spellings such as ``x/../y``."""
    return Path(real_path(path, {}))


def real_path(path: Path, folders: dict[str, str]) -> str:
    """Return `place_of` of one of many files; `folders` keeps the real paths of their folders."""
    parent, name = os.path.split(path)
    if parent not in folders:
        folders[parent] = os.path.realpath(parent)
    return os.path.join(folders[parent], name)


@dataclass(frozen=True)
class Content:
    digest: str = ""  # `mvemo.extract.media.content.file_digest`; empty if it cannot be read
    stamp: Stamp | None = None  # stamp of the file when its digest was known
    reason: str = ""  # reason why the file cannot be read


class KnownContents:
    """Digests of files that were read before; without a writable data folder it is empty.

    Changes are written in short transactions: other processes write, too, and a killed process
    loses only what it read since the last one.
    """

    def __init__(self) -> None:
        self._changes: list[tuple[str, tuple[object, ...]]] = []
        self._db = sqlite3.connect(":memory:")
        with suppress(OSError, sqlite3.Error):
            data_folder().mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(data_folder() / "contents.sqlite", timeout=2.0)
            db.execute(
                f"CREATE TABLE IF NOT EXISTS {_TABLE} (path BLOB PRIMARY KEY, stamp TEXT, "
                "digest TEXT)"
            )
            db.execute(f"CREATE INDEX IF NOT EXISTS {_TABLE}_stamps ON {_TABLE} (stamp)")
            self._db = db

    def find(self, path: Path, stamp: Stamp) -> str:
        """Return the digest of an unchanged or renamed file, or ''."""
        return self.find_all([(path, stamp)])[0]

    def find_all(self, files: Sequence[tuple[Path, Stamp]]) -> list[str]:
        """Return `find` for each path with its stamp."""
        found: defaultdict[str, dict[bytes, str]] = defaultdict(dict)
        stamps, folders = [_text(stamp) for _, stamp in files], dict[str, str]()
        with suppress(sqlite3.Error):
            for first in range(0, len(stamps), AT_ONCE):
                part = stamps[first : first + AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT stamp, path, digest FROM {_TABLE} WHERE stamp IN ({marks})"
                for stamp, place, digest in self._db.execute(query, part):
                    found[stamp][place] = digest
        digests = []
        for (path, stamp), text in zip(files, stamps, strict=True):
            known = found.get(text, {})
            digest = known.get(os.fsencode(real_path(path, folders)), "")
            digests.append(digest or self._renamed(path, stamp, known))
        return digests

    def _renamed(self, path: Path, stamp: Stamp, known: Mapping[bytes, str]) -> str:
        """Return the digest of a file of this stamp whose old path is gone, or ''."""
        # Some file systems give an inode's number to another file later.
        for old, digest in known.items():
            if not os.path.lexists(old):
                self._change("DELETE FROM {} WHERE path = ?", old)
                self.put(path, stamp, digest)
                return digest
        return ""

    def put(self, path: Path, stamp: Stamp, digest: str) -> None:
        place = os.fsencode(place_of(path))
        self._change("INSERT OR REPLACE INTO {} VALUES (?, ?, ?)", place, _text(stamp), digest)

    def clear(self) -> None:
        self._change("DELETE FROM {}")

    def _change(self, statement: str, *values: object) -> None:
        self._changes.append((statement.format(_TABLE), values))
        if len(self._changes) >= AT_ONCE:
            self._write()

    def _write(self) -> None:
        changes, self._changes = self._changes, []
        with suppress(sqlite3.Error), self._db:
            for statement, values in changes:
                self._db.execute(statement, values)

    def close(self) -> None:
        self._write()
        self._db.close()


def forget_contents() -> None:
    with closing(KnownContents()) as known:
        known.clear()


def keep_content(path: Path, former: Stamp) -> None:
    """Keep the digest of a file that was replaced by its tagged copy; `former` was its stamp."""
    with closing(KnownContents()) as known, suppress(OSError):
        if digest := known.find(path, former):
            known.put(path, stamp_of(path), digest)


def contents_of(
    paths: Sequence[Path], on_file: Callable[[bool], object] = lambda failed: None
) -> list[Content]:
    """Return the content of each file; call `on_file` after each, with True if it failed."""
    found: dict[int, Content] = {}
    stamps: dict[int, Stamp] = {}
    for i, path in enumerate(paths):
        try:
            stamps[i] = stamp_of(path)
        except FileNotFoundError:
            found[i] = Content(reason=f"{path}: file not found")
        except (OSError, ValueError) as error:
            found[i] = Content(reason=f"{path}: cannot be read: {cause(error)}")
    with closing(KnownContents()) as known:
        digests = known.find_all([(paths[i], stamp) for i, stamp in stamps.items()])
        for i, kept in zip(stamps, digests, strict=True):
            found[i] = Content(kept, stamps[i])
        for content in found.values():
            if content.digest or content.reason:
                on_file(bool(content.reason))
        changed = [i for i in found if not (found[i].digest or found[i].reason)]
        for n, digest in read_each(_DIGEST, [(paths[i], {}) for i in changed]):
            i, path = changed[n], paths[changed[n]]
            found[i] = _checked(path, found[i].stamp, digest)
            if (checked := found[i]).stamp is not None:
                known.put(path, checked.stamp, checked.digest)
            on_file(bool(found[i].reason))
    return [found[i] for i in range(len(paths))]


def content_of(path: Path) -> Content:
    return contents_of([path])[0]


def _checked(path: Path, before: Stamp | None, digest: str | MvemoError) -> Content:
    """Return the content of a file that was read, if it did not change meanwhile."""
    try:
        if isinstance(digest, BadMedia):
            # The reader crashed, or took too long.
            digest = content_digest(path)
        if isinstance(digest, MvemoError):
            return Content(reason=str(digest))
        if stamp_of(path) != before:
            return Content(reason=f"{path}: is changing: run the same command again later")
    except OSError as error:
        return Content(reason=f"{path}: cannot be read: {cause(error)}")
    return Content(digest, before)


def _text(stamp: Stamp) -> str:
    size, modified, _, inode = stamp
    return f"{inode} {size} {modified}"

"""Files that appear whole or not at all, strict JSON, and the lines of a CSV file.

The lowest module of the house: every package writes and reads its files with these, and
names its own error, so that the message says whose file could not be written.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

# Makes the exception of a message; the class of an error is one.
MakeError = Callable[[str], Exception]
CsvRow = tuple[int, list[str]]


# --- writing


@contextmanager
def replacing(
    path: Path,
    temp: Path | None = None,
    *,
    error: MakeError | None = None,
    kept: str = "",
    durable: bool = True,
) -> Iterator[Path]:
    """Write a temporary file, then make it `path` in one step.

    Whatever ends the process, `path` is the old file or the whole new one.

    Parameters
    ----------
    path
        The file to make or replace; its folder must exist.
    temp
        Where to write first: a name on the same file system, which nothing else uses.
        The default is a hidden name beside `path`.
    error
        What to raise where the file cannot be written: ``error("PATH: cannot be written:
        no space left on the disk")``. The default lets the OSError through.
    kept
        What a failure leaves untouched, as the end of the message.
    durable
        Flush to the disk, so that the file also survives a power cut. Leave it out for
        scratch files that are checked when they are read.

    Yields
    ------
    The path to write to.

    See Also
    --------
    write_text : One text.
    write_json : One JSON value.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "values.txt"
    >>> with replacing(path) as temp:
    ...     _ = temp.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    temp = temp or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temp
        if durable:
            sync(temp)
        os.replace(temp, path)
        if durable:
            sync_folder(path.parent)
    except (OSError, RuntimeError) as problem:
        # HDF5 and torch raise RuntimeError on a full disk.
        if error is None or (isinstance(error, type) and isinstance(problem, error)):
            raise
        raise error(f"{path}: cannot be written: {cause(problem)}{kept}") from None
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def write_bytes(
    path: Path, content: bytes, *, error: MakeError | None = None, durable: bool = True
) -> None:
    """Write a file in one step; see `replacing`."""
    with replacing(path, error=error, durable=durable) as temp:
        temp.write_bytes(content)


def write_text(
    path: Path, text: str, *, error: MakeError | None = None, durable: bool = True
) -> None:
    """Write UTF-8 text in one step; see `replacing`.

    A file name that was no valid text has lone surrogates, which UTF-8 has not: they are
    written as backslash escapes, which in JSON mean the same character.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), error=error, durable=durable)


def write_json(
    path: Path,
    value: Any,
    *,
    where: str | None = None,
    error: MakeError | None = None,
    durable: bool = True,
) -> None:
    """Write `dump_json(value, where)` in one step; see `replacing`."""
    write_text(path, dump_json(value, where), error=error, durable=durable)


def sync(path: Path) -> None:
    """Have the file's bytes on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk, where the system allows it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse; the file itself is safe already.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def cause(problem: BaseException) -> str:
    """Why a file could not be written, in a few words.

    HDF5 hides the system's reason in its own text, and NumPy names a short write by its
    counts alone.
    """
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    text = str(problem)
    if number := re.search(r"errno = (\d+)", text):
        code = int(number.group(1))
        return "no space left on the disk" if code == errno.ENOSPC else os.strerror(code)
    if isinstance(problem, OSError):
        return f"no space left on the disk? ({problem})"
    return text.splitlines()[0] if text else type(problem).__name__


# --- JSON


def dump_json(value: Any, where: str | None = None) -> str:
    """Strict JSON text of `to_json_values(value, where)`, indented, with a line's end.

    Examples
    --------
    >>> print(dump_json({"loss": [0.5, float("nan")]}), end="")
    {
      "loss": [
        0.5,
        null
      ]
    }
    """
    values = to_json_values(value, where)
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_json_values(value: Any, where: str | None = None) -> Any:
    """Values that JSON has, of NumPy's arrays and scalars, paths, sets and mappings.

    A number that is not finite becomes null; mappings keep their order, sets are sorted.

    Parameters
    ----------
    value
        Whatever is to be written.
    where
        What `value` is, ``metrics``, for the error. Without it anything that JSON has no
        value for becomes its text: a strange fact in the provenance must not cost a long
        run.

    Raises
    ------
    TypeError
        JSON has no value for some part, and `where` is given.

    Examples
    --------
    >>> to_json_values({"scores": np.array([1.0, np.inf]), "path": Path("a/b")})
    {'scores': [1.0, None], 'path': 'a/b'}
    """
    if isinstance(value, Mapping):
        return {str(k): to_json_values(v, where and f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_values(v, where and f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json_values(v, where) for v in value), key=str)
    if isinstance(value, np.ndarray | np.generic):
        return to_json_values(value.tolist(), where)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if where is not None and not isinstance(value, Path):
        raise TypeError(f"{where} is a {type(value).__name__}, for which JSON has no value")
    return str(value)


# --- CSV


class BadText(ValueError):
    """A file is no text, or no CSV.

    Parameters
    ----------
    line
        Where, counted from 1; 0 where it is the file as a whole.
    message
        What is wrong and what would be right.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read_text(path: Path) -> str:
    """Text of a UTF-8 file with or without a byte-order mark; line ends as they are.

    Raises
    ------
    OSError
        It cannot be read.
    BadText
        It is not UTF-8, has zero bytes, or is empty.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise BadText(line, problem) from None
    if "\0" in text:
        raise BadText(text.count("\n", 0, text.index("\0")) + 1, "a zero byte; not a text file")
    if not text.strip():
        raise BadText(0, "the file is empty")
    return text


def iter_csv(lines: Iterable[str], first: int = 1) -> Iterator[CsvRow]:
    """Line number and cells of each row that is not blank.

    Parameters
    ----------
    lines
        With their line ends.
    first
        Number of the first line.

    Raises
    ------
    BadText
        A quoted cell does not end, or has text behind its end.
    """
    reader = csv.reader(lines, strict=True)
    start = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield first + start, cells
            start = reader.line_num
    except csv.Error as error:
        raise BadText(first + start, f"not CSV from here on: {error}") from None


def read_csv(
    path: Path, *, error: MakeError = ValueError, missing: MakeError | None = None
) -> list[CsvRow]:
    """Line number and cells of every row of a CSV file that is not blank.

    Parameters
    ----------
    path
        UTF-8, with or without a byte-order mark, with commas.
    error
        Makes the exception of a file that is no such text: ``error("PATH:3: ...")``.
    missing
        Makes the exception where there is no such file; `error` by default.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> write_text(path, "clip_id,score\\na,1\\n\\nb,2\\n")
    >>> read_csv(path, error=ValueError)
    [(1, ['clip_id', 'score']), (2, ['a', '1']), (4, ['b', '2'])]
    """
    try:
        return list(iter_csv(io.StringIO(read_text(path), newline="")))
    except FileNotFoundError:
        raise (missing or error)(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from None
    except BadText as problem:
        place = f"{path}:{problem.line}" if problem.line else f"{path}"
        raise error(f"{place}: {problem.message}") from None

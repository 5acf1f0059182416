"""Reader of JSON and TOML, also of files from unknown sources.

Other readers crash on some of these files, or accept NaN and repeated keys. Here each of them is
answered in one line: deep nesting, huge numbers, NaN, repeated keys, another encoding, a folder.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mvemo.manifests.declared import from_table
from mvemo.manifests.errors import BadFile, MissingFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TomlError = tomllib.TOMLDecodeError
_MOST_LEVELS, _LARGEST = 64, 1e300


def read_json(path: Path) -> Any:
    """Return the object of a JSON file; raise `BadFile` or `MissingFile`."""
    value = _read(path, parse_json)
    if not isinstance(value, dict):
        raise BadFile(f"{path}: expected a JSON object, got {str(value)[:40]!r}")
    return value


def read_toml(path: Path, kind: Any = dict) -> Any:
    """Return the tables of a TOML file, or the dataclass `kind` filled with them.

    `BadFile` or `MissingFile` is raised; see `from_table`.
    """
    return _read(path, parse_toml if kind is dict else lambda t: from_table(kind, parse_toml(t)))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; raise a ValueError of one line if it is invalid."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except (RecursionError, ValueError) as error:
        raise ValueError(_in_words(error)) from None
    _check(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raise a ValueError of one line (`TomlError` for the syntax) if it is invalid."""
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except TomlError:
        raise
    except (RecursionError, ValueError) as error:
        raise ValueError(_in_words(error)) from None
    _check(tables)
    return tables


def as_tuples(value: Any) -> Any:
    """Return a JSON value with tuples in place of lists."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise BadFile(f"{path}: expected a file, got a folder, pipe or device")
        return parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise MissingFile(f"{path}: no such file") from None
    except BadFile:
        raise
    except UnicodeDecodeError as error:
        bad = f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise BadFile(f"{path}: cannot be read: {bad}") from None
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from None
    except TomlError as error:
        raise BadFile(f"{path}: not TOML: {error}") from None
    except ValueError as error:
        raise BadFile(f"{path}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} occurs twice")
    return found


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.object[error.start]:#04x} is not UTF-8"
    # Python's own message names one of its functions.
    return "a number has too many digits" if "set_int_max_str_digits" in str(error) else str(error)


def _check(value: Any, place: str = "", level: int = 0) -> None:
    """Raise ValueError for deep nesting, and for numbers that are not finite or too large."""
    if level > _MOST_LEVELS:
        raise ValueError(f"nested too deeply: expected at most {_MOST_LEVELS} levels")
    listed = value if isinstance(value, list) else [value]
    for key, each in value.items() if isinstance(value, dict) else enumerate(listed):
        if isinstance(each, (dict, list)):
            _check(each, f"{place}.{key}" if place else str(key), level + 1)
        elif isinstance(each, (int, float)) and not abs(each) <= _LARGEST:
            where = f"{place}.{key}" if place else str(key)
            raise ValueError(f"{where}: expected a finite number, got {str(each)[:20]}")

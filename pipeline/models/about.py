"""Facts on a model that only its author knows, such as the source of its data and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings_files import parse_toml

IN_WORDS: dict[type, str] = {
    str: "a sentence",
    list: "a list of sentences",
    dict: "a table of sentences",
}
# Key of the file -> its type. `scale` describes each target of ratings.
KEYS: dict[str, type] = {
    "title": str,
    "data": str,
    "groups": str,
    "licence": str,
    "citations": list,
    "choices": str,
    "use": str,
    "avoid": list,
    "scale": dict,
}


def read_about(path: Path) -> dict[str, Any]:
    """Read the TOML file of ``mvemo fuse --about``; it may have any of `KEYS`.

    Raises `BadOption` if it cannot be read, or has an unknown key or a wrong type.
    """
    try:
        about = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadOption(f"--about {path}: cannot be read as TOML: {error}") from error
    for key, value in about.items():
        if key not in KEYS:
            raise BadOption(f"--about {path}: unknown key {key!r}: some of {', '.join(KEYS)}")
        if not _fits(value, KEYS[key]):
            raise BadOption(f"--about {path}: {key} is {value!r}: it must be {IN_WORDS[KEYS[key]]}")
    return about


def _fits(value: object, kind: type) -> bool:
    parts = [value]
    if kind is list:
        parts = value if isinstance(value, list) else [None]
    elif kind is dict:
        parts = list(value.values()) if isinstance(value, Mapping) else [None]
    return all(isinstance(part, str) for part in parts)

"""Write docs/settings.md from the declarations of the settings: `make settings`.

The meaning of a setting is its entry under Parameters in the docstring of its dataclass.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings
from mvemo.pipeline.settings import PROFILES
from mvemo.pipeline.settings_files import load_settings

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Every setting

Written by `make settings` from the declarations in the code; a test checks that it is current. A
setting is given as `--set KEY=VALUE` (values as in TOML, bare words are strings), or in a TOML
file for `--profile FILE`:

```toml
[extract]
folds = 5
[nets.i3d]
lr = 3e-4
[nets.i3d.options]
size = 112
```

`mvemo extract` and `mvemo study` read all tables, `mvemo fuse` and `mvemo-cv` only `fuse`. Unknown
keys, values of another type and numbers that are not finite are refused in one line. The last
column has the values of profiles that differ from the default.
"""


def meanings(kind: type) -> dict[str, str]:
    """Name of each parameter in a docstring, and those of its bases, to its text in one line."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        text = inspect.cleandoc(each.__doc__ or "")
        section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n\w+( \w+)?\n-+\n|\Z)", text, re.DOTALL)
        names: list[str] = []
        for line in section.group(1).splitlines() if section else ():
            if line and not line.startswith(" "):
                names = [name.strip() for name in line.split(",")]
                found |= dict.fromkeys(names, "")
            for name in names if line.startswith(" ") else ():
                found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: _readable(text, kind) for name, text in found.items()}


def _readable(text: str, kind: type) -> str:
    """Replace names of constants by their values, and the marks of docstrings."""

    def values(match: re.Match[str]) -> str:
        value = getattr(sys.modules[kind.__module__], match.group(1), match.group(1))
        listed = [value] if isinstance(value, str) else value
        return ", ".join(f"`{each}`" for each in listed)

    return re.sub(r"`([A-Z]{4,})`", values, re.sub(r"`+", "`", text)).replace("|", "\\|")


def declared(settings: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, value and meaning of all that a table may set, nested ones in place."""
    known = meanings(type(settings))
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.metadata.get("profile", True) and each.name not in ("name", "options"):
            yield from (
                declared(value) if is_dataclass(value) else [(each.name, value, known[each.name])]
            )


def shown(value: Any) -> str:
    """A value as TOML and `--set` write it."""
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(plain)}`"


def table(key: str) -> Iterator[str]:
    """Rows of the settings of one table, with what the profiles change."""
    of_profile = {
        profile: {name: value for name, value, _ in declared(getattr(load_settings(profile), key))}
        for profile in PROFILES
    }
    yield from ("", f"## {key}", "", "| key | default | meaning | profiles |", "|---|---|---|---|")
    for name, value, meaning in declared(getattr(load_settings("paper"), key)):
        others = [
            f"{profile}: {shown(values[name])}"
            for profile, values in of_profile.items()
            if values[name] != value
        ]
        yield f"| `{key}.{name}` | {shown(value)} | {meaning} | {'; '.join(others)} |"


def nets() -> Iterator[str]:
    """Rows of what all nets have, of where a net differs, and of each net's options."""
    # Encoders of local folders (hf:FOLDER) have other names on each machine.
    names = sorted(name for name in NETS if ":" not in name)
    general = {name: value for name, value, _ in declared(NetSettings("any"))}
    yield from ("", "## nets", "", "| key | default | meaning |", "|---|---|---|")
    for name, value, meaning in declared(NetSettings("any")):
        yield f"| `nets.NAME.{name}` | {shown(value)} | {meaning} |"
    yield from ("", "### Where a net differs", "")
    yield from ("| net | in profile paper | other profiles |", "|---|---|---|")
    for name in names:
        of_profile: dict[str, Mapping[str, Any]] = {}
        for profile in PROFILES:
            values = {key: value for key, value, _ in declared(load_settings(profile).nets[name])}
            of_profile[profile] = values
        paper = of_profile["paper"]
        cells = [[f"{k} {shown(v)}" for k, v in paper.items() if v != general[k]], []]
        for profile, values in of_profile.items():
            changed = [f"{k} {shown(v)}" for k, v in values.items() if v != paper[k]]
            cells[1] += [f"{profile}: {', '.join(changed)}"] if changed else []
        yield f"| `{name}` | {', '.join(cells[0])} | {'; '.join(cells[1])} |"
    yield from ("", "### Options", "", "| key | default | meaning |", "|---|---|---|")
    for name in names:
        options = NETS[name].Options()
        known = meanings(type(options))
        for each in fields(options):
            value = getattr(options, each.name)
            yield f"| `nets.{name}.options.{each.name}` | {shown(value)} | {known[each.name]} |"


def page() -> str:
    """Return the text of the page."""
    tables = [line for key in ("extract", "descriptors", "fuse") for line in table(key)]
    return "\n".join([HEAD.rstrip(), *tables, *nets(), ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

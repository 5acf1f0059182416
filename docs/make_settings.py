"""Write docs/settings.md and docs/settings-nets.md from the declarations: `make settings`.

Settings and options of nets are declared by `mvemo.manifests.declared.setting`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings
from mvemo.manifests.declared import profile_fields
from mvemo.pipeline.settings import PROFILES, Settings
from mvemo.pipeline.settings_files import load_settings

FOLDER = Path(__file__).parent
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
keys and values that are not allowed are refused in one line. The last column has the values of
profiles that differ from the default. Settings of nets: [settings of nets](settings-nets.md).
"""
HEAD_NETS = """# Settings of nets

Written by `make settings`. NAME is the name of a net (`mvemo nets`). How to give a setting:
[every setting](settings.md).
"""


def row(*cells: str) -> str:
    """Return a row of a table."""
    return "|" + "|".join(re.sub(r"`+", "`", cell).replace("|", "\\|") for cell in cells) + "|"


def shown(value: Any) -> str:
    """A value as TOML and `--set` write it."""
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(plain)}`"


def declared(settings: Any) -> Iterator[tuple[str, Any, str, str]]:
    """Name, value, meaning and allowed values of all that a table may set."""
    for each, value in profile_fields(settings):
        if each.name != "options":
            yield each.name, value, each.metadata["meaning"], str(each.metadata["allowed"])


def values_of(settings: Any) -> dict[str, Any]:
    """Values of all that a table may set."""
    return {name: value for name, value, *_ in declared(settings)}


def table(key: str, profiles: dict[str, Settings]) -> Iterator[str]:
    """Rows of the settings of one table, with what the profiles change."""
    yield from (
        "",
        f"## {key}",
        "",
        "|key|default|meaning|allowed|profiles|",
        "|---|---|---|---|---|",
    )
    for name, value, meaning, allowed in declared(getattr(profiles["paper"], key)):
        others = {
            profile: values_of(getattr(settings, key))[name]
            for profile, settings in profiles.items()
        }
        changed = [f"{profile}: {shown(v)}" for profile, v in others.items() if v != value]
        yield row(f"`{key}.{name}`", shown(value), meaning, allowed, "; ".join(changed))


def nets(profiles: dict[str, Settings]) -> Iterator[str]:
    """Rows of what all nets have, of where a net differs, and of each net's options."""
    general = values_of(NetSettings("any"))
    yield from (
        "",
        "## Training and windows",
        "",
        "|key|default|meaning|allowed|",
        "|---|---|---|---|",
    )
    for name, value, meaning, allowed in declared(NetSettings("any")):
        yield row(f"`nets.NAME.{name}`", shown(value), meaning, allowed)
    yield from ("", "## Where a net differs", "")
    yield from ("|net|in profile paper|other profiles|", "|---|---|---|")
    # Encoders of local folders (hf:FOLDER) have other names on each machine.
    names = sorted(name for name in NETS if ":" not in name)
    for net in names:
        of_profile = {name: values_of(each.nets[net]) for name, each in profiles.items()}
        paper = of_profile["paper"]
        first = ", ".join(f"{k}={shown(v)}" for k, v in paper.items() if v != general[k])
        others = []
        for profile, values in of_profile.items():
            changed = ", ".join(f"{k}={shown(v)}" for k, v in values.items() if v != paper[k])
            others += [f"{profile}: {changed}"] if changed else []
        yield row(f"`{net}`", first, "; ".join(others))
    yield from ("", "## Options", "", "|key|default|meaning|", "|---|---|---|")
    for net in names:
        for name, value, meaning, _ in declared(NETS[net].Options()):
            yield row(f"`nets.{net}.options.{name}`", shown(value), meaning)


def pages() -> dict[str, str]:
    """Return the text of each page, by file name."""
    profiles = {profile: load_settings(profile) for profile in PROFILES}
    tables = [line for key in ("extract", "descriptors", "fuse") for line in table(key, profiles)]
    return {
        "settings.md": "\n".join([HEAD.rstrip(), *tables, ""]),
        "settings-nets.md": "\n".join([HEAD_NETS.rstrip(), *nets(profiles), ""]),
    }


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")

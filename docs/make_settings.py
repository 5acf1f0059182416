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

Written by `make settings`. A setting is given as `--set KEY=VALUE` (values as in TOML, bare words
are strings), or in a TOML file for `--profile FILE`:

```toml
[extract]
folds = 5
[nets.i3d]
lr = 3e-4
[nets.i3d.options]
size = 112
```

`mvemo extract` and `mvemo study` read all tables, `mvemo fuse` and `mvemo-cv` only `fuse`. Nets
have [settings of their own](settings-nets.md).
"""
HEAD_NETS = """# Settings of nets

Written by `make settings`. NAME is the name of a net (`mvemo nets`). How to give a setting:
[every setting](settings.md).
"""


# Options of several nets that are described by one row.
SHARED_OPTIONS = {
    "bands": "Number of bands to which the bins of the spectrogram are averaged.",
    "dropout": "Probability of dropout during training.",
    "n_frames": "Frames of the input. Of sound, 430 are 10 s at 44.1 kHz and a hop of 1,024 "
    "(J22 3.2).",
    "norm_momentum": "Weight of a training batch in the running statistics. Training from random "
    "weights for few batches needs about 0.1.",
    "n_mels": "Number of mel bands.",
    "seconds": "Seconds of the input, on musicnn at most; on music2d 0 is that of `front_end`.",
    "size": "Height and width of the input in pixels.",
    "spectrogram_dim": "Number of bins of the spectrogram, on crnn the first columns of the input.",
    "spectrogram_frames": "Frames of the spectrogram, which are shorter (J22 2.3.1); 860 are 10 s.",
}


def row(*cells: str) -> str:
    """Return a row of a table."""
    return "|" + "|".join(re.sub(r"`+", "`", cell).replace("|", "\\|") for cell in cells) + "|"


def shortened(allowed: str) -> str:
    """Return the allowed values in fewer words."""
    allowed = re.sub(r"^from (\S+) to 1000000$", r"\1 or more", allowed)
    return re.sub(r"^(from (?!.*below)|one of )", "", allowed)


def shown(value: Any) -> str:
    """A value as TOML and `--set` write it."""
    plain = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(plain)}`"


def declared(settings: Any) -> Iterator[tuple[str, Any, str, str]]:
    """Name, value, meaning and allowed values of all that a table may set."""
    for each, value in profile_fields(settings):
        if each.name != "options":
            yield (
                each.name,
                value,
                each.metadata["meaning"],
                shortened(str(each.metadata["allowed"])),
            )


def values_of(settings: Any) -> dict[str, Any]:
    """Values of all that a table may set."""
    return {name: value for name, value, *_ in declared(settings)}


def table(key: str, profiles: dict[str, Settings]) -> Iterator[str]:
    """Rows of the settings of one table, then what the profiles change."""
    yield from ("", f"## {key}", "", "|key|default|meaning|allowed|", "|---|---|---|---|")
    rows = list(declared(getattr(profiles["paper"], key)))
    for name, value, meaning, allowed in rows:
        yield row(f"`{key}.{name}`", shown(value), meaning, allowed)
    for profile, settings in profiles.items():
        own = values_of(getattr(settings, key))
        changed = [f"`{key}.{n}={json.dumps(own[n])}`" for n, value, *_ in rows if own[n] != value]
        if changed:
            yield from ("", f"Profile `{profile}`: {', '.join(changed)}.")


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
    # Encoders of local folders (hf:FOLDER) have other names on each machine.
    names = sorted(name for name in NETS if ":" not in name)
    paper = {net: values_of(profiles["paper"].nets[net]) for net in names}
    yield from ("", "## Where a net differs", "")
    yield "Profile `paper` differs from the defaults above, the other profiles from `paper`."
    yield from ("", "|profile|nets|settings|", "|---|---|---|")
    for profile in sorted(profiles, key=lambda name: (name != "paper", name)):
        changed: dict[str, list[str]] = {}
        for net in names:
            base = general if profile == "paper" else paper[net]
            own = values_of(profiles[profile].nets[net])
            if own != base:
                changed[net] = [f"{k}={json.dumps(v)}" for k, v in own.items() if v != base[k]]
        yield from changes(profile, changed)
    yield from ("", "## Options", "", "Keys are `nets.NAME.options.OPTION`.", "")
    yield from ("|option|default|meaning|", "|---|---|---|")
    options: dict[tuple[str, str], dict[str, list[str]]] = {}
    for net in names:
        for name, value, meaning, _ in declared(NETS[net].Options()):
            by_default = options.setdefault((name, SHARED_OPTIONS.get(name, meaning)), {})
            by_default.setdefault(shown(value), []).append(net)
    for (name, meaning), by_default in sorted(options.items()):
        defaults = "; ".join(f"{value} {', '.join(nets)}" for value, nets in by_default.items())
        yield row(f"`{name}`", defaults, meaning)


def changes(profile: str, changed: dict[str, list[str]]) -> Iterator[str]:
    """Rows of what a profile changes: first for all nets that it changes, then for some."""
    common = [c for c in next(iter(changed.values()), []) if all(c in v for v in changed.values())]
    by_settings: dict[str, list[str]] = {}
    for net, settings in changed.items():
        rest = ", ".join(f"`{c}`" for c in settings if c not in common)
        if rest:
            by_settings.setdefault(rest, []).append(net)
    if common:
        yield row(profile, ", ".join(changed), ", ".join(f"`{c}`" for c in common))
    for rest, nets in by_settings.items():
        yield row(profile, ", ".join(nets), rest)


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
